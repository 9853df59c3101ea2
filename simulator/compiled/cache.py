"""Machine code on disk, so that a program is compiled once on a host, not once a process.

Called by the compiled engine, which gives a key that names everything its code depends on, and by
`ftm7004 cache`. An entry is one file: a header, the key and the code. Whatever is not exactly what
`store` wrote for that key counts as missing. Nothing here fails a run: where the disk does not do,
the code is compiled and not kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from attrs import frozen

VARIABLE = "FTM7004_CACHE"
"""Environment variable that names the directory; empty or `off`: nothing is kept."""

LIMIT_BYTES = 512 << 20
"""What all entries may take together; a program's code takes 20 to 300 KB."""

MAGIC, FORMAT = b"FTM7004\n", 1
HEADER = struct.Struct(">8sIIQ32s")
"""Magic, format, bytes of the key, bytes of the code, SHA-256 of the code."""

ENTRY = re.compile(r"[0-9a-f]{64}\.code")
PARTIAL = re.compile(r"[0-9a-f]{64}\..+\.partial")
"""An entry while it is written; one is left behind only by a process that was killed."""

ABANDONED_SECONDS = 3600

_READ = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""How entries are opened: no link, no waiting for the writer of a pipe."""

FOREIGN_WRITE = 0o022
"""Mode bits of a file that others could have changed."""

log = logging.getLogger(__name__)


@frozen
class Stored:
    """One file of the cache: an entry, or what an interrupted process left of one."""

    path: Path
    bytes: int
    used: float
    """When it was last used, in seconds since 1970."""

    @property
    def is_entry(self) -> bool:
        return ENTRY.fullmatch(self.path.name) is not None


class CodeCache:
    """A directory of machine code; several processes may use it at once."""

    def __init__(self, directory: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.directory, self.limit_bytes = directory, limit_bytes

    def cached(self, key: bytes, make: Callable[[], bytes]) -> bytes:
        """Return the code of a key; make and keep it if it is not there."""
        code = self.find(key)
        if code is None:
            code = make()
            self.store(key, code)
        return code

    def find(self, key: bytes) -> bytes | None:
        """Return the code of a key, or None where there is no whole and trusted entry of it."""
        path = self._path(key)
        try:
            code = _code(_read_trusted(path), key)
        except OSError:
            return None
        if code is not None:
            with suppress(OSError):
                os.utime(path)  # the order in which entries are dropped
        return code

    def store(self, key: bytes, code: bytes) -> None:
        """Keep the code of a key, and drop what was used longest ago if all gets too large."""
        header = HEADER.pack(MAGIC, FORMAT, len(key), len(code), hashlib.sha256(code).digest())
        content = header + key + code
        if len(content) > self.limit_bytes:
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(self._path(key), content)
        except OSError as error:
            log.debug("machine code is not kept: %s", error)
            return
        self._shrink()

    def files(self) -> list[Stored]:
        """Return the files of the cache; OSError if the directory cannot be read."""
        return [_stored(item) for item in self._ours()]

    def clear(self) -> list[Path]:
        """Remove every file of the cache; return those that could not be removed."""
        for item in (left := self.files()):
            with suppress(OSError):
                item.path.unlink()
        return [item.path for item in left if item.path.exists()]

    def _path(self, key: bytes) -> Path:
        return self.directory / f"{hashlib.sha256(key).hexdigest()}.code"

    def _ours(self) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.directory) as found:
            for item in found:
                named = ENTRY.fullmatch(item.name) or PARTIAL.fullmatch(item.name)
                if named and item.is_file(follow_symlinks=False):
                    yield item

    def _shrink(self) -> None:
        try:
            files = sorted(self.files(), key=lambda item: item.used)
        except OSError:
            return
        total = sum(item.bytes for item in files)
        for item in files:
            abandoned = not item.is_entry and time.time() - item.used > ABANDONED_SECONDS
            if abandoned or (item.is_entry and total > self.limit_bytes):
                with suppress(OSError):
                    item.path.unlink()
                total -= item.bytes


def cache_directory() -> Path | None:
    """Return where code is kept: what FTM7004_CACHE says, else in the user's cache; None: nowhere.

    Without the variable this is `$XDG_CACHE_HOME/ftm7004`, by default `~/.cache/ftm7004`.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return None if chosen.strip() in ("", "off") else Path(os.path.expanduser(chosen))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the standard asks to ignore others
        return Path(base) / "ftm7004"
    try:
        return Path.home() / ".cache" / "ftm7004"
    except RuntimeError:
        return None


def cached(key: bytes | None, make: Callable[[], bytes]) -> bytes:
    """Return the code of a key from this user's cache, made and kept there if it is new.

    Without a key it is made and not kept.
    """
    directory = cache_directory()
    return make() if directory is None or key is None else CodeCache(directory).cached(key, make)


def _stored(item: os.DirEntry[str]) -> Stored:
    """Return a file's size and last use; nothing of one that another process just removed."""
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Stored(Path(item.path), 0, 0.0)
    return Stored(Path(item.path), status.st_size, status.st_mtime)


def _read_trusted(path: Path) -> bytes:
    """Return the content of a plain file that nobody but this user can have written, or nothing."""
    descriptor = os.open(path, _READ)
    try:
        if not _is_trusted(os.fstat(descriptor)):
            return b""
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(descriptor)


def _is_trusted(status: os.stat_result) -> bool:
    if not S_ISREG(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):
        return True  # there, a user's own directory is closed to others by itself
    return status.st_uid == os.geteuid() and not status.st_mode & FOREIGN_WRITE


def _code(content: bytes, key: bytes) -> bytes | None:
    """Return the code in an entry's content if that is whole and belongs to the key."""
    if len(content) < HEADER.size:
        return None
    magic, version, key_bytes, code_bytes, digest = HEADER.unpack_from(content)
    start = HEADER.size + key_bytes
    if (magic, version) != (MAGIC, FORMAT) or len(content) != start + code_bytes:
        return None
    code = content[start:]
    whole = content[HEADER.size : start] == key and hashlib.sha256(code).digest() == digest
    return code if whole else None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all."""
    descriptor, partial = tempfile.mkstemp(".partial", f"{path.stem}.", path.parent)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
