"""Machine code for this host: LLVM IR goes in, addresses of functions come out.

Called by the compiled engine. Object code stands between the two steps so that it can be kept on
disk; `host_identity` says for which hosts and versions it is good. Any thread may call any of it:
llvmlite lets one thread at a time into LLVM.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import llvmlite
from llvmlite import binding

from simulator.compiled import ir

CODE_GENERATION_LEVEL = 1
"""LLVM's level of code generation, 0 to 3: 2 and 3 take a third longer and run no faster here."""

QUICK_LEVEL = 0
"""The level for code that hardly runs: a third of the time to make it, about twice to run it."""

FEWEST_QUICK_LANES = 8
"""LLVM's quick translation stumbles over masks of less than a byte."""

STACK_ALIGNMENT = 64
"""Bytes of the longest vector register, which are also those of a cache line."""


class Host:
    """This computer as LLVM knows it: processor, code generator and linker."""

    def __init__(self) -> None:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self.triple = str(binding.get_process_triple())
        self.processor = str(binding.get_host_cpu_name())
        self.features = _features()
        self.machine, self.quick_machine = map(self._machine, (CODE_GENERATION_LEVEL, QUICK_LEVEL))
        # JITLink puts code and constants side by side, which the small code model asks for.
        self.linker = binding.create_lljit_compiler(
            self.machine, use_jit_link=True, suppress_errors=True
        )

    def _machine(self, level: int) -> binding.TargetMachine:
        # Without processor and features, a multiply-add would be a call to the C library.
        return binding.Target.from_triple(self.triple).create_target_machine(
            cpu=self.processor,
            features=self.features,
            opt=level,
            reloc="pic",
            codemodel="small",
        )


class Library:
    """Linked machine code; its functions can be called as long as this object lives."""

    _numbers = count()

    def __init__(self, code: bytes) -> None:
        self._host = _this_host()
        self._name = f"library{next(self._numbers)}"
        builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
        self._code = builder.link(self._host.linker, self._name)

    def address(self, name: str) -> int:
        """Return the address of a function; RuntimeError if there is none of that name."""
        found = self._host.linker.lookup(self._name, name)
        # What a lookup returns would unload the whole library at its own end.
        found.detach()
        return int(found[name])


def compile_module(module: ir.Module | str) -> Library:
    """Return a module, or its text, as callable machine code; RuntimeError if it is not valid."""
    return from_object(to_object(module))


def to_object(module: ir.Module | str, *, quick: bool = False) -> bytes:
    """Return the object code of a module or of its text; RuntimeError if it is not valid.

    `quick` code is made in a third of the time and takes about twice as long to run.
    """
    host = _this_host()
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    _simplify(parsed, host)
    machine = host.quick_machine if quick else host.machine
    return bytes(machine.emit_object(parsed))


def from_object(code: bytes) -> Library:
    """Return object code ready to call; RuntimeError if it is none for this kind of host.

    Damage inside the code is not seen: who keeps it on disk must check that it is whole.
    """
    return Library(code)


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python not look for garbage: a module is many objects, and none of them is any."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def host_identity() -> tuple[str, ...]:
    """Return all that object code depends on besides its module, for the key of a cache."""
    host = _this_host()
    llvm = ".".join(map(str, binding.llvm_version_info))
    versions = (f"llvmlite {llvmlite.__version__}", f"LLVM {llvm}")
    return (host.triple, host.processor, host.features, *versions, f"O{CODE_GENERATION_LEVEL}")


def vector_registers() -> tuple[int, int]:
    """Return how many vector registers the host has, and the bytes of each."""
    features = _this_host().features.split(",")
    for name, registers, size in (("+avx512f", 32, 64), ("+avx", 16, 32), ("+neon", 32, 16)):
        if name in features:
            return registers, size
    return 16, 16


def align_stack(function: ir.Function) -> None:
    """Let a function keep vectors on its stack without crossing cache lines.

    LLVM does not see to it for registers that it spills; where they cross, a loop that spills
    runs up to four times slower, depending on where the stack happens to begin.
    """
    function.attributes |= {"nounwind", f"alignstack({STACK_ALIGNMENT})"}


def leave_unoptimised(function: ir.Function) -> None:
    """Compile a function in half the time, to code that is slower: for what seldom runs."""
    function.attributes |= {"noinline", "optnone"}


def _simplify(parsed: binding.ModuleRef, host: Host) -> None:
    """Turn memory slots into values and tidy up; loops are neither unrolled nor vectorised."""
    passes = binding.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    options = binding.create_pipeline_tuning_options(speed_level=1)
    passes.run(parsed, binding.create_pass_builder(host.machine, options))


def _features() -> str:
    """Return the processor's features; LLVM cannot tell on every kind of host."""
    try:
        return str(binding.get_host_cpu_features().flatten())
    except RuntimeError:
        return ""


_hosts: list[Host] = []
_lock = threading.Lock()


def _this_host() -> Host:
    """Return the host, set up by the first caller."""
    with _lock:
        if not _hosts:
            _hosts.append(Host())
        return _hosts[0]
