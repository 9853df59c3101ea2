"""Tensors in .npz files: `--input` and `--output` of the command line.

A file is read tensor by tensor, each one's header first, so that a wrong shape or a malicious
size is refused before memory is taken for it; pickled objects are never loaded.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from isa.errors import UsageError
from isa.language.kernel import Array, Kernel
from isa.language.tensor import Tensor
from simulator.reporting.output import write_whole

HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

NUMPY_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a malformed, truncated or encrypted archive raises."""


def read_npz(path: str, kernel: Kernel) -> dict[str, Array]:
    """Return the inputs of a kernel from an .npz file, one entry a tensor.

    Raise UsageError, naming the file, where it cannot be read, misses or adds a tensor, or holds
    one of another shape or dtype than the kernel declares.
    """
    with opened(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        _check_names(list(members), kernel)
        return {
            name: tensor.check(
                name, read_tensor(archive, members[name], name, partial(_check, name, tensor))
            )
            for name, tensor in kernel.inputs.items()
        }


@contextmanager
def opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Give an .npz file; what reading it meets is raised as a UsageError that names the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UsageError as error:
        raise UsageError(f"input file '{path}': {error}") from None
    except FileNotFoundError as error:
        raise UsageError(f"input file '{path}' does not exist") from error
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"input file '{path}' is not a readable .npz file: {reason}") from error


def write_npz(path: str | os.PathLike[str], outputs: Mapping[str, Array]) -> None:
    """Write tensors to an .npz file, whole or not at all, the same bytes for the same tensors."""

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, array in outputs.items():
                entry = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(entry, "w", force_zip64=True) as member:
                    npy.write_array(member, np.asarray(array), allow_pickle=False)

    write_whole(path, write)


def _check_names(names: list[str], kernel: Kernel) -> None:
    wanted = kernel.inputs
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    wrong = [f"missing {', '.join(missing)}"] if missing else []
    wrong += [f"unknown {', '.join(extra)}"] if extra else []
    if wrong:
        takes = ", ".join(wanted) or "none"
        raise UsageError(f"kernel '{kernel.name}' takes inputs {takes}: {'; '.join(wrong)}")


def read_tensor(
    archive: zipfile.ZipFile,
    member: str,
    name: str,
    check: Callable[[tuple[int, ...], np.dtype[Any]], None],
) -> Array:
    """Return a tensor of an archive once `check` has seen its shape and dtype, and not refused."""
    if archive.getinfo(member).compress_type not in NUMPY_COMPRESSION:
        raise UsageError(f"tensor '{name}' is compressed in a way that numpy does not use")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if version not in HEADER_READERS:
            raise UsageError(f"tensor '{name}' is in version {version} of the .npy format")
        shape, _, dtype = HEADER_READERS[version](stream)
        check(shape, dtype)
    with archive.open(member) as stream:
        found: Array = npy.read_array(stream, allow_pickle=False)
    return found


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype != tensor.dtype:
        raise UsageError(f"tensor '{name}' must be {tensor.dtype}, is {dtype}")
    if shape != tensor.shape:
        raise UsageError(f"tensor '{name}' must have shape {tensor.shape}, has {shape}")
