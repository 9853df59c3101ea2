"""Edges of a photograph: a Sobel filter on the simulated chip, through the library's convolution.

Lanes hold samples of a batch, so one photograph is cut into 64 tiles: 4 vectors of 16 lanes.
Neighbouring tiles share a halo of one pixel, which the host copies into both.

The two Sobel filters alone would use 2 of the 8 outputs that the inner product works on together.
So a window covers 4 x 4 pixels at stride 2: it holds the neighbourhoods of 2 x 2 pixels, and two
filters for each of them make 8 outputs. Colour to grey is part of the weights.

    python examples/02_sobel.py --photo flower --output pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

from kernels import conv2d_forward
from simulator import simulate
from simulator.reporting.output import write_whole

Array = np.ndarray[Any, Any]

GRID = 8
"""Tiles along each side of the photograph."""
TILE = (26, 40)
"""Height and width of a tile in pixels, without its halo."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Grey from red, green, blue (ITU-R BT.601)."""
ACROSS = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
SOBEL = np.stack([ACROSS, ACROSS.T])
"""The change from left to right, and from top to bottom."""


def photograph(name: str) -> Array:
    """Return a sample photograph at half size, cut to 208 x 320, as (3, H, W) from 0 to 1."""
    pixels = load_sample_image(f"{name}.jpg")[:426].astype(np.float64) / 255
    half = pixels.reshape(213, 2, 320, 2, 3).mean(axis=(1, 3))
    return np.ascontiguousarray(half[2:210].transpose(2, 0, 1)).astype(np.float32)


def cut(picture: Array) -> Array:
    """Return the tiles of a picture with their halo, (64, 3, 28, 42); edge pixels repeat."""
    wide = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = TILE
    corners = [(i * height, j * width) for i in range(GRID) for j in range(GRID)]
    return np.stack([wide[:, y : y + height + 2, x : x + width + 2] for y, x in corners])


def join(tiles: Array) -> Array:
    """Return both edge pictures (2, H, W) from outputs (64, 8, 13, 20)."""
    height, width = TILE
    parts = tiles.reshape(GRID, GRID, 2, 2, 2, height // 2, width // 2)
    # axes: tile row, tile column, filter, pixel row and column in the window, window row, column
    return parts.transpose(2, 0, 5, 3, 1, 6, 4).reshape(2, GRID * height, GRID * width)


def weights() -> Array:
    """Return 8 filters (8, 3, 4, 4): both Sobel filters at each of 2 x 2 places of the window."""
    places = np.zeros((2, 2, 2, 3, 4, 4))
    for y in range(2):
        for x in range(2):
            places[:, y, x, :, y : y + 3, x : x + 3] = np.multiply.outer(SOBEL, LUMA).transpose(
                0, 3, 1, 2
            )
    return places.reshape(8, 3, 4, 4).astype(np.float32)


def expected_edges(picture: Array) -> Array:
    """Compute both edge pictures directly, in float64."""
    grey = np.pad(np.tensordot(LUMA, picture.astype(np.float64), axes=1), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(grey, (3, 3))
    edges: Array = np.einsum("fmn,hwmn->fhw", SOBEL, windows)
    return edges


def check(edges: Array, expected: Array) -> float:
    """Return the largest error; fail if float32 rounding does not explain it.

    A sum takes 27 products and a weight is rounded itself: 28 roundings of at most half a unit in
    the last place, 2**-24, of magnitudes that add up to at most 8.
    """
    error = float(np.abs(edges - expected).max())
    if error > 28 * 2**-24 * 8:
        raise SystemExit(f"wrong edges: an error of {error:.3g} is more than rounding")
    return error


def draw(picture: Array, edges: Array, path: Path) -> None:
    """Write photograph and edges, one above the other, as a PNG."""
    figure = Figure(figsize=(6.4, 8.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    above.imshow(picture.transpose(1, 2, 0))
    above.set_title("photograph")
    below.imshow(np.hypot(*edges), cmap="gray")
    below.set_title("Sobel edges from the simulated FT-M7004")
    for axes in (above, below):
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda stream: figure.savefig(stream, format="png", dpi=120))


@click.command()
@click.option("--photo", type=click.Choice(["china", "flower"]), default="china", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("output"), show_default=True
)
def main(photo: str, output: Path) -> None:
    """Find the edges of a photograph and write both as a picture."""
    picture = photograph(photo)
    tiles = cut(picture)
    batch, channels, height, width = tiles.shape
    kernel = conv2d_forward(
        batch=batch, channels=channels, height=height, width=width,
        filters=8, size=4, stride=2, pad=0,
    )  # fmt: skip
    inputs = {"x": tiles, "weight": weights(), "bias": np.zeros(8, np.float32)}
    run = simulate(kernel, inputs)
    edges = join(run.outputs["z"])
    error = check(edges, expected_edges(picture))
    path = output / f"sobel_{photo}.png"
    draw(picture, edges, path)
    share = run.report.efficiency
    print(f"{run.report.cycles:,} cycles, {share:.1%} of one core's peak (zero weights count)")
    print(f"equal to numpy within float32 rounding, largest error {error:.2g}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
