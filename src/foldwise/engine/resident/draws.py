"""The random numbers of engine/random.py once more, one at a time; equal bit for bit."""

from __future__ import annotations

import math

import numpy as np

from foldwise.engine.random import PURPOSES, STARTS, TWIN
from foldwise.engine.resident.tiles import Array, Pointer, compiled, number

FIRST, SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
START, OTHER_START, OTHER = (np.uint32(word) for word in (*STARTS, TWIN))
ORDER, DROPOUT, NOISE, MIX = (PURPOSES[name] for name in ("order", "dropout", "noise", "mix"))
NOTHING = -1
"""Stands for a number that a key does not have."""


@compiled
def bits(first: np.uint32, second: np.uint32, position: np.uint32) -> np.uint32:
    """Hash a position under a key of two words."""
    x = np.uint32(position ^ first)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * FIRST + second)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * SECOND)
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def key(seed: int, purpose: int, one: int, other: int) -> tuple[np.uint32, np.uint32]:
    """Derive a key from a seed, a purpose and up to two further numbers."""
    first, second = START, OTHER_START
    for part in (seed, purpose, one, other):
        if part == NOTHING:
            continue
        whole = np.int64(part)
        for word in (np.uint32(whole & 0xFFFFFFFF), np.uint32((whole >> 32) & 0xFFFFFFFF)):
            first, second = bits(first, second, word), bits(np.uint32(second ^ OTHER), first, word)
    return first, second


@compiled
def mask(
    out: Pointer, at: int, first: np.uint32, second: np.uint32, position: int, count: int, limit: int
) -> None:
    """Write 0 where the draw at a position is below the limit, in 24-bit units, and 1 elsewhere."""
    one, zero = number(out, 1), number(out, 0)
    start, lowest = np.uint32(position), np.int32(limit)
    for i in range(count):
        drawn = np.int32(bits(first, second, np.uint32(start + np.uint32(i))) >> np.uint32(8))
        out[at + i] = zero if drawn < lowest else one


@compiled
def normal(first: np.uint32, second: np.uint32, position: int) -> float:
    """Draw a standard normal number (Box & Muller 1958)."""
    one = (np.float64(bits(first, second, np.uint32(2 * position)) >> np.uint32(8)) + 0.5) / (1 << 24)
    other = (np.float64(bits(first, second, np.uint32(2 * position + 1)) >> np.uint32(8)) + 0.5) / (1 << 24)
    return math.sqrt(-2 * math.log(one)) * math.cos(2 * math.pi * other)


@compiled
def permutation(first: np.uint32, second: np.uint32, count: int) -> Array:
    """Order 0 … count−1 by their hashes, as signed numbers; equal hashes keep their order."""
    hashes, order, others = np.empty(count, np.uint32), np.arange(count), np.empty(count, np.int64)
    for i in range(count):
        hashes[i] = bits(first, second, np.uint32(i)) ^ np.uint32(
            0x80000000
        )  # so that negative ones come first
    # by digits of 11 bits, the last first: a comparing sort takes ten times as long
    for shift in (0, 11, 22):
        ends = np.zeros(2049, np.int64)
        for i in range(count):
            ends[1 + ((hashes[i] >> np.uint32(shift)) & np.uint32(2047))] += 1
        for after in range(1, 2049):
            ends[after] += ends[after - 1]
        for k in range(count):
            i = order[k]
            digit = (hashes[i] >> np.uint32(shift)) & np.uint32(2047)
            others[ends[digit]] = i
            ends[digit] += 1
        order, others = others, order
    return order


@compiled
def row_order(seed: int, epoch: int, rows: int) -> Array:
    """Order all rows for a seed and an epoch, as `engine.orders.epoch_order` does."""
    first, second = key(seed, ORDER, epoch, NOTHING)
    return permutation(first, second, rows)
