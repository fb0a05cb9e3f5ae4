"""An ε of Adam and its like that is far larger than the gradients which it is added to.

Evidence: the root mean square of the gradient's entries in each weight matrix, at the start and later, beside ε.

Why it hurts: Adam divides by √v̂ + ε, so that every parameter moves by about the rate. Where ε is far above √v̂ it
divides by a constant: what is left is gradient descent with the rate η/ε, slow where gradients are small.

How sure: likely, when ε is above the gradients of most matrices throughout and training is slow; a hint when it is not
slow: some choose ε of 0.1 or 1 on purpose, with a higher rate.

What to try: ε = 1e-8, the usual one.

References: Kingma & Ba 2015, *Adam: a method for stochastic optimization*; Choi et al. 2019, *On empirical comparisons
of optimizers for deep learning* (ε as a setting that matters).
"""

from __future__ import annotations

import math

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import Look
from foldwise.checks.progress import fits_worse_than_linear, is_baseline, slow, steps_of
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE

EXPLAINS = (*SLOW, *UNSURE)
DIVIDES = ("adam", "adamw", "nadam", "rmsprop", "adagrad")
ABOVE = 3.0  # single batches have larger gradients than the batch looked at, by the root of their ratio
USUAL = 1e-8


def find(sight: Sight) -> Finding | None:
    """Look for an ε that is above the gradients of most matrices, at the start and later."""
    s = sight.settings
    if s is None or s.optimizer not in DIVIDES or len(sight.looks) < 2 or is_baseline(sight):
        return None
    sizes = [_typical(look) for look in (sight.looks[0], sight.looks[1])]
    if not all(0 < size * ABOVE < s.epsilon for size in sizes):
        return None
    hurts = slow(sight) or fits_worse_than_linear(sight)
    return Finding(
        "epsilon-dominates",
        "likely" if hurts else "hint",
        f"ε is {s.epsilon:.3g}, and the entries of gradients are about {sizes[0]:.1g} at the start and {sizes[1]:.1g} "
        f"after {steps_of(sight.looks[1].step)}: {s.optimizer} hardly adapts"
        + (", and training is slow" if hurts else ""),
        trials=sight.about,
        remedies=(
            Remedy("ε = 1e-8", {"epsilon": USUAL}),
            Remedy("learning rate × 10, ε = 1e-8", {"epsilon": USUAL, "learning_rate": s.learning_rate * 10}),
        ),
    )


def _typical(look: Look) -> float:
    """Give the median over weight matrices of the root mean square of their gradient's entries."""
    found = [
        w.gradient_norm / math.sqrt(math.prod(w.shape))
        for w in look.weights
        if len(w.shape) >= 2 and w.gradient_norm
    ]
    return float(np.median(found)) if found else 0.0
