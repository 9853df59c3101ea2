"""Every example runs as its docstring says, prints what it promises, and is the kernel it shows."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels.reference import conv2d_forward
from simulator.loading import find_kernel
from simulator.simulate import simulate

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def run(name: str, *arguments: str, folder: Path) -> str:
    """Run an example as a user would, in an empty folder, and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
