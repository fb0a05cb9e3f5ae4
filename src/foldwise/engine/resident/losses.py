"""The losses of engine/losses.py for one block of rows, with their gradients by the outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from foldwise.engine.resident.functions import LOWEST, exp_below, sigmoid
from foldwise.engine.resident.tiles import Array, Pointer, compiled, number

LOSSES = (
    "squared_error",
    "half_squared_error",
    "absolute_error",
    "huber",
    "quantile",
    "cross_entropy",
    "binary_cross_entropy",
    "hinge",
    "binary_hinge",
)
SQUARED, HALF_SQUARED, ABSOLUTE, HUBER, QUANTILE, CROSS_ENTROPY, BINARY, HINGE, BINARY_HINGE = range(9)


@compiled
def add_loss(
    loss: int,
    work: Pointer,
    at: int,
    apart: int,
    row: int,
    outputs: int,
    rows: int,
    classes: Array,
    numbers: Array,
    weights: Array,
    factor: float,
    knobs: Any,
    side: int,
) -> float:
    """Add the gradient of factor·Σ weight·loss over the rows of a block to their slopes; give Σ weight·loss.

    The outputs lie at `at`, their slopes `apart` from them. `classes [rows]` are −1 where the targets are `numbers
    [rows, outputs]`; `side` is room for as much as the outputs take.
    """
    if loss == CROSS_ENTROPY:
        return _cross_entropy(
            work, at, apart, row, outputs, rows, classes, numbers, weights, factor, knobs.label_smoothing, side
        )  # fmt: skip
    total = 0.0
    for r in range(rows):
        weight, place = weights[r], at + r * row
        slope = number(work, factor) * weight
        if loss == HINGE:
            own = _hinge(work, place, place + apart, outputs, classes[r], slope, knobs.margin)
        else:
            own = _of_numbers(loss, work, place, place + apart, outputs, numbers, r, slope, knobs)
        total += np.float64(own) * weight
    return total


@compiled
def _of_numbers(
    loss: int,
    work: Pointer,
    at: int,
    slopes: int,
    outputs: int,
    targets: Array,
    row: int,
    slope: Any,
    knobs: Any,
) -> Any:
    zero, one, half = number(work, 0), number(work, 1), number(work, 0.5)
    total, share = zero, slope / number(work, outputs)
    for j in range(outputs):
        x, y = work[at + j], targets[row, j]
        e = x - y
        if loss == SQUARED:
            total += e * e
            d = e + e
        elif loss == HALF_SQUARED:
            total += half * (e * e)
            d = e
        elif loss == ABSOLUTE:
            total += abs(e)
            d = np.sign(e)
        elif loss == HUBER:
            delta = number(work, knobs.huber_delta)
            inside = abs(e) <= delta
            total += half * (e * e) if inside else delta * (abs(e) - half * delta)
            d = e if inside else delta * np.sign(e)
        elif loss == QUANTILE:
            q = number(work, knobs.quantile)
            over, under = -q * e, (one - q) * e
            total += under if under > over else over
            # where the two are equal, torch takes the mean of their slopes
            d = -q if over > under else one - q if under > over else half * (one - q) - half * q
            d = e if e != e else d
        elif loss == BINARY:
            s = number(work, knobs.label_smoothing)
            y = y * (one - s) + s * half
            total += (x if x > zero else zero) - x * y + number(work, math.log1p(exp_below(-abs(x))))
            d = sigmoid(x) - y
        else:
            side = y + y - one
            over = number(work, knobs.margin) - side * x
            total += zero if over < zero else over
            d = zero if over < zero else -side
        work[slopes + j] += share * d
    return total / number(work, outputs)


@compiled
def _hinge(work: Pointer, at: int, slopes: int, outputs: int, right: int, slope: Any, margin: float) -> Any:
    total, count = number(work, 0), number(work, 0)
    for j in range(outputs):
        over = work[at + j] - work[at + right] + number(work, margin)
        if j != right and not over < 0:
            total += over
            count += number(work, 1)
            work[slopes + j] += slope
    work[slopes + right] -= slope * count
    return total


@compiled
def _cross_entropy(
    work: Pointer,
    at: int,
    apart: int,
    row: int,
    outputs: int,
    rows: int,
    classes: Array,
    numbers: Array,
    weights: Array,
    factor: float,
    smoothing: float,
    side: int,
) -> float:
    keeps, spread = number(work, 1) - number(work, smoothing), number(work, smoothing) / number(work, outputs)
    # the exponentials of all rows in one loop, which becomes vectors
    for r in range(rows):
        place, shifted = at + r * row, side + r * row
        highest = _highest(work, place, outputs)
        for j in range(outputs):
            work[shifted + j] = work[place + j] - highest
        for j in range(outputs, row):
            work[shifted + j] = number(work, LOWEST)
    for i in range(side, side + rows * row):
        work[i] = exp_below(work[i])
    total = 0.0
    for r in range(rows):
        place, shares, slopes = at + r * row, side + r * row, at + r * row + apart
        mass = number(work, 0)
        for j in range(outputs):
            mass += work[shares + j]
        log_mass = number(work, math.log(mass)) + _highest(work, place, outputs)
        own, whole, slope = number(work, 0), number(work, 1), number(work, factor) * weights[r]
        if classes[r] >= 0 and smoothing == 0:
            own = log_mass - work[place + classes[r]]
            work[slopes + classes[r]] -= slope
        else:
            whole = number(work, 0)
            for j in range(outputs):
                y = (
                    numbers[r, j]
                    if classes[r] < 0
                    else number(work, 1)
                    if classes[r] == j
                    else number(work, 0)
                )
                y = keeps * y + spread
                whole += y
                own += y * (log_mass - work[place + j])
                work[slopes + j] -= slope * y
        share = slope * whole / mass
        for j in range(outputs):
            work[slopes + j] += share * work[shares + j]
        total += np.float64(own) * weights[r]
    return total


@compiled
def _highest(work: Pointer, at: int, count: int) -> Any:
    highest = work[at]
    for j in range(1, count):
        x = work[at + j]
        highest = x if x > highest else highest
    return highest
