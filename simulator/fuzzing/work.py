"""What a worker process does: make programs, compare, cut down what differs, tell its parent.

Called by `campaign` in a process of its own.
"""

from __future__ import annotations

import signal
from collections import Counter
from multiprocessing.connection import Connection

from attrs import frozen

from simulator.fuzzing.case import Case
from simulator.fuzzing.comparing import Verdict, compare, compare_engines
from simulator.fuzzing.faults import with_fault
from simulator.fuzzing.findings import Finding, finding_of
from simulator.fuzzing.generator import generate
from simulator.fuzzing.running import keep_no_code
from simulator.fuzzing.shrinking import shrink


@frozen
class Done:
    """A program that was compared."""

    index: int
    packets: int = 0
    instructions: tuple[str, ...] = ()
    native: bool = False
    timing: bool = False
    fault: str = ""
    """The kind of mistake of a program that ended in an error."""
    complaint: str = ""
    finding: Finding | None = None


def work(
    news: Connection, orders: Connection, seed: int, numbers: range, size: int, faults: float
) -> None:
    """Compare programs of these numbers; end early when the parent closes `orders`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    keep_no_code()
    for index in numbers:
        if orders.poll():
            return
        news.send(index)
        news.send(done(make_case(seed, index, size, faults)))


def make_case(seed: int, index: int, size: int, faults: float) -> Case:
    """Return a program; so many of them have a mistake."""
    case = generate(seed, index, size)
    return with_fault(case, faults)


def done(case: Case) -> Done:
    """Compare a program and cut it down if the engines differ."""
    verdict = compare(case)
    executed = Counter[str]()
    for packet, times in zip(case.program.packets, verdict.executed, strict=False):
        for operation in packet.operations if times else ():
            executed[operation.instruction.name] += 1
    finding = None
    if verdict.difference is not None:
        finding = _cut_down(case, verdict)
    return Done(
        case.index, sum(verdict.executed), tuple(executed), verdict.native, verdict.timing,
        case.fault if verdict.error else "", _complaint(case, verdict), finding,
    )  # fmt: skip


def _complaint(case: Case, verdict: Verdict) -> str:
    return f"program {case.index}: {verdict.complaint}" if verdict.complaint else ""


def _cut_down(case: Case, verdict: Verdict) -> Finding:
    """Return the finding, with the smallest program that shows the same kind of difference."""
    assert verdict.difference is not None
    judge = compare_engines if compare_engines(case).difference is not None else compare
    small = shrink(case, judge)
    return finding_of(small, judge(small).difference or verdict.difference)
