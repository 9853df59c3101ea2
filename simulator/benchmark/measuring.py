"""Measures one case, in a process whose host libraries keep to one thread.

Called by `simulator.benchmark.process` in the child that it starts. Calls of `simulate` and of
sgemm alternate, so that whatever else the host does meets both.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from isa.language.kernel import Kernel
from isa.machine import Machine
from simulator.benchmark.cases import Case
from simulator.benchmark.figures import Amount, Call, figures, memory
from simulator.benchmark.product import Operands, Product, random_values
from simulator.reporting.report import Report
from simulator.simulate import simulate

Inputs = Mapping[str, np.ndarray[Any, Any]]
Result = TypeVar("Result")
Announce = Callable[[str], None]


def measure_first(case: Case) -> dict[str, Any]:
    """Return what the first call of a process takes: building, compiling, memory."""
    kernel, machine = case.make_kernel(), Machine.load()
    inputs = {} if case.timing_only else _inputs(kernel)
    before = peak_bytes()
    build_seconds = _build(kernel, machine, case.cores)
    call, _ = _simulate(case, kernel, machine, inputs)
    return {
        "build_seconds": build_seconds,
        "rest": call.rest,
        "memory": memory(before, peak_bytes(), kernel.compulsory_bytes),
    }


def measure(case: Case, announce: Announce) -> dict[str, Any]:
    """Return the figures of a case; `announce` hears of every step that is done."""
    kernel, machine = case.make_kernel(), Machine.load()
    inputs = {} if case.timing_only else _inputs(kernel)
    _build(kernel, machine, case.cores)
    first, report = _simulate(case, kernel, machine, inputs)
    announce("simulate")
    product = Product.of(kernel)
    operands = None if case.timing_only else Operands(product)
    if operands is not None:
        operands.multiply()
        announce("sgemm")
    calls, products = [], []
    for _ in range(case.repeat):
        call, report = _simulate(case, kernel, machine, inputs)
        calls.append(call)
        announce("simulate")
        if operands is not None:
            products.append(_timed(operands.multiply)[1:])
            announce("sgemm")
    row = figures(_amount(report), calls, products)
    return {
        **case.to_dict(),
        "engine": report.engine,
        "product": {
            "rows": product.rows,
            "depth": product.depth,
            "columns": product.columns,
            "panel_columns": product.panel_columns,
        },
        **row,
        "first_rest": first.rest,
    }


def _inputs(kernel: Kernel) -> Inputs:
    """Return random inputs; all tensors of a layer's forward kernel are float32."""
    generator = np.random.default_rng(0)
    return {n: random_values(generator, *tensor.shape) for n, tensor in kernel.inputs.items()}


def _build(kernel: Kernel, machine: Machine, cores: int) -> float:
    began = time.perf_counter()
    kernel.program(machine, cores)
    return time.perf_counter() - began


def _simulate(case: Case, kernel: Kernel, machine: Machine, inputs: Inputs) -> tuple[Call, Report]:
    run, seconds, cpu_seconds = _timed(
        lambda: simulate(
            kernel, inputs, machine=machine, cores=case.cores, engine="compiled",
            timing_only=case.timing_only,
        )
    )  # fmt: skip
    report = run.report
    parts = (report.place_seconds, report.run_seconds, report.readback_seconds)
    return Call(seconds, cpu_seconds, *(part or 0.0 for part in parts)), report


def _timed(action: Callable[[], Result]) -> tuple[Result, float, float]:
    """Return an action's result, its seconds, and the processor seconds of all its threads."""
    began, busy = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - began, time.process_time() - busy


def _amount(report: Report) -> Amount:
    return Amount(
        flops_nominal=report.flops_nominal,
        flops_needed=2 * report.multiply_adds,
        packets=report.packets,
        cycles=report.cycles,
        chip_seconds=report.seconds,
    )


def peak_bytes() -> int | None:
    """Return the most memory this process ever held; None where the host does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def blas() -> dict[str, Any]:
    """Return which BLAS numpy calls, and what threadpoolctl says of it where that is installed."""
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found: dict[str, Any] = {"name": built.get("name"), "version": built.get("version")}
    try:
        threadpool_info = importlib.import_module("threadpoolctl").threadpool_info
    except ImportError:
        return {**found, "kernels": None, "threads": None}
    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    kernels = [pool["architecture"] for pool in pools if pool.get("architecture")]
    threads = [pool["num_threads"] for pool in pools]
    return {**found, "kernels": ", ".join(kernels) or None, "threads": max(threads, default=None)}
