"""An ε of Adam and its like that is far larger than the gradients which it is added to.

Evidence: the root mean square of the gradient's entries in each weight matrix, at the start and later, beside ε.

Why it hurts: Adam divides by √v̂ + ε, so that every parameter moves by about the rate. Where ε is far above √v̂ it
divides by a constant: what is left is gradient descent with the rate η/ε, slow where gradients are small.

How sure: likely, when ε is above the gradients of most matrices throughout and training is slow; a hint when it is not
slow: some choose ε of 0.1 or 1 on purpose, with a higher rate.

What to try: ε = 1e-8, the usual one; where it is that already, a thousandth of it.

References: Kingma & Ba 2015, *Adam: a method for stochastic optimization*; Choi et al. 2019, *On empirical comparisons
of optimizers for deep learning* (ε as a setting that matters).
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from foldwise.checks.finding import Finding, Remedy, larger
from foldwise.checks.look import Look
from foldwise.checks.probe import mean_loss
from foldwise.checks.progress import (
    fell_late,
    fits_worse_than_linear,
    is_baseline,
    knows_little,
    slow,
    steps_of,
)
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import SLOW, UNSURE

EXPLAINS = (*SLOW, *UNSURE)
DIVIDES = ("adam", "adamw", "nadam", "rmsprop", "adagrad")
ABOVE = 3.0  # single batches have larger gradients than the batch looked at, by the root of their ratio
USUAL = 1e-8
STEPS = 40  # on one batch
SLOWER = 0.25  # of the fall with the usual ε
LATER = 0.1  # of what was learned, in the second half of a loop: one that has learned what it can has 0.02


def find(sight: Sight) -> Finding | None:
    """Look for an ε that is above the gradients of most matrices, at the start and later."""
    name, epsilon = _rule(sight)
    if not epsilon or len(sight.looks) < 2 or is_baseline(sight):
        return None
    sizes = [_typical(look) for look in (sight.looks[0], sight.looks[1])]
    if not all(0 < size * ABOVE < epsilon for size in sizes):
        return None
    hurts = slow(sight) or fits_worse_than_linear(sight) or _holds_back(sight, epsilon)
    return Finding(
        "epsilon-dominates",
        "likely" if hurts else "hint",
        f"ε is {epsilon:.3g}, and the entries of gradients are about {sizes[0]:.1g} at the start and {sizes[1]:.1g} "
        f"after {steps_of(sight.looks[1].step)}: {name} hardly adapts"
        + (", and training is slow" if hurts else ""),
        trials=sight.about,
        remedies=_remedies(sight, epsilon),
    )


def _rule(sight: Sight) -> tuple[str, float]:
    """Name the optimizer, and give its ε; 0 where it has none, or several."""
    s = sight.settings
    if s is not None:
        return s.optimizer, s.epsilon if s.optimizer in DIVIDES else 0.0
    own = {o.get("eps") for o in sight.loop.options} if sight.loop is not None else set()
    epsilon = own.pop() if len(own) == 1 else None
    return "the optimizer", epsilon if isinstance(epsilon, float) else 0.0


def _holds_back(sight: Sight, epsilon: float) -> bool:
    """Tell of a loop of which much was learned late whether a batch is learned far slower than with the usual ε."""
    if sight.network is None or sight.loop is None or not fell_late(sight) > LATER or not knows_little(sight):
        return False
    rate = sight.loop.options[0].get("lr")
    if not isinstance(rate, float) or sight.network.loss is None or sight.network.targets is None:
        return False
    own, usual = (_fall(sight.network, rate, e) for e in (epsilon, USUAL))
    return usual > 0 and own < SLOWER * usual


def _fall(network: Network, rate: float, epsilon: float) -> float:
    module = copy.deepcopy(network.module)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=rate, eps=epsilon)
    losses = []
    for _ in range(STEPS):
        with torch.enable_grad():
            loss = mean_loss(network, module(network.inputs))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0] - losses[-1]


def _remedies(sight: Sight, epsilon: float) -> tuple[Remedy, ...]:
    s = sight.settings
    less = USUAL if epsilon > ABOVE * USUAL else epsilon / 1000
    if s is None:
        return (Remedy(f"ε = {less:.3g}"),)
    faster = larger("learning_rate", s.learning_rate, 10)
    return (
        Remedy(f"ε = {less:.3g}", {"epsilon": less}),
        Remedy(f"{faster.what}, ε = {less:.3g}", {"epsilon": less, **faster.settings}),
    )


def _typical(look: Look) -> float:
    """Give the median over weight matrices of the root mean square of their gradient's entries."""
    found = [
        w.gradient_norm / math.sqrt(math.prod(w.shape))
        for w in look.weights
        if len(w.shape) >= 2 and w.gradient_norm
    ]
    return float(np.median(found)) if found else 0.0
