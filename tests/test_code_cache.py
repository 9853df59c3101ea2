"""Machine code kept on disk: what is found again, what is not trusted, where nothing can be kept.

Two things are looked at apart: the directory of entries here, what names an entry in
`test_fingerprint.py`.
"""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from simulator.compiled import cache
from simulator.compiled.cache import CodeCache, cache_directory, cached

KEY, CODE = b"a program", bytes(range(256)) * 40


def never() -> bytes:
    raise AssertionError("made again")


def other() -> bytes:
    return b"made again"


@pytest.fixture
def store(tmp_path: Path) -> CodeCache:
    return CodeCache(tmp_path / "code")


@pytest.fixture
def entry(store: CodeCache) -> Path:
    """Keep CODE under KEY; return the entry's file."""
    assert store.cached(KEY, lambda: CODE) == CODE
    (path,) = store.directory.iterdir()
    return path


def test_what_was_made_is_found_again(store: CodeCache, entry: Path) -> None:
    assert store.cached(KEY, never) == CODE
    assert CodeCache(store.directory).cached(KEY, never) == CODE
    assert store.find(b"another program") is None
    assert store.cached(b"another program", other) == b"made again"
    assert store.cached(KEY, never) == CODE
    assert store.cached(b"empty", lambda: b"") == store.cached(b"empty", never) == b""


def test_the_layout_of_an_entry(entry: Path) -> None:
    size = struct.pack(">IIQ", 1, len(KEY), len(CODE))
    assert entry.read_bytes() == b"FTM7004\n" + size + sha256(CODE).digest() + KEY + CODE
    assert entry.name == sha256(KEY).hexdigest() + ".code"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_only_this_user_may_look(store: CodeCache, entry: Path) -> None:
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600


def damaged() -> dict[str, bytes]:
    """Return contents of an entry's file that are not what belongs there."""
    header = struct.pack(">8sIIQ32s", b"FTM7004\n", 1, len(KEY), len(CODE), sha256(CODE).digest())
    good = header + KEY + CODE
    flipped = bytearray(good)
    flipped[-1] ^= 1
    foreign = struct.pack(">8sIIQ32s", b"FTM7004\n", 1, len(KEY), 4, sha256(b"evil").digest())
    return {
        "nothing": b"",
        "a part of the header": good[:20],
        "no code": good[: len(header) + len(KEY)],
        "truncated": good[:-1],
        "too long": good + b"\0",
        "one bit": bytes(flipped),
        "another magic": b"GIF89a.." + good[8:],
        "another format": good[:8] + struct.pack(">I", 2) + good[12:],
        "another key": foreign + b"a pr0gram" + b"evil",
        "a long key": good[:12] + b"\xff" * 12 + good[24:],
        "text": b"hello\n" * 1000,
    }


@pytest.mark.parametrize("content", damaged().values(), ids=damaged().keys())
def test_a_damaged_entry_is_made_again(store: CodeCache, entry: Path, content: bytes) -> None:
    entry.write_bytes(content)
    assert store.cached(KEY, other) == b"made again"
    assert store.cached(KEY, never) == b"made again"


@pytest.mark.skipif(os.name != "posix", reason="owners of POSIX")
def test_what_others_could_have_written_is_not_trusted(
    store: CodeCache, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.chmod(0o622)
    assert store.find(KEY) is None
    entry.chmod(0o600)
    assert store.find(KEY) == CODE
    monkeypatch.setattr(os, "geteuid", lambda: entry.stat().st_uid + 1)
    assert store.find(KEY) is None


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_links_pipes_and_folders_are_no_entries(store: CodeCache, entry: Path) -> None:
    elsewhere = entry.rename(store.directory.parent / "elsewhere")
    entry.symlink_to(elsewhere)
    assert store.find(KEY) is None
    entry.unlink()
    os.mkfifo(entry)
    assert store.find(KEY) is None  # and does not wait for a writer
    entry.unlink()
    entry.mkdir()
    assert store.cached(KEY, other) == b"made again"
    assert [path.name for path in store.directory.iterdir()] == [entry.name]


def test_a_file_in_place_of_the_directory(store: CodeCache, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    store.directory.write_text("mine")
    assert store.cached(KEY, other) == b"made again"
    assert store.directory.read_text() == "mine"
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_full_or_closed_disk(store: CodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store.store(b"before", CODE)
    monkeypatch.setattr(os, "replace", full)
    assert store.cached(KEY, other) == b"made again"
    assert len(list(store.directory.iterdir())) == 1  # nothing half-written is left
    monkeypatch.setattr(cache.tempfile, "mkstemp", full)
    assert store.cached(KEY, other) == b"made again"
    monkeypatch.setattr(os, "open", full)
    assert store.cached(b"before", other) == b"made again"


def test_code_that_cannot_be_made_leaves_nothing(store: CodeCache) -> None:
    with pytest.raises(AssertionError, match="made again"):
        store.cached(KEY, never)
    assert not store.directory.exists()


def test_what_was_used_longest_ago_is_dropped(tmp_path: Path) -> None:
    size = len(CODE) + 56 + 1  # the header and a key of one byte
    store = CodeCache(tmp_path, limit_bytes=3 * size)
    long_ago = time.time() - 1000
    for number, key in enumerate((b"a", b"b", b"c")):
        store.store(key, CODE)
        path = tmp_path / f"{sha256(key).hexdigest()}.code"
        os.utime(path, (long_ago + number, long_ago + number))
    assert store.find(b"a") == CODE  # used now: b is the oldest
    store.store(b"d", CODE)
    kept = {key for key in (b"a", b"b", b"c", b"d") if store.find(key) is not None}
    assert kept == {b"a", b"c", b"d"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 3 * size
    store.store(b"e", bytes(3 * size))  # more than all may take: not kept, nothing dropped
    assert store.find(b"e") is None
    assert store.find(b"d") == CODE


def test_the_remains_of_killed_processes_go_in_time(store: CodeCache, entry: Path) -> None:
    old = store.directory / f"{'0' * 64}.x1.partial"
    new = store.directory / f"{'0' * 64}.x2.partial"
    foreign = store.directory / "notes.partial"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    os.utime(new)
    store.store(b"next", CODE)
    assert [path.exists() for path in (old, new, foreign, entry)] == [False, True, True, True]


def test_clear_removes_entries_and_nothing_else(store: CodeCache, entry: Path) -> None:
    kept = [store.directory / name for name in ("notes.txt", "x.code", "0.partial")]
    for path in kept:
        path.write_text("mine")
    (store.directory / f"{'1' * 64}.code").mkdir()
    assert [item.path for item in store.files()] == [entry]
    assert store.clear() == []
    assert not entry.exists()
    assert len(list(store.directory.iterdir())) == 4


WRITER = """
import sys
from pathlib import Path
from simulator.compiled.cache import CodeCache
store, other = CodeCache(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(200):
    key = b"key %d" % (turn % 5)
    code = store.cached(key, lambda: key * 50_000)
    assert code == key * 50_000, (len(code), code[:10])
    if turn % 7 == 0:
        store.store(key, key * 50_000)
    if turn % 31 == 0:
        store.clear()
"""


def test_processes_that_write_the_same_entries_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert (writer.communicate(timeout=60)[1], writer.returncode) == ("", 0)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("chosen", "base", "directory"),
    [
        (None, None, "HOME/.cache/ftm7004"),
        (None, "", "HOME/.cache/ftm7004"),
        (None, "relative", "HOME/.cache/ftm7004"),
        (None, "/base", "/base/ftm7004"),
        ("/mine", "/base", "/mine"),
        ("~/mine", None, "HOME/mine"),
        ("", "/base", None),
        (" off ", "/base", None),
    ],
)
def test_where_entries_are_kept(chosen, base, directory, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("FTM7004_CACHE", chosen), ("XDG_CACHE_HOME", base)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    expected = None if directory is None else Path(directory.replace("HOME", str(tmp_path)))
    assert cache_directory() == expected


def test_a_cache_that_is_off_keeps_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FTM7004_CACHE", str(tmp_path / "code"))
    assert cached(KEY, lambda: CODE) == cached(KEY, never) == CODE
    monkeypatch.setenv("FTM7004_CACHE", "off")
    assert cached(KEY, other) == b"made again"
    monkeypatch.setenv("FTM7004_CACHE", str(tmp_path / "code"))
    assert cached(KEY, never) == CODE
