"""The errors that users meet: one readable message each, raised by every package.

The command line prints the message and exits with the error's status; a traceback appears only
with `--debug`. Anything else that escapes is a bug of the simulator.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class Ftm7004Error(Exception):
    """Base of every error with a message for the user; `status` is the exit status of the CLI."""

    status = 1


class UsageError(Ftm7004Error):
    """A wrong request: unknown kernel or parameter, bad shape, bad file, bad machine setting."""

    status = 2


class KernelError(Ftm7004Error):
    """A kernel program that breaks a rule of the machine; the message names the author's line."""


class SimulationError(Ftm7004Error):
    """A program that went wrong while it ran: bad address, deadlock, race, cycle limit."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `what`, with the nearest names or, failing that, all names."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"unknown {what} '{name}'; did you mean {', '.join(near)}?"
    return f"unknown {what} '{name}'; known: {', '.join(names) or 'none'}"
