"""The LLVM vocabulary, compiled, against numpy's vocabulary and the C library's fmaf."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
from attrs import frozen

import isa.instructions
from isa.instruction import REGISTRY, Effect, Instruction
from isa.operands import RI, SVR, VR, VRI, Imm32, Kind
from isa.values import ScalarWords, VectorWords
from simulator.compiled import ir
from simulator.compiled.llvm_values import REGISTER, WORD, LlvmScalar, LlvmVector
from simulator.compiled.native import compile_module
from simulator.reference.numpy_values import NumpyScalar, NumpyVector, quiet_floats
from test_numpy_values import (
    CORNERS,
    NAN,
    canonical,
    from_library,
    halfway_triples,
    random_patterns,
    sticky_triples,
)

LANES = (4, 8, 16)
POINTER = ir.PointerType()
# Integer limits, shift counts up to both widths and beyond, limits of float_to_int, and two ties
# of int_to_float, 2^24 + 1 and 2^24 + 3.
WORDS = [
    *CORNERS, 31, 32, 33, 63, 64, 65, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000001, 0xBFC00000, 0x4EFFFFFF,
    0x4F000000, 0xCF000000, 0xCF000001, 0xDF000000, 2**24 + 1, 2**24 + 3, 0x12345678,
]  # fmt: skip
REGISTERS = [2**63 - 1, -(2**63), 2**32, -(2**40) - 2, 0x5A5A5A5A_3F800000, 0x12345678_9ABCDEF0]
NUMBERS = (0, 1, -1, 37, 65, -32768, 32767)
LONG_NUMBERS = (*NUMBERS, -(2**31), 2**31 - 1, 0x3F800000)
WITHOUT_VALUES = {"constant", "rotate", "lane_number", "broadcast", "load", "store"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_floats():
        yield


# Calls of words, by numpy and by machine code -----------------------------------------------------


@frozen
class Case:
    """A call of words; `kinds` has an s (scalar) or v (vector) for each operand and the result."""

    call: Callable[..., Any]
    kinds: str
    on_lanes: bool
    is_float: bool = False
    title: str = ""

    def expected(self, lanes: int, columns: list[np.ndarray]) -> np.ndarray:
        """Return numpy's results, row by row."""
        words: Any = NumpyVector(lanes) if self.on_lanes else NumpyScalar()
        rows = zip(*(c if c.ndim > 1 else c.tolist() for c in columns), strict=True)
        results = [self.call(words, *row) for row in (rows if columns else [()])]
        return np.array(results, np.uint32 if self.kinds[-1] == "v" else np.int64)

    def add_to(self, module: ir.Module, name: str, lanes: int) -> None:
        """Add `void name(i64 rows, ptr operands..., ptr results)`, a loop over the rows."""
        types = [ir.VectorType(WORD, lanes) if kind == "v" else REGISTER for kind in self.kinds]
        kind = ir.FunctionType(ir.VoidType(), [REGISTER, *[POINTER] * len(types)])
        function = ir.Function(module, kind, name)
        before, body, after = (function.append_basic_block(part) for part in "abc")
        start = ir.IRBuilder(before)
        words: Any = LlvmVector(start, lanes) if self.on_lanes else LlvmScalar(start)
        start.branch(body)
        words.builder = builder = ir.IRBuilder(body)
        row = builder.phi(REGISTER)
        # Rows lie one behind the other; LLVM would pad three lanes to four.
        words_before = builder.mul(row, REGISTER(lanes))
        *places, result = [
            builder.gep(base, [words_before], source_etype=WORD)
            if kind == "v"
            else builder.gep(base, [row], source_etype=REGISTER)
            for base, kind in zip(function.args[1:], self.kinds, strict=True)
        ]
        operands = [
            builder.load(place, align=4, typ=one)
            for place, one in zip(places, types[:-1], strict=True)
        ]
        builder.store(self.call(words, *operands), result, align=4)
        following = builder.add(row, REGISTER(1))
        row.add_incoming(REGISTER(0), before)
        row.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, function.args[0]), body, after)
        ir.IRBuilder(after).ret_void()


def machine_results(
    cases: list[Case], lanes: int, inputs: list[list[np.ndarray]]
) -> list[np.ndarray]:
    """Return what machine code makes of the columns of each case; all in one module."""
    module = ir.Module()
    for number, case in enumerate(cases):
        case.add_to(module, f"case{number}", lanes)
    library, outputs = compile_module(module), []
    for number, (case, columns) in enumerate(zip(cases, inputs, strict=True)):
        rows, vector = len(columns[0]) if columns else 1, case.kinds[-1] == "v"
        output = np.zeros((rows, lanes), np.uint32) if vector else np.zeros(rows, np.int64)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * len(case.kinds))
        function = kind(library.address(f"case{number}"))
        function(rows, *(array.ctypes.data for array in (*columns, output)))
        outputs.append(output)
    return outputs


def columns_for(kinds: str, lanes: int) -> list[np.ndarray]:
    """Return a column for each operand: all tuples of corners, then random bits."""
    random = np.random.default_rng(len(kinds))
    operands = kinds[:-1]
    patterns = CORNERS if len(operands) > 2 else WORDS
    tuples = [*product(patterns, repeat=len(operands))]
    if operands == "s" * len(operands):
        tuples += [*product([*REGISTERS, 1, 65], repeat=len(operands))]
    corners = np.array(tuples, np.int64).reshape(len(tuples), -1).T
    columns = []
    for kind, column in zip(operands, corners, strict=True):
        if kind == "v":
            padding = -len(column) % lanes
            bits = random.integers(0, 2**32, 64 * lanes + padding, np.uint32)
            columns.append(np.concatenate((column.astype(np.uint32), bits)).reshape(-1, lanes))
        else:
            bits = random.integers(-(2**63), 2**63, 200, np.int64)
            columns.append(np.concatenate((column, bits)))
    return columns


def comparable(case: Case, results: np.ndarray) -> np.ndarray:
    """Return the bits to compare: a float's are sign-extended, and every NaN is the same."""
    if not case.is_float:
        return results
    if case.kinds[-1] == "s":
        assert np.array_equal(results, results.astype(np.int32)), case.title
    words = results.astype(np.uint32)
    return np.where(words & 0x7FFFFFFF > 0x7F800000, NAN, words)


def assert_machine_equals_numpy(cases: list[Case], lanes: int) -> None:
    inputs = [columns_for(case.kinds, lanes) for case in cases]
    for case, columns, output in zip(
        cases, inputs, machine_results(cases, lanes, inputs), strict=True
    ):
        got, expected = (
            comparable(case, results) for results in (output, case.expected(lanes, columns))
        )
        wrong = np.argwhere(got != expected)
        assert not wrong.size, f"{case.title}, {lanes} lanes: {len(wrong)} wrong, first {wrong[0]}"


# Every word ---------------------------------------------------------------------------------------


def word(name: str, *numbers: int) -> Callable[..., Any]:
    """Return the call of a word with values first, then numbers."""
    return lambda words, *values: getattr(words, name)(*values, *numbers)


def word_cases(vocabulary: type, on_lanes: bool) -> list[Case]:
    kind, cases = "v" if on_lanes else "s", []
    for name in sorted(vocabulary.__abstractmethods__ - WITHOUT_VALUES):
        operands = len(inspect.signature(getattr(vocabulary, name)).parameters) - 1
        kinds = kind * (operands + 1)
        cases.append(Case(word(name), kinds, on_lanes, name.startswith("f"), name))
    for number in (*LONG_NUMBERS, 2**63, -(2**63), 2**64 - 1):
        cases.append(Case(word("constant", number), kind, on_lanes, title=f"constant {number}"))
    return cases


def lane_cases(lanes: int) -> list[Case]:
    def spread(words: Any, a: Any) -> Any:
        return words.shuffle(a, words.constant(lanes + 2))

    cases = [Case(word("lane_number"), "v", True), Case(spread, "vv", True, title="spread")]
    for distance in (0, 1, 3, -1, lanes, 31):
        cases.append(Case(word("rotate", distance), "vv", True, title=f"rotate {distance}"))
    return [*cases, Case(word("broadcast"), "sv", True, title="broadcast")]


def test_scalar_words() -> None:
    assert_machine_equals_numpy(word_cases(ScalarWords, on_lanes=False), 16)


@pytest.mark.parametrize("lanes", LANES)
def test_vector_words(lanes: int) -> None:
    cases = word_cases(VectorWords, on_lanes=True) + lane_cases(lanes)
    assert_machine_equals_numpy(cases, lanes)


@pytest.mark.parametrize("lanes", [3, 12])
def test_lanes_need_no_power_of_two(lanes: int) -> None:
    assert_machine_equals_numpy([Case(word("shuffle"), "vvv", True), *lane_cases(lanes)], lanes)


class Place:
    """A memory operand: a byte address in the simulator's own memory."""

    def __init__(self, words: Any, address: ir.Value) -> None:
        self.words, self.base = words, words.builder.inttoptr(address, POINTER)

    def at(self, word: int) -> ir.Value:
        return self.words.builder.gep(self.base, [REGISTER(word)], source_etype=WORD)

    def load_word(self, word: int) -> ir.Value:
        return self.words.builder.load(self.at(word), typ=WORD)

    def store_word(self, word: int, value: ir.Value) -> None:
        self.words.builder.store(value, self.at(word))

    def load_lanes(self, word: int, step: int) -> ir.Value:
        builder = self.words.builder
        result: ir.Value = ir.Constant(ir.VectorType(WORD, self.words.lanes), 0)
        for lane in range(self.words.lanes):
            loaded = self.load_word(word + step * lane)
            result = builder.insert_element(result, loaded, WORD(lane))
        return result

    def store_lanes(self, word: int, step: int, value: ir.Value) -> None:
        for lane in range(self.words.lanes):
            element = self.words.builder.extract_element(value, WORD(lane))
            self.store_word(word + step * lane, element)


def test_memory_words() -> None:
    def copy_word(words: Any, address: Any) -> Any:
        loaded = words.load(Place(words, address), 3)
        words.store(Place(words, address), words.add(loaded, 2**33), 4)
        return loaded

    def copy_lanes(words: Any, address: Any) -> Any:
        loaded = words.load(Place(words, address), 1, 2)
        words.store(Place(words, address), loaded, 10, 1)
        return loaded

    cases = [Case(copy_word, "ss", False), Case(copy_lanes, "sv", True)]
    memory = np.arange(0xFFFFFFF0, 0xFFFFFFF0 + 16).astype(np.uint32)
    address = [np.array([memory.ctypes.data])]
    scalar, vector = machine_results(cases, 4, [address, address])
    assert scalar.tolist() == [-13]  # word 3 is 0xFFFFFFF3
    assert vector.tolist() == [[0xFFFFFFF1, 0xFFFFFFF3, 0xFFFFFFF5, 0xFFFFFFF7]]
    assert memory[4] == 0xFFFFFFF3
    assert memory[10:14].tolist() == vector.tolist()[0]


# Every instruction that neither accesses memory nor controls the core -----------------------------


def is_pure(entry: Instruction) -> bool:
    return entry.effect is Effect.NONE and not entry.semantics.__module__.endswith("control")


def entry_cases(entry: Instruction) -> Iterator[Case]:
    """Yield the instruction with registers, and with immediates of every position it has."""
    sources = [kind for _, kind in entry.sources]
    may = [i for i, kind in enumerate(sources) if issubclass(kind, RI | VRI)]
    must = [i for i, kind in enumerate(sources) if kind is Imm32]
    numbers = LONG_NUMBERS if must else NUMBERS
    choices = [dict.fromkeys(must, number) for number in numbers] if must else [{}]
    choices += [{i: number} for i in may for number in numbers]
    choices += [dict(zip(may, pair, strict=True)) for pair in ((37, -1), (-1, 65)) if len(may) > 1]
    return (entry_case(entry, sources, immediates) for immediates in choices)


def entry_case(entry: Instruction, sources: list[type[Kind]], immediates: dict[int, int]) -> Case:
    def call(words: Any, *values: Any) -> Any:
        rest, operands = iter(values), []
        for i, kind in enumerate(sources):
            number = immediates.get(i)
            if number is None:
                operands.append(next(rest))
            else:
                operands.append(words.constant(number) if kind is VRI else number)
        return entry.semantics(words, *operands)

    registers = [kind for i, kind in enumerate(sources) if i not in immediates]
    kinds = ["v" if issubclass(kind, VR | SVR) else "s" for kind in (*registers, *entry.results)]
    on_lanes = entry.is_vector or issubclass(entry.results[0], VR)
    is_float = entry.name[1] == "F"
    return Case(call, "".join(kinds), on_lanes, is_float, f"{entry.name} {immediates}")


PURE = [entry for entry in REGISTRY.values() if is_pure(entry)]


def test_the_registry_is_covered() -> None:
    groups = isa.instructions.GROUPS
    assert {entry.semantics.__module__ for entry in PURE} == {
        group.__name__ for group in groups if not group.__name__.endswith(("memory", "control"))
    }


@pytest.mark.parametrize("lanes", LANES)
def test_instructions_on_lanes(lanes: int) -> None:
    cases = [case for case in chain(*map(entry_cases, PURE)) if "v" in case.kinds]
    assert_machine_equals_numpy(cases, lanes)


def test_scalar_instructions() -> None:
    cases = [case for case in chain(*map(entry_cases, PURE)) if "v" not in case.kinds]
    assert_machine_equals_numpy(cases, 16)


# Rounding -----------------------------------------------------------------------------------------


def hard_triples() -> np.ndarray:
    """Return the operands of multiply-adds, one row each, that are hard to round."""
    near = np.array(halfway_triples() + sticky_triples(), np.uint32).T
    some = np.stack([random_patterns(4000, seed, 40, 150) for seed in (1, 2, 3)])
    small = np.stack([random_patterns(4000, seed, 52, 66) for seed in (4, 5, 6)])
    corners = np.array([*product(CORNERS, repeat=3)], np.uint32).T
    rows = np.concatenate((near, some, small, corners), axis=1)
    return rows[:, : rows.shape[1] // 16 * 16].copy()


@pytest.mark.parametrize("lanes", LANES)
def test_fma_rounds_once_as_the_c_library_does(lanes: int) -> None:
    triples = hard_triples()
    vectors = [row.reshape(-1, lanes) for row in triples]
    scalars = [row.astype(np.int32).astype(np.int64) for row in triples]
    cases = [Case(word("fma"), "vvvv", True), Case(word("fma"), "ssss", False)]
    vector, scalar = machine_results(cases, lanes, [vectors, scalars])
    assert canonical(vector) == canonical(scalar.astype(np.uint32)) == from_library(*triples)


def test_a_product_and_a_sum_stay_two_roundings() -> None:
    def sum_of_product(words: Any, a: Any, b: Any, c: Any) -> Any:
        return words.fadd(words.fmul(a, b), c)

    triples = hard_triples()
    columns = [row.reshape(-1, 16) for row in triples]
    (result,) = machine_results([Case(sum_of_product, "vvvv", True)], 16, [columns])
    a, b, c = (row.view(np.float32) for row in triples)
    twice = canonical((a * b + c).view(np.uint32))
    assert canonical(result) == twice
    fused = from_library(*triples)
    assert sum(x != y for x, y in zip(twice, fused, strict=True)) > len(fused) // 20
