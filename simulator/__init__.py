"""The machine running: `simulate` runs a kernel and returns its outputs and report."""

from isa.machine import Machine
from simulator.simulate import Run, simulate

__all__ = ["Machine", "Run", "simulate"]
