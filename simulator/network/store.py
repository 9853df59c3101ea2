"""A folder that holds an unfinished run: the rows so far and the tensors that later steps read.

Every file is written whole or not at all, and `state.json`, which names all others, last. So an
interrupt at any time leaves a run to go on with. A folder of another version or of another request
is refused and left as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from isa.errors import UsageError
from simulator.reporting.output import check_writable, write_whole

Array = np.ndarray[Any, Any]

STATE = "state.json"
FORMAT = 1
TENSOR_FILE = re.compile(r"[0-9]+-[A-Za-z0-9_.]+\.npz")
ROOT = Path(__file__).parents[2]
SOURCES = ("isa", "kernels", "simulator")


class Store:
    """The run in a folder; `rows` are the reports of its finished steps."""

    def __init__(self, folder: str, request: Mapping[str, Any]) -> None:
        """Open a folder, or begin one; `request` is what must be the same to go on.

        Raise UsageError if it cannot be used or holds another run.
        """
        self._folder = Path(folder)
        self._request = {"format": FORMAT, "version": version(), **request}
        self.rows: list[Mapping[str, Any]] = []
        self._tensors: dict[str, str] = {}
        self._prepare()
        if (self._folder / STATE).exists():
            self._go_on()

    def holds(self, name: str) -> bool:
        """Tell whether a tensor is kept."""
        return name in self._tensors

    def load(self, name: str) -> Array:
        """Return a tensor that was kept; UsageError if its file is damaged."""
        path = self._folder / self._tensors[name]
        try:
            # A stream of ours is closed even where numpy does not get as far as an archive.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                tensor: Array = archive["tensor"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UsageError(f"'{path}' cannot be read: {error}; {self._begin_anew()}") from error
        return tensor

    def commit(self, row: Mapping[str, Any], fresh: Mapping[str, Array], alive: set[str]) -> None:
        """Add a finished step with its tensors; let go of the tensors nobody reads any more."""
        number = len(self.rows)
        names = {name: f"{number:03}-{name}.npz" for name in fresh}
        for name, tensor in fresh.items():
            write_whole(self._folder / names[name], _archive(tensor))
        known = {**self._tensors, **names}
        kept = {name: file for name, file in known.items() if name in alive}
        self.rows = [*self.rows, row]
        state = {"request": self._request, "rows": self.rows, "tensors": kept}
        write_whole(self._folder / STATE, json.dumps(state, allow_nan=False))
        self._tensors = kept
        for file in set(known.values()) - set(kept.values()):
            (self._folder / file).unlink(missing_ok=True)

    def _prepare(self) -> None:
        """Make the folder; refuse one that holds something else than a run."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            foreign = [] if (self._folder / STATE).exists() else sorted(self._folder.iterdir())
        except OSError as error:
            raise UsageError(f"cannot use folder '{self._folder}': {error.strerror}") from error
        if [path for path in foreign if not _is_ours(path.name)]:
            raise UsageError(
                f"folder '{self._folder}' holds '{foreign[0].name}' and no {STATE}: give --state a "
                "new or empty folder"
            )
        check_writable(self._folder / STATE)

    def _go_on(self) -> None:
        path = self._folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            request, rows, tensors = state["request"], state["rows"], state["tensors"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.damaged() from error
        wanted = json.loads(json.dumps(self._request))
        if request != wanted:
            raise UsageError(
                f"folder '{self._folder}' holds a run with {_differences(request, wanted)}; "
                f"{self._begin_anew()}"
            )
        if not isinstance(rows, list) or not _are_files(tensors):
            raise self.damaged()
        self.rows, self._tensors = rows, tensors

    def damaged(self) -> UsageError:
        """Return the error for a state that does not say what a state says."""
        return UsageError(f"'{self._folder / STATE}' is no state of a run; {self._begin_anew()}")

    def _begin_anew(self) -> str:
        return "nothing was changed there: give --state another folder, or remove this one"


@cache
def version() -> str:
    """Return a name for the sources of this simulator: another one may give other numbers."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml"):
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_ours(name: str) -> bool:
    """Tell whether a file may be what an interrupt left before the first step was finished."""
    return name.endswith((".npz", ".partial"))


def _are_files(tensors: Any) -> bool:
    """Tell whether these are tensors and their files, which must lie in the folder itself."""
    return isinstance(tensors, dict) and all(
        isinstance(file, str) and TENSOR_FILE.fullmatch(file) for file in tensors.values()
    )


def _archive(tensor: Array) -> Any:
    def write(stream: BinaryIO) -> None:
        np.savez(stream, tensor=tensor)

    return write


def _differences(there: Any, here: Mapping[str, Any]) -> str:
    """Say in which parts of the request two runs differ."""
    found = there if isinstance(there, dict) else {}
    texts = [
        f"another {name}"
        if _is_long(found.get(name)) or _is_long(value)
        else f"{name} {found.get(name)}, here {value}"
        for name, value in here.items()
        if found.get(name) != value
    ]
    return "; ".join(texts) or "other options"


def _is_long(value: Any) -> bool:
    return len(str(value)) > 40 or value is None
