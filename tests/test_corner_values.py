"""Every instruction on corner values of its operands: both engines give the same bits.

Infinities, NaNs, subnormals, signed zeros, extremes, shift counts at and beyond the width. Half of
each register file holds corner values, the other half takes the results of one instruction on many
of them, one packet each. A NaN equals any other where the instruction makes floats.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from isa.instruction import REGISTRY, Effect, Instruction
from isa.machine import Machine
from isa.operands import (
    AR,
    AROR,
    RI,
    SVR,
    VLR,
    VR,
    VRI,
    Address,
    AddressKind,
    File,
    Imm32,
    Kind,
    Operand,
    R,
    Register,
    RPair,
    SVRi,
    VRPair,
)
from isa.packing.legality import check
from isa.program import Operation, Packet, Program
from simulator.chip import Chip
from simulator.compiled.core import Compiled
from simulator.fuzzing.classes import flows
from simulator.fuzzing.values import (
    FLOAT_BITS,
    NAN_BITS,
    REGISTER_BITS,
    SHORT_IMMEDIATES,
    WORD_BITS,
)

MACHINE = Machine.load()
LANES = MACHINE.vpu.lanes
COMPUTING = [e for e in REGISTRY.values() if e.effect in (Effect.NONE, Effect.LOAD, Effect.STORE)]
WORDS = (*FLOAT_BITS, *NAN_BITS, *WORD_BITS)
SCALARS = (*REGISTER_BITS, *(w - (w >> 31 << 32) for w in WORDS))
TABLE = 2048
"""Words of AM and SM that hold corner values."""

RESULTS: dict[type[Kind], list[Register]] = {
    R: [Register(File.SCALAR, n) for n in range(32, 64)],
    RPair: [Register(File.SCALAR, n) for n in range(32, 64, 2)],
    VR: [Register(File.VECTOR, n) for n in range(32, 64)],
    VRPair: [Register(File.VECTOR, n) for n in range(32, 64, 2)],
    AR: [Register(File.ADDRESS, n) for n in range(4, 8)],
    AROR: [Register(File.OFFSET, n) for n in range(16)],
    SVRi: [Register(File.EXCHANGE, n) for n in range(16)],
    SVR: [Register(File.EXCHANGE, -1)],
    VLR: [Register(File.LANE_MASK)],
}
STORES = 32
"""Rounds of an instruction without a result."""


def source(random: Random, kind: type[Kind], number: int) -> Operand:
    """Return a source that holds corner values, or is one."""
    if issubclass(kind, RI | VRI) and random.random() < 0.4:
        return random.choice(SHORT_IMMEDIATES)
    if issubclass(kind, AddressKind):
        base = Register(File.ADDRESS, 0 if kind.vector else 8)
        return Address(base, offset=number * 8 * LANES // kind.unit_bytes)
    if issubclass(kind, RPair | VRPair):
        return Register(kind.file, 2 * random.randrange(16))
    if issubclass(kind, R | VR):
        return Register(kind.file, random.randrange(32))
    if issubclass(kind, AR):
        return Register(File.ADDRESS, random.randrange(4))
    if issubclass(kind, SVR):
        return Register(File.EXCHANGE, -1)
    if issubclass(kind, SVRi):
        return Register(File.EXCHANGE, random.randrange(16))
    assert issubclass(kind, Imm32), f"test_corner_values draws no {kind.__name__} yet"
    return Imm32.encode(random.choice(WORDS))


def rounds(entry: Instruction, random: Random) -> Program:
    """Return a program that runs the instruction once for each register of its results."""
    slots = [slot for unit in entry.units for slot in MACHINE.slots_of(unit)]
    kinds = entry.results
    targets: list[Register | None] = [None] * STORES
    if kinds:
        targets = list(next(t for kind, t in RESULTS.items() if issubclass(kinds[0], kind)))
    packets = []
    for number, target in enumerate(targets):
        operands = [source(random, kind, number) for _, kind in entry.sources]
        if entry.in_place:
            operands[-1] = target
        operands += [target] * len(kinds)
        packets.append(alone(entry, random.choice(slots), *operands))
    packets += [alone(REGISTRY["SNOP"], "SBR", 30), alone(REGISTRY["HALT"], "SBR")]
    return Program(entry.name, tuple(packets), {}, cores=1)


def alone(entry: Instruction, slot: str, *operands: Any) -> Packet:
    return Packet((Operation(entry, operands, slot=slot),), pinned=True)


def run(program: Program, seed: str, code: Compiled | None) -> Any:
    """Fill registers and memories with corner values, run, and return the core."""
    chip, random = Chip(program, MACHINE, compiled=code), Random(seed)
    (core,) = chip.cores
    core.scalars[:] = random.choices(SCALARS, k=64)
    core.vectors[...] = np.array(random.choices(WORDS, k=64 * LANES)).reshape(64, LANES)
    core.exchange[:] = random.choices(WORDS, k=16)
    core.addresses[:] = random.choices(REGISTER_BITS, k=16)
    core.addresses[0], core.addresses[8] = core.array_memory.base, core.scalar_memory.base
    for memory in (core.array_memory, core.scalar_memory):
        memory.words[:TABLE] = random.choices(WORDS, k=TABLE)
    chip.run(1000)
    return core


def same(one: Any, other: Any, floats: bool) -> Any:
    """Tell where two arrays are the same; of wide registers a NaN is the low word."""
    equal = one == other
    if floats:
        low = [np.asarray(a).astype(np.int64) & 0x7FFFFFFF for a in (one, other)]
        equal |= (low[0] > 0x7F800000) & (low[1] > 0x7F800000)
    return equal


@pytest.mark.parametrize("entry", COMPUTING, ids=lambda entry: entry.name)
def test_both_engines_compute_the_same_from_corner_values(entry: Instruction) -> None:
    floats = any(flow.result for flow in flows(entry))
    single = bool(entry.results) and entry.results[0] in (SVR, VLR)
    for attempt in range(6 if single else 1):
        program = rounds(entry, Random(f"{entry.name}/{attempt}"))
        check(program, MACHINE)
        code = Compiled(program, MACHINE)
        one, other = (run(program, f"{entry.name}/{attempt}", made) for made in (None, code))
        for name in ("scalars", "addresses", "offsets", "vectors", "exchange"):
            mine, theirs = (np.array(getattr(core, name)) for core in (one, other))
            assert same(mine, theirs, floats).all(), (name, np.argwhere(mine != theirs)[:3])
        assert one.lane_mask == other.lane_mask
        for name in ("array_memory", "scalar_memory"):
            mine, theirs = (getattr(core, name).words for core in (one, other))
            assert (mine == theirs).all(), (name, np.flatnonzero(mine != theirs)[:3])


def test_the_results_are_not_all_alike() -> None:
    """Shifts by counts from 0 to beyond the width, and products of extremes, differ in plenty."""
    for name, least in (("SSHFLL", 10), ("VFMULAS32", 100), ("VLDDW", 30)):
        core = run(rounds(REGISTRY[name], Random(name)), name, None)
        values = core.scalars[32:] if name == "SSHFLL" else core.vectors[32:].reshape(-1).tolist()
        assert len(set(values)) > least
