"""A start's descriptor: its fields, whether it is legal, and its traffic on the DDR.

Functions in integers over an entry of the chip's flat record; compiled, they are the same.
`simulator.dma` words what is wrong.
"""

from __future__ import annotations

from isa.descriptor import BROADCAST, CORE_SHIFT, FIELDS, TRANSPOSE
from simulator.chip_record import (
    ADDRESS,
    BURST_BYTES,
    CORES,
    DDR_NUMBER,
    FROM,
    FROM_END,
    FROM_FIRST,
    FROM_MEMORY,
    GROUP,
    MEMORIES,
    MEMORY_COUNT,
    NONE,
    ROW_WORDS,
    ROWS,
    STRIDE,
    TO,
    TO_END,
    TO_FIRST,
    TO_MEMORY,
    TRAFFIC,
    TRANSPOSED,
    WORDS,
    Record,
)  # fmt: skip

CONTROL = FIELDS.index("control")
SOURCE_LOW, SOURCE_HIGH = FIELDS.index("source_low"), FIELDS.index("source_high")
SOURCE_ROWS, SOURCE_ROW_WORDS = FIELDS.index("source_rows"), FIELDS.index("source_row_words")
SOURCE_STRIDE = FIELDS.index("source_stride")
DESTINATION_LOW = FIELDS.index("destination_low")
DESTINATION_HIGH = FIELDS.index("destination_high")
DESTINATION_ROWS = FIELDS.index("destination_rows")
DESTINATION_ROW_WORDS = FIELDS.index("destination_row_words")
DESTINATION_STRIDE = FIELDS.index("destination_stride")

# What is wrong with a request
LEGAL = 0
NO_MEMBER = 1
EMPTY = 2  # of the source; of the destination one more
NOT_ALIGNED = 4  # likewise
OTHER_SHAPE = 6
OTHER_SIZE = 7
ROWS_OVERLAP = 8
MASK_TOO_LONG = 9
NOT_A_MEMBER = 10
OUTSIDE = 11  # of the source; of the destination one more
BOTH_IN_CORE = 13
NOT_INTO_CORE = 14
SIDES_OVERLAP = 15


def prepare(record: Record, core: int, entry: int) -> int:
    """Fill in what the words of an entry say; return LEGAL or what is wrong."""
    decode(record, entry)
    if record[entry + WORDS + CONTROL] & BROADCAST != 0 and record[entry + GROUP] == 0:
        return NO_MEMBER
    wrong = shape_problem(record, entry)
    if wrong == LEGAL:
        wrong = mask_problem(record, core, entry)
    if wrong == LEGAL:
        wrong = place_problem(record, entry)
    if wrong == LEGAL:
        record[entry + TRAFFIC] = traffic(record, entry)
    return wrong


def decode(record: Record, entry: int) -> None:
    """Take the fields out of the words; strides are signed."""
    words = entry + WORDS
    record[entry + TRANSPOSED] = record[words + CONTROL] & TRANSPOSE
    broadcast = record[words + CONTROL] & BROADCAST
    record[entry + GROUP] = record[words + CONTROL] >> CORE_SHIFT if broadcast != 0 else 0
    source = entry + FROM
    record[source + ADDRESS] = record[words + SOURCE_LOW] | record[words + SOURCE_HIGH] << 32
    record[source + ROWS] = record[words + SOURCE_ROWS]
    record[source + ROW_WORDS] = record[words + SOURCE_ROW_WORDS]
    record[source + STRIDE] = signed(record[words + SOURCE_STRIDE])
    target = entry + TO
    low = record[words + DESTINATION_LOW]
    record[target + ADDRESS] = low | record[words + DESTINATION_HIGH] << 32
    record[target + ROWS] = record[words + DESTINATION_ROWS]
    record[target + ROW_WORDS] = record[words + DESTINATION_ROW_WORDS]
    record[target + STRIDE] = signed(record[words + DESTINATION_STRIDE])


def signed(word: int) -> int:
    """Return an unsigned word as a signed one."""
    if word >> 31 != 0:
        return word - (1 << 32)
    return word


def shape_problem(record: Record, entry: int) -> int:
    """Return what is wrong with counts, strides and addresses."""
    source = entry + FROM
    target = entry + TO
    for side in range(2):
        plane = source if side == 0 else target
        if record[plane + ROWS] < 1 or record[plane + ROW_WORDS] < 1:
            return EMPTY + side
        if record[plane + ADDRESS] & 3 != 0 or record[plane + STRIDE] & 3 != 0:
            return NOT_ALIGNED + side
    turned = (
        record[source + ROWS] == record[target + ROW_WORDS]
        and record[source + ROW_WORDS] == record[target + ROWS]
    )
    if record[entry + TRANSPOSED] != 0 and not turned:
        return OTHER_SHAPE
    if words_of(record, source) != words_of(record, target):
        return OTHER_SIZE
    if record[target + ROWS] > 1 and abs(record[target + STRIDE]) < 4 * record[target + ROW_WORDS]:
        return ROWS_OVERLAP
    return LEGAL


def words_of(record: Record, plane: int) -> int:
    """Return how many words a plane has.

    Two products of counts below 2**32 that differ do so in their low 64 bits as well.
    """
    return record[plane + ROWS] * record[plane + ROW_WORDS]


def mask_problem(record: Record, core: int, entry: int) -> int:
    """Return what is wrong with the cores of a broadcast."""
    mask = record[entry + GROUP]
    if mask == 0:
        return LEGAL
    if mask >> record[CORES] != 0:
        return MASK_TOO_LONG
    if mask >> core & 1 == 0:
        return NOT_A_MEMBER
    return LEGAL


def place_problem(record: Record, entry: int) -> int:
    """Find the memories of both sides; return what is wrong with them."""
    record[entry + FROM_FIRST] = first_byte(record, entry + FROM)
    record[entry + FROM_END] = end_byte(record, entry + FROM)
    record[entry + TO_FIRST] = first_byte(record, entry + TO)
    record[entry + TO_END] = end_byte(record, entry + TO)
    source = memory_of(record, record[entry + FROM_FIRST], record[entry + FROM_END])
    if source == NONE:
        return OUTSIDE
    target = memory_of(record, record[entry + TO_FIRST], record[entry + TO_END])
    if target == NONE:
        return OUTSIDE + 1
    record[entry + FROM_MEMORY] = source
    record[entry + TO_MEMORY] = target
    if source != DDR_NUMBER and target != DDR_NUMBER:
        return BOTH_IN_CORE
    if record[entry + GROUP] != 0 and (source != DDR_NUMBER or target == DDR_NUMBER):
        return NOT_INTO_CORE
    ahead = record[entry + FROM_END] <= record[entry + TO_FIRST]
    behind = record[entry + TO_END] <= record[entry + FROM_FIRST]
    if source == target and not ahead and not behind:
        return SIDES_OVERLAP
    return LEGAL


def memory_of(record: Record, first: int, end: int) -> int:
    """Return the number of the memory that holds the bytes of a plane, or NONE.

    In 64 bits a sum of wild fields may wrap round; then the end is not behind the first byte.
    """
    for memory in range(MEMORY_COUNT):
        extent = MEMORIES + 2 * memory
        if record[extent] <= first and first < end and end <= record[extent + 1]:
            return memory
    return NONE


def first_byte(record: Record, plane: int) -> int:
    """Return the lowest byte address of a plane."""
    return record[plane + ADDRESS] + min(0, (record[plane + ROWS] - 1) * record[plane + STRIDE])


def end_byte(record: Record, plane: int) -> int:
    """Return one past the highest byte address of a plane."""
    span = max(0, (record[plane + ROWS] - 1) * record[plane + STRIDE])
    return record[plane + ADDRESS] + span + 4 * record[plane + ROW_WORDS]


def traffic(record: Record, entry: int) -> int:
    """Return the traffic on the DDR in whole bursts; DDR to DDR counts both directions."""
    total = 0
    if record[entry + FROM_MEMORY] == DDR_NUMBER:
        total += plane_traffic(record, entry + FROM)
    if record[entry + TO_MEMORY] == DDR_NUMBER:
        total += plane_traffic(record, entry + TO)
    return total


def plane_traffic(record: Record, plane: int) -> int:
    """Return the traffic of one plane in DDR."""
    row_bytes = 4 * record[plane + ROW_WORDS]
    address = record[plane + ADDRESS]
    stride = record[plane + STRIDE]
    return burst_bytes(address, record[plane + ROWS], row_bytes, stride, record[BURST_BYTES])


def burst_bytes(address: int, rows: int, row_bytes: int, stride: int, burst: int) -> int:
    """Return the DDR traffic, in bytes, of `rows` rows `stride` bytes apart, in whole bursts.

    Adjacent rows count as one run. Otherwise a burst that two rows share counts for both. All
    sizes are positive; the stride may also be 0 or negative.
    """
    if stride == row_bytes or rows == 1:
        return bursts(address % burst, rows * row_bytes, burst) * burst
    # A row's bursts depend on where in a burst it starts, and these phases repeat after at most
    # burst / 4 rows, as addresses and strides are words: sum one period, then the rest.
    first = address % burst
    step = stride % burst  # 0 or more, as % rounds down
    period = 0
    in_period = 0
    phase = first
    while period < rows and (period == 0 or phase != first):
        in_period += bursts(phase, row_bytes, burst)
        phase = (phase + step) % burst
        period += 1
    in_rest = 0
    phase = first
    for _ in range(rows % period):
        in_rest += bursts(phase, row_bytes, burst)
        phase = (phase + step) % burst
    return (rows // period * in_period + in_rest) * burst


def bursts(phase: int, run_bytes: int, burst: int) -> int:
    """Return how many bursts a run of bytes touches that starts `phase` bytes into one."""
    return (phase + run_bytes + burst - 1) // burst
