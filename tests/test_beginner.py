"""Mistakes of a first kernel: each is refused with one message that says what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isa import Builder, Ftm7004Error, KernelError, Tensor, UsageError, Work, kernel
from isa.machine import Machine
from isa.operands import File, Register
from micro_programs import AR, R, program
from simulator.simulate import simulate

Body = Callable[[Builder], Any]


def after_scope(k: Builder) -> None:
    with k.scope():
        value = k.vmovi(1)
    k.vector("another")
    k.vadd(value, 1)


def address_after_scope(k: Builder) -> None:
    with k.scope():
        pointer = k.scalar_address("pointer")
    k.sldw(pointer + 0)


def destination_after_scope(k: Builder) -> None:
    with k.scope():
        total = k.scalar("total")
    k.smovi(1, total)


def truth(k: Builder) -> None:
    if k.smovi(1):
        k.smovi(2)


def descriptor_side(k: Builder) -> None:
    k.set_address(None, "target", R[3])  # type: ignore[arg-type]


BODIES: list[tuple[Body, str]] = [
    (after_scope, "'result of VMOVI' (VR2) was given back at the end of its scope; take it "
                  "outside the loop"),
    (address_after_scope, "'pointer' (AR8) was given back"),
    (destination_after_scope, "'total' (R3) was given back"),
    (truth, "a register has no value while the program is built; use `with k.when(register)`"),
    (lambda k: not R[3], "a register has no value"),
    (lambda k: range(k.smovi(3)), "a register has no value"),
    (lambda k: k.smovi(1) + 1, "use k.sadd / k.ssub"),
    (lambda k: k.smovi(1) - R[4], "use k.sadd / k.ssub"),
    (lambda k: AR[8] + 2.5, "an offset is a whole number or a register, got 2.5"),
    (lambda k: k.loop("twice", 2), "loop 'twice' was never entered; write `with k.loop(...):`"),
    (lambda k: k.when(R[3]), "when was never entered; write `with k.when(...):`"),
    (lambda k: k.when_zero(R[3]), "when_zero was never entered"),
    (lambda k: k.until_zero("again", R[3]), "until_zero 'again' was never entered"),
    (lambda k: k.packet(), "packet was never entered"),
    (lambda k: k.scope(), "scope was never entered"),
    (lambda k: k.named_loop("rows"), "named_loop 'rows' was never entered"),
    (lambda k: k.constant(2.5), "constant takes an integer; for a float use smovi(2.5)"),
    (lambda k: k.constant(2**64), "constant takes an integer of up to 64 bits"),
    (lambda k: k.array_buffer(64, "x"), "AM buffer: give its name, then its bytes; got 64"),
    (lambda k: k.scalar_buffer("x", 6.0), "a whole number of bytes, a multiple of 4; got 6.0"),
    (lambda k: k.ddr_buffer("x", 6), "a whole number of bytes, a multiple of 4; got 6"),
    (lambda k: k.loop("a", 2.5).__enter__(), "loop 'a': count must be a whole number or a scalar "
                                             "register, got 2.5"),
    (lambda k: k.loop("a", k.vmovi(2)).__enter__(), "loop 'a': count must be a whole number"),
    (lambda k: k.point(AR[8], k.array_buffer("x", 64)), "AR8 reaches SM, buffer 'x' is in AM; take "
                                                        "k.vector_address"),
    (lambda k: k.point(AR[0], k.scalar_buffer("x", 64)), "take k.scalar_address"),
    (lambda k: k.point(AR[0], k.ddr_buffer("x", 64)), "it is in DDR, copy it to AM first"),
    (lambda k: k.point(R[3], k.array_buffer("x", 64)), "a pointer must be an address register"),
    (descriptor_side, "side must be 'source' or 'destination', got 'target'"),
    (lambda k: k.sadd(1), "SADD takes a, b and optionally a destination; got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), BODIES)
def test_a_mistake_is_refused_at_its_line(body: Body, words: str) -> None:
    with pytest.raises(KernelError) as caught:
        program_of(body)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:")


def program_of(body: Body) -> None:
    """Build a kernel without tensors, as the command line does."""
    kernel(inputs=nothing, outputs=nothing)(lambda k: body(k))().program(Machine.load("ft-m7004"))


def nothing(p: Any) -> dict[str, Tensor]:
    return {}


@pytest.mark.parametrize(("word", "near"), [("vector_reg", "vector"), ("scalar_adress", "scalar")])
def test_an_unknown_word_brings_words_of_the_builder(word: str, near: str) -> None:
    with pytest.raises(AttributeError, match=rf"did you mean .*{near}"):
        program(lambda k: getattr(k, word))


def test_a_word_like_none_refers_to_the_manual() -> None:
    with pytest.raises(AttributeError, match=r"'qqqqqqq'; see docs/isa.md$"):
        program(lambda k: k.qqqqqqq)


def test_a_register_named_by_hand_is_never_refused() -> None:
    def body(k: Builder) -> None:
        with k.scope():
            pair = k.vector_pair("pair")
            k.vmovi(1, pair)
        k.vmovi(1, Register(File.VECTOR, pair.index + 1))
        k.smovi(1, R[5])

    program(body)


def test_an_even_block_serves_as_pairs() -> None:
    def body(k: Builder) -> None:
        # R0-R2 are predicates: R3 is the first that an ordinary request gets
        assert [r.index for r in k.scalars("four", 4)] == [4, 5, 6, 7]
        assert k.scalar("one").index == 3
        assert [r.index for r in k.vectors("odd", 3)] == [2, 3, 4]
        assert [r.index for r in k.vectors("two", 2)] == [6, 7]

    program(body)


def define(**more: Any) -> Any:
    def f(k: Builder, n: int = 4) -> None:
        """Do nothing."""

    return kernel(**{"inputs": nothing, "outputs": nothing, **more})(f)


def tensor(*arguments: Any) -> Any:
    return define(inputs=lambda p: {"x": Tensor(*arguments)})().inputs


USES: list[tuple[Callable[[], Any], str]] = [
    (lambda: define(reference=lambda p: {}), "reference must be a function of (p, inputs)"),
    (lambda: define(check=lambda: None), "check must be a function of (p)"),
    (lambda: define(inputs={}), "inputs must be a function of (p), got {}"),
    (lambda: define(work=lambda p: 5)().work, "work(p) must return Work(flops=..., multiply_adds"),
    (lambda: define(check=lambda p: 5)(), "check(p) must return a text"),
    (lambda: define(outputs=lambda p: [])().outputs, "outputs(p) must return a dict of Tensor"),
    (lambda: define(outputs=lambda p: {"z": 3})().outputs, "tensor 'z': got 3, no Tensor"),
    (lambda: define(reference=lambda p, i: 1)().definition.reference(None, {}),
     "reference(p, inputs) must return a dict of arrays, got 1"),
    (lambda: tensor(16), "tensor 'x': shape must be a tuple of whole numbers, got 16"),
    (lambda: tensor((2.5,)), "tensor 'x': shape must be a tuple of whole numbers, got (2.5,)"),
    (lambda: tensor((4,), "float64"), "tensor 'x': dtype must be one of float32, int32"),
    (lambda: tensor((4,), "flaot"), "tensor 'x': dtype must be one of float32"),
    (lambda: kernel(nothing), "@kernel needs the tensors"),
    (lambda: kernel(inputs=nothing), "@kernel needs the tensors"),
    (lambda: define()(4), "kernel 'f' takes its parameters by name: f(n=...)"),
    (lambda: define(work=lambda p: Work(p.words))().work,
     "kernel 'f' has no parameter 'words'; it has n"),
    (lambda: simulate(define()), "kernel 'f' needs its parameters: simulate(f())"),
    (lambda: simulate(define()(), [np.zeros(4)]), "inputs must be a dict of arrays by tensor name"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "words"), USES)
def test_a_wrong_declaration_is_a_usage_error(use: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        use()
    assert words in str(caught.value)


@pytest.mark.parametrize(("offset", "outside"), [(0, 0), (-1, 4), (29, 0), (30, 0), (31, 4)])
def test_a_double_word_is_reported_whole(offset: int, outside: int) -> None:
    """Words 0-31 of a buffer at SM + 64: a double word from the last one on is 4 bytes outside."""

    def f(k: Builder) -> None:
        before, box = k.scalar_buffer("before", 64), k.scalar_buffer("box", 128)
        assert before.end == box.address
        pointer = k.point(k.scalar_address("p"), box, 4 * offset)
        k.sstdw(R[4], pointer + 0)

    def full(k: Builder) -> None:
        k.smovi(1, R[4])
        k.smovi(1, R[5])
        f(k)

    run = kernel(inputs=nothing, outputs=nothing)(full)()
    if not outside:
        simulate(run, check=True)
        return
    with pytest.raises(Ftm7004Error) as caught:
        simulate(run, check=True)
    first = 0x40 + 4 * offset
    assert f"outside buffer 'box' by {outside} bytes" in str(caught.value)
    assert f"{first & 0xFFF:03x} to" in str(caught.value)
    assert f"{(first + 7) & 0xFFF:03x}, the buffer" in str(caught.value)
