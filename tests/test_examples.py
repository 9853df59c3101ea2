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

import numpy as np
import pytest

from simulator.cli.loading import find_kernel
from simulator.simulate import simulate

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def run(name: str, folder: Path) -> str:
    """Run an example with its output folder below `folder`; return what it printed."""
    more = [] if name.startswith(("01", "03")) else ["--output", str(folder / "new")]
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *more],
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
