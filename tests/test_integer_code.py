"""Plain Python over integers as machine code: the same numbers, word for word, as Python's own."""

from __future__ import annotations

import ctypes
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.descriptor import Plane, TransferRequest
from isa.machine import Machine
from simulator.chip_record import (
    CORE_CHANNEL,
    CORE_CYCLE,
    CORE_STATUS,
    FROM_MEMORY,
    MEMORIES,
    NEVER,
    TO_MEMORY,
    WORDS,
    Record,
    core_address,
    entry_address,
    new_record,
)  # fmt: skip
from simulator.compiled import ir
from simulator.compiled.copying import copy, mark_unknown
from simulator.compiled.integer_code import IntegerCode
from simulator.compiled.integer_expressions import NotTranslatable
from simulator.compiled.native import from_object, to_object
from simulator.compiled.primitives import Words
from simulator.dma import CheckedTransfer
from simulator.memory import Memory
from simulator.release import arrive, completion, unblock
from simulator.requests import LEGAL, prepare, traffic
from simulator.sharing import advance
from simulator.starts import launch, start

LIBRARIES: list[Any] = []
"""Machine code goes away with its library."""


def native(*functions: Any) -> list[Any]:
    """Return functions as machine code; sequences are given as numpy arrays."""
    module = ir.Module()
    code = IntegerCode(module)
    for function in functions:
        code.add(function, exported=True)
    LIBRARIES.append(library := from_object(to_object(module)))
    return [_callable(function, library.address(function.__name__)) for function in functions]


def _callable(function: Any, address: int) -> Any:
    kinds = [function.__annotations__[name] for name in inspect.signature(function).parameters]
    types = [ctypes.c_int64 if kind == "int" else ctypes.c_void_p for kind in kinds]
    result = None if function.__annotations__["return"] == "None" else ctypes.c_int64
    called = ctypes.CFUNCTYPE(result, *types)(address)
    return lambda *values: called(*[v if isinstance(v, int) else v.ctypes.data for v in values])


# The language -----------------------------------------------------------------------------------

SEVEN = 7


def arithmetic(record: Record, a: int, b: int) -> int:
    record[0] = a + b
    record[1] = a - b
    record[2] = a * b
    record[3] = a // b
    record[4] = a % b
    record[5] = (a & b) ^ (a | SEVEN)
    record[6] = a >> 3
    record[7] = (a << 5) + -b
    record[8] = ~a
    record[9] = min(a, b, SEVEN) + max(a, b)
    record[10] = abs(a)
    record[0] += 3
    record[1] //= 2
    return record[0]


def choices(record: Record, a: int, b: int) -> int:
    small = a < b and (b < 100 or a > -100)
    record[0] = small
    record[1] = not small
    record[2] = 0 <= a <= b
    if a == b:
        return 1
    if a % 2 and not b % 2:
        record[3] = 5
    else:
        record[3] = 6 if a != 3 else 8
    if b < 0:
        record[4] = 9
    # the second part would be outside the sequence
    if abs(a) > 11 or record[abs(a)] == 0:
        return 2
    return 3


def turns(record: Record, a: int, b: int) -> int:
    found = 0
    for n in range(a % 9):
        if n == 2:
            continue
        record[n] = found
        for m in range(n, b % 20, 1 + n % 3):
            found += m * n
            if found > 300:
                break
        n = 50  # a range does not care
    while found % 5 != 0:
        found += helper(record, n_of(found))
    return found


def n_of(found: int) -> int:
    return found % 3


def helper(record: Record, n: int) -> int:
    record[10] += n
    leave(record, n)
    return 1


def leave(record: Record, n: int) -> None:
    if n == 1:
        return
    record[11] -= 1


numbers = st.integers(-(2**30), 2**30) | st.integers(-20, 20)


@pytest.fixture(scope="module")
def language() -> list[Any]:
    return native(arithmetic, choices, turns)


@given(numbers, numbers)
def test_numbers_and_choices(language: list[Any], a: int, b: int) -> None:
    for function, compiled in zip((arithmetic, choices, turns), language, strict=True):
        if function is arithmetic and b == 0:
            continue
        expected, found = [0] * 12, np.zeros(12, np.int64)
        assert compiled(found, a, b) == function(expected, a, b)
        assert found.tolist() == [int(word) for word in expected]


def test_a_division_rounds_down(language: list[Any]) -> None:
    record = np.zeros(12, np.int64)
    for a, b, quotient, rest in ((7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1)):
        language[0](record, a, b)
        assert record[3:5].tolist() == [quotient, rest]


def words_in_and_out(words: Words, at: int) -> int:
    words[at] = words[at + 1] + 2
    return words[at]


def test_words_are_unsigned_and_wrap() -> None:
    (compiled,) = native(words_in_and_out)
    words = np.array([0, 0xFFFFFFFE, 0xFFFFFFFF], np.uint32)
    assert [compiled(words, 0), compiled(words, 1)] == [0, 1]


def with_float(a: int) -> int:
    return a + 0.5  # here


def with_list(a: int) -> int:
    return len([a])  # here


def with_number_of_chain(a: int) -> int:
    return a and 5  # here


def without_value(a: int) -> int:  # noqa: RET503
    if a > 0:
        return 1


def with_strange_argument(a: str) -> int:
    return 1


def with_comparison_of_kinds(a: Record) -> int:
    return a + 1  # here


def with_other_loop(a: Record) -> int:
    for n in a:  # here
        return n
    return 0


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (with_float, "'0.5' is no integer"),
        (with_list, "'[a]' has no translation"),
        (with_number_of_chain, "'a' is no condition, but its chain is used as a number"),
        (without_value, "may end without a value"),
        (with_strange_argument, "'a' is annotated str; give one of int, Record, Words, Flags"),
        (with_comparison_of_kinds, "'a' is Record, not an integer"),
        (with_other_loop, "goes over something else than a range"),
    ],
)
def test_what_is_no_integer_code_is_refused(function: Any, problem: str) -> None:
    with pytest.raises(NotTranslatable) as caught:
        native(function)
    assert problem in str(caught.value)
    assert function.__name__ in str(caught.value)
    lines, first = inspect.getsourcelines(function)
    for number, line in enumerate(lines):
        if line.rstrip().endswith("# here"):
            assert f"test_integer_code.py:{first + number}: " in str(caught.value)


# The event code ---------------------------------------------------------------------------------

CHIP = Machine.load(
    "ft-m7004",
    ["ddr.bytes_per_cycle=9.3", "ddr.efficiency=1.0", "dma.bytes_per_cycle=6.0",
     "dma.launch_cycles=7", "barrier.cycles=20", "dma.channels=4"],
)  # fmt: skip
CORES = 3
DDR_BYTES = 1 << 20
EXTENTS = [(0x40000000, 0x40000000 + 4096), (0x40100000, 0x40100000 + 2048), (0, DDR_BYTES)]
EXTENTS[2] = (0x800000000, 0x800000000 + DDR_BYTES)


@pytest.fixture(scope="module")
def events() -> dict[Any, Any]:
    functions = (start, completion, arrive, advance, unblock, prepare, launch, traffic)
    return dict(zip(functions, native(*functions), strict=True))


class Both:
    """One chip's record twice: a list for Python, an array for machine code."""

    def __init__(self, compiled: dict[Any, Any]) -> None:
        self.compiled = compiled
        self.record = new_record(CHIP, CORES, EXTENTS)
        self.array = np.array(self.record, np.int64)
        self.log, self.log_array = [0] * 40_000, np.zeros(40_000, np.int64)

    def __call__(self, function: Any, *values: int) -> int:
        """Call a function on both; everything must be equal afterwards."""
        logs = ([self.log], [self.log_array]) if function is unblock else ([], [])
        expected = function(self.record, *logs[0], *values)
        found = self.compiled[function](self.array, *logs[1], *values)
        assert found == expected
        assert self.array.tolist() == self.record
        assert self.log_array.tolist() == self.log
        return int(found or 0)

    def set(self, address: int, value: int) -> None:
        self.record[address] = self.array[address] = value


steps = st.tuples(
    st.sampled_from(["start", "start", "start", "wait", "arrive", "release"]),
    st.integers(0, CORES - 1),
    st.integers(0, 3),  # channel
    st.integers(0, 60),  # cycles later than the clock
    st.integers(1, 7),  # mask
    st.integers(1, 900),  # bytes
    st.sampled_from([0, 0, 50_000, 300_000]),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=40))
def test_events_are_the_same_word_for_word(events: dict[Any, Any], program: list[Any]) -> None:
    chip = Both(events)
    clock = 0
    for kind, core, channel, later, mask, size, cap in program:
        at = core_address(chip.record, core)
        clock = max(clock, chip.record[20]) + later
        if kind == "start":
            chip(start, core, channel, clock, mask, size, cap)
        elif kind == "wait":
            chip.set(at + CORE_STATUS, 1)
            chip.set(at + CORE_CHANNEL, channel)
            chip.set(at + CORE_CYCLE, clock)
        elif kind == "arrive":
            chip.set(at + CORE_STATUS, 2)
            chip.set(at + CORE_CYCLE, clock)
            chip(arrive, core, clock)
        else:
            chip(unblock)
    while chip(advance, NEVER) >= 0:
        pass


wild = st.sampled_from([0, 1, 2, 3, 4, 0x40000000, 0x40100000, 0xFFFFFFFF, 0xFFFFFFFC, 1 << 31])
wilder = wild | st.integers(0, 2**32 - 1) | st.integers(0, 64).map(lambda n: 4 * n)


@settings(max_examples=300)
@given(st.integers(0, 2), st.lists(wilder, min_size=12, max_size=12))
def test_wild_descriptors_are_judged_alike(
    events: dict[Any, Any], core: int, words: list[int]
) -> None:
    chip = Both(events)
    entry = entry_address(chip.record, core, 0)
    chip.record[entry + WORDS : entry + WORDS + 12] = words
    chip.array[:] = chip.record
    # Python's integers do not wrap round: what they refuse must be refused in 64 bits as well
    assert events[prepare](chip.array, core, entry) == prepare(chip.record, core, entry)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
gaps = st.integers(0, 9)
AREA = 8192


@st.composite
def requests(draw: Any) -> TransferRequest:
    """Return a legal transfer between two memories, in rows of any shape on both sides."""
    rows, row = draw(sizes)
    transposed = draw(st.booleans())
    other = (row, rows) if transposed else (rows, row)
    if not transposed and draw(st.booleans()):
        cut = draw(st.sampled_from([n for n in range(1, rows * row + 1) if rows * row % n == 0]))
        other = (cut, rows * row // cut)
    planes = []
    for base, (count, words) in ((EXTENTS[2][0], (rows, row)), (EXTENTS[0][0], other)):
        step = words + draw(gaps)
        down = draw(st.booleans()) and count > 1
        first = 4 * draw(gaps) + (4 * step * (count - 1) if down else 0)
        planes.append(Plane(base + first, count, words, -4 * step if down else 4 * step))
    source, target = planes if draw(st.booleans()) or transposed else (planes[0], planes[1])
    return TransferRequest(source, target, transposed)


@pytest.fixture(scope="module")
def copying() -> list[Any]:
    return native(copy, mark_unknown)


@settings(max_examples=150)
@given(requests())
def test_copies_move_what_numpy_moves(
    events: dict[Any, Any], copying: list[Any], request: TransferRequest
) -> None:
    chip = Both(events)
    chip.record[MEMORIES + 1] = EXTENTS[0][0] + 4 * AREA  # room for every shape
    entry = entry_address(chip.record, 0, 0)
    chip.record[entry + WORDS : entry + WORDS + 12] = request.words()
    chip.array[:] = chip.record
    assert chip(prepare, 0, entry) == LEGAL
    assert (chip.record[entry + FROM_MEMORY], chip.record[entry + TO_MEMORY]) == (2, 0)
    source = np.arange(AREA, dtype=np.uint32) + 0x80000000
    expected, by_code, by_python = (np.zeros(AREA, np.uint32) for _ in range(3))
    memories = Memory("DDR", EXTENTS[2][0], source), Memory("AM", EXTENTS[0][0], expected)
    CheckedTransfer(request, *memories).copy()
    copying[0](chip.array, entry, source, by_code)
    copy(chip.record, entry, source, by_python)
    np.testing.assert_array_equal(by_code, expected)
    np.testing.assert_array_equal(by_python, expected)
    unknown, marked = np.zeros(AREA, np.uint8), np.zeros(AREA, np.uint8)
    copying[1](chip.array, entry, unknown)
    mark_unknown(chip.record, entry, marked)
    np.testing.assert_array_equal(unknown, (expected != 0).astype(np.uint8))
    np.testing.assert_array_equal(marked, unknown)
