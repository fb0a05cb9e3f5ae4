"""What is done with a member's gradient: penalties, clipping, the rules of optimizers, limits of its weights.

The links of engine/regularizers.py and engine/optimizers.py once more, for one member: each changes a line of numbers
in place. A line is `[parameters]`; settings are those of the member's record (engine/resident/member.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from foldwise.engine.resident.tiles import compiled, summing

Array = np.ndarray

OPTIMIZERS = ("sgd", "rmsprop", "adagrad", "adam", "adamw", "nadam")
SGD, RMSPROP, ADAGRAD, ADAM, ADAMW, NADAM = range(6)
REMEMBERED = {
    "sgd": ("velocity", "", ""),
    "rmsprop": ("square", "mean", "velocity"),
    "adagrad": ("sum_of_squares", "", ""),
    "adam": ("first", "second", ""),
    "adamw": ("first", "second", ""),
    "nadam": ("first", "second", ""),
}
"""What each remembers, by the names of its moments; at most three lines."""


@summing
def sum_of_squares(line: Array) -> float:
    """Add up squares, in whatever order is fastest."""
    total = line.dtype.type(0)
    for i in range(len(line)):
        total += line[i] * line[i]
    return total


@compiled
def multiply_by(line: Array, other: Array) -> None:
    """Compute line ← line·other."""
    for i in range(len(line)):
        line[i] *= other[i]


@compiled
def add_multiple(line: Array, weights: Array, share: Array) -> None:
    """Compute line ← line + share·weights: the gradient of ½λ·Σw², or weight decay."""
    for i in range(len(line)):
        line[i] += weights[i] * share[i]


@compiled
def add_signs(line: Array, weights: Array, share: Array) -> None:
    """Compute line ← line + share·sign(weights): the gradient of λ·Σ|w|."""
    for i in range(len(line)):
        line[i] += np.sign(weights[i]) * share[i]


@compiled
def clip(line: Array, limit: float) -> bool:
    """Scale a gradient down to a norm; tell whether it was longer."""
    t = line.dtype.type
    norm = t(math.sqrt(sum_of_squares(line)))
    factor = t(limit) / (norm + t(1e-6))
    if not factor >= 1:  # also when it is no number
        for i in range(len(line)):
            line[i] *= factor
    return norm > t(limit)


@compiled
def limit_weights(weights: Array, entries: Array, most: float) -> None:
    """Scale some of the weights down until the sum of their squares is no more than a limit."""
    t = weights.dtype.type
    total = t(0)
    for i in range(len(weights)):
        total += weights[i] * weights[i] if entries[i] else t(0)
    factor = t(math.sqrt(t(most) / total)) if total > 0 else t(1)
    if factor < 1:
        for i in range(len(weights)):
            weights[i] *= factor if entries[i] else t(1)


@compiled
def step(line: Array, weights: Array, rate: float) -> None:
    """Compute weights ← weights − rate·line."""
    down = -line.dtype.type(rate)
    for i in range(len(line)):
        weights[i] += down * line[i]


@compiled
def direct(rule: int, line: Array, moments: Any, m: Any, updates: int, product: Array) -> None:
    """Turn a gradient into the direction of a step by an optimizer's rule; `updates` were done before.

    `moments` are the lines that it remembers, `product` is where NAdam keeps the product of its momenta.
    """
    if rule in (ADAM, ADAMW):
        _adam(line, moments[0], moments[1], m, updates)
    elif rule == SGD:
        _sgd(line, moments[0], m, updates)
    elif rule == RMSPROP:
        _rmsprop(line, moments[0], moments[1], m)
        if m.moves:
            _move(line, moments[2], m.momentum, False)
    elif rule == ADAGRAD:
        _adagrad(line, moments[0], m, updates)
    else:
        _nadam(line, moments[0], moments[1], m, updates, product)


@compiled
def _adam(line: Array, first: Array, second: Array, m: Any, updates: int) -> None:
    t = line.dtype.type
    times = updates + 1
    bias1, bias2 = 1 - m.beta1**times, math.sqrt(1 - m.beta2**times)
    rest1, rest2 = t(1 - m.beta1), t(1 - m.beta2)
    epsilon, scale = t(t(m.epsilon) * bias2), t(bias2 / bias1)
    for i in range(len(line)):
        g = line[i]
        first[i] += rest1 * (g - first[i])
        second[i] += rest2 * (g * g - second[i])
        line[i] = first[i] / (np.sqrt(second[i]) + epsilon) * scale


@compiled
def _nadam(line: Array, first: Array, second: Array, m: Any, updates: int, product: Array) -> None:
    t = line.dtype.type
    times = updates + 1
    present = m.beta1 * (1 - 0.5 * 0.96 ** (times * m.momentum_decay))
    coming = m.beta1 * (1 - 0.5 * 0.96 ** ((times + 1) * m.momentum_decay))
    product[0] *= present
    own, mean = t((1 - present) / (1 - product[0])), t(coming / (1 - product[0] * coming))
    rest1, rest2, bias2, epsilon = t(1 - m.beta1), t(1 - m.beta2), t(1 - m.beta2**times), t(m.epsilon)
    for i in range(len(line)):
        g = line[i]
        first[i] += rest1 * (g - first[i])
        second[i] += rest2 * (g * g - second[i])
        line[i] = (g * own + first[i] * mean) / (np.sqrt(second[i] / bias2) + epsilon)


@compiled
def _sgd(line: Array, velocity: Array, m: Any, updates: int) -> None:
    if not m.moves:
        return
    t = line.dtype.type
    # torch takes the first gradient whole, and without momentum every one
    if not m.looks_ahead and m.momentum != 0 and updates > 0 and m.dampening != 0:
        share = t(1) - t(m.dampening)
        for i in range(len(line)):
            line[i] *= share
    _move(line, velocity, m.momentum, m.looks_ahead)


@compiled
def _move(line: Array, velocity: Array, momentum: float, looks_ahead: bool) -> None:
    kept = line.dtype.type(momentum)
    for i in range(len(line)):
        velocity[i] = velocity[i] * kept + line[i]
        line[i] = line[i] + kept * velocity[i] if looks_ahead else velocity[i]


@compiled
def _rmsprop(line: Array, square: Array, mean: Array, m: Any) -> None:
    t = line.dtype.type
    rest, epsilon = t(1 - m.alpha), t(m.epsilon)
    if m.centers:
        for i in range(len(line)):
            g = line[i]
            square[i] += rest * (g * g - square[i])
            mean[i] += rest * (g - mean[i])
            line[i] = g / (np.sqrt(square[i] - mean[i] * mean[i]) + epsilon)
    else:
        for i in range(len(line)):
            g = line[i]
            square[i] += rest * (g * g - square[i])
            line[i] = g / (np.sqrt(square[i]) + epsilon)


@compiled
def _adagrad(line: Array, total: Array, m: Any, updates: int) -> None:
    t = line.dtype.type
    start, epsilon, slower = t(m.initial_accumulator), t(m.epsilon), t(1 / (1 + updates * m.rate_decay))
    for i in range(len(line)):
        g = line[i]
        total[i] += g * g
        line[i] = g / (np.sqrt(total[i] + start) + epsilon) * slower
