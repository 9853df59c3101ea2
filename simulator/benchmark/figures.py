"""From measured times to the figures of a row; every figure names what it is divided by.

Nothing here measures. Times are seconds on the host unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import attrs
from attrs import frozen

DENOMINATORS = {
    "ratio_to_sgemm": "median sgemm seconds / median simulate seconds, of the same product",
    "cpu_ratio_to_sgemm": "the same in processor seconds, which a busy host spoils less",
    "packets_per_second": "packets issued, all cores / median simulate seconds",
    "cycles_per_second": "cycles of the chip / median simulate seconds",
    "gflops_nominal": "flops, those on padding included / median simulate seconds",
    "gflops_needed": "flops on real data / median simulate seconds",
    "sgemm_gflops": "flops, those on padding included / median sgemm seconds",
    "slowdown": "median simulate seconds / seconds on the chip",
    "cpus": "processor seconds of the process / seconds, summed over the repetitions",
    "compile": "seconds of a process's first call beyond a later one's, building the program apart",
    "memory": "peak after a process's first call, less the peak before it / the tensors' bytes",
}
"""What each figure is measured against."""


@frozen
class Spread:
    """Repeated times of one thing."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(times: Iterable[float]) -> Spread:
        """Return the spread of at least one time."""
        ordered = sorted(times)
        return Spread(median(ordered), ordered[0], ordered[-1])


@frozen
class Call:
    """One `simulate` call: its whole time, and what its report says about the parts.

    `rest` is what the parts leave: checks of the inputs, setting the chip up, making the report.
    """

    seconds: float
    cpu_seconds: float
    place: float
    run: float
    read_back: float

    @property
    def rest(self) -> float:
        return self.seconds - self.place - self.run - self.read_back


PARTS = ("place", "run", "read_back", "rest")


@frozen
class Amount:
    """What one call gets done, in numbers that do not depend on the host."""

    flops_nominal: int
    flops_needed: int
    packets: int
    cycles: int
    chip_seconds: float


def figures(
    amount: Amount, calls: Sequence[Call], products: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return the figures of a row.

    `products` are seconds and processor seconds of the same product by sgemm; none of them, no
    ratio.
    """
    simulate = Spread.of(call.seconds for call in calls)
    cpus = _cpus([(call.seconds, call.cpu_seconds) for call in calls])
    parts = {part: median(getattr(call, part) for call in calls) for part in PARTS}
    return {
        **attrs.asdict(amount),
        "simulate": {**_seconds(simulate), "cpus": cpus},
        "parts": parts,
        "packets_per_second": amount.packets / simulate.median,
        "cycles_per_second": amount.cycles / simulate.median,
        "gflops_nominal": amount.flops_nominal / simulate.median / 1e9,
        "gflops_needed": amount.flops_needed / simulate.median / 1e9,
        "slowdown": simulate.median / amount.chip_seconds,
        **_beside_sgemm(amount, calls, products),
    }  # fmt: skip


def _beside_sgemm(
    amount: Amount, calls: Sequence[Call], products: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    if not products:
        return dict.fromkeys(("sgemm", "sgemm_gflops", "ratio_to_sgemm", "cpu_ratio_to_sgemm"))
    simulate = Spread.of(call.seconds for call in calls)
    sgemm = Spread.of(seconds for seconds, _ in products)
    busy = median(cpu_seconds for _, cpu_seconds in products)
    return {
        "sgemm": {**_seconds(sgemm), "cpus": _cpus(products)},
        "sgemm_gflops": amount.flops_nominal / sgemm.median / 1e9,
        "ratio_to_sgemm": sgemm.median / simulate.median,
        "cpu_ratio_to_sgemm": busy / median(call.cpu_seconds for call in calls),
    }


def _seconds(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "min": spread.least, "max": spread.most}


def _cpus(times: Sequence[tuple[float, float]]) -> float:
    """Return how many processors were busy, of (seconds, processor seconds)."""
    return sum(busy for _, busy in times) / sum(seconds for seconds, _ in times)


def memory(before: int | None, peak: int | None, tensors: int) -> dict[str, Any]:
    """Return what a call adds to a process's peak, in bytes and as a multiple of its tensors."""
    added = None if before is None or peak is None else (peak - before) / tensors
    return {"peak_bytes": peak, "before_bytes": before, "tensor_bytes": tensors, "ratio": added}


def beyond(first_rest: float, parts: Mapping[str, float]) -> float:
    """Return what a first call took beyond later ones: compiling, or finding the code."""
    return max(0.0, first_rest - parts["rest"])
