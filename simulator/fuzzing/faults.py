"""Deliberate mistakes in random programs: both engines must end in the same error.

Each kind changes one thing of a legal program such that, if the changed packet is reached, the run
goes wrong. Called by `work` for a share of the programs.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from attrs import evolve

from isa.instruction import REGISTRY, Effect
from isa.operands import Address, R, Register
from isa.packing.legality import findings
from isa.program import Operation, Packet, Program
from simulator.fuzzing.case import Case

Break = Callable[[Random, Case], Case | None]


def with_fault(case: Case, share: float) -> Case:
    """Return the case, or for a share of all cases the same with a mistake."""
    random = Random(f"{case.seed}/{case.index}/fault")
    if random.random() >= share:
        return case
    for name in random.sample(sorted(FAULTS), len(FAULTS)):
        broken = FAULTS[name](random, case)
        if broken is not None and not findings(broken.program, broken.machine):
            return evolve(broken, fault=name, checked=False)
    return case


def _replaced(program: Program, at: int, old: Operation | None, new: Operation | None) -> Program:
    """Return the program with one operation of a packet replaced, added or taken away."""
    packet = program.packets[at]
    kept = tuple(o for o in packet.operations if o is not old)
    operations = kept if new is None else (*kept, evolve(new, origin=packet.origin))
    changed: Packet = evolve(packet, operations=operations)
    return evolve(program, packets=(*program.packets[:at], changed, *program.packets[at + 1 :]))


def _of_effect(case: Case, *effects: Effect) -> list[tuple[int, Operation]]:
    return [
        (at, operation)
        for at, packet in enumerate(case.program.packets)
        for operation in packet.operations
        if operation.instruction.effect in effects
    ]


def _wild_address(random: Random, case: Case) -> Case | None:
    """Let an access go through an address register that holds anything."""
    found = _of_effect(case, Effect.LOAD, Effect.STORE)
    if not found:
        return None
    at, operation = random.choice(found)
    address = operation.address
    assert address is not None
    half = range(8) if address.base.is_vector_half else range(8, 16)
    used = {o.address.base for _, o in found if o.address is not None}
    wild = [r for r in (Register(address.base.file, n) for n in half) if r not in used]
    if not wild:
        return None
    new = Address(random.choice(wild), address.update, address.offset, address.negative)
    operands = tuple(new if o is address else o for o in operation.operands)
    changed = evolve(operation, operands=operands, predicate=None)
    return evolve(case, program=_replaced(case.program, at, operation, changed))


def _far_offset(random: Random, case: Case) -> Case | None:
    """Let an access reach far beyond its region, into another one or out of the memory."""
    found = _of_effect(case, Effect.LOAD)
    if not found:
        return None
    at, operation = random.choice(found)
    address = operation.address
    assert address is not None
    new = Address(address.base, offset=65535, negative=random.random() < 0.5)
    operands = tuple(new if o is address else o for o in operation.operands)
    changed = evolve(operation, operands=operands, buffer="")
    return evolve(case, program=_replaced(case.program, at, operation, changed))


def _crooked_address(random: Random, case: Case) -> Case | None:
    """Add a few bytes to an address register that is followed."""
    found = _of_effect(case, Effect.LOAD, Effect.STORE)
    moves = [
        (at, operation)
        for at, packet in enumerate(case.program.packets)
        for operation in packet.operations
        if operation.instruction.name in ("SADDA", "SSUBA")
        and isinstance(operation.operands[0], int)
    ]
    used = {o.address.base for _, o in found if o.address is not None}
    moves = [(at, o) for at, o in moves if o.operands[2] in used]
    if not moves:
        return None
    at, operation = random.choice(moves)
    amount = int(str(operation.operands[0])) + random.choice((1, 2, 3))
    changed = evolve(operation, operands=(amount, *operation.operands[1:]), predicate=None)
    return evolve(case, program=_replaced(case.program, at, operation, changed))


def _bad_descriptor(random: Random, case: Case) -> Case | None:
    """Change a word of a descriptor of one core."""
    data = [list(pieces) for pieces in case.program.scalar_data]
    core = random.randrange(len(data))
    places = [n for n, (_, words) in enumerate(data[core]) if len(words) == 12]
    place = random.choice(places)
    address, words = data[core][place]
    changed = words.copy()
    changed[random.choice((0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))] ^= np.uint32(
        1 << random.choice((0, 1, 2, 3, 8, 9, 12, 20, 31))
    )
    data[core][place] = (address, changed)
    program = evolve(case.program, scalar_data=tuple(tuple(pieces) for pieces in data))
    return evolve(case, program=program)


def _few_cycles(random: Random, case: Case) -> Case | None:
    """Let the run pass its limit of cycles."""
    return evolve(case, cycle_limit=random.randint(1, 1500))


def _lost_wait(random: Random, case: Case) -> Case | None:
    """Take away a wait, so that its channel is busy or a later wait finds nothing."""
    found = _of_effect(case, Effect.DMA_WAIT, Effect.DMA_START, Effect.BARRIER)
    if not found:
        return None
    at, operation = random.choice(found)
    return evolve(case, program=_replaced(case.program, at, operation, None))


def _wild_branch(random: Random, case: Case) -> Case | None:
    """Let a branch go to where a register of random work says."""
    found = _of_effect(case, Effect.BRANCH)
    if not found:
        return None
    at, operation = random.choice(found)
    registers = [
        o
        for packet in case.program.packets
        for other in packet.operations
        for o in other.results
        if isinstance(o, Register) and R.accepts(o)
    ]
    changed = evolve(operation, operands=(random.choice(registers),))
    return evolve(case, program=_replaced(case.program, at, operation, changed))


def _other_latency(random: Random, case: Case) -> Case | None:
    """Give a latency another value: results meet that did not, branches overlap."""
    name = random.choice(("latency.vector_integer", "latency.branch", "latency.scalar_load",
                          "latency.vector_load", "latency.vector_add_float"))  # fmt: skip
    kept = [o for o in case.overrides if not o.startswith(name)]
    return evolve(case, overrides=(*kept, f"{name}={random.randint(1, 9)}"))


def _two_stores(random: Random, case: Case) -> Case | None:
    """Store twice in one packet to what may be the same words."""
    slots = case.machine.slots_of(REGISTRY["VSTW"].units[0])
    found = [
        (
            at,
            o,
            [s for s in slots if s not in {p.slot for p in case.program.packets[at].operations}],
        )
        for at, o in _of_effect(case, Effect.STORE)
        if o.slot in slots
    ]
    found = [entry for entry in found if entry[2]]
    if not found:
        return None
    at, operation, free = random.choice(found)
    address = operation.address
    assert address is not None
    others = [Register(address.base.file, n) for n in range(8) if n != address.base.index]
    operands = (operation.operands[0], Address(random.choice(others)))
    second = evolve(operation, operands=operands, slot=free[0], buffer="")
    return evolve(case, program=_replaced(case.program, at, None, second))


FAULTS: dict[str, Break] = {
    "wild address": _wild_address,
    "far offset": _far_offset,
    "crooked address": _crooked_address,
    "bad descriptor": _bad_descriptor,
    "few cycles": _few_cycles,
    "lost wait": _lost_wait,
    "wild branch": _wild_branch,
    "other latency": _other_latency,
    "two stores": _two_stores,
}
