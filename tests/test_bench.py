"""`ftm7004 bench`: what is measured, what follows from measured times, how it is shown.

No test looks at how long anything takes.
"""

from __future__ import annotations

import io
import json
import os

import attrs
import numpy as np
import pytest
from rich.console import Console

from isa.errors import SimulationError, UsageError
from kernels import conv2d_forward
from simulator.benchmark import product
from simulator.benchmark.cases import Case, usual_cases
from simulator.benchmark.figures import DENOMINATORS, Amount, Call, Spread, beyond, figures, memory
from simulator.benchmark.process import in_own_process
from simulator.benchmark.product import Operands, Product
from simulator.benchmark.series import estimated_seconds, measure_all, steps
from simulator.cli import commands
from simulator.cli.bench import show

TINY = Case("vgg16/fc8", batch=1, repeat=1)


def call(seconds: float, place: float = 0.125) -> Call:
    return Call(seconds, seconds / 2, place, run=1.0, read_back=0.25)


def test_a_spread_is_the_median_between_the_ends():
    assert Spread.of([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)
    assert Spread.of([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)


def test_figures_of_given_times():
    amount = Amount(8 * 10**9, 6 * 10**9, packets=3000, cycles=2000, chip_seconds=0.5)
    calls = [call(2.0), call(10.0, place=0.5), call(4.0)]
    row = figures(amount, calls, [(3.0, 3.0), (1.0, 1.0), (1.5, 1.0)])
    assert row["simulate"] == {"median": 4.0, "min": 2.0, "max": 10.0, "cpus": 0.5}
    assert row["sgemm"] == {"median": 1.5, "min": 1.0, "max": 3.0, "cpus": 5.0 / 5.5}
    assert row["ratio_to_sgemm"] == 1.5 / 4.0
    assert row["cpu_ratio_to_sgemm"] == 1.0 / 2.0
    assert (row["packets_per_second"], row["cycles_per_second"]) == (750.0, 500.0)
    assert (row["gflops_nominal"], row["gflops_needed"]) == (2.0, 1.5)
    assert row["sgemm_gflops"] == pytest.approx(8 / 1.5)
    assert row["slowdown"] == 8.0  # 4 s on the host for half a second on the chip
    # rest: 0.625, 8.25 and 2.625 s
    parts = {"place": 0.125, "run": 1.0, "read_back": 0.25, "rest": 2.625}
    assert row["parts"] == parts
    assert beyond(3.0, parts) == 0.375
    assert beyond(1.0, parts) == 0.0  # the first call happened to be the faster one


def test_memory_is_what_a_call_adds():
    sizes = {"peak_bytes": 700, "before_bytes": 400, "tensor_bytes": 200}
    assert memory(400, 700, 200) == {**sizes, "ratio": 1.5}
    assert memory(None, None, 200)["ratio"] is None


def test_without_sgemm_there_is_no_ratio():
    row = figures(Amount(1, 1, 1, 1, 1.0), [call(2.0)], [])
    assert row["sgemm"] is row["ratio_to_sgemm"] is row["cpu_ratio_to_sgemm"] is None


def test_every_figure_of_a_row_names_its_denominator():
    row = figures(Amount(1, 1, 1, 1, 1.0), [call(2.0)], [(1.0, 1.0)])
    ratios = set(row) - {"simulate", "sgemm", "parts"} - {
        "flops_nominal", "flops_needed", "packets", "cycles", "chip_seconds",
    }  # fmt: skip
    assert ratios <= set(DENOMINATORS)


def test_the_product_of_a_convolution():
    kernel = conv2d_forward(batch=3, channels=5, height=8, width=6, filters=7, size=(3, 2),
                            stride=1, pad=1)  # fmt: skip
    # outputs: 8 + 2 - 3 + 1 = 8 rows, 6 + 2 - 2 + 1 = 7 columns, of each of 3 samples
    assert Product.of(kernel) == Product(7, 5 * 3 * 2, 3 * 8 * 7)
    assert Product.of(kernel).flops == kernel.work.flops


def test_the_product_of_a_connected_layer():
    assert Product.of(TINY.make_kernel()) == Product(1000, 4096, 1)


def test_panels_cover_the_columns(monkeypatch):
    """Ten columns in panels of three: three whole ones, and one column that is left."""
    monkeypatch.setattr(product, "PANEL_BYTES", 3 * 4 * (2 + 5))
    widths, multiply = [], np.matmul

    def matmul(left, right, out):
        widths.append(right.shape[1])
        multiply(left, right, out=out)

    operands = Operands(Product(rows=2, depth=5, columns=10))
    monkeypatch.setattr(product.np, "matmul", matmul)
    operands.multiply()
    assert widths == [3, 3, 3, 1]
    exact = operands.weights.astype(float) @ operands.panel.astype(float)
    np.testing.assert_allclose(operands.result, exact, atol=1e-6)


def test_the_usual_cases():
    cases = usual_cases(["vgg16/fc8", "vgg16/fc7"], 64, 3, scaling=True)
    assert len(set(cases)) == len(cases)
    assert {case.repeat for case in cases} == {3}
    scaled = [case for case in cases if case.layer == "vgg16/fc8" and not case.timing_only]
    assert {case.batch for case in scaled} == {16, 32, 64}
    assert {case.cores for case in scaled} == {1, 2, 4}
    assert [case.layer for case in cases if case.timing_only] == ["vgg16/fc8", "vgg16/fc7"]
    quick = usual_cases(["vgg16/fc8"], 16, 3, scaling=False)
    ways = [(case.batch, case.cores, case.timing_only) for case in quick]
    assert ways == [(16, 1, False), (16, 4, False), (16, 4, True)]


def test_estimates():
    flops = 2 * 1000 * 4096 * 16
    with_numbers, timing = Case("vgg16/fc8", 16), Case("vgg16/fc8", 16, 4, timing_only=True)
    assert estimated_seconds([with_numbers]) == pytest.approx(flops * (7 / 25e9 + 6 / 60e9))
    assert estimated_seconds([with_numbers, timing]) == pytest.approx(
        flops * (7 / 25e9 + 13 / 60e9)
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("vgg16/fc9", "unknown layer 'vgg16/fc9'; did you mean"),
        (",", "name at least one layer, such as vgg16/fc8"),
        ("vgg16/pool1", "layer 'vgg16/pool1' is no matrix product: bench takes conv2d_forward"),
    ],
)
def test_layers_that_cannot_be_measured(layer, message, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["bench", "--layers", layer])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_of_the_measuring_process_is_told(tmp_path):
    many = Case("vgg16/fc8", batch=1, cores=9)
    with pytest.raises(UsageError, match="measuring vgg16/fc8, batch 1: cores must be from 1 to 4"):
        in_own_process("first", many, tmp_path, lambda _: None)


def test_a_measuring_process_that_ends_early_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("simulator.benchmark.process.sys.executable", "/bin/false")
    if not os.access("/bin/false", os.X_OK):
        pytest.skip("no /bin/false here")
    with pytest.raises(SimulationError, match="ended with status 1 before it had a result"):
        in_own_process("first", TINY, tmp_path, lambda _: None)


@pytest.fixture(scope="module")
def document():
    """A real series of the smallest case."""
    heard = []
    measured = measure_all([TINY], heard.append)
    assert heard == [TINY] * steps(TINY)
    return measured


def test_a_row_of_a_real_series(document):
    (row,) = document["rows"]
    assert Case(**{name: row[name] for name in TINY.to_dict()}) == TINY
    assert row["engine"] == "compiled"
    assert row["product"] == {"rows": 1000, "depth": 4096, "columns": 1, "panel_columns": 1}
    assert row["flops_nominal"] == 2 * 1000 * 4096
    assert row["cycles"] >= row["packets"] > 1000 * 4096 / 64
    assert row["ratio_to_sgemm"] == row["sgemm"]["median"] / row["simulate"]["median"]
    assert sum(row["parts"].values()) == pytest.approx(row["simulate"]["median"])  # of one call
    assert row["blas"]["threads"] in (None, 1)
    # a weight each, and inputs, outputs and biases
    assert row["memory"]["tensor_bytes"] == 4 * (1000 * 4096 + 4096 + 2 * 1000)
    assert min(row["compile"].values()) >= 0


def test_timing_only_is_compiled_and_has_no_yardstick(tmp_path):
    row = in_own_process("repeated", attrs.evolve(TINY, timing_only=True), tmp_path, lambda _: None)
    assert (row["engine"], row["sgemm"], row["ratio_to_sgemm"]) == ("compiled", None, None)
    assert row["cycles"] > 1000 * 4096 / 64


def test_a_series_is_data(document):
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_series_is_shown(document):
    console = Console(file=io.StringIO(), width=130)
    show(document, console)
    words = " ".join(console.file.getvalue().split())
    (row,) = document["rows"]
    assert "vgg16/fc8 x 1 1 1 " in words
    assert f"{row['ratio_to_sgemm']:.3f}" in words
    assert document["host"]["processor"] in words
    for meaning in DENOMINATORS.values():
        assert meaning in words
