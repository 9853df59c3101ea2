"""What every test may ask for: the engines to run on, and golden text files that people review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"

# A shared host may pause an example for longer than any deadline; pytest's own timeout remains.
settings.register_profile("shared-host", deadline=None)
settings.load_profile("shared-host")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden/ from what the tests produce now; review the difference",
    )


@pytest.fixture(params=["reference"])
def engine(request: pytest.FixtureRequest) -> str:
    """Run the test once on every engine."""
    return str(request.param)


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
