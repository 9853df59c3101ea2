"""Vectors on their way while VLR changes: they land in the lanes that were enabled when they left.

Written packet by packet, as only the exposed pipeline lets a result leave under one lane mask and
land under another. Every test runs on both engines.
"""

from __future__ import annotations

import pytest

from isa import Builder, when_set
from micro_programs import AR, LANES, VLR, VR, Bench, R, machine, one

FULL = 0xFFFF


@pytest.mark.parametrize("predicated", [False, True])
@pytest.mark.parametrize("later", [0, 0x00F0])
def test_a_result_lands_in_the_lanes_of_its_issue(predicated: bool, later: int) -> None:
    # t=0: 3 * 4 + 5 leaves with all lanes and lands at 6; the new VLR is issued at 1 and lands
    # at 5; the label at 4 begins another stretch of packets between the two.
    def body(k: Builder) -> None:
        predicate = when_set(VR[0]) if predicated else None
        one(k, "vfmulas32", VR[1], VR[2], VR[3], VR[3], when=predicate)
        one(k, "smvcgc_vlr", R[4], VLR)
        k.idle(2)
        k.place(k.new_label("further"))
        k.idle(4)
        one(k, "vmov", VR[3], VR[5])
        one(k, "halt")

    bench = Bench(body)
    bench[R[4]] = later
    bench[VR[0]] = [1] * 16
    bench[VR[1]], bench[VR[2]], bench[VR[3]] = [3.0] * 16, [4.0] * 16, [5.0] * 16
    bench.run()
    assert bench.floats(VR[3]) == [17.0] * 16
    copied = [17.0 if later >> lane & 1 else 0.0 for lane in LANES]
    assert bench.floats(VR[5]) == copied


def test_a_disabled_lane_keeps_what_landed_before_vlr_changed() -> None:
    # The multiply-add leaves under all lanes; the move leaves under none and must not land.
    def body(k: Builder) -> None:
        one(k, "smvcgc_vlr", R[4], VLR)
        one(k, "vfmulas32", VR[1], VR[2], VR[3], VR[3])
        k.idle(5)
        one(k, "vadd", 0, VR[2], VR[3], slot="VIEU")
        k.idle(3)
        one(k, "halt")

    bench = Bench(body)
    bench[R[4]] = 0
    bench[VR[1]], bench[VR[2]], bench[VR[3]] = [3.0] * 16, [4.0] * 16, [5.0] * 16
    bench.run()
    assert bench.floats(VR[3]) == [17.0] * 16


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_double_word_stores_of_few_lanes(lanes: int) -> None:
    def body(k: Builder) -> None:
        one(k, "vstdw", VR[24], AR[0] + 0)
        one(k, "halt")

    bench = Bench(body, machine(f"vpu.lanes={lanes}"))
    bench[VR[24]], bench[VR[25]] = list(range(lanes)), list(range(100, 100 + lanes))
    bench.run()
    expected = [value for lane in range(lanes) for value in (lane, 100 + lane)]
    assert bench.words(0x4000_0000, 2 * lanes) == expected
