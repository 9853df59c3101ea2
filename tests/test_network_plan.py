"""A network's plan: which kernels run, on which tensors, and that they are a step of training."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import LIBRARY, layers, reference
from simulator.network.plan import Plan, make_plan
from simulator.network.tensors import Tensors, chances, loss
from small_network import Array, plan

VGG16 = [layer for name, layer in layers.LAYERS.items() if name.startswith("vgg16/")]
ALL = [layer.name.removeprefix("vgg16/") for layer in VGG16]


def vgg16(phase: str, batch: int = 1) -> Plan:
    return make_plan(phase, batch, VGG16, ALL, LIBRARY)


def test_vgg16_forward_is_the_known_amount_of_work():
    """15.47 G multiply-adds an image, 138.36 M parameters: the figures that everybody quotes."""
    steps = vgg16("inference").steps
    assert [step.layer for step in steps] == ALL
    products = sum(s.kernel.work.flops for s in steps if s.kernel.name != "maxpool2d_forward")
    assert products == 2 * 15_470_264_320
    maxima = 64 * 112**2 + 128 * 56**2 + 256 * 28**2 + 512 * 14**2 + 512 * 7**2
    assert sum(step.kernel.work.flops for step in steps) == products + 3 * maxima
    parameters = [t for s in steps for n, t in s.kernel.inputs.items() if n in ("weight", "bias")]
    assert sum(tensor.words for tensor in parameters) == 138_357_544


def test_a_step_of_training_has_an_entry_for_every_layer_and_kernel():
    steps = vgg16("training").steps
    kinds = [step.kernel.name for step in steps]
    assert kinds[:21] == [step.kernel.name for step in vgg16("inference").steps]
    assert {kind: kinds.count(kind) for kind in kinds[21:]} == {
        "fc_backward": 3, "relu_backward": 3, "maxpool2d_backward": 5,
        "conv2d_backward_data": 12, "conv2d_backward_weight": 13, "sgd_update": 13,
    }  # fmt: skip
    names = [step.layer for step in steps[21:]]
    assert list(dict.fromkeys(names)) == ALL[::-1]


def test_relu_and_layout_are_where_the_network_has_them():
    kernels = {step.layer: step.kernel.params for step in vgg16("inference").steps}
    assert kernels["conv1_1"]["layout"] == "nchw"
    assert kernels["conv1_2"]["layout"] == "columns"
    assert kernels["conv5_3"]["relu"]
    assert kernels["fc7"]["relu"]
    assert not kernels["fc8"]["relu"]


def test_equal_kernels_are_one():
    steps = {step.layer: step.kernel for step in vgg16("inference").steps}
    assert steps["conv5_1"] is steps["conv5_2"] is steps["conv5_3"]
    assert steps["conv3_1"] is not steps["conv3_2"]


def test_a_tensor_lives_from_its_maker_to_its_last_reader():
    small = plan("training")
    order = [(step.layer, step.kernel.name) for step in small.steps]
    pooled = order.index(("pool", "maxpool2d_forward"))
    assert small.alive_before(0) == set()
    # conv2's output goes into pooling only: backward it is the index that counts
    assert small.alive_before(pooled) == {"conv1.z", "conv2.z"}
    assert small.alive_before(pooled + 1) == {"conv1.z", "pool.z", "pool.index"}
    first = order.index(("fc2", "fc_backward"))
    assert small.alive_before(first) == {"conv1.z", "pool.z", "pool.index", "fc1.z", "fc2.dz"}
    assert small.alive_before(len(order) - 1) == {"conv1.dweight", "conv1.dbias"}
    assert small.alive_before(len(order)) == set()


def in_numpy(small: Plan, tensors: Tensors) -> dict[str, dict[str, Array]]:
    """Run every step's numpy reference on the tensors that flow; return what it gives."""
    found = {}
    for number, step in enumerate(small.steps):
        inputs = tensors.inputs(step)
        assert step.kernel.definition.reference is not None
        wide = step.kernel.definition.reference(step.kernel.p, inputs)
        outputs = {name: t.astype(step.kernel.outputs[name].dtype) for name, t in wide.items()}
        found[f"{step.layer} {step.kernel.name}"] = outputs
        tensors.made(number, outputs)
    return found


def loss_of(parameters: dict[str, Array], images: Array, labels: Array) -> float:
    """Return the network's loss, forward in float64 by itself."""
    p = {name: tensor.astype(np.float64) for name, tensor in parameters.items()}
    one = (1, 1)
    a = reference.conv2d_forward(images, p["conv1.weight"], p["conv1.bias"], one, one, True)
    a = reference.conv2d_forward(a, p["conv2.weight"], p["conv2.bias"], one, one, True)
    a = a.reshape(*a.shape[:2], 2, 2, 2, 2).max(axis=(3, 5)).reshape(len(a), 8)
    a = np.maximum(a @ p["fc1.weight"].T + p["fc1.bias"], 0)
    z = a @ p["fc2.weight"].T + p["fc2.bias"]
    odds = np.exp(z)
    return float(-np.log(odds[np.arange(len(z)), labels] / odds.sum(axis=1)).mean())


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc1", "fc2"])
def test_the_gradients_are_those_of_the_loss(layer: str):
    """Each one is the slope of the loss along a random direction, by differences."""
    small = plan("training")
    tensors = Tensors(small, seed=4)
    shapes = small.shapes()
    names = [name for name in shapes if name.endswith((".weight", ".bias"))]
    start = {name: tensors.get(name).copy() for name in names}
    images, labels = tensors.get("images"), tensors.labels()
    outputs = in_numpy(small, tensors)
    made = outputs[f"{layer} {'fc_backward' if layer[0] == 'f' else 'conv2d_backward_weight'}"]
    generator = np.random.default_rng(0)
    for kind in ("weight", "bias"):
        name, step = f"{layer}.{kind}", 1e-6
        way = generator.standard_normal(shapes[name])
        there, back = (
            loss_of(start | {name: start[name] + sign * step * way}, images, labels)
            for sign in (1, -1)
        )
        slope = float((made[f"d{kind}"] * way).sum())
        assert slope == pytest.approx((there - back) / (2 * step), rel=1e-3, abs=1e-6)


def test_softmax_and_loss():
    logits = np.log(np.array([[1, 3], [2, 2]], np.float32))
    np.testing.assert_allclose(chances(logits), [[0.25, 0.75], [0.5, 0.5]])
    mean, slopes = loss(logits, np.array([1, 0]))
    assert mean == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)
    np.testing.assert_allclose(slopes, [[0.125, -0.125], [-0.25, 0.25]])


def test_random_tensors_follow_seed_and_name():
    small = plan("inference", chosen=("conv2",))
    step = small.steps[0]
    first, again, other = (Tensors(small, seed).inputs(step) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["weight"] != other["weight"]).any()
    assert (first["x"] >= 0).all()  # as behind a ReLU
    assert abs(first["weight"].std() / np.sqrt(2 / (3 * 9)) - 1) < 0.3
