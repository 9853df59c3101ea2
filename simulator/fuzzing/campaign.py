"""Many random programs, in worker processes: a crash of machine code ends a worker, not the run.

A worker takes a range of numbers and reports each program before it starts it and when it is done;
so the parent knows which one was running when a worker died. Called by `ftm7004 fuzz`.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from attrs import define, field, frozen

from isa.instruction import REGISTRY
from simulator.fuzzing.findings import Finding, crash_finding
from simulator.fuzzing.work import Done, work

BATCH = 40
"""Programs that a worker process runs; then a new one takes over."""

UNRESPONSIVE_SECONDS = 600
"""A worker that says nothing for so long is given up; cutting a program down takes a minute."""


@frozen
class Request:
    """Which programs to run."""

    seed: int
    first: int = 0
    programs: int | None = None
    """None: until the time is over."""
    seconds: float | None = None
    jobs: int = 1
    size: int = 90
    faults: float = 0.15
    """Share of programs with a mistake."""


@define
class Summary:
    """What a campaign has shown so far."""

    programs: int = 0
    packets: int = 0
    """Packets executed, all cores together."""
    instructions: Counter[str] = field(factory=Counter)
    """How often each instruction was in a packet that was executed."""
    native: int = 0
    """Programs that machine code was compared on."""
    timing: int = 0
    faults: Counter[str] = field(factory=Counter)
    """Programs with a mistake that ended in an error, by the kind of mistake."""
    complaints: list[str] = field(factory=list)
    """Programs that a checked run refused: the generator's own mistakes, left out."""
    findings: list[Finding] = field(factory=list)

    @property
    def missing(self) -> list[str]:
        """Instructions of the registry that were never executed."""
        return [name for name in REGISTRY if not self.instructions[name]]

    def add(self, done: Done) -> None:
        """Count a program that is done."""
        self.programs += 1
        self.packets += done.packets
        self.instructions.update(done.instructions)
        self.native += done.native
        self.timing += done.timing
        if done.fault:
            self.faults[done.fault] += 1
        if done.complaint:
            self.complaints.append(done.complaint)
        if done.finding is not None:
            self.findings.append(done.finding)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as data for JSON."""
        return {
            "programs": self.programs,
            "packets": self.packets,
            "instructions": len(REGISTRY) - len(self.missing),
            "registry": len(REGISTRY),
            "never_executed": self.missing,
            "native": self.native,
            "timing_only": self.timing,
            "faults": dict(self.faults),
            "dropped": self.complaints,
            "differences": [finding.to_dict() for finding in self.findings],
        }


class Campaign:
    """A run of `ftm7004 fuzz`; `summary` can be read at any time."""

    def __init__(self, request: Request, progress: Callable[[Summary], None] | None = None) -> None:
        self.request, self.summary = request, Summary()
        self._progress = progress or (lambda summary: None)
        self._next = request.first
        self._left: list[range] = []
        """Numbers that a worker left when it crashed."""
        self._end = None if request.programs is None else request.first + request.programs
        seconds = request.seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def run(self) -> Summary:
        """Run until all programs are done or the time is over."""
        with _workers() as workers:
            while True:
                self._start(workers)
                if not workers:
                    return self.summary
                for worker in self._ready(workers):
                    if not self._listen(worker):
                        workers.remove(worker)

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _start(self, workers: list[_Worker]) -> None:
        """Keep as many workers as were asked for."""
        while len(workers) < self.request.jobs and not self._late:
            numbers = self._left.pop() if self._left else self._next_numbers()
            if not numbers:
                return
            workers.append(_Worker(self.request, numbers))

    def _next_numbers(self) -> range:
        count = BATCH if self._end is None else min(BATCH, self._end - self._next)
        self._next += max(count, 0)
        return range(self._next - max(count, 0), self._next)

    def _ready(self, workers: list[_Worker]) -> list[_Worker]:
        """Wait for news; end workers when the time is over."""
        left = 1.0 if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        ready = wait([worker.news for worker in workers], timeout=min(left, 1.0))
        if self._late:
            for worker in workers:
                worker.finish()
        for worker in workers:
            if worker.silent > UNRESPONSIVE_SECONDS:
                worker.stop()
        return [worker for worker in workers if worker.news in ready]

    def _listen(self, worker: _Worker) -> bool:
        """Take one piece of news; tell whether the worker goes on."""
        try:
            news = worker.receive()
        except EOFError:
            self._end_of(worker)
            return False
        if isinstance(news, int):
            worker.running = news
        elif isinstance(news, Done):
            worker.running = None
            self.summary.add(news)
            self._progress(self.summary)
        return True

    def _end_of(self, worker: _Worker) -> None:
        """Report a program that took its worker with it, and run what the worker had left."""
        worker.process.join()
        if worker.running is None or worker.stopped:
            return
        self.summary.findings.append(
            crash_finding(self.request.seed, worker.running, worker.process.exitcode or 0)
        )
        self._progress(self.summary)
        rest = range(worker.running + 1, worker.numbers.stop)
        if rest:
            self._left.append(rest)


class _Worker:
    """One worker process and what it last said."""

    def __init__(self, request: Request, numbers: range) -> None:
        context = multiprocessing.get_context("spawn")
        self.news, theirs = context.Pipe(duplex=False)
        orders, self._orders = context.Pipe(duplex=False)
        self.numbers = numbers
        arguments = (theirs, orders, request.seed, numbers, request.size, request.faults)
        self.process: BaseProcess = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        orders.close()
        self.running: int | None = None
        self.stopped = False
        self._heard = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds since the last news."""
        return time.monotonic() - self._heard

    def receive(self) -> Any:
        """Return the next piece of news; EOFError at the end of the process."""
        self._heard = time.monotonic()
        return self.news.recv()

    def finish(self) -> None:
        """Ask the worker to end after its present program."""
        if not self._orders.closed:
            self._orders.close()

    def stop(self) -> None:
        """End the worker at once."""
        self.stopped = True
        self.process.terminate()


@contextmanager
def _workers() -> Iterator[list[_Worker]]:
    """Give a list of workers that are ended with it, however that comes."""
    workers: list[_Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.process.join(5)
