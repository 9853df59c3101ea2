"""Bars for every layer, as in the paper's figures 4 to 9: convolution, pooling, fully connected.

Drawn with matplotlib, which only this needs.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from isa.errors import UsageError
from simulator.network.plan import INFERENCE, TRAINING
from simulator.network.published import MEANS
from simulator.network.row import ONE_CORE, Row
from simulator.reporting.output import check_writable, write_whole

FORMATS = ("svg", "png")
OURS = ("#2a6f97", "#8fb8d0")
PUBLISHED = "#c1121f"
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


@frozen
class Bars:
    """One series of bars: the rows of a kernel, and the share they show."""

    kernel: str
    share: str
    label: str


PANELS: dict[str, tuple[tuple[str, tuple[Bars, ...]], ...]] = {
    INFERENCE: (
        ("convolution", (Bars("conv2d_forward", "efficiency", "nominal efficiency"),)),
        (
            "max pooling",
            (
                Bars("maxpool2d_forward", "ddr_efficiency", "data access, of DDR peak"),
                Bars("maxpool2d_forward", ONE_CORE, "compute, of one core's peak"),
            ),
        ),
        ("fully connected", (Bars("fc_forward", "efficiency", "nominal efficiency"),)),
    ),
    TRAINING: (
        (
            "convolution, backward",
            (
                Bars("conv2d_backward_data", "efficiency", "dx, nominal efficiency"),
                Bars("conv2d_backward_weight", "efficiency", "dweight, nominal efficiency"),
            ),
        ),
        (
            "max pooling, backward",
            (
                Bars("maxpool2d_backward", "ddr_efficiency", "data access, of DDR peak"),
                Bars("maxpool2d_backward", ONE_CORE, "compute, of one core's peak"),
            ),
        ),
        (
            "fully connected, backward",
            (Bars("fc_backward", "efficiency", "nominal efficiency, with update"),),
        ),
    ),
}


def check_chart(path: str) -> None:
    """Refuse a chart that cannot be drawn or written."""
    if _format(path) not in FORMATS:
        raise UsageError(f"--plot writes .svg or .png, got '{path}'")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'ftm7004[plot]'")
    check_writable(path)


def draw(path: str, phase: str, rows: Sequence[Row], title: str) -> None:
    """Draw the bars of a phase; layers that were not run have none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = list(dict.fromkeys(row.name for row in rows if _shown(phase, row)))
    if phase == TRAINING:
        order.reverse()  # rows of gradients go from the last layer to the first
    panels = [(name, bars) for name, bars in PANELS[phase] if _layers(bars, rows, order)]
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    if panels:
        widths = [4 + len(_layers(bars, rows, order)) for _, bars in panels]
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
        for axis, (name, bars) in zip(axes, panels, strict=True):
            _panel(axis, name, bars, phase, rows, _layers(bars, rows, order))
    stream = io.BytesIO()
    figure.savefig(stream, format=_format(path), dpi=120)
    write_whole(path, stream.getvalue())


def _panel(
    axis: Any, name: str, bars: Sequence[Bars], phase: str, rows: Sequence[Row], layers: list[str]
) -> None:
    """Draw one group of layers: a bar for each series, and the paper's mean as a line."""
    width = 0.8 / len(bars)
    for number, series in enumerate(bars):
        values = {r.name: 100 * r.value(series.share) for r in rows if r.kind == series.kernel}
        left = [place + width * (number - (len(bars) - 1) / 2) for place in range(len(layers))]
        heights = [values.get(layer, 0.0) for layer in layers]
        drawn = axis.bar(left, heights, width, label=series.label, color=OURS[number])
        texts = [f"{values[layer]:.1f}" if layer in values else "" for layer in layers]
        axis.bar_label(drawn, texts, fontsize=7, rotation=90, padding=3, bbox=BEHIND_TEXT)
        _published(axis, phase, series)
    axis.set_title(name)
    axis.set_xticks(range(len(layers)), layers, rotation=45, ha="right", fontsize=8)
    axis.set_ylabel("%")
    axis.set_ylim(0, 1.3 * max(100.0, axis.get_ylim()[1] / 1.3))
    axis.axhline(100, color="#999999", linewidth=0.8, zorder=0)
    axis.legend(fontsize=7, loc="upper left")


def _published(axis: Any, phase: str, series: Bars) -> None:
    for mean in MEANS[phase]:
        if (mean.kernel, mean.share) == (series.kernel, series.share) and mean.published:
            text = f"{series.label.partition(',')[0]}: {100 * mean.published:.2f} % in the paper"
            axis.axhline(100 * mean.published, color=PUBLISHED, linestyle="--", label=text)


def _layers(bars: Sequence[Bars], rows: Sequence[Row], order: Sequence[str]) -> list[str]:
    """Return the layers that have a bar, in the network's order."""
    kernels = {series.kernel for series in bars}
    named = {row.name for row in rows if row.kind in kernels}
    return [name for name in order if name in named]


def _shown(phase: str, row: Row) -> bool:
    return any(row.kind == series.kernel for _, bars in PANELS[phase] for series in bars)


def _format(path: str) -> str:
    return Path(path).suffix.lower().removeprefix(".")
