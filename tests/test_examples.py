"""Every example runs as its docstring says, and its numbers are right.

Examples that need matplotlib or scikit-learn are skipped where these are missing.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kernels import LIBRARY
from simulator.cli.loading import find_kernel
from simulator.simulate import simulate

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
Tensors = dict[str, np.ndarray[Any, Any]]


def run(name: str, folder: Path, *options: str) -> str:
    """Run an example with its output folder below `folder`; return what it printed."""
    more = [] if name.startswith(("01", "03", "05")) else ["--output", str(folder / "new")]
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *more, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def load(name: str) -> ModuleType:
    """Import an example; its name is no Python name."""
    spec = importlib.util.spec_from_file_location(f"example_{name[:2]}", FOLDER / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", text)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_how_to_run_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{path.name}" in docstring


def test_examples_are_numbered_in_reading_order() -> None:
    assert [path.name[:3] for path in EXAMPLES] == [f"{n:02}_" for n in range(1, len(EXAMPLES) + 1)]


def test_first_kernel_runs(tmp_path: Path) -> None:
    scheduled, pinned = run("01_first_kernel.py", tmp_path).splitlines()
    # 4,096 words are 64 turns of 4 vectors of 16; a pinned turn has 10 packets
    assert pinned.startswith("pinned     640 cycles in the loop")
    assert numbers(scheduled)[0] > 2 * 640


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("words", [64, 128, 640])
def test_first_kernel_at_other_sizes(words: int, pinned: bool, engine: str) -> None:
    kernel = find_kernel(str(FOLDER / "01_first_kernel.py"))(words=words, a=-0.75, pinned=pinned)
    x = np.arange(words, dtype=np.float32)
    inputs = {"x": x, "y": np.full(words, 3, np.float32)}
    run = simulate(kernel, inputs, check=True, engine=engine)
    assert run.outputs["z"].tolist() == [3 - 0.75 * n for n in range(words)]  # exact in float32


def test_sobel_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    image = pytest.importorskip("PIL.Image")
    printed = run("02_sobel.py", tmp_path)
    path = tmp_path / "new" / "sobel_china.png"
    assert printed.splitlines()[-1] == f"wrote {path}"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    picture = np.asarray(image.open(path).convert("L"), dtype=float)
    sky, roof = picture[600:700, 560:640], picture[600:680, 120:380]
    assert sky.mean() < 5 < 20 < roof.std()  # the sky has no edges, the roof has many


def test_sobel_agrees_with_scipy() -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    ndimage = pytest.importorskip("scipy.ndimage")
    sobel = load("02_sobel.py")
    picture = np.random.default_rng(2).random((3, 208, 320))
    grey = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
    edges = np.stack([ndimage.sobel(grey, axis, mode="nearest") for axis in (1, 0)])
    np.testing.assert_allclose(sobel.expected_edges(picture), edges, atol=1e-12)


def test_digits_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    *layers, accuracy, same = run("03_digits.py", tmp_path).splitlines()[1:]
    names = ["conv2d_forward", "maxpool2d_forward", "fc_forward"]
    assert [layer.split()[0] for layer in layers] == names
    assert numbers(accuracy)[0] > 95
    assert same.startswith("logits equal numpy float64 within float32 rounding")


def test_where_time_goes_runs(tmp_path: Path) -> None:
    printed = run("04_where_time_goes.py", tmp_path)
    one, four, faster = printed.splitlines()[:3]
    hidden = [numbers(line.partition("bytes")[2])[0] for line in (one, four, faster)]
    assert hidden[1] < min(hidden[0], hidden[2])
    assert max(hidden) < 100
    trace = json.loads((tmp_path / "new" / "four_cores.json").read_text(encoding="utf-8"))
    assert trace["otherData"]["cores"] == 4
    assert not trace["otherData"]["truncated"]


def test_training_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    log, operators, unseen = run("05_training.py", tmp_path).split("\n\n")
    steps = [numbers(line) for line in log.splitlines()[1:-3]]
    assert [int(step[0]) for step in steps] == list(range(1, len(steps) + 1))
    losses, in_float64 = np.array([step[1:3] for step in steps]).T
    np.testing.assert_allclose(losses, in_float64, atol=2e-6)
    # a network that knows nothing gives each of ten digits the same chance
    assert abs(losses[0] - np.log(10)) < 0.3
    assert losses[-1] < losses[0] / 2
    used = {word for line in operators.splitlines() for word in line.split()}
    assert used >= set(LIBRARY)
    before, after = numbers(unseen)[1:]
    assert before < 20 < 60 < after


@pytest.fixture(scope="module")
def training() -> ModuleType:
    pytest.importorskip("sklearn")
    return load("05_training.py")


def test_training_descends_along_the_gradient(training: ModuleType) -> None:
    """The truth of the example, its step in float64, against the slope of its own loss."""
    images, labels = training.scans()
    some = images[:9], labels[:9]
    generator = np.random.default_rng(3)
    # float64 throughout, and biases away from 0, where values would lie on the kinks of ReLUs
    here = {n: t + generator.normal(0, 0.1, t.shape) for n, t in training.start().items()}
    updated = training.parameters_of(training.step_in_numpy(here, *some))
    for name, tensor in here.items():
        gradient = (tensor - updated[name]) / training.RATE
        move = 1e-6 * generator.normal(size=tensor.shape)
        above, below = (
            training.step_in_numpy({**here, name: tensor + way * move}, *some)["loss"]
            for way in (1, -1)
        )
        assert above - below == pytest.approx(2 * (gradient * move).sum(), rel=1e-3, abs=1e-14)


@pytest.fixture(scope="module")
def right(training: ModuleType) -> Tensors:
    """One step in float64."""
    images, labels = training.scans()
    step: Tensors = training.step_in_numpy(training.start(), images[:64], labels[:64])
    return step


@pytest.mark.parametrize("name", ["loss", "logits", "chosen", "dz1", "dfilters1", "bias"])
def test_training_sees_a_wrong_tensor(training: ModuleType, right: Tensors, name: str) -> None:
    tensor = right[name]
    largest = np.abs(tensor).max()
    nearly = np.array(tensor, ndmin=1)
    nearly.flat[-1] += 3e-6 * largest  # 50 roundings
    error, worst = training.compare({**right, name: nearly.reshape(tensor.shape)}, right)
    assert (error, worst) == (pytest.approx(3e-6, rel=1e-3), name)
    for wrong in (5e-6 * largest, np.nan):
        nearly.flat[-1] = tensor.flat[-1] + wrong
        with pytest.raises(SystemExit, match=f"the chip's {name} is wrong: .* of its largest"):
            training.compare({**right, name: nearly.reshape(tensor.shape)}, right)


def test_training_counts_other_decisions(training: ModuleType, right: Tensors) -> None:
    """A maximum of equal values and a value at 0, decided in the other way."""
    all_of_them = 64 * (8 * 8 * 8 + 2 * 8 * 4 * 4)
    assert training.decided_otherwise(right, right) == (0, all_of_them)
    index, a2 = right["index"].copy(), right["a2"].copy()
    index.flat[7] += 1
    a2.flat[np.flatnonzero(a2 == 0)[:2]] = 1e-12
    other = {**right, "index": index, "a2": a2}
    assert training.decided_otherwise(other, right) == (3, all_of_them)
    assert training.compare(other, right)[0] < 1e-11


def test_training_follows_the_decisions_it_is_given(training: ModuleType) -> None:
    """A max and a ReLU that float64 decides differently: gradients follow, "chosen" tells."""
    images, labels = training.scans()
    some = images[:3], labels[:3]
    own = training.step_in_numpy(training.start(), *some)
    same = training.step_in_numpy(training.start(), *some, decided=own)
    assert training.compare(same, own)[0] == 0.0
    closed = {**own, "a2": np.zeros_like(own["a2"])}
    assert not training.step_in_numpy(training.start(), *some, decided=closed)["dz2"].any()
    elsewhere = {**own, "index": np.zeros_like(own["index"])}
    other = training.step_in_numpy(training.start(), *some, decided=elsewhere)
    assert np.array_equal(other["chosen"][..., 2, 1], own["a1"][..., 0, 0])
    with pytest.raises(SystemExit, match="the chip's chosen is wrong"):
        training.compare(own, other)


def test_training_for_real_runs(tmp_path: Path) -> None:
    """One epoch of the ten: enough to learn something, and to see both trainings side by side."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    log, operators, end = run("06_training_for_real.py", tmp_path, "--epochs", "1").split("\n\n")
    (epoch,) = (numbers(line) for line in log.splitlines()[2:])
    number, on_chip, in_numpy, right_on_chip, right_in_numpy, *_ = epoch
    assert number == 1
    assert on_chip == pytest.approx(in_numpy, abs=1e-4)
    assert on_chip < np.log(10)  # the loss of one who knows nothing
    assert right_on_chip == pytest.approx(right_in_numpy, abs=1)  # of 384 digits, 4 at most
    assert right_on_chip > 60
    used = {" ".join(line.split()[:2]) for line in operators.splitlines()}
    assert used >= {"back: pooling", "update: filters,", "back: connected,", "convolution 1,"}
    assert (tmp_path / "new" / "training.png").stat().st_size > 10_000
    assert end.splitlines()[-1].endswith(f"wrote {tmp_path / 'new' / 'training.png'}")


@pytest.fixture(scope="module")
def for_real() -> ModuleType:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    return load("06_training_for_real.py")


def test_numpy_of_the_training_equals_the_references(for_real: ModuleType) -> None:
    """Its float32 operators, written for this example, against the library's in float64."""
    assert list(for_real.IN_NUMPY) == list(for_real.OPERATORS)
    for name, kernel in for_real.OPERATORS.items():
        inputs = kernel.make_inputs(seed=1)
        right = kernel.definition.reference(kernel.p, inputs)
        for tensor, value in for_real.IN_NUMPY[name](**inputs).items():
            assert value.dtype == kernel.outputs[tensor].dtype, name
            # sums of up to 4,096 products of values below 1
            np.testing.assert_allclose(value, right[tensor], rtol=1e-5, atol=1e-4, err_msg=name)


def test_steps_of_the_training_start_alike(for_real: ModuleType) -> None:
    """Two steps in numpy by way of the references' operators, in place of the chip."""

    def run(operator: str, **inputs: np.ndarray[Any, Any]) -> Tensors:
        kernel = for_real.OPERATORS[operator]
        outputs = kernel.definition.reference(kernel.p, inputs)
        return {name: value.astype(kernel.outputs[name].dtype) for name, value in outputs.items()}

    images, labels = for_real.scans()
    both = [for_real.Training(run), for_real.Training(lambda o, **i: for_real.IN_NUMPY[o](**i))]
    for training in both:
        training.epoch(images, labels, np.arange(2 * for_real.BATCH))
        training.judge(images[:64], labels[:64])
    assert both[0].losses == pytest.approx(both[1].losses, rel=1e-5)
    assert both[0].losses[1] != both[0].losses[0]
    for name, shape in for_real.SHAPES.items():
        assert both[0].parameters[name].shape == shape
        np.testing.assert_allclose(
            both[0].parameters[name], both[1].parameters[name], atol=1e-6, err_msg=name
        )
