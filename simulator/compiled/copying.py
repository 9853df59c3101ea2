"""What a transfer moves, copied by machine code: planes of other row lengths, transposes.

Functions in integers over an entry of the chip's flat record and the words of both memories, called
by the chip's compiled loop. The reference engine copies whole planes with numpy (`simulator.dma`):
Python is too slow to go word by word.
"""

from __future__ import annotations

from simulator.chip_record import (
    ADDRESS,
    FROM,
    FROM_MEMORY,
    MEMORIES,
    ROW_WORDS,
    ROWS,
    STRIDE,
    TO,
    TO_MEMORY,
    TRANSPOSED,
    Record,
)
from simulator.compiled.primitives import Flags, Words, copy_run, fill_run

TILE = 16
"""Rows and columns transposed together: the lines of both sides stay in the host's cache."""

SHORT = 8
"""Words below which a loop is faster than a call of the C library."""


def copy(record: Record, entry: int, source: Words, target: Words) -> None:
    """Copy what an entry says; the words are those of its two memories."""
    from_row = record[entry + FROM + ROW_WORDS]
    at = first_word(record, entry + FROM, record[entry + FROM_MEMORY])
    to = first_word(record, entry + TO, record[entry + TO_MEMORY])
    step = record[entry + FROM + STRIDE] >> 2
    target_step = record[entry + TO + STRIDE] >> 2
    rows = record[entry + FROM + ROWS]
    if record[entry + TRANSPOSED] != 0:
        transpose(source, at, rows, from_row, step, target, to, target_step)
    else:
        to_row = record[entry + TO + ROW_WORDS]
        copy_rows(source, at, rows * from_row, from_row, step, target, to, to_row, target_step)


def first_word(record: Record, plane: int, memory: int) -> int:
    """Return the index in its memory of a plane's first word."""
    return (record[plane + ADDRESS] - record[MEMORIES + 2 * memory]) >> 2


def copy_rows(
    source: Words,
    at: int,
    words: int,
    from_row: int,
    step: int,
    target: Words,
    to: int,
    to_row: int,
    target_step: int,
) -> None:
    """Copy words from rows of `from_row` words, `step` apart, to rows of `to_row` words."""
    if step == from_row:
        from_row = words  # rows that follow each other are one
    if target_step == to_row:
        to_row = words
    from_left = from_row
    to_left = to_row
    while words > 0:
        run = min(words, min(from_left, to_left))
        if run < SHORT:
            for word in range(run):
                target[to + word] = source[at + word]
        else:
            copy_run(target, to, source, at, run)
        words -= run
        at += run
        to += run
        from_left -= run
        to_left -= run
        if from_left == 0:
            from_left = from_row
            at += step - from_row
        if to_left == 0:
            to_left = to_row
            to += target_step - to_row


def transpose(
    source: Words,
    at: int,
    rows: int,
    row_words: int,
    step: int,
    target: Words,
    to: int,
    target_step: int,
) -> None:
    """Copy column by column, in tiles."""
    for top in range(0, rows, TILE):
        bottom = min(rows, top + TILE)
        for left in range(0, row_words, TILE):
            right = min(row_words, left + TILE)
            for row in range(top, bottom):
                line = at + row * step
                place = to + row
                for column in range(left, right):
                    target[place + column * target_step] = source[line + column]


def mark_unknown(record: Record, entry: int, unknown: Flags) -> None:
    """Note that the words a transfer would write in SM are data that nobody knows."""
    to = first_word(record, entry + TO, record[entry + TO_MEMORY])
    step = record[entry + TO + STRIDE] >> 2
    words = record[entry + TO + ROW_WORDS]
    rows = record[entry + TO + ROWS]
    if step == words:
        words = words * rows  # rows that follow each other are one
        rows = 1
    for row in range(rows):
        fill_run(unknown, to + row * step, words)
