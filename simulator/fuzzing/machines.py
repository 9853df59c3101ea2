"""Machines to run random programs on: the default one, and some that differ where engines branch.

Each variant is a list of `section.field=value` overrides, as `--set` takes them, so that a finding
can be run again. Called by `generator`.
"""

from __future__ import annotations

from random import Random

from isa.machine import Machine

PLAIN_SHARE = 0.45
"""Programs on the machine as it is."""

NO_PAIRS = '["SLDST", "SMAC1", "SIEU", "SBR", "VLDST1", "VMAC1", "VIEU"]'
"""One slot of each unit."""

VARIANTS: tuple[tuple[str, ...], ...] = (
    ("vpu.lanes=8",),
    ("vpu.lanes=4",),
    ("am.bank_model=true", "am.banks=8", "am.bank_row_bytes=32"),
    ("am.bank_model=true",),
    ("issue.one_result_per_unit=false",),
    ("issue.mac_in_place=false",),
    ("ddr.bytes_per_cycle=1.3",),
    ("dma.launch_cycles=0", "barrier.cycles=0"),
    ("dma.bytes_per_cycle=7.5", "dma.transpose_bytes_per_cycle=2.25"),
    ("dma.launch_cycles=500",),
    ("dma.channels=3",),
    ("am.bytes=8192", "sm.bytes=4096"),
    ("chip.cores=6",),
    ("ddr.burst_bytes=64",),
    (f"issue.slots={NO_PAIRS}",),
    (f'issue.slots={NO_PAIRS[:-1]}, "SMAC2", "VLDST2"]',),
    ("latency.branch=3",),
    ("latency.branch=12",),
    ("latency.address_update=4",),
    ("latency.store=1",),
    ("latency.scalar_integer=3", "latency.vector_integer=2"),
)

LONGEST_LATENCY = 12


def random_overrides(random: Random) -> tuple[str, ...]:
    """Return the overrides of one machine: none, one or two variants, or other latencies."""
    if random.random() < PLAIN_SHARE:
        return ()
    chosen = list(random.choice(VARIANTS))
    if random.random() < 0.3:
        chosen += _besides(chosen, random.choice(VARIANTS))
    if random.random() < 0.3:
        names = random.sample(sorted(Machine.load().latency), 8)
        drawn = [f"latency.{name}={random.randint(1, LONGEST_LATENCY)}" for name in names]
        chosen += _besides(chosen, drawn)
    return tuple(chosen)


def _besides(chosen: list[str], more: list[str] | tuple[str, ...]) -> list[str]:
    """Return what `more` adds for fields that nothing has chosen yet."""
    taken = {text.partition("=")[0] for text in chosen}
    return [text for text in more if text.partition("=")[0] not in taken]
