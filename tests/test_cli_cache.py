"""`ftm7004 cache`: what it says of the machine code on disk, and what it removes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simulator.cli.commands import ftm7004
from simulator.compiled.cache import CodeCache


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "code"
    monkeypatch.setenv("FTM7004_CACHE", str(path))
    return path


def command(*arguments: str) -> Result:
    return CliRunner().invoke(ftm7004, ["cache", *arguments], standalone_mode=False)


def fill(directory: Path) -> int:
    """Keep two entries; return the bytes of their files: headers of 56, keys of 3, code."""
    store = CodeCache(directory)
    store.store(b"one", bytes(1 << 20))
    store.store(b"two", bytes(1 << 19))
    return (1 << 20) + (1 << 19) + 2 * (56 + 3)


def test_show(directory: Path) -> None:
    size = fill(directory)
    for arguments in ((), ("show",)):
        shown = command(*arguments).output
        assert f"directory  {directory}\n" in shown
        assert "state      ready\n" in shown
        assert "content    2 entries, 1.5 MiB of at most 512 MiB\n" in shown
        assert "FTM7004_CACHE=off" in shown
    document = json.loads(command("show", "--json", "-").output)
    assert document == {
        "directory": str(directory),
        "state": "ready",
        "entries": 2,
        "bytes": size,
        "limit_bytes": 512 << 20,
    }


def test_show_where_nothing_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "state      not there yet: the first compiled run makes it" in command().output
    assert not directory.exists()
    monkeypatch.setenv("FTM7004_CACHE", "off")
    shown = command().output
    assert "off: FTM7004_CACHE is empty or 'off'" in shown
    assert "directory " not in shown


def test_show_a_directory_that_cannot_be_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(directory)
    monkeypatch.setattr(os, "access", lambda *_: False)  # modes do not stop the superuser
    shown = command().output
    assert "not writable: what is there is used" in shown
    assert "2 entries" in shown


@pytest.mark.parametrize("verb", ["show", "clear"])
def test_a_file_in_place_of_the_directory(directory: Path, verb: str) -> None:
    directory.write_text("mine")
    ended = command(verb)
    assert ended.return_value == 1
    assert f"cache '{directory}': Not a directory" in ended.output
    assert directory.read_text() == "mine"


def test_clear(directory: Path) -> None:
    fill(directory)
    (directory / "notes.txt").write_text("mine")
    ended = command("clear")
    assert ended.output == f"removed 2 entries, 1.5 MiB from '{directory}'\n"
    assert not ended.return_value
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]
    assert json.loads(command("clear", "--json", "-").output)["entries"] == 0


def test_clear_where_nothing_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("clear").output == f"removed 0 entries, 0.0 MiB from '{directory}'\n"
    monkeypatch.setenv("FTM7004_CACHE", "")
    ended = command("clear")
    assert ended.return_value == 2
    assert "nothing to clear" in ended.output


def test_what_cannot_be_removed_is_said(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(directory)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    ended = command("clear")
    assert ended.return_value == 1
    assert "2 of 2 entries" in ended.output
    assert "could not be removed" in ended.output
    assert all(stat.S_ISREG(path.stat().st_mode) for path in directory.iterdir())
