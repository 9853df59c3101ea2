"""One row of a network's report: what a step's kernel reported, and for which layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from isa.machine import Machine
from simulator.network.bounds import Bounds, bounds
from simulator.reporting.efficiency import share
from simulator.reporting.report import Report

ONE_CORE = "one_core_efficiency"
"""Nominal flops against one core's peak, whatever the number of cores."""


@frozen
class Row:
    """A layer, its kernel's report, and the bounds on it."""

    name: str
    report: Report
    bounds: Bounds

    @staticmethod
    def of(name: str, report: Report, machine: Machine) -> Row:
        return Row(name, report, bounds(report, machine))

    @property
    def kind(self) -> str:
        """The kernel's name."""
        return self.report.kernel

    @property
    def bound_share(self) -> float:
        """How near the run came to what holds it; 1.0 is the bound."""
        return share(self.bounds.cycles, self.report.cycles)

    def value(self, name: str) -> float:
        """Return a share of the report by name, or `ONE_CORE`."""
        if name == ONE_CORE:
            return self.report.efficiency * self.report.cores
        return float(getattr(self.report, name))

    def to_dict(self) -> dict[str, Any]:
        """Return the row for `json.dumps`."""
        return {"name": self.name, "kind": self.kind, **self.report.to_dict(), **bound_keys(self)}


def bound_keys(row: Row) -> Mapping[str, Any]:
    """Return what JSON says about the bounds."""
    return {
        "bound": row.bounds.held_by,
        "bound_share": row.bound_share,
        "bound_cycles": row.bounds.named,
    }
