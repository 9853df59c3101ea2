"""House rules that no linter knows: who imports whom, file length, docstrings, file names."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("isa", "kernels", "simulator", "tests", "examples", "benchmarks")
MAY_IMPORT = {"isa": {"isa"}, "kernels": {"kernels", "isa"}, "simulator": {"simulator", "isa"}}
# The command line finds kernels by name, with importlib; nobody else looks past the imports.
MAY_LOOK_UP = {**MAY_IMPORT, "simulator": {"simulator", "isa", "kernels"}}
LONGEST_FILE = 400
VAGUE_WORDS = {"utils", "util", "helpers", "helper", "misc", "common"}

MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE_MODULES = [path for path in MODULES if path.relative_to(ROOT).parts[0] in MAY_IMPORT]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of import statements; relative ones cannot leave their package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def looked_up(tree: ast.AST) -> Iterator[str]:
    """Yield the names that are given as text to import_module or __import__."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in ("import_module", "__import__"):
            texts = (part for argument in node.args for part in ast.walk(argument))
            yield from (
                text.value
                for text in texts
                if isinstance(text, ast.Constant) and isinstance(text.value, str)
            )


def wrong_directions(package: str, source: str) -> list[str]:
    """Return the modules of ours that a file of the package must not reach, but does."""
    tree = ast.parse(source)
    reached = [(target, MAY_IMPORT) for target in imported(tree)]
    reached += [(target, MAY_LOOK_UP) for target in looked_up(tree)]
    return [
        target
        for target, allowed in reached
        if target.split(".")[0] in set(FOLDERS) - allowed[package]
    ]


@pytest.mark.parametrize(
    ("package", "source", "wrong"),
    [
        ("isa", "import isa.errors\nimport numpy", []),
        ("isa", "from kernels.layers import layer", ["kernels.layers"]),
        ("isa", "def f():\n    import simulator", ["simulator"]),
        ("isa", "importlib.import_module('kernels')", ["kernels"]),
        ("kernels", "from isa.errors import UsageError\nfrom . import layers", []),
        ("kernels", "from simulator import simulate", ["simulator"]),
        ("simulator", "import kernels", ["kernels"]),
        ("simulator", "import_module(f'kernels.{name}')", []),
        ("simulator", "import_module('tests.conftest')", ["tests.conftest"]),
    ],
)
def test_the_direction_check_sees(package: str, source: str, wrong: list[str]) -> None:
    assert wrong_directions(package, source) == wrong


@pytest.mark.parametrize("path", PACKAGE_MODULES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert wrong_directions(package, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{name(path)} has {lines} lines: divide it by what it is about"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_is_named_for_what_it_holds(path: Path) -> None:
    words = {
        word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")
    }
    assert not words & VAGUE_WORDS


def test_every_package_is_installed() -> None:
    """An editable installation finds a package that is not listed, any other one does not."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        listed = tomllib.load(stream)["tool"]["setuptools"]["packages"]
    there = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for folder in ("isa", "kernels", "simulator")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == there


def test_every_package_was_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in PACKAGE_MODULES} == set(MAY_IMPORT)
