"""The layers of a chain: what each makes of a block of rows, and its gradient.

A chain is a table of layers (`Program`). One core works in one flat array, `work`, whose parts `Room` names. What a
layer gives for the rows of a block lies among its `values`, and the gradient of the loss by it at the same place among
its `slopes`; rows are `…_ROW` numbers long there, a whole number of vectors, of which the last ones mean nothing.
Weights and their gradients lie as in `State.parameters`.

Functions get one array and many numbers, because each array that is handed on costs as much as a short loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from foldwise.engine.resident.draws import DROPOUT, key, mask
from foldwise.engine.resident.functions import erf, exp_below, sigmoid, tanh
from foldwise.engine.resident.tiles import (
    PADDING,
    Array,
    Pointer,
    add_product,
    compiled,
    multiply,
    number,
    turn_around,
)

KINDS = range(10)
LINEAR, CONSTANT, ACTIVATION, DROP, BATCH_NORM, ROW_NORM, POLYNOMIAL, FOURIER, FORK, JOIN = KINDS
RELU, LEAKY_RELU, TANH, SIGMOID, SCALED_SIGMOID, GELU, SILU = range(7)

FIELDS = range(12)
KIND, INPUTS, OUTPUTS, IN, OUT, IN_ROW, OUT_ROW, WEIGHT, BIAS, MORE, WHICH, KEEP = FIELDS
"""What the table says of a layer: its kind, the length of a row before and after it; where they lie and how much room
they take, for one row of a block; where its weights lie (−1: it has none); and what the kind needs beside:

LINEAR: MORE its weights turned around, WHICH whether the gradient by its input is wanted · ACTIVATION: WHICH function;
it may write over its input, as may DROP: WHICH of the dropout layers, MORE how often it stood before · BATCH_NORM: MORE
running mean and variance among the constants · ROW_NORM: MORE number of groups · POLYNOMIAL: MORE mean and scale, WHICH
degree · FOURIER: MORE directions and phases · FORK, JOIN: MORE the other end's values. KEEP is what is kept for the
gradient."""


class Program(NamedTuple):
    """A chain of layers, and how much room it takes."""

    layers: Array  # [layers, FIELDS]
    numbers: Array  # [layers, 2]: ε and momentum of normalization, slope of leaky ReLU
    parameters: int
    constants: int  # numbers in buffers
    values: int  # of one row
    kept: int  # of one row
    turned: int
    widest: int
    whole: bool  # whether a batch must be one block, because a layer looks at all its rows


class Room(NamedTuple):
    """Where the parts of a core's work begin."""

    values: int
    slopes: int
    kept: int
    weights: int
    gradient: int
    constants: int  # what is in buffers
    turned: int  # weights of linear layers as [inputs, outputs]
    side: int
    sums: int
    size: int


@compiled
def room_for(program: Program, space: int) -> Room:
    """Lay the parts out, for blocks of `space` rows; behind each there is room for what is read too far."""
    values = _line(space * program.values + PADDING)
    slopes_at, kept_at = values, 2 * values
    weights_at = kept_at + _line(space * program.kept + program.widest + PADDING)
    gradient_at = weights_at + _line(program.parameters + PADDING)
    constants_at = gradient_at + _line(program.parameters + PADDING)
    turned_at = constants_at + _line(program.constants + PADDING)
    side_at = turned_at + _line(program.turned + PADDING)
    sums_at = side_at + _line(max(8 * PADDING, space * program.widest))
    return Room(
        0, slopes_at, kept_at, weights_at, gradient_at, constants_at, turned_at, side_at, sums_at,
        sums_at + 2 * program.widest + PADDING,
    )  # fmt: skip


@compiled
def _line(count: int) -> int:
    return -(-count // PADDING) * PADDING


@compiled
def turn_weights(layers: Array, work: Pointer, room: Room) -> None:
    """Lay the weights of linear layers as [inputs, outputs], once for a step: so they are read in both directions."""
    for at in range(len(layers)):
        if layers[at, KIND] == LINEAR:
            inputs, outputs, row = layers[at, INPUTS], layers[at, OUTPUTS], layers[at, OUT_ROW]
            weight, turned = room.weights + layers[at, WEIGHT], room.turned + layers[at, MORE]
            turn_around(work, turned, row, weight, inputs, outputs, inputs)


@compiled
def forward(
    layers: Array,
    numbers: Array,
    work: Pointer,
    room: Room,
    space: int,
    rows: int,
    masks: Any,
    first: int,
    whole: int,
) -> None:
    """Send the rows of a block through the chain; they lie at the beginning of the values.

    `space` is the number of rows for which there is room, `first` the place of the block's first row in its batch of
    `whole` rows, `masks` what dropout needs; without any, the network is evaluated.
    """
    for at in range(len(layers)):
        kind, inputs, outputs = layers[at, KIND], layers[at, INPUTS], layers[at, OUTPUTS]
        in_row, out_row = layers[at, IN_ROW], layers[at, OUT_ROW]
        weight, bias = layers[at, WEIGHT], layers[at, BIAS]
        weight, bias = (
            (room.weights + weight if weight >= 0 else -1),
            (room.weights + bias if bias >= 0 else -1),
        )
        more, which = layers[at, MORE], layers[at, WHICH]
        before, after = room.values + layers[at, IN] * space, room.values + layers[at, OUT] * space
        keep = room.kept + layers[at, KEEP] * space
        if kind == LINEAR:
            multiply(
                work,
                after,
                out_row,
                before,
                in_row,
                1,
                room.turned + more,
                out_row,
                bias,
                rows,
                outputs,
                inputs,
            )
        elif kind == ACTIVATION:
            _activate(which, numbers[at, 0], work, before, after, keep, rows * out_row)
        elif kind == DROP:
            _drop(work, before, after, keep, rows, outputs, out_row, masks, which, more, first, whole)
        elif kind == BATCH_NORM:
            _batch_norm(
                work, room.constants + more, room.sums, before, keep, rows, outputs, out_row,
                numbers[at, 0], numbers[at, 1], masks.training,
            )  # fmt: skip
            _scale_and_shift(work, weight, bias, after, out_row, keep, out_row, rows, outputs)
        elif kind == ROW_NORM:
            _row_norm(work, before, keep, rows, outputs, out_row, more, numbers[at, 0])
            _scale_and_shift(work, weight, bias, after, out_row, keep, out_row + more, rows, outputs)
        elif kind == JOIN:
            other = room.values + more * space
            for i in range(rows * out_row):
                work[after + i] = work[before + i] + work[other + i]
        elif kind == CONSTANT:
            for r in range(rows):
                for j in range(outputs):
                    work[after + r * out_row + j] = work[weight + j]
        elif kind == POLYNOMIAL:
            _polynomial(
                work, room.constants + more, before, in_row, inputs, after, out_row, outputs, which, rows
            )
        elif kind == FOURIER:
            _fourier(work, room.constants + more, before, in_row, inputs, after, out_row, outputs, rows)


@compiled
def backward(layers: Array, numbers: Array, work: Pointer, room: Room, space: int, rows: int) -> None:
    """Add the gradient of a block's loss by the weights, given that by the outputs of the last layer."""
    apart = room.slopes - room.values
    for back in range(len(layers)):
        at = len(layers) - 1 - back
        kind, inputs, outputs = layers[at, KIND], layers[at, INPUTS], layers[at, OUTPUTS]
        in_row, out_row = layers[at, IN_ROW], layers[at, OUT_ROW]
        weight, bias = layers[at, WEIGHT], layers[at, BIAS]
        more, which = layers[at, MORE], layers[at, WHICH]
        before, after = room.slopes + layers[at, IN] * space, room.slopes + layers[at, OUT] * space
        keep, count = room.kept + layers[at, KEEP] * space, rows * out_row
        if kind == LINEAR:
            add_product(
                work, room.gradient + weight, after, 1, out_row, before - apart, in_row,
                outputs, inputs, rows, room.side,
            )  # fmt: skip
            if bias >= 0:
                _add_columns(work, room.gradient + bias, after, out_row, outputs, rows)
            if not which:
                return  # nothing before it has weights
            multiply(
                work,
                before,
                in_row,
                after,
                out_row,
                1,
                room.weights + weight,
                inputs,
                -1,
                rows,
                inputs,
                outputs,
            )
        elif kind == ACTIVATION:
            _activate_backward(which, numbers[at, 0], work, after - apart, before, after, keep, count)
        elif kind == DROP:
            for i in range(count):
                work[before + i] = work[after + i] * work[keep + i]
        elif kind in (BATCH_NORM, ROW_NORM):
            kept_row = out_row if kind == BATCH_NORM else out_row + more
            if bias >= 0:
                _add_columns(work, room.gradient + bias, after, out_row, outputs, rows)
            if weight >= 0:
                _scale_backward(
                    work, room.weights + weight, room.gradient + weight, after, out_row, keep, kept_row, rows, outputs
                )  # fmt: skip
            if kind == BATCH_NORM:
                _batch_norm_backward(work, room.sums, before, after, keep, rows, outputs, out_row)
            else:
                _row_norm_backward(work, before, after, keep, rows, outputs, out_row, more)
        elif kind == JOIN:
            for i in range(count):
                work[before + i] = work[after + i]
        elif kind == FORK:
            joined = room.slopes + more * space
            for i in range(count):
                work[after + i] += work[joined + i]
        elif kind == CONSTANT:
            _add_columns(work, room.gradient + weight, after, out_row, outputs, rows)
            return
        else:
            return


@compiled
def _add_columns(work: Pointer, out: int, slopes: int, row: int, columns: int, rows: int) -> None:
    for r in range(rows):
        for j in range(columns):
            work[out + j] += work[slopes + r * row + j]


# Activations


@compiled
def _activate(
    which: int, slope: float, work: Pointer, before: int, after: int, keep: int, count: int
) -> None:
    """Apply a function to each entry, and keep its derivative where it does not follow from the input at once."""
    zero, one, half, two = number(work, 0), number(work, 1), number(work, 0.5), number(work, 2)
    if which == RELU:
        for i in range(count):
            x = work[before + i]
            work[after + i] = zero if x <= zero else x  # so that NaN stays
    elif which == LEAKY_RELU:
        less = number(work, slope)
        for i in range(count):
            x = work[before + i]
            work[after + i] = x if x > zero else less * x
    elif which == TANH:
        for i in range(count):
            y = tanh(work[before + i])
            work[after + i] = y
            work[keep + i] = one - y * y
    elif which == SIGMOID:
        for i in range(count):
            s = sigmoid(work[before + i])
            work[after + i] = s
            work[keep + i] = s * (one - s)
    elif which == SCALED_SIGMOID:
        for i in range(count):
            s = sigmoid(work[before + i])
            work[after + i] = number(work, 4) * s - two
            work[keep + i] = number(work, 4) * (s * (one - s))
    elif which == GELU:
        root, density = number(work, 1 / math.sqrt(2)), number(work, 1 / math.sqrt(2 * math.pi))
        for i in range(count):
            x = work[before + i]
            share = half * (one + erf(x * root))
            work[after + i] = x * share
            work[keep + i] = share + x * density * exp_below(-half * x * x)
    elif which == SILU:
        for i in range(count):
            x = work[before + i]
            s = sigmoid(x)
            work[after + i] = x * s
            work[keep + i] = s * (one + x * (one - s))


@compiled
def _activate_backward(
    which: int, slope: float, work: Pointer, values: int, before: int, after: int, keep: int, count: int
) -> None:
    # `values` are what the function gave: its input may have been overwritten, and the sign is the same
    zero = number(work, 0)
    if which == RELU:
        for i in range(count):
            # both are read in any case: otherwise this is a branch, which is mispredicted half of the time
            d, y = work[after + i], work[values + i]
            work[before + i] = zero if y <= zero else d
    elif which == LEAKY_RELU:
        less = number(work, slope)
        for i in range(count):
            d, y = work[after + i], work[values + i]
            work[before + i] = d if y > zero else less * d
    else:
        for i in range(count):
            work[before + i] = work[after + i] * work[keep + i]


# Dropout


class Masks(NamedTuple):
    """What the masks of a batch are made from: the member's seed, the batches it has seen, each layer's rate."""

    training: bool
    seed: int
    seen: int
    member: int
    limits: Array  # [members, dropout layers], in 24-bit units
    scales: Array  # [members, dropout layers]


@compiled
def _drop(
    work: Pointer,
    before: int,
    after: int,
    keep: int,
    rows: int,
    width: int,
    row: int,
    masks: Masks,
    which: int,
    earlier: int,
    first: int,
    whole: int,
) -> None:
    limit = masks.limits[masks.member, which] if masks.training else 0
    if limit == 0:
        for i in range(rows * row if masks.training else 0):
            work[keep + i] = number(work, 1)
        for i in range(rows * row if after != before else 0):
            work[after + i] = work[before + i]
        return
    scale = number(work, masks.scales[masks.member, which])
    one_word, other_word = key(masks.seed, DROPOUT, which, masks.seen)
    start = (earlier * whole + first) * width
    for r in range(rows):
        mask(work, keep + r * row, one_word, other_word, start + r * width, width, limit)
        for j in range(r * row, r * row + width):
            work[keep + j] *= scale
            work[after + j] = work[before + j] * work[keep + j]


# Normalization


@compiled
def _batch_norm(
    work: Pointer,
    running: int,
    sums: int,
    before: int,
    keep: int,
    rows: int,
    width: int,
    row: int,
    epsilon: float,
    momentum: float,
    training: bool,
) -> None:
    """Keep what is normalized over the rows of a batch and, behind it, one over the deviations."""
    mean, scale = sums, keep + rows * row
    for j in range(width):
        work[mean + j] = number(work, 0) if training else work[running + j]
        work[scale + j] = number(work, 0) if training else work[running + width + j]
    if training:
        share, unbiased = (
            number(work, momentum),
            number(work, rows / (rows - 1)) if rows > 1 else number(work, np.nan),
        )
        for r in range(rows):
            for j in range(width):
                work[mean + j] += work[before + r * row + j]
        for j in range(width):
            work[mean + j] /= number(work, rows)
        for r in range(rows):
            for j in range(width):
                apart = work[before + r * row + j] - work[mean + j]
                work[scale + j] += apart * apart
        for j in range(width):
            work[scale + j] /= number(work, rows)
            work[running + j] += share * (work[mean + j] - work[running + j])
            spread = work[running + width + j]
            work[running + width + j] = spread + share * (work[scale + j] * unbiased - spread)
    for j in range(width):
        work[scale + j] = number(work, 1) / np.sqrt(work[scale + j] + number(work, epsilon))
    for r in range(rows):
        for j in range(width):
            work[keep + r * row + j] = (work[before + r * row + j] - work[mean + j]) * work[scale + j]


@compiled
def _batch_norm_backward(
    work: Pointer, sums: int, before: int, after: int, keep: int, rows: int, width: int, row: int
) -> None:
    total, product, scale = sums, sums + width, keep + rows * row
    for j in range(2 * width):
        work[total + j] = number(work, 0)
    for r in range(rows):
        for j in range(width):
            slope = work[after + r * row + j]
            work[total + j] += slope
            work[product + j] += slope * work[keep + r * row + j]
    for j in range(2 * width):
        work[total + j] /= number(work, rows)
    for r in range(rows):
        for j in range(width):
            at = r * row + j
            centered = work[after + at] - work[total + j] - work[keep + at] * work[product + j]
            work[before + at] = work[scale + j] * centered


@compiled
def _row_norm(
    work: Pointer, before: int, keep: int, rows: int, width: int, row: int, groups: int, epsilon: float
) -> None:
    """Keep what is normalized over each group of a row's units and, behind each row, one over the deviations."""
    each = width // groups
    for r in range(rows):
        for g in range(groups):
            first, kept = before + r * row + g * each, keep + r * (row + groups)
            mean, variance = number(work, 0), number(work, 0)
            for j in range(each):
                mean += work[first + j]
            mean /= number(work, each)
            for j in range(each):
                apart = work[first + j] - mean
                variance += apart * apart
            scale = number(work, 1) / np.sqrt(variance / number(work, each) + number(work, epsilon))
            work[kept + row + g] = scale
            for j in range(each):
                work[kept + g * each + j] = (work[first + j] - mean) * scale


@compiled
def _row_norm_backward(
    work: Pointer, before: int, after: int, keep: int, rows: int, width: int, row: int, groups: int
) -> None:
    each = width // groups
    for r in range(rows):
        for g in range(groups):
            at, kept = r * row + g * each, keep + r * (row + groups)
            total, product = number(work, 0), number(work, 0)
            for j in range(each):
                total += work[after + at + j]
                product += work[after + at + j] * work[kept + g * each + j]
            total, product = total / number(work, each), product / number(work, each)
            for j in range(each):
                centered = work[after + at + j] - total - work[kept + g * each + j] * product
                work[before + at + j] = work[kept + row + g] * centered


@compiled
def _scale_and_shift(
    work: Pointer,
    weight: int,
    bias: int,
    after: int,
    row: int,
    keep: int,
    kept_row: int,
    rows: int,
    width: int,
) -> None:
    for r in range(rows):
        for j in range(width):
            scale = work[weight + j] if weight >= 0 else number(work, 1)
            shift = work[bias + j] if bias >= 0 else number(work, 0)
            work[after + r * row + j] = work[keep + r * kept_row + j] * scale + shift


@compiled
def _scale_backward(
    work: Pointer,
    weight: int,
    gradient: int,
    after: int,
    row: int,
    keep: int,
    kept_row: int,
    rows: int,
    width: int,
) -> None:
    """Add the gradient by the scale, and put that by the normalized values in the place of that by the outputs."""
    for r in range(rows):
        for j in range(width):
            slope = work[after + r * row + j]
            work[gradient + j] += slope * work[keep + r * kept_row + j]
            work[after + r * row + j] = slope * work[weight + j]


# Feature maps


@compiled
def _polynomial(
    work: Pointer,
    mean: int,
    before: int,
    in_row: int,
    inputs: int,
    after: int,
    out_row: int,
    outputs: int,
    degrees: int,
    rows: int,
) -> None:
    for r in range(rows):
        x, y = before + r * in_row, after + r * out_row
        for i in range(inputs):
            work[y + i] = work[x + i]
        written = inputs
        for degree in range(2, degrees + 1):
            end = written  # of the products of the degree below
            for i in range(inputs):
                # input i goes with those lower products that start with i or later, which are the last
                taken = _products(inputs - i, degree - 1)
                for j in range(taken):
                    work[y + written + j] = work[x + i] * work[y + end - taken + j]
                written += taken
        for j in range(outputs):
            work[y + j] = (work[y + j] - work[mean + j]) * work[mean + outputs + j]


@compiled
def _products(inputs: int, degree: int) -> int:
    """Count the products of as many of some inputs as the degree says, with repetition."""
    count = 1
    for k in range(1, degree + 1):
        count = count * (inputs + k - 1) // k
    return count


@compiled
def _fourier(
    work: Pointer,
    directions: int,
    before: int,
    in_row: int,
    inputs: int,
    after: int,
    out_row: int,
    outputs: int,
    rows: int,
) -> None:
    phases = directions + inputs * outputs
    multiply(work, after, out_row, before, in_row, 1, directions, outputs, phases, rows, outputs, inputs)
    scale = number(work, math.sqrt(2 / outputs))
    for r in range(rows):
        for j in range(outputs):
            at = after + r * out_row + j
            work[at] = np.cos(work[at]) * scale
