"""The race rule, in programs that break it and their repairs, and against a slow plain one.

Each `@rule(words)` kernel fails, when `broken`, with all the words in the message, else passes.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import Builder
from isa.descriptor import Plane, TransferRequest
from isa.operands import Register
from isa.program import Buffer, Origin, Program
from isa.transfers import Descriptor
from simulator.dma import CheckedTransfer
from simulator.footprint import Footprint
from simulator.memory import Memory
from simulator.races import Races, Started
from simulator.shadow import MemoryShadow
from tests.checked_run import ONES, VECTOR, WORDS, Body, X, filled, refusal, row, run, start
from tests.checked_run import rule as add_rule

RULES: list[Any] = []
rule = partial(add_rule, RULES)


def wait_if(k: Builder, condition: bool, channel: int) -> None:
    if condition:
        k.wait(channel)


# One core: transfers against loads and stores ----------------------------------------------------


@rule("race: ", "VLDW", "reads AM at 'tile' + 64 bytes (0x40000040) while core 0's transfer on "
      "channel 3 ('x' to 'tile', started by packet ", "checked_run.py:", "writes it; wait for channel 3 first")  # fmt: skip
def load_of_a_destination(k: Builder, broken: bool = False) -> None:
    tile, pointer = filled(k, words=32)
    start(k, row(k.input("x"), 16), row(tile, 16, first=16), 3)
    wait_if(k, not broken, 3)
    k.vldw(pointer + 16)
    wait_if(k, broken, 3)
