"""Judging max pooling: exact where nothing rounds, whole planes of a large result."""

from __future__ import annotations

import numpy as np
import pytest

from isa.language.kernel import Verdict
from kernel_run import Array
from kernels import maxpool2d_backward, maxpool2d_forward, reference
from kernels.judging import sampling
from kernels.judging.pooling import verify_maxima, verify_pooling_gradient

FORWARD = maxpool2d_forward(batch=9, channels=17, height=5, width=4)
BACKWARD = maxpool2d_backward(batch=9, channels=17, height=5, width=4)
MAXIMA = 9 * 17 * 2 * 2
"""Values of z; a sample leaves out one image and one channel."""


def pooled() -> tuple[dict[str, Array], dict[str, Array]]:
    inputs = FORWARD.make_inputs(seed=1)
    z, index = reference.maxpool2d_forward(inputs["x"], (2, 2), (2, 2))
    return inputs, {"z": z.astype(np.float32), "index": index}


def forward(inputs: dict[str, Array], outputs: dict[str, Array]) -> Verdict:
    return verify_maxima(FORWARD.p, inputs, outputs)


def test_all_maxima_of_a_small_result_are_compared():
    verdict = forward(*pooled())
    assert verdict.passed
    assert verdict.max_error == 0
    assert verdict.compared.startswith(f"all {2 * MAXIMA:,} values")


def test_whole_planes_of_a_large_result_are_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "PIXELS", 9 * 17 * 5 * 4 - 1)
    verdict = forward(*pooled())
    taken = 8 * 16 * 2 * 2 * 2  # images, channels, rows, columns; z and index
    assert verdict.passed
    assert verdict.compared.startswith(f"a random sample of {taken:,} of {2 * MAXIMA:,} values")


@pytest.mark.parametrize("pixels", [0, 10**6])
@pytest.mark.parametrize(("name", "change"), [("z", 2.0**-24), ("index", 1)])
def test_a_maximum_must_be_the_pixel_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, change: float, pixels: int
):
    monkeypatch.setattr(sampling, "PIXELS", pixels)
    inputs, outputs = pooled()
    outputs[name][8, 16, 1, 0] = outputs[name].dtype.type(outputs[name][8, 16, 1, 0] + change)
    verdict = forward(inputs, outputs)
    assert not verdict.passed
    assert f"first {name}[8, 16, 1, 0] is " in verdict.compared


@pytest.mark.parametrize("pixels", [0, 10**6])
def test_a_gradient_that_arrives_alone_is_exact(monkeypatch: pytest.MonkeyPatch, pixels: int):
    monkeypatch.setattr(sampling, "PIXELS", pixels)
    inputs = BACKWARD.make_inputs(seed=2)
    dx = reference.maxpool2d_backward(inputs["dz"], inputs["index"], (9, 17, 5, 4))
    outputs = {"dx": dx.astype(np.float32)}
    assert verify_pooling_gradient(BACKWARD.p, inputs, outputs).passed
    outputs["dx"][0, 0, 4, 3] = 1e-30  # the last row is in no window
    verdict = verify_pooling_gradient(BACKWARD.p, inputs, outputs)
    assert "first dx[0, 0, 4, 3] is 1e-30, expected 0.0" in verdict.compared
