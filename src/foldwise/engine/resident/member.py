"""One member after another on one core: a whole epoch of training, or its validation rows.

The loop can be read aloud: rows, forward, loss, backward, rules, next. Nothing here knows of other members.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from foldwise.engine.resident.draws import MIX, NOISE, NOTHING, key, normal, permutation, row_order
from foldwise.engine.resident.layers import (
    IN_ROW,
    INPUTS,
    OUT,
    OUT_ROW,
    OUTPUTS,
    Masks,
    Program,
    Room,
    backward,
    forward,
    room_for,
    turn_weights,
)
from foldwise.engine.resident.losses import add_loss
from foldwise.engine.resident.rules import (
    ADAMW,
    add_multiple,
    add_signs,
    clip,
    direct,
    limit_weights,
    multiply_by,
    step,
)
from foldwise.engine.resident.tiles import (
    Array,
    Pointer,
    aligned,
    compiled,
    entrance,
    inlined,
    memory,
    number,
)

WHOLE = (
    *(
        "fold",
        "seed",
        "epoch",
        "prepared",
        "size",
        "accumulation",
        "seen",
        "updates",
        "factors",
        "trial",
        "labels",
    ),
    *("moves", "looks_ahead", "centers", "scaled_rate", "decays", "l1s", "l2s", "freezes"),
)
REAL = (
    *(
        "learning_rate",
        "momentum",
        "dampening",
        "alpha",
        "beta1",
        "beta2",
        "epsilon",
        "momentum_decay",
        "rate_decay",
    ),
    *("initial_accumulator", "clip_norm", "huber_delta", "quantile", "margin", "label_smoothing"),
    *("input_noise", "label_noise", "sums"),
)
MEMBER = np.dtype([(name, np.int64) for name in WHOLE] + [(name, np.float64) for name in REAL])
"""What is known of a member at the beginning of an epoch, in numbers; most are its settings.

fold, seed · epoch: counted from 1 · prepared: its scaling and fold, among all · size: rows of a
batch · accumulation: batches of a step · seen, updates: batches and steps behind it · factors: which line of the
schedules' factors · trial: which line of shares · labels: which seed's label noise · moves: whether there is momentum ·
scaled_rate … freezes: whether its line of that share is used · sums: see `Group.sums`; 0: a step follows the mean."""


class Data(NamedTuple):
    """The rows that members learn from, and what folds learned to prepare them."""

    features: Array  # [rows, features], float64
    prepared: Array  # [preparations, rows, features], or none where it would be too much
    fill: Array  # [preparations, features], as are the next three
    shift: Array
    scale: Array
    bound: Array
    bounded: bool
    train: Array  # [folds, rows], bool
    validation: Array  # [folds, rows], numbers of rows
    classes: Array  # [versions · rows], −1 where targets are numbers
    numbers: Array  # [versions · rows, columns]
    target_start: Array  # [folds]: where those of each begin
    target_shift: Array  # [folds, columns], or none
    target_scale: Array
    weights: Array  # [folds or 1, rows], or none
    weight_mean: Array  # [folds]


class Chances(NamedTuple):
    """What is drawn or computed outside."""

    factors: Array  # [lines, steps]: of the learning rate, by the schedule
    limits: Array  # [members, dropout layers]
    scales: Array
    mix: Array  # [members, batches]: share of its own that a row keeps; none where nobody mixes
    label_draws: Array  # [seeds, rows, columns], or none
    label_values: Array


class Lines(NamedTuple):
    """How much each parameter has of rate, decay and penalties, by trial: `[trials, parameters]` or none."""

    rate: Array
    decay: Array
    l1: Array
    l2: Array
    trained: Array
    limited: Array  # [limits, trials, parameters], bool
    most: Array  # [limits, trials]


class Tensors(NamedTuple):
    """The members' slices of the state: what training changes."""

    weights: Array  # [members, parameters]
    first: Array  # what optimizers remember, in their order: [members, parameters], or none
    second: Array
    third: Array
    constants: Array  # [members, numbers in buffers]
    product: Array  # [members, 1], of NAdam
    clipped: Array  # [members, 1]


class Batch(NamedTuple):
    """What belongs to the rows of the present block, and of its batch."""

    every: Array  # all rows in the order of the epoch
    order: Array  # those among them that the member learns from
    partner: Array  # with which row of the batch each is mixed
    rows: Array  # of the table: those of the block, or their partners
    classes: Array
    numbers: Array
    weights: Array


@compiled
def make_batch(data: Data, space: int, like: Array) -> Batch:
    """Give one core the room for what belongs to rows."""
    rows = len(data.features)
    return Batch(
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
        np.empty(space, np.int64),
        np.full(space, -1, np.int64),
        np.zeros((space, max(1, data.numbers.shape[1])), like.dtype),
        np.ones(space, like.dtype),
    )


@entrance
def train(
    members: Array,
    program: Program,
    data: Data,
    chances: Chances,
    lines: Lines,
    tensors: Tensors,
    loss: int,
    rule: int,
    space: int,
    most: int,
    losses: Array,
) -> None:
    """Train each member for one epoch, on no more than `most` rows; write its mean training loss."""
    room = room_for(program, space)
    work, batch = aligned(room.size, tensors.weights), make_batch(data, space, tensors.weights)
    weights = work[room.weights : room.weights + program.parameters]
    constants = work[room.constants : room.constants + program.constants]
    for i in range(len(members)):
        m = members[i]
        # members of one seed, who are mostly neighbors, follow one order
        if i == 0 or m.seed != members[i - 1].seed or m.epoch != members[i - 1].epoch:
            batch.every[:] = row_order(m.seed, m.epoch, len(batch.every))
        weights[:], constants[:] = tensors.weights[i], tensors.constants[i]
        losses[i] = _epoch(
            i, m, program, data, chances, lines, tensors, loss, rule, space, most, work, room, batch
        )
        tensors.weights[i], tensors.constants[i] = weights, constants


@entrance
def evaluate(
    members: Array, program: Program, data: Data, weights: Array, constants: Array, space: int, outputs: Array
) -> None:
    """Write each member's outputs on the validation rows of its fold."""
    room, layers = room_for(program, space), program.layers
    held = aligned(room.size, weights)
    work, parameters = memory(held), held[room.weights : room.weights + program.parameters]
    buffers = held[room.constants : room.constants + program.constants]
    nothing = np.zeros((1, 1))
    masks = Masks(False, 0, 0, 0, np.zeros((1, 1), np.int64), nothing)
    in_row, out_row, columns = layers[0, IN_ROW], layers[-1, OUT_ROW], layers[-1, OUTPUTS]
    ours, end = room.values, room.values + layers[-1, OUT] * space
    for i in range(len(members)):
        parameters[:], buffers[:] = weights[i], constants[i]
        turn_weights(layers, work, room)
        own = data.validation[members[i].fold]
        for first in range(0, len(own), space):
            rows = min(space, len(own) - first)
            _put_rows(work, ours, in_row, data, members[i].prepared, own, first, rows)
            forward(layers, program.numbers, work, room, space, rows, masks, 0, rows)
            for r in range(rows):
                for j in range(columns):
                    outputs[i, first + r, j] = work[end + r * out_row + j]


@inlined
def _epoch(
    i: int,
    m: Any,
    program: Program,
    data: Data,
    chances: Chances,
    lines: Lines,
    tensors: Tensors,
    loss: int,
    rule: int,
    space: int,
    most: int,
    work: Array,
    room: Room,
    batch: Batch,
) -> float:
    rows = min(most, _put_order(batch.order, batch.every, data.train[m.fold]))
    numbers = memory(work)
    gradient = work[room.gradient : room.gradient + program.parameters]
    weights = work[room.weights : room.weights + program.parameters]
    total, first, seen, steps = 0.0, 0, m.seen, 0
    while first < rows:
        last, taken = first, 0
        while last < rows and taken < m.accumulation:
            last += _rows_of_batch(rows - last, m.size)
            taken += 1
        factor = m.sums if m.sums > 0 else 1 / (last - first)
        gradient[:] = 0
        turn_weights(program.layers, numbers, room)
        while first < last:
            count = _rows_of_batch(rows - first, m.size)
            total += _learn(
                i, m, program, data, chances, loss, space, numbers, room, batch, first, count, factor, seen
            )
            first, seen = first + count, seen + 1
        rate = m.learning_rate, chances.factors[m.factors, steps]
        _move(i, m, lines, tensors, rule, gradient, weights, m.updates + steps, rate)
        steps += 1
    return total / rows


@compiled
def _put_order(out: Array, order: Array, train: Array) -> int:
    """Write the rows that a fold learns from, in the order of the epoch, and count them."""
    rows = 0
    for row in order:
        if train[row]:
            out[rows] = row
            rows += 1
    return rows


@compiled
def _rows_of_batch(remaining: int, size: int) -> int:
    # a last row that is left over joins the batch before it
    if remaining <= size or (size > 1 and remaining == size + 1):
        return remaining
    return size


@inlined
def _learn(
    i: int,
    m: Any,
    program: Program,
    data: Data,
    chances: Chances,
    loss: int,
    space: int,
    work: Pointer,
    room: Room,
    batch: Batch,
    first: int,
    count: int,
    factor: float,
    seen: int,
) -> float:
    """Add the gradient of a batch, block by block, and give the sum of its rows' losses."""
    layers = program.layers
    in_row, out_row, outputs = layers[0, IN_ROW], layers[-1, OUT_ROW], layers[-1, OUTPUTS]
    features, apart = layers[0, INPUTS], room.slopes - room.values
    end = room.values + layers[-1, OUT] * space
    masks = Masks(True, m.seed, seen, i, chances.limits, chances.scales)
    share = chances.mix[i, seen - m.seen] if chances.mix.shape[0] > 0 else 1.0
    if share < 1:
        one, other = key(m.seed, MIX, seen, 1)
        batch.partner[:count] = permutation(one, other, count)
    total = 0.0
    for start in range(0, count, space):
        rows = min(space, count - start)
        _put_rows(work, room.values, in_row, data, m.prepared, batch.order, first + start, rows)
        if m.input_noise > 0:
            words = key(m.seed, NOISE, seen, NOTHING)
            for r in range(rows):
                _add_noise(
                    work, room.values + r * in_row, features, m.input_noise, words, (start + r) * features
                )
        if share < 1:
            _mix_in(m, data, work, room, in_row, features, batch, first, start, rows, seen, share)
        forward(layers, program.numbers, work, room, space, rows, masks, start, count)
        for at in range(end + apart, end + apart + rows * out_row):
            work[at] = number(work, 0)
        for own in (True, False):
            if own or share < 1:
                for r in range(rows):
                    batch.rows[r] = batch.order[first + (start + r if own else batch.partner[start + r])]
                _put_targets(m, data, chances, batch, rows, share if own else 1 - share)
                total += add_loss(
                    loss, work, end, apart, out_row, outputs, rows, batch.classes, batch.numbers, batch.weights,
                    factor, m, room.side,
                )  # fmt: skip
        backward(layers, program.numbers, work, room, space, rows)
    return total


# Rows


@compiled
def _put_rows(
    work: Pointer, out: int, row_size: int, data: Data, prepared: int, rows: Array, first: int, count: int
) -> None:
    """Write rows of the table as the networks of a fold see them."""
    if data.prepared.shape[0] > 0:
        _copy_rows(work, out, row_size, data.prepared, prepared, rows, first, count)
    else:
        _prepare_rows(
            work, out, row_size, data.features, data.fill, data.shift, data.scale, data.bound, data.bounded, prepared,
            rows, first, count,
        )  # fmt: skip


@compiled
def _copy_rows(
    work: Pointer, out: int, row_size: int, table: Array, prepared: int, rows: Array, first: int, count: int
) -> None:
    for r in range(count):
        row = rows[first + r]
        for f in range(table.shape[2]):
            work[out + r * row_size + f] = table[prepared, row, f]


@compiled
def _prepare_rows(
    work: Pointer,
    out: int,
    row_size: int,
    features: Array,
    fill: Array,
    shift: Array,
    scale: Array,
    bound: Array,
    bounded: bool,
    prepared: int,
    rows: Array,
    first: int,
    count: int,
) -> None:
    for r in range(count):
        row = rows[first + r]
        for f in range(features.shape[1]):
            x = features[row, f]
            x = fill[prepared, f] if x != x else x
            z = (x - shift[prepared, f]) * scale[prepared, f]
            if bounded:
                q = abs(z / bound[prepared, f])
                z /= q if q > 1e8 else np.sqrt(1 + q * q)  # the same, and the square is not too large
            work[out + r * row_size + f] = z


@entrance
def prepare(
    out: Array, features: Array, fill: Array, shift: Array, scale: Array, bound: Array, bounded: bool
) -> None:
    """Write all rows as each fold's networks see them: `[preparations, rows, features]`."""
    rows, size = np.arange(len(features)), features.shape[1]
    flat = out.reshape(-1)
    work = memory(flat)
    for prepared in range(len(out)):
        at = prepared * len(features) * size
        _prepare_rows(
            work, at, size, features, fill, shift, scale, bound, bounded, prepared, rows, 0, len(rows)
        )
    flat[:0] = 0  # it is needed until here


@compiled
def _add_noise(work: Pointer, at: int, features: int, deviation: float, words: Any, position: int) -> None:
    for f in range(features):
        work[at + f] += number(work, deviation) * number(work, normal(words[0], words[1], position + f))


@compiled
def _mix_in(
    m: Any,
    data: Data,
    work: Pointer,
    room: Room,
    row_size: int,
    features: int,
    batch: Batch,
    first: int,
    start: int,
    rows: int,
    seen: int,
    share: float,
) -> None:
    """Mix the rows of a block with their partners, who have noise of their own."""
    for r in range(rows):
        batch.rows[r] = batch.order[first + batch.partner[start + r]]
    _put_rows(work, room.side, row_size, data, m.prepared, batch.rows, 0, rows)
    words = key(m.seed, NOISE, seen, NOTHING)
    own, rest = number(work, share), number(work, 1) - number(work, share)
    for r in range(rows):
        if m.input_noise > 0:
            position = batch.partner[start + r] * features
            _add_noise(work, room.side + r * row_size, features, m.input_noise, words, position)
        for f in range(r * row_size, r * row_size + features):
            work[room.values + f] = own * work[room.values + f] + rest * work[room.side + f]


# Targets


@compiled
def _put_targets(m: Any, data: Data, chances: Chances, batch: Batch, count: int, share: float) -> None:
    """Write the targets of rows, and how much each row counts."""
    rows, weights, t = batch.rows, batch.weights, batch.weights.dtype.type
    _copy_targets(
        batch.classes, batch.numbers, data.classes, data.numbers, data.target_start[m.fold], data.target_shift,
        data.target_scale, m.fold, rows, count,
    )  # fmt: skip
    if m.label_noise > 0:
        for r in range(count):
            _disturb(batch.classes, batch.numbers, r, chances.label_draws, chances.label_values, m, rows[r])
    for r in range(count):
        weights[r] = t(share)
    if data.weights.shape[0] > 0:
        line, mean = (m.fold if data.weights.shape[0] > 1 else 0), data.weight_mean[m.fold]
        for r in range(count):
            weights[r] *= t(data.weights[line, rows[r]] / mean)


@compiled
def _copy_targets(
    classes: Array,
    numbers: Array,
    all_classes: Array,
    all_numbers: Array,
    start: int,
    shift: Array,
    scale: Array,
    fold: int,
    rows: Array,
    count: int,
) -> None:
    for r in range(count):
        classes[r] = all_classes[start + rows[r]]
        for j in range(all_numbers.shape[1]):
            value = all_numbers[start + rows[r], j]
            if shift.shape[0] > 0:
                value = (value - shift[fold, j]) / scale[fold, j]
            numbers[r, j] = value


@compiled
def _disturb(classes: Array, numbers: Array, r: int, draws: Array, values: Array, m: Any, row: int) -> None:
    """Put the noise on a target: another label, or a number shifted."""
    t = numbers.dtype.type
    if classes[r] >= 0:
        if draws[m.labels, row, 0] < m.label_noise:
            classes[r] = np.int64(values[m.labels, row, 0])
        return
    for j in range(values.shape[2]):
        value = t(values[m.labels, row, j])
        if draws.shape[2] == 0:
            numbers[r, j] += t(m.label_noise) * value
        elif draws[m.labels, row, j if draws.shape[2] > 1 else 0] < m.label_noise:
            numbers[r, j] = value


# The step


@compiled
def _move(
    i: int,
    m: Any,
    lines: Lines,
    tensors: Tensors,
    rule: int,
    gradient: Array,
    weights: Array,
    updates: int,
    rate: tuple[float, float],
) -> None:
    """Take a step: penalties, clipping, the optimizer's rule, the rate; limits of the weights."""
    t = gradient.dtype.type
    if m.freezes:
        multiply_by(gradient, lines.trained[m.trial])
    if m.l2s:
        add_multiple(gradient, weights, lines.l2[m.trial])
    if m.l1s:
        add_signs(gradient, weights, lines.l1[m.trial])
    if m.clip_norm > 0 and clip(gradient, m.clip_norm):
        tensors.clipped[i, 0] += 1
    if m.decays and rule != ADAMW:
        add_multiple(gradient, weights, lines.decay[m.trial])
    first, second, third = tensors.first, tensors.second, tensors.third
    moments = (
        first[i if first.shape[0] > 0 else 0],
        second[i if second.shape[0] > 0 else 0],
        third[i if third.shape[0] > 0 else 0],
    )
    direct(rule, gradient, moments, m, updates, tensors.product[i if tensors.product.shape[0] > 0 else 0])
    if m.decays and rule == ADAMW:
        add_multiple(gradient, weights, lines.decay[m.trial])
    if m.scaled_rate:
        multiply_by(gradient, lines.rate[m.trial])
    step(gradient, weights, t(rate[0]) * t(rate[1]))
    for limit in range(lines.most.shape[0]):
        limit_weights(weights, lines.limited[limit, m.trial], lines.most[limit, m.trial])
