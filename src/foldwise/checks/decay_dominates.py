"""Weight decay or a penalty so strong that weights shrink to nearly nothing.

Evidence: the size of the weight matrices after training over that at the start; that a decay or penalty is set; and
whether the network fits its own rows worse than the linear model does.

Why it hurts: what is taken off the weights in each step is more than the loss adds, so that the network says hardly
more than a constant.

How sure: likely, when the matrices shrink to less than half and the network falls behind the linear model, or to less
than a tenth and it fits worse. A decay that shrinks weights a little is what it is for. In a loop of the user's own the
network must say no more than a constant in the end.

What to try: a hundredth of the decay; none.

References: Krogh & Hertz 1992, *A simple weight decay can improve generalization*; Loshchilov & Hutter 2019, *Decoupled
weight decay regularization*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import (
    alike,
    best_constant,
    fits_worse_than_linear,
    is_baseline,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE
from foldwise.errors import percent
from foldwise.settings import Settings

EXPLAINS = ("dead-units", "vanishing-gradients", *SLOW, *UNSURE)
SHRUNK = 0.5  # of their size at the start is what weights have that shrank; in good trainings they grow
GONE = 0.1  # of their size: what is left says nothing, whether scores show it or not
SAYS = 0.95  # of the loss of the best constant, or more, has a network that says no more than that
STRENGTHS = ("weight_decay", "l1", "l2")


def find(sight: Sight) -> Finding | None:
    """Look for weights that shrank, under a decay, in a network that fits badly."""
    if is_baseline(sight) or sight.start is None or len(sight.looks) < 2:
        return None
    own = _strengths(sight)
    first = {w.name: w.norm for w in sight.start.weights if len(w.shape) >= 2 and w.norm > 0}
    shares = [w.norm / first[w.name] for w in sight.looks[-1].weights if w.name in first]
    if not own or not shares or not np.median(shares) < SHRUNK:
        return None
    if sight.settings is None:
        return _in_a_loop(sight, own, float(np.median(shares)))
    fits = fits_worse_than_linear(sight) or not alike(sight)
    if not (fits and (worse_than_linear(sight) or np.median(shares) < GONE)):
        return None
    said = " and ".join(f"`{name}` {value:.3g}" for name, value in own.items())
    less = {name: value / 100 for name, value in own.items()}
    named = " and ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in less.items())
    return Finding(
        "decay-dominates",
        "likely",
        f"the weight matrices shrank to {percent(np.median(shares), 1)} of their size at the start under {said}, "
        "and the "
        "network fits worse than the linear model",
        trials=sight.about,
        remedies=(
            Remedy(f"{named} (÷ 100)", less),
            Remedy("no decay", _none(sight.settings, own)),
        ),
    )


def _strengths(sight: Sight) -> dict[str, Any]:
    """Name the decays and penalties that are set; in a loop of the user's own the strongest of its optimizers."""
    if sight.settings is not None:
        return {name: getattr(sight.settings, name) for name in STRENGTHS if getattr(sight.settings, name)}
    groups: tuple[Mapping[str, Any], ...] = () if sight.loop is None else sight.loop.options
    strongest = max((float(o.get("weight_decay", 0)) for o in groups), default=0.0)
    return {"weight_decay": strongest} if strongest > 0 else {}


def _in_a_loop(sight: Sight, own: dict[str, Any], share: float) -> Finding | None:
    last = sight.looks[-1]
    if sight.network is None or not last.loss >= SAYS * best_constant(sight.network):
        return None
    return Finding(
        "decay-dominates",
        "likely",
        f"the weight matrices shrank to {percent(share, 1)} of their size at the start under `weight_decay` "
        f"{own['weight_decay']:.3g}, and the network says no more than a constant",
        remedies=(Remedy("decay ÷ 100"), Remedy("no decay")),
    )


def _none(s: Settings, own: dict[str, Any]) -> dict[str, Any]:
    return {name: 0.0 for name in own if getattr(s, name)}
