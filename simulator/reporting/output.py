"""Result files, written whole or not at all: JSON reports, traces, tensors.

The text first goes to a temporary file in the same folder, which then takes the name; an error or
an interrupt leaves what was there before. The command line checks its paths before a long run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from isa.errors import UsageError

Content = str | bytes | Callable[[BinaryIO], None]


def write_whole(path: str | os.PathLike[str], content: Content) -> None:
    """Write text, bytes, or what a function writes to a binary stream, to a file.

    A device or pipe (`/dev/null`) is written directly. Raise UsageError, naming the path, where
    the file cannot be written; an existing file then keeps its old content.
    """
    with _reported(path):
        target = _target(path)
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                _fill(stream, content)
            return
        partial = _partial(target)
        try:
            with partial.open("xb") as stream:
                _fill(stream, content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise UsageError, naming the path, if a file cannot be written there."""
    with _reported(path):
        target = _target(path)
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageError(f"cannot write '{path}': the file is read-only")
        if target.exists() and not target.is_file():
            return
        partial = _partial(target)
        try:
            partial.open("xb").close()
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _reported(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the host's errors into one message that names the path."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file behind a path, through links; refuse what is no file name."""
    text = os.fspath(path)
    if text in ("", "-"):
        raise UsageError(f"cannot write '{text}': a file name is needed here")
    if Path(text).is_dir():
        raise UsageError(f"cannot write '{text}': it is a folder")
    path = Path(text)
    if path.exists() and not path.is_file():
        return path  # a pipe or device: resolving it would name nothing that can be opened
    return path.resolve()


def _partial(target: Path) -> Path:
    """Return the temporary name beside a file, short enough beside a name of any length."""
    return target.with_name(f".ftm7004-{os.getpid()}.partial")


def _fill(stream: BinaryIO, content: Content) -> None:
    if isinstance(content, str):
        stream.write(content.encode("utf-8"))
    elif isinstance(content, bytes):
        stream.write(content)
    else:
        content(stream)
