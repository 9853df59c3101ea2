"""What is told of a difference: the seed, the command, what differs, the program cut down.

Made by a worker for a difference, by its parent for a crash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from isa.listing import listing
from simulator.fuzzing.case import Case
from simulator.fuzzing.comparing import Difference


@frozen
class Finding:
    """One difference; `listing` is empty where a worker crashed."""

    seed: int
    index: int
    command: str
    overrides: tuple[str, ...]
    difference: str
    packets: int = 0
    """Of the program cut down."""
    listing: str = ""

    @property
    def text(self) -> str:
        """Return the whole report of the finding."""
        settings = " ".join(f"--set {override}" for override in self.overrides) or "none"
        return (
            f"seed {self.seed}, program {self.index}: {self.command}\n"
            f"machine changes of the smaller program: {settings}\n"
            f"{self.difference}\n\n{self.listing}"
        )

    @property
    def file_name(self) -> str:
        return f"fuzz-{self.seed}-{self.index}.txt"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as data for JSON."""
        return asdict(self)

    def write(self, directory: Path) -> Path:
        """Write the report to a file and return its path."""
        path = directory / self.file_name
        path.write_text(self.text, encoding="utf-8")
        return path


def finding_of(case: Case, difference: Difference) -> Finding:
    """Return the report of a program that the engines differ on."""
    data = (
        f"; core {core} SM {address:#x}: {words.tolist()}"
        for core, pieces in enumerate(case.program.scalar_data)
        for address, words in pieces
    )
    text = listing(case.program, case.machine) + "\n".join(data)
    return Finding(
        case.seed, case.index, case.command, case.overrides, str(difference),
        len(case.program.packets), text,
    )  # fmt: skip


def crash_finding(seed: int, index: int, status: int) -> Finding:
    """Return the report of a program that ended its worker; a negative status is a signal."""
    command = f"ftm7004 fuzz --seed {seed} --first {index} --programs 1"
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return Finding(seed, index, command, (), f"the worker process ended {how}")
