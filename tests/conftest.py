"""What every test may ask for: engines, golden text files that people review; and its own cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import micro_programs

GOLDEN = Path(__file__).parent / "golden"

# A shared host may pause an example for longer than any deadline; pytest's own timeout remains.
# The same examples on every run, so that a change is judged by itself alone; look for new ones with
# --hypothesis-profile=explore.
settings.register_profile("same-examples", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("same-examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden/ from what the tests produce now; review the difference",
    )
    parser.addoption(
        "--engines",
        default="reference",
        help="engines to run the tests of kernels on: reference,compiled takes half as long again; "
        "micro-programs always run on both",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    engines = str(metafunc.config.getoption("--engines")).split(",")
    chosen = metafunc.definition.get_closest_marker("on_engines")
    if chosen is not None:
        name, pairs = pairs_with(engines, *chosen.args, **chosen.kwargs)
        metafunc.parametrize(("engine", name), pairs, ids=[f"{e}-{value}" for e, value in pairs])
    elif "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", engines)
    if hasattr(metafunc.module, "Bench"):
        metafunc.parametrize("bench_engine", ["reference", "compiled"], indirect=True)


def pairs_with(
    engines: list[str], name: str, values: Iterable[Any], compiled: Collection[Any]
) -> tuple[str, list[tuple[str, Any]]]:
    """Return the name of a parameter and pairs (engine, value).

    Most of a compiled test is compiling, so the compiled engine runs only those in `compiled`.
    """
    return name, [
        (engine, value)
        for engine in engines
        for value in values
        if engine != "compiled" or value in compiled
    ]


@pytest.fixture(autouse=True)
def bench_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test of micro-programs once on each engine."""
    if getattr(request, "param", "") == "compiled":
        monkeypatch.setattr(micro_programs, "COMPILED", True)


@pytest.fixture(autouse=True, scope="session")
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep machine code in a directory of this session, not in the user's cache.

    The processes of pytest-xdist share it, as processes may: what one compiles the others load.
    """
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "code-cache"
    with pytest.MonkeyPatch.context() as patch:
        directory.mkdir(exist_ok=True)
        patch.setenv("FTM7004_CACHE", str(directory))
        yield directory


@pytest.fixture
def torch() -> Any:
    """Return PyTorch; without it skip the test before anything runs."""
    return pytest.importorskip("torch")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return `golden(name, text)`: text must equal the file tests/golden/<name>.txt."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        produced = text.rstrip("\n") + "\n"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(produced, encoding="utf-8")
        assert path.exists(), f"no {path.name} in {path.parent}: run pytest --update-golden"
        expected = path.read_text(encoding="utf-8")
        assert produced == expected, f"{path.name} differs: fix it, or pytest --update-golden"

    return compare
