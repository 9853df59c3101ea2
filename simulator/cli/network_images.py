"""`--input` of a network: images from an .npz file, or one photograph.

A photograph is made as VGG16 was trained: the shorter side 256 pixels long, the middle 224 x 224,
less the mean of ImageNet and divided by its deviation, channel by channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.errors import UsageError
from simulator.cli.tensor_files import opened, read_tensor

Array = np.ndarray[Any, Any]

PLANE = (3, 224, 224)
SHORTER_SIDE = 256
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1."""

MOST_PIXELS = 100_000_000


def read_images(path: str, batch: int | None) -> tuple[Array, str]:
    """Return the images (N, 3, 224, 224) float32 of a file, and what they are.

    An .npz file gives its first `batch` images, or all of them; a photograph gives itself, as often
    as the batch wants. Raise UsageError where the file cannot be read or has too few.
    """
    if path.lower().endswith(".npz"):
        images = _from_archive(path)
        count = len(images) if batch is None else batch
        if count > len(images):
            raise UsageError(
                f"input file '{path}' has {len(images)} images, --batch asks for {count}"
            )
        return np.ascontiguousarray(images[:count]), f"{count} images of '{path}'"
    picture = _from_photograph(path)
    count = batch or 1
    text = f"photograph '{path}'" + (f", {count} times" if count > 1 else "")
    return np.repeat(picture[None], count, axis=0), text


def _from_archive(path: str) -> Array:
    with opened(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1:
            found = ", ".join(name.removesuffix(".npy") for name in names) or "none"
            raise UsageError(f"it must hold one tensor, the images; it has {found}")
        images = read_tensor(archive, names[0], names[0].removesuffix(".npy"), _check)
        if not np.isfinite(images).all():
            raise UsageError("it holds values that are not finite")
    return images


def _check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse what are no images before memory is taken for them."""
    if dtype != np.float32 or len(shape) != 4 or shape[1:] != PLANE or not shape[0]:
        wanted = f"(N, {', '.join(map(str, PLANE))})"
        raise UsageError(f"images must be float32 of shape {wanted}, not {dtype} {shape}")


def _from_photograph(path: str) -> Array:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("reading a photograph needs Pillow: pip install 'ftm7004[plot]'") from None
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UsageError(f"input file '{path}' has more than {MOST_PIXELS:,} pixels")
            picture = image.convert("RGB")
    except FileNotFoundError as error:
        raise UsageError(f"input file '{path}' does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"input file '{path}' is neither an .npz file of images nor a readable picture: {error}"
        ) from error
    scale = SHORTER_SIDE / min(picture.size)
    size = [max(SHORTER_SIDE, round(scale * side)) for side in picture.size]
    _, height, width = PLANE
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    middle = picture.resize((size[0], size[1])).crop((left, top, left + width, top + height))
    pixels = np.asarray(middle, np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1))
