"""The numpy vocabulary against Python ints, exact fractions and the C library's fmaf."""

from __future__ import annotations

import ctypes
import ctypes.util
import operator
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.reference.numpy_values import NumpyScalar, NumpyVector, quiet_floats

LANES = 16
SCALAR, VECTOR = NumpyScalar(), NumpyVector(LANES)

ZERO, MINUS_ZERO, ONE, TWO = 0x00000000, 0x80000000, 0x3F800000, 0x40000000
INFINITY, MINUS_INFINITY, NAN, MINUS_NAN = 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345
LARGEST, SMALLEST_NORMAL, LARGEST_SUBNORMAL, SMALLEST = 0x7F7FFFFF, 0x00800000, 0x007FFFFF, 1
CORNERS = [
    ZERO, MINUS_ZERO, ONE, ONE | MINUS_ZERO, TWO, INFINITY, MINUS_INFINITY, NAN, MINUS_NAN,
    LARGEST, LARGEST | MINUS_ZERO, SMALLEST_NORMAL, LARGEST_SUBNORMAL, SMALLEST,
    SMALLEST | MINUS_ZERO, 0x3F800001, 0x3F7FFFFF, 0x4B800000,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_floats():
        yield


# Independent arithmetic ---------------------------------------------------------------------------


def wrap(value: int, width: int) -> int:
    """Return the low bits of an int as a signed number, by long division."""
    value %= 2**width
    return value - 2**width if value >= 2 ** (width - 1) else value


def fraction(pattern: int) -> Fraction:
    """Return the exact value of a finite float32 pattern."""
    exponent, significand = pattern >> 23 & 0xFF, pattern & 0x7FFFFF
    sign = -1 if pattern >> 31 else 1
    if exponent == 0:
        return sign * significand * Fraction(2) ** -149
    return sign * (significand + 2**23) * Fraction(2) ** (exponent - 150)


def nearest(value: Fraction) -> int:
    """Return the float32 pattern nearest to a number, ties to even; zero is positive."""
    sign, size = (1 << 31 if value < 0 else 0), abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, -126) if value else -126
    steps = round(size / Fraction(2) ** (exponent - 23))  # round() takes ties to even
    return sign | min(((exponent + 126) << 23) + steps, INFINITY)


def is_finite(pattern: int) -> bool:
    return pattern & INFINITY != INFINITY


def canonical(patterns: object) -> list[int]:
    """Return float32 patterns as ints, every NaN as the same one."""
    flat = np.asarray(patterns, np.uint32).reshape(-1).tolist()
    return [NAN if pattern & 0x7FFFFFFF > INFINITY else pattern for pattern in flat]


def lanes(*patterns: int) -> np.ndarray:
    """Return a vector that repeats the numbers to its last lane."""
    return np.array([patterns[i % len(patterns)] & 0xFFFFFFFF for i in range(LANES)], np.uint32)


def both(word: str, *operands: int) -> int:
    """Return the 32 bits a word makes, having seen that vector and scalar agree."""
    from_vector = int(getattr(VECTOR, word)(*(lanes(o) for o in operands))[0])
    # The upper half of a register must not matter to float32.
    from_scalar = getattr(SCALAR, word)(*(wrap(o | 0x5A5A5A5A << 32, 64) for o in operands))
    assert -(2**31) <= from_scalar < 2**31
    assert canonical(from_scalar % 2**32) == canonical(from_vector)
    return from_vector


# Integers -----------------------------------------------------------------------------------------

INTEGER_WORDS = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
    "bit_and": operator.and_, "bit_or": operator.or_, "bit_xor": operator.xor,
    "less": operator.lt, "equal": operator.eq,
}  # fmt: skip
REGISTERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 1, -1, 2**31, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)]
)
PATTERNS = st.integers(0, 2**32 - 1) | st.sampled_from(CORNERS)


@pytest.mark.parametrize("word", INTEGER_WORDS)
@given(a=REGISTERS, b=REGISTERS)
@example(a=2**63 - 1, b=1)
@example(a=-(2**63), b=-(2**63))
@example(a=7, b=7)
def test_integer_words(word: str, a: int, b: int) -> None:
    exact = INTEGER_WORDS[word]
    assert getattr(SCALAR, word)(a, b) == wrap(int(exact(a, b)), 64)
    low_a, low_b = wrap(a, 32), wrap(b, 32)
    result = getattr(VECTOR, word)(lanes(low_a), lanes(low_b))
    assert result.tolist() == [int(exact(low_a, low_b)) % 2**32] * LANES


@given(a=REGISTERS, b=REGISTERS)
@example(a=-1, b=1)
def test_unsigned_comparison_and_not(a: int, b: int) -> None:
    assert SCALAR.less_unsigned(a, b) == int(a % 2**64 < b % 2**64)
    assert VECTOR.less_unsigned(lanes(a), lanes(b)).tolist() == [a % 2**32 < b % 2**32] * LANES
    assert SCALAR.bit_not(a) == -a - 1
    assert VECTOR.bit_not(lanes(a)).tolist() == [(-a - 1) % 2**32] * LANES


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 65, -1])
@pytest.mark.parametrize("a", [1, -1, 0x12345678_9ABCDEF0, -(2**63), 2**63 - 1, 2**31])
def test_shifts(a: int, count: int) -> None:
    far = count % 64
    assert SCALAR.shift_left(a, count) == wrap(a * 2**far, 64)
    assert SCALAR.shift_right(a, count) == wrap(a % 2**64 // 2**far, 64)
    assert SCALAR.shift_right_arithmetic(a, count) == a // 2**far
    far, low, counts = count % 32, wrap(a, 32), lanes(count)
    assert VECTOR.shift_left(lanes(a), counts)[5] == low * 2**far % 2**32
    assert VECTOR.shift_right(lanes(a), counts)[5] == low % 2**32 // 2**far
    assert VECTOR.shift_right_arithmetic(lanes(a), counts)[5] == low // 2**far % 2**32


def test_shift_counts_differ_by_lane() -> None:
    assert VECTOR.shift_left(lanes(1), lanes(0, 1, 5, 31)).tolist()[:4] == [1, 2, 32, 2**31]


@given(a=REGISTERS, high=REGISTERS)
def test_words_of_registers(a: int, high: int) -> None:
    assert SCALAR.low_word(a) == wrap(a, 32)
    assert SCALAR.with_high_word(a, high) == wrap(high % 2**32 * 2**32 + a % 2**32, 64)
    assert VECTOR.low_word(lanes(a)).tolist() == [a % 2**32] * LANES


def test_select_and_constant() -> None:
    assert SCALAR.select(1 << 40, 5, 6) == 5
    assert SCALAR.select(0, 5, 6) == 6
    assert SCALAR.constant(2**63) == -(2**63)
    chosen = VECTOR.select(lanes(0, 1, 2**31), VECTOR.constant(-1), VECTOR.constant(7))
    assert chosen.tolist()[:4] == [7, 2**32 - 1, 2**32 - 1, 7]


# float32 ------------------------------------------------------------------------------------------

EXACT_FLOATS = {
    "fadd": operator.add, "fsub": operator.sub, "fmul": operator.mul, "fdiv": operator.truediv,
}  # fmt: skip
COMPARISONS = {"fgreater": operator.gt, "fgreater_equal": operator.ge, "fequal": operator.eq}


@pytest.mark.parametrize("word", EXACT_FLOATS)
@given(a=PATTERNS.filter(is_finite), b=PATTERNS.filter(is_finite))
@example(a=SMALLEST_NORMAL, b=0x3F000000)
@example(a=SMALLEST, b=0x3FC00000)
def test_float_words_round_the_exact_result(word: str, a: int, b: int) -> None:
    if word == "fdiv" and not fraction(b):
        return
    exact = EXACT_FLOATS[word](fraction(a), fraction(b))
    result = both(word, a, b)
    assert (result & 0x7FFFFFFF == 0) if exact == 0 else (result == nearest(exact))


@pytest.mark.parametrize(
    ("word", "operands", "expected"),
    [
        ("fadd", (MINUS_ZERO, MINUS_ZERO), MINUS_ZERO),
        ("fadd", (ZERO, MINUS_ZERO), ZERO),
        ("fsub", (ONE, ONE), ZERO),
        ("fsub", (INFINITY, INFINITY), NAN),
        ("fadd", (LARGEST, LARGEST), INFINITY),
        ("fmul", (INFINITY, ZERO), NAN),
        ("fmul", (MINUS_ZERO, ONE), MINUS_ZERO),
        ("fmul", (SMALLEST, SMALLEST | MINUS_ZERO), MINUS_ZERO),
        ("fdiv", (ONE, MINUS_ZERO), MINUS_INFINITY),
        ("fneg", (ZERO,), MINUS_ZERO),
        ("fneg", (LARGEST | MINUS_ZERO,), LARGEST),
        ("fma", (INFINITY, ZERO, ONE), NAN),
        ("fma", (ONE | MINUS_ZERO, ONE, ONE), ZERO),
        # 2^-149 * 0.5 = 2^-150 is halfway between 0 and 2^-149: to even, and a hair above it, up
        ("fma", (SMALLEST, 0x3F000000, ZERO), ZERO),
        ("fma", (SMALLEST, 0x3F000001, ZERO), SMALLEST),
    ],
)
def test_special_values(word: str, operands: tuple[int, ...], expected: int) -> None:
    assert canonical(both(word, *operands)) == [expected]


@pytest.mark.parametrize("word", COMPARISONS)
def test_comparisons(word: str) -> None:
    for a in CORNERS:
        for b in CORNERS:
            x, y = (struct.unpack("f", struct.pack("I", pattern))[0] for pattern in (a, b))
            assert both(word, a, b) == int(COMPARISONS[word](x, y)), (hex(a), hex(b))


@given(a=REGISTERS)
@example(a=2**24 + 1)
@example(a=2**24 + 3)
@example(a=2**31 - 1)
def test_int_to_float(a: int) -> None:
    assert both("int_to_float", a % 2**32) == nearest(Fraction(wrap(a, 32)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0x3F7FFFFF, 0),  # just below 1
        (0xBFC00000, -1),  # -1.5
        (0x4EFFFFFF, 2147483520),  # the largest float32 below 2^31
        (0x4F000000, 2**31 - 1),  # 2^31
        (0xCF000000, -(2**31)),
        (0xCF000001, -(2**31)),  # -2147483904
        (INFINITY, 2**31 - 1),
        (MINUS_INFINITY, -(2**31)),
        (NAN, 0),
        (MINUS_NAN, 0),
        (MINUS_ZERO, 0),
        (SMALLEST, 0),
    ],
)
def test_float_to_int(value: int, expected: int) -> None:
    assert both("float_to_int", value) == expected % 2**32


# Fused multiply-add -------------------------------------------------------------------------------


def from_library(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[int]:
    """Return fmaf of every triple of patterns; Python's floats hold each float32 exactly."""
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("this host has no C mathematics library to compare with")
    function = ctypes.CDLL(name).fmaf
    function.argtypes, function.restype = [ctypes.c_float] * 3, ctypes.c_float
    triples = zip(*(x.view(np.float32).tolist() for x in (a, b, c)), strict=True)
    results = np.array([function(*triple) for triple in triples], np.float32)
    return canonical(results.view(np.uint32))


def from_words(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[int]:
    """Return the words' fma, a vector at a time."""
    rows = zip(*(x.reshape(-1, LANES) for x in (a, b, c)), strict=True)
    return canonical(np.concatenate([VECTOR.fma(*row) for row in rows]))


def random_patterns(count: int, seed: int, low: int, high: int) -> np.ndarray:
    """Return float32 patterns of any sign and significand with exponents from low to high."""
    random = np.random.default_rng(seed)
    exponent = random.integers(low, high + 1, count)
    bits = random.integers(0, 2, count) << 31 | exponent << 23 | random.integers(0, 2**23, count)
    return bits.astype(np.uint32)


def halfway_triples() -> list[tuple[int, int, int]]:
    """Return triples whose exact result lies close to, or on, a float32 halfway point.

    The product is 2^k times 1 - n^2 2^-46, 1 or 1 + 2^-23, and 2^k is half a unit in the last
    place of the addend. In float64, n = 1 makes a tie of the sum and n = 443 its odd neighbour,
    short of the sum. Exponents reach from subnormal addends, where 2^k is 2^-150, to large ones.
    """
    random, triples = np.random.default_rng(7), []
    for exponent in [0, 0, 1, 2, 60, 127, 200, 253] * 40:
        addend = exponent << 23 | int(random.integers(1, 2**23))
        k = max(exponent, 1) - 151
        power, rest = (k // 2 + 127) << 23, (k - k // 2 + 127) << 23
        # Patterns n above and m below a power of two are 1 + n 2^-23 and 1 - m 2^-24 times it.
        for n, m in ((1, 2), (443, 886), (0, 0), (1, 0)):
            triples += [(power | n, rest - m | sign, addend) for sign in (0, MINUS_ZERO)]
    return triples


def sticky_triples() -> list[tuple[int, int, int]]:
    """Return triples whose product is a halfway point, with an addend far below it or zero.

    A product of 25 bits that ends in 1 lies halfway between two float32 numbers.
    """
    odd = (np.random.default_rng(8).integers(2**11, 2**12, (2000, 2)) * 2 + 1).tolist()
    pairs = [(a, b) for a, b in odd if (a * b).bit_length() == 25][:160]
    return [
        (nearest(Fraction(a)), nearest(Fraction(b)), addend)
        for a, b in pairs
        for addend in (SMALLEST, SMALLEST | MINUS_ZERO, 0x0D800000, 0x8D800000, ZERO)
    ]


@pytest.mark.parametrize("triples", [halfway_triples, sticky_triples])
def test_fma_near_halfway_points(triples: Callable[[], list[tuple[int, int, int]]]) -> None:
    cases = triples()
    expected = [nearest(fraction(a) * fraction(b) + fraction(c)) for a, b, c in cases]
    a, b, c = np.array(cases, np.uint32).T.copy()
    assert from_words(a, b, c) == expected == from_library(a, b, c)
    # Rounding twice, to float64 and then to float32, must go wrong often, or the cases are tame.
    x, y, z = (v.view(np.float32).astype(np.float64) for v in (a, b, c))
    twice = canonical((x * y + z).astype(np.float32).view(np.uint32))
    assert sum(t != e for t, e in zip(twice, expected, strict=True)) > len(cases) // 20


@pytest.mark.parametrize(
    ("exponents", "addends"),
    [((0, 255), (0, 255)), ((100, 150), (100, 150)), ((52, 66), (0, 3)), ((40, 66), (0, 0))],
    ids=["any", "near one", "subnormal results", "subnormal addends"],
)
def test_fma_of_random_patterns(exponents: tuple[int, int], addends: tuple[int, int]) -> None:
    a, b = random_patterns(8000, 1, *exponents), random_patterns(8000, 2, *exponents)
    c = random_patterns(8000, 3, *addends)
    result = from_words(a, b, c)
    assert result == from_library(a, b, c)
    for x, y, z, got in list(zip(a.tolist(), b.tolist(), c.tolist(), result, strict=True))[:1600]:
        if all(map(is_finite, (x, y, z))):
            exact = fraction(x) * fraction(y) + fraction(z)
            assert got == nearest(exact), (hex(x), hex(y), hex(z))


def test_fma_of_all_corner_triples() -> None:
    cases = [(a, b, c) for a in CORNERS for b in CORNERS for c in CORNERS]
    a, b, c = np.array(cases[: len(cases) // LANES * LANES], np.uint32).T.copy()
    assert from_words(a, b, c) == from_library(a, b, c)


# Lanes, batches, memory ---------------------------------------------------------------------------


def test_words_that_move_lanes() -> None:
    a = np.arange(100, 116, dtype=np.uint32)
    assert VECTOR.lane_number().tolist() == list(range(16))
    assert VECTOR.shuffle(a, lanes(3, 16 + 2, 2**32 - 1)).tolist()[:4] == [103, 102, 115, 103]
    assert VECTOR.rotate(a, 3).tolist() == [*range(103, 116), 100, 101, 102]
    assert VECTOR.rotate(a, -1).tolist() == VECTOR.rotate(a, 31).tolist() == [115, *a[:15].tolist()]
    assert VECTOR.broadcast(-2).tolist() == [2**32 - 2] * LANES
    assert a.tolist() == list(range(100, 116))


OPERANDS = {
    "bit_not": 1, "fneg": 1, "int_to_float": 1, "float_to_int": 1, "low_word": 1,
    "fma": 3, "select": 3,
}  # fmt: skip
LANE_BY_LANE = [
    *INTEGER_WORDS, *EXACT_FLOATS, *COMPARISONS, *OPERANDS, "less_unsigned",
    "shift_left", "shift_right", "shift_right_arithmetic", "shuffle", "rotate",
]  # fmt: skip


@pytest.mark.parametrize("word", LANE_BY_LANE)
def test_a_batch_equals_its_rows(word: str) -> None:
    batches = [random_patterns(64, seed, 90, 160).reshape(4, LANES) for seed in (4, 5, 6)]
    batches[0][2], batches[1][2], batches[2][2] = np.array(halfway_triples()[6::12][:16]).T
    operands = [batches[0], 5] if word == "rotate" else batches[: OPERANDS.get(word, 2)]
    rows = [[o if isinstance(o, int) else o[i] for o in operands] for i in range(4)]
    function = getattr(VECTOR, word)
    batch = function(*operands)
    assert (batch.shape, batch.dtype) == ((4, LANES), np.uint32)
    assert [canonical(row) for row in batch] == [canonical(function(*row)) for row in rows]


class OneWord:
    """A memory that notes what it is asked; every word of it is the largest unsigned number."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def load_word(self, word: int) -> int:
        self.asked.append(word)
        return 2**32 - 1

    def store_word(self, word: int, value: int) -> None:
        self.asked.append((word, value))

    def load_lanes(self, word: int, step: int) -> np.ndarray:
        return lanes(*(word + step * lane for lane in range(LANES)))

    def store_lanes(self, word: int, step: int, value: np.ndarray) -> None:
        self.asked.append((word, step, value.tolist()))


def test_memory() -> None:
    memory = OneWord()
    assert SCALAR.load(memory, 3) == -1
    SCALAR.store(memory, -(2**40) - 2, 1)
    assert VECTOR.load(memory, 1, 2).tolist() == list(range(1, 33, 2))
    VECTOR.store(memory, lanes(9), 1, 2)
    assert memory.asked == [3, (1, 2**32 - 2), (1, 2, [9] * LANES)]
