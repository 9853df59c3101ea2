"""The command line `ftm7004`."""

from simulator.cli.commands import main

__all__ = ["main"]
