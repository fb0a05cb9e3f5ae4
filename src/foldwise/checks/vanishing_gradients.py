"""Gradients that shrink from layer to layer, so that the first layers get next to none.

Evidence: the variance of the gradient at the first activation over that at the last, on the same batch, at the start
and later on.

Why it hurts: each layer multiplies the gradient; a sigmoid by a quarter at most, small weights by little. After some
layers nothing is left, and the first ones stay as they were drawn.

How sure: likely, when the gradient shrinks a thousandfold (its variance a millionfold) at the start, or most of the
later looks: layers of good starts differ tenfold at most. A hint when it recovered and the network is not behind the
linear model.

What to try: ReLU with Kaiming's initial weights, which keep the variance; normalization; residual blocks; fewer layers.

References: Hochreiter 1991, *Untersuchungen zu dynamischen neuronalen Netzen*; Bengio, Simard & Frasconi 1994,
*Learning long-term dependencies with gradient descent is difficult*; Glorot & Bengio 2010, *Understanding the
difficulty of training deep feedforward neural networks*.
"""

from __future__ import annotations

from typing import Any

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import (
    fits_worse_than_linear,
    gradient_ratio,
    is_baseline,
    steps_of,
    that_change,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE

EXPLAINS = ("epsilon-dominates", "dead-units", *SLOW, *UNSURE)
ACROSS = 1e-6  # variance of the gradient at the first activation over that at the last; good starts are within 1e-2


def find(sight: Sight) -> Finding | None:
    """Look for gradients that are far smaller in the first layers than in the last."""
    if is_baseline(sight) or not sight.looks:
        return None
    ratios = [gradient_ratio(look) for look in sight.looks]
    low = [look for look, ratio in zip(sight.looks, ratios, strict=True) if ratio < ACROSS]
    at_first = ratios[0] < ACROSS
    if not at_first and len(low) <= len(ratios) / 2:
        return None
    behind = worse_than_linear(sight) or fits_worse_than_linear(sight) or not sight.others
    first, last = low[0].activations[0], low[0].activations[-1]
    ratio = ratios[sight.looks.index(low[0])]
    when = "at the start" if low[0].step == 0 else f"after {steps_of(low[0].step)}"
    return Finding(
        "vanishing-gradients",
        "likely" if behind or len(low) > len(ratios) / 4 else "hint",
        f"{when} the gradient at {sight.called(first.name)} is {ratio**0.5:.1g} times that at "
        f"{sight.called(last.name)}, and as small in {len(low)} of {len(ratios)} looks",
        trials=sight.about,
        where=(first.name,),
        step=low[0].step,
        remedies=_remedies(sight),
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None or s.network not in ("mlp", "residual"):
        return (
            Remedy("ReLU and Kaiming's initial weights"),
            Remedy("normalization"),
            Remedy("residual blocks"),
        )
    kept: dict[str, Any] = {"activation": "relu", "initialization": "kaiming"}
    found = [Remedy("ReLU and Kaiming's initial weights", kept)]
    if s.normalization == "none":
        found.append(Remedy("layer normalization too", {**kept, "normalization": "layer"}))
    if s.depth > 2:
        found.append(Remedy("two hidden layers", {"depth": 2, **kept}))
    return that_change(s, found)
