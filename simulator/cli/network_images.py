"""`--input` of a network: images from an .npz file, or one photograph.

A photograph is made as VGG16 was trained: the shorter side 256 pixels long, the middle 224 x 224,
less the mean of ImageNet and divided by its deviation, channel by channel.
"""

from __future__ import annotations

import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from isa.errors import UsageError
from simulator.cli.tensor_files import DAMAGED, HEADER_READERS

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
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            if len(names) != 1:
                found = ", ".join(name.removesuffix(".npy") for name in names) or "none"
                raise UsageError(f"it must hold one tensor, the images; it has {found}")
            with archive.open(names[0]) as stream:
                _check_header(stream)
            with archive.open(names[0]) as stream:
                images: Array = npy.read_array(stream, allow_pickle=False)
    except UsageError as error:
        raise UsageError(f"input file '{path}': {error}") from None
    except FileNotFoundError as error:
        raise UsageError(f"input file '{path}' does not exist") from error
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"input file '{path}' is not a readable .npz file: {reason}") from error
    if not np.isfinite(images).all():
        raise UsageError(f"input file '{path}' holds values that are not finite")
    return images


def _check_header(stream: IO[bytes]) -> None:
    """Refuse what are no images before memory is taken for them."""
    version = npy.read_magic(stream)
    if version not in HEADER_READERS:
        raise UsageError(f"the tensor is in version {version} of the .npy format")
    shape, _, dtype = HEADER_READERS[version](stream)
    if dtype != np.float32 or len(shape) != 4 or shape[1:] != PLANE or not shape[0]:
        raise UsageError(f"images must be float32 of shape (N, 3, 224, 224), not {dtype} {shape}")


def _from_photograph(path: str) -> Array:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("reading a photograph needs Pillow: pip install 'ftm7004[plot]'") from None
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise UsageError(f"input file '{path}' has more than {MOST_PIXELS:,} pixels")
            picture = opened.convert("RGB")
    except FileNotFoundError as error:
        raise UsageError(f"input file '{path}' does not exist") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"input file '{path}' is neither an .npz file of images nor a readable picture: {error}"
        ) from error
    scale = SHORTER_SIDE / min(picture.size)
    size = [max(SHORTER_SIDE, round(scale * side)) for side in picture.size]
    left, top = ((side - PLANE[1]) // 2 for side in size)
    middle = picture.resize((size[0], size[1])).crop((left, top, left + 224, top + 224))
    pixels = np.asarray(middle, np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1))
