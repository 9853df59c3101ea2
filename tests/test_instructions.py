"""What every instruction computes, against numbers that its vocabulary has no part in.

Integers come from Python's, float32 arithmetic from float64 rounded once (53 bits are enough for
one operation on 24), fused multiply-adds from libm, the rest is worked by hand. Semantics run on
`simulator.reference.numpy_values`; sources are read-only, so an instruction that changes one fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from ctypes import CDLL, c_float
from ctypes.util import find_library
from fractions import Fraction
from itertools import product
from typing import Any
from unittest.mock import call, create_autospec

import numpy as np
import pytest

import isa.instructions  # noqa: F401  (fills the registry)
from isa.instruction import REGISTRY
from isa.values import ControlWords
from simulator.reference.numpy_values import NumpyScalar, NumpyVector, quiet_floats

LANES = 16
SCALAR, VECTOR = NumpyScalar(), NumpyVector(LANES)


def run(name: str, words: Any, *sources: Any) -> Any:
    with quiet_floats():
        return REGISTRY[name].semantics(words, *sources)


def lanes(values: Sequence[int]) -> np.ndarray:
    array = np.array([value % 2**32 for value in values], np.uint32)
    array.setflags(write=False)
    return array


def rows(cases: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yield the cases in portions of one vector, the last one filled up with its first case."""
    for start in range(0, len(cases), LANES):
        row = list(cases[start : start + LANES])
        yield row + [row[0]] * (LANES - len(row))


def signed(value: int, width: int) -> int:
    return (value + (1 << width - 1)) % (1 << width) - (1 << width - 1)


# Integers ---------------------------------------------------------------------------------------

Function = Callable[..., int]

INTEGER: dict[str, Callable[[int], Function]] = {
    "ADD": lambda width: lambda a, b: a + b,
    "SUB": lambda width: lambda a, b: b - a,
    "MOV": lambda width: lambda a: a,
    "AND": lambda width: lambda a, b: a & b,
    "OR": lambda width: lambda a, b: a | b,
    "XOR": lambda width: lambda a, b: a ^ b,
    "NOT": lambda width: lambda a: -1 - a,
    "SHFLL": lambda width: lambda count, a: a * 2 ** (count % width),
    "SHFLR": lambda width: lambda count, a: a % 2**width // 2 ** (count % width),
    "SHFAR": lambda width: lambda count, a: a // 2 ** (count % width),
    "MIN": lambda width: min,
    "MAX": lambda width: max,
}
"""Instructions of both units: the width gives a function of signed integers; results wrap."""

SCALAR_INTEGER: dict[str, Function] = {
    **{f"S{name}": function(64) for name, function in INTEGER.items()},
    "SMULIS": lambda a, b: a * b,
    "SMULIU": lambda a, b: (a % 2**32) * (b % 2**32),
    "SNEG": lambda a: -a,
    "SLT": lambda a, b: int(a < b),
    "SLTU": lambda a, b: int(a % 2**64 < b % 2**64),
    "SEQ": lambda a, b: int(a == b),
    "SADDA": lambda a, b: a + b,
    "SSUBA": lambda a, b: b - a,
    "SMVAGA": lambda a: a,
    "SMVAAG": lambda a: a,
    "SMVCGC": lambda a: signed(a, 32),
    "SMVCGC_VLR": lambda a: a,
}

VECTOR_INTEGER: dict[str, Function] = {
    **{f"V{name}": function(32) for name, function in INTEGER.items()},
    "VMULIS32": lambda a, b: a * b,
    "VSLT": lambda a, b: int(a < b),
    "VSLTU": lambda a, b: int(a % 2**32 < b % 2**32),
    "VSEQ": lambda a, b: int(a == b),
    "VSEL": lambda condition, a, b: a if condition else b,
    "VMVCGC": lambda a: a,
    "VMVCCG": lambda a: a,
}

EDGES_32 = (0, 1, 2, 5, 31, 33, -1, -7, 2**31 - 1, -(2**31), 0x12345678)
EDGES_64 = (*EDGES_32, 63, 65, 2**32 - 1, -(2**32), 0x4_8000_0001, 2**63 - 1, -(2**63))


def operand_sets(function: Function, edges: Sequence[int]) -> list[tuple[int, ...]]:
    arity = 2 if function in (min, max) else function.__code__.co_argcount
    return list(product(edges, repeat=arity))


@pytest.mark.parametrize("name", SCALAR_INTEGER)
def test_scalar_integers(name: str) -> None:
    function = SCALAR_INTEGER[name]
    for sources in operand_sets(function, EDGES_64):
        expected = signed(function(*sources), 64)
        assert run(name, SCALAR, *sources) == expected, sources


@pytest.mark.parametrize("name", VECTOR_INTEGER)
def test_vector_integers(name: str) -> None:
    function = VECTOR_INTEGER[name]
    for row in rows(operand_sets(function, EDGES_32)):
        result = run(name, VECTOR, *(lanes(column) for column in zip(*row, strict=True)))
        assert result.dtype == np.uint32
        expected = lanes([function(*sources) for sources in row])
        np.testing.assert_array_equal(result, expected, str(row))


BY_HAND: list[tuple[str, tuple[int, ...], int]] = [
    ("SSUB", (3, 10), 7),
    ("SADD", (2**63 - 1, 1), -(2**63)),
    ("SMULIU", (-1, -1), 1 - 2**33),  # (2^32 - 1)^2 = 2^64 - 2^33 + 1
    ("SSHFLR", (60, -1), 15),
    ("SSHFAR", (2, -16), -4),
    ("SSHFLL", (65, 3), 6),  # 65 modulo 64 is 1
    ("SLT", (0, 5), 1),
    ("SLTU", (0, -1), 1),
    ("SSUBA", (16, 0x4000_0040), 0x4000_0030),
    ("SMVAGA", (0xF_FFFF_FFFC,), 0xF_FFFF_FFFC),  # 36-bit addresses pass
    ("SMOVI", (-5,), -5),
    ("SMOVIH", (8, 0x0000_0001_8000_0000), 0x0000_0008_8000_0000),
    ("SMOVIH", (-1, 5), -0xFFFF_FFFB),  # 0xFFFFFFFF_00000005
    ("SMVCCG", (-3,), -3),
    ("SMVCGC", (0x1_8000_0000,), -(2**31)),
]


@pytest.mark.parametrize(("name", "sources", "expected"), BY_HAND)
def test_scalars_by_hand(name: str, sources: tuple[int, ...], expected: int) -> None:
    assert run(name, SCALAR, *sources) == expected


# float32 ----------------------------------------------------------------------------------------

libm = CDLL(find_library("m"))
libm.fmaf.argtypes, libm.fmaf.restype = [c_float] * 3, c_float

FLOAT: dict[str, Callable[..., Any]] = {
    "FADDS32": lambda a, b: a + b,
    "FSUBS32": lambda a, b: a - b,
    "FMULS32": lambda a, b: a * b,
    "FMULAS32": lambda a, b, acc: libm.fmaf(a, b, acc),
    "FMULBS32": lambda a, b, acc: libm.fmaf(a, b, -acc),
    "FMAXS32": lambda a, b: a if a > b else b,
    "FMINS32": lambda a, b: a if a < b else b,
}
"""Scalar and vector instructions that return float32: a function of float64 that rounds last."""

COMPARE: dict[str, Callable[..., Any]] = {
    "FCMPGS32": lambda a, b: a > b,
    "FCMPGES32": lambda a, b: a >= b,
    "FCMPES32": lambda a, b: a == b,
    "FCMPLS32": lambda a, b: a < b,
}

FLOAT_EDGES = [
    *(0.0, -0.0, 1.0, -1.0, 1.5, -2.75, 0.1, 3e-39, 1e30, -7e37),
    *(2.0**-149, -(2.0**-126), 2.0**-126 - 2.0**-149, 1 + 2.0**-23, 1 - 2.0**-24),
    *(2.0**24 + 2, (2 - 2.0**-23) * 2.0**127, math.inf, -math.inf, math.nan),
]
"""Both zeros, subnormals, neighbours of 1, the largest number; all exact in float32 but 4."""

HIGH_WORD = 0x5A5A5A5A  # stands above a float32 in a scalar register, and must not matter


def word(number: float | np.floating[Any]) -> int:
    """Return the bits of a number rounded to float32, from 0 to 2**32 - 1."""
    with quiet_floats():
        return int(np.float32(number).view(np.uint32))


def number(bits: int) -> np.float64:
    """Return the value of float32 bits, exact in float64."""
    return np.float64(np.array([bits % 2**32], np.uint32).view(np.float32)[0])


def same_float(result: int, expected: int) -> bool:
    """Tell whether two words are the same bits, or both a NaN."""
    return result == expected or bool(np.isnan(number(result)) and np.isnan(number(expected)))


def triples() -> list[tuple[int, ...]]:
    """Return edge values in all combinations, and sums that cancel all but the product's tail."""
    random = np.random.default_rng(7).standard_normal((200, 2)).astype(np.float32)
    cancelling = [(word(a), word(b), word(-float(a) * float(b))) for a, b in random]
    return [*product(map(word, FLOAT_EDGES), repeat=3), *cancelling]


def check_both_units(name: str, cases: Sequence[tuple[int, ...]], expected: list[int]) -> None:
    """Check S... and V... on sources and results given as words from 0 to 2**32 - 1."""
    for sources, wanted in zip(cases, expected, strict=True):
        registers = (signed(HIGH_WORD << 32 | source, 64) for source in sources)
        result = run(f"S{name}", SCALAR, *registers)
        assert same_float(result % 2**32, wanted), [hex(source) for source in sources]
        assert result == signed(result, 32), "a scalar float32 is sign-extended"
    for row, wants in zip(rows(cases), rows([(want,) for want in expected]), strict=True):
        result = run(f"V{name}", VECTOR, *(lanes(column) for column in zip(*row, strict=True)))
        assert result.dtype == np.uint32
        for lane, (want,) in enumerate(wants):
            assert same_float(int(result[lane]), want), [hex(source) for source in row[lane]]


@pytest.mark.parametrize("name", [*FLOAT, *COMPARE])
def test_float_arithmetic_and_comparisons(name: str) -> None:
    multiply_add = name in ("FMULAS32", "FMULBS32")
    cases = triples() if multiply_add else list(product(map(word, FLOAT_EDGES), repeat=2))
    with quiet_floats():
        if name in FLOAT:
            expected = [word(FLOAT[name](*map(number, sources))) for sources in cases]
        else:
            expected = [int(COMPARE[name](*map(number, sources))) for sources in cases]
    check_both_units(name, cases, expected)


def test_one_rounding_by_hand() -> None:
    """(1 + 2^-12)^2 - (1 + 2^-11) is 2^-24; a rounded product would leave 0."""
    a, acc, minus = word(1 + 2.0**-12), word(1 + 2.0**-11), word(-1 - 2.0**-11)
    check_both_units("FMULAS32", [(a, a, minus)], [word(2.0**-24)])
    check_both_units("FMULBS32", [(a, a, acc)], [word(2.0**-24)])


def test_reciprocal() -> None:
    """The rounded quotient loses its low 15 mantissa bits; 1 / 3 is 0x3EAAAAAB."""
    samples = [*FLOAT_EDGES, 3.0, -7.0, 1e20, *np.random.default_rng(5).uniform(-9, 9, 50)]
    cases = [(word(value),) for value in samples]
    with quiet_floats():
        quotients = [word(np.float64(1) / number(a)) for (a,) in cases]
    check_both_units("FRCPS32", cases, [quotient - quotient % 2**15 for quotient in quotients])
    assert run("SFRCPS32", SCALAR, word(3.0)) == 0x3EAA8000


def test_reciprocal_is_as_exact_as_it_says() -> None:
    for value in np.random.default_rng(6).uniform(1, 2, 300).astype(np.float32):
        result = number(run("SFRCPS32", SCALAR, word(value)))
        assert abs(Fraction(float(result)) * Fraction(float(value)) - 1) < Fraction(1, 2**8)


def test_integers_to_float() -> None:
    integers = [*EDGES_32, 2**24 + 1, 2**24 + 3, 2**31 - 64, -(2**31) + 1]  # ties to even among
    check_both_units("FINTS32", [(i % 2**32,) for i in integers], [word(i) for i in integers])
    assert number(run("SFINTS32", SCALAR, 2**24 + 1)) == 2**24
    assert number(run("SFINTS32", SCALAR, 2**24 + 3)) == 2**24 + 4


def test_float_to_integers() -> None:
    high, low = 2**31 - 1, -(2**31)
    cases = [
        *((0.0, 0), (-0.0, 0), (0.99, 0), (-0.99, 0), (1.5, 1), (-1.5, -1), (2.0**-149, 0)),
        *((2.0**31 - 128, 2**31 - 128), (2.0**31, high), (1e30, high), (math.inf, high)),
        *((-(2.0**31), low), (-(2.0**31) - 256, low), (-math.inf, low), (math.nan, 0)),
    ]
    check_both_units("FSTRU32", [(word(x),) for x, _ in cases], [i % 2**32 for _, i in cases])


# Lanes ------------------------------------------------------------------------------------------

COUNTING = list(range(100, 100 + LANES))

VECTOR_BY_HAND: list[tuple[str, tuple[Any, ...], list[int]]] = [
    ("VMOVI", (-2,), [-2] * LANES),
    ("VLANE", (), list(range(LANES))),
    ("VSHUFW", (lanes(COUNTING), lanes(range(15, -1, -1))), COUNTING[::-1]),
    # the index counts modulo 16: -1 is lane 15, 19 is lane 3
    ("VSHUFW", (lanes(COUNTING), lanes([-1, 19] * 8)), [115, 103] * 8),
    ("SVBCAST", (0x5A5A5A5A_80000001,), [0x80000001] * LANES),
]


@pytest.mark.parametrize(("name", "sources", "expected"), VECTOR_BY_HAND)
def test_lanes_by_hand(name: str, sources: tuple[Any, ...], expected: list[int]) -> None:
    np.testing.assert_array_equal(run(name, VECTOR, *sources), lanes(expected))


REDUCTION: list[tuple[str, list[float], float]] = [
    # halves: (1e8 - 1e8) + (1 + 1); neighbours first would give 0, one after the other 1
    ("VFSUMS32", [1e8, 1, -1e8, 1], 2),
    ("VFSUMS32", [0.5, 1, 2, 4, 8, 16, 32, 64], 127.5),
    ("VFRMAXS32", [3, -1, 7, 2], 7),
    ("VFRMAXS32", [-9, -8, -7, -6, -5, -4, -3.5, -20], -3.5),
    # lane 0 takes lane 2, lane 1 takes lane 3 (no zero is greater), then lane 0 takes lane 1
    ("VFRMAXS32", [-0.0, 0.0, 0.0, -0.0], -0.0),
    # a NaN loses to what comes later and wins as the upper of two
    ("VFRMAXS32", [math.nan, 1, 2, 3], 3),
    ("VFRMAXS32", [1, 2, 3, math.nan], math.nan),
]


@pytest.mark.parametrize(("name", "values", "expected"), REDUCTION)
def test_reductions_by_hand(name: str, values: list[float], expected: float) -> None:
    result = run(name, NumpyVector(len(values)), lanes([word(value) for value in values]))
    assert all(same_float(int(lane), word(expected)) for lane in result)


def test_the_order_of_a_sum_is_a_tree_of_halves() -> None:
    def tree(values: list[np.float32]) -> np.float32:
        half = len(values) // 2
        pairs = zip(values[:half], values[half:], strict=True)
        return tree([a + b for a, b in pairs]) if half else values[0]

    for seed in range(20):
        values = list(np.random.default_rng(seed).standard_normal(LANES).astype(np.float32))
        result = run("VFSUMS32", VECTOR, lanes([word(value) for value in values]))
        np.testing.assert_array_equal(result, lanes([word(tree(values))] * LANES))


# Memory -----------------------------------------------------------------------------------------


class Words:
    """A piece of memory as a memory operand, with the words from the address on."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def load_word(self, index: int) -> int:
        return self.words[index]

    def store_word(self, index: int, value: int) -> None:
        self.words[index] = value

    def load_lanes(self, index: int, step: int) -> np.ndarray:
        return lanes(self.words[index::step][:LANES])

    def store_lanes(self, index: int, step: int, value: np.ndarray) -> None:
        for lane, word in enumerate(value):
            self.words[index + step * lane] = int(word)


def test_scalar_memory() -> None:
    memory = Words(0x8000_0000, 0x7FFF_FFFF, 99)
    assert run("SLDW", SCALAR, memory) == -(2**31)
    assert run("SLDDW", SCALAR, memory) == (-(2**31), 2**31 - 1)
    run("SSTW", SCALAR, 0x1234_8000_0001, memory)
    assert memory.words == [0x8000_0001, 0x7FFF_FFFF, 99]
    run("SSTDW", SCALAR, (-1, 5), memory)
    assert memory.words == [0xFFFF_FFFF, 5, 99]


def test_vector_memory() -> None:
    memory = Words(*range(200, 234))
    np.testing.assert_array_equal(run("VLDW", VECTOR, memory), range(200, 216))
    even, odd = run("VLDDW", VECTOR, memory)
    np.testing.assert_array_equal(even, range(200, 232, 2))
    np.testing.assert_array_equal(odd, range(201, 233, 2))
    run("VSTDW", VECTOR, (lanes(range(0, 32, 2)), lanes(range(1, 33, 2))), memory)
    assert memory.words == [*range(32), 232, 233]
    run("VSTW", VECTOR, lanes(range(500, 516)), memory)
    assert memory.words == [*range(500, 516), *range(16, 32), 232, 233]


# Control ----------------------------------------------------------------------------------------


CONTROL: list[tuple[str, tuple[int, ...], Any]] = [
    ("SBR", (17,), call.branch(17)),
    ("SNOP", (6,), call.idle(6)),
    ("DMASTART", (0x4010_0040, 5), call.dma_start(0x4010_0040, 5)),
    ("DMAWAIT", (5,), call.dma_wait(5)),
    ("BARRIER", (), call.barrier()),
    ("SCOREID", (), call.core_id()),
    ("HALT", (), call.halt()),
]


@pytest.mark.parametrize(("name", "sources", "expected"), CONTROL)
def test_control(name: str, sources: tuple[int, ...], expected: Any) -> None:
    """A recorder in the place of the core notes the one thing it is asked."""
    core = create_autospec(ControlWords, instance=True)
    core.core_id.return_value = 3
    assert run(name, core, *sources) == (3 if name == "SCOREID" else None)
    assert core.mock_calls == [expected]


def test_every_instruction_is_tested_here() -> None:
    both_units = {*FLOAT, *COMPARE, "FRCPS32", "FINTS32", "FSTRU32"}
    tested = {"SLDW", "SLDDW", "SSTW", "SSTDW", "VLDW", "VLDDW", "VSTW", "VSTDW"}
    tested |= {*SCALAR_INTEGER, *VECTOR_INTEGER}
    tested |= {unit + name for unit in "SV" for name in both_units}
    tested |= {case[0] for case in [*BY_HAND, *VECTOR_BY_HAND, *REDUCTION, *CONTROL]}
    assert tested == set(REGISTRY)
