"""Machine code of the host: compiled, kept as object code, linked, called from any thread."""

from __future__ import annotations

import ctypes
import gc
import platform
import threading
from typing import Any

import pytest
from llvmlite import binding

from simulator.compiled import ir
from simulator.compiled.llvm_values import REGISTER, SINGLE, LlvmVector
from simulator.compiled.native import (
    Library,
    align_stack,
    compile_module,
    from_object,
    host_identity,
    to_object,
)


def adding(number: int) -> str:
    """Return the text of a module whose function `f` adds a number to its argument."""
    return f"define i64 @f(i64 %a) {{\n  %b = add i64 %a, {number}\n  ret i64 %b\n}}\n"


def called(library: Library, argument: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("f"))(argument))


def multiply_add(builder: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
    return builder.call_named("llvm.fma.f32", SINGLE, operands)


def on_floats(make: Any) -> ir.Module:
    """Return a module whose function makes a float of three."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(SINGLE, [SINGLE] * 3), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(make(builder, *function.args))
    return module


def test_text_and_module_are_compiled_alike() -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(REGISTER, [REGISTER]), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.add(function.args[0], REGISTER(5)))
    assert called(compile_module(module), 2**40) == 2**40 + 5
    assert called(compile_module(adding(5)), -7) == -2


def test_object_code_can_be_kept_and_linked_again() -> None:
    code = to_object(adding(3))
    assert code == to_object(adding(3))
    first, second = from_object(code), from_object(bytes(code))
    assert first.address("f") != second.address("f")
    assert called(first, 1) == called(second, 1) == 4


def test_a_library_lives_by_itself() -> None:
    libraries = [compile_module(adding(number)) for number in range(20)]
    kept, address = libraries[7], libraries[7].address("f")
    del libraries
    gc.collect()
    newcomers = [compile_module(adding(number + 100)) for number in range(20)]
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(1) == 8
    assert kept.address("f") == address
    gc.collect()
    assert called(kept, 2) == 9
    assert [called(library, 0) for library in newcomers] == list(range(100, 120))


def test_threads_compile_at_once() -> None:
    results: dict[int, int] = {}
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        results[number] = called(compile_module(adding(number)), 1000)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: 1000 + number for number in range(8)}


@pytest.mark.parametrize("code", [b"", b"no object code", to_object(adding(1))[:200]])
def test_what_is_no_object_code_is_refused(code: bytes) -> None:
    with pytest.raises(RuntimeError):
        from_object(code)


def test_mistakes_are_errors() -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        compile_module(adding(1)).address("nowhere")
    with pytest.raises(RuntimeError, match="expected"):
        to_object("define i64 @f( {")
    unfinished = (
        "define i64 @f(i64 %a) {\n  %b = add i64 %c, 1\n  %c = add i64 %b, 1\n  ret i64 %a\n}"
    )
    with pytest.raises(RuntimeError, match="dominate"):
        to_object(unfinished)


def test_the_c_library_can_be_called() -> None:
    module = "define float @f(float %a, float %b) { %c = frem float %a, %b ret float %c }"
    kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float, ctypes.c_float)
    library = compile_module(module)
    assert b"fmodf" in to_object(module)
    assert kind(library.address("f"))(7.5, 2.0) == 1.5


def test_a_multiply_add_is_an_instruction() -> None:
    if platform.machine() in ("x86_64", "AMD64") and "+fma" not in host_identity()[2].split(","):
        pytest.skip("this processor has no fused multiply-add")
    module = on_floats(multiply_add)
    assert b"fma" not in to_object(module)  # a call would leave the name fmaf


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_vectors_compute_without_calls(lanes: int) -> None:
    if platform.machine() in ("x86_64", "AMD64") and "+fma" not in host_identity()[2].split(","):
        pytest.skip("this processor has no fused multiply-add")
    words = LlvmVector(ir.IRBuilder(), lanes)
    module, kind = ir.Module(), words.lane_number().type
    function = ir.Function(module, ir.FunctionType(kind, [kind] * 3), "f")
    words.builder = ir.IRBuilder(function.append_basic_block())
    a, b, c = function.args
    words.builder.ret(words.shuffle(words.fma(a, b, words.fma(b, c, a)), words.float_to_int(c)))
    undefined = {
        name for name in (b"fma", b"memcpy", b"roundf", b"_fix") if name in to_object(module)
    }
    assert not undefined


def test_the_host_is_named_in_full() -> None:
    triple, processor, features, llvmlite, llvm, level = host_identity()
    assert triple.count("-") >= 2
    assert processor == binding.get_host_cpu_name()
    assert (llvmlite.split()[0], llvm.split()[0], level) == ("llvmlite", "LLVM", "O1")
    assert features == "" or features[0] in "+-"
    assert host_identity() == host_identity()


def test_a_function_can_ask_for_an_aligned_stack() -> None:
    module = on_floats(multiply_add)
    align_stack(module.globals["f"])
    assert "alignstack(64)" in str(module)
    assert to_object(module) != to_object(on_floats(multiply_add))
