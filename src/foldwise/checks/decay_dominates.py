"""Weight decay or a penalty so strong that weights shrink to nearly nothing.

Evidence: the size of the weight matrices after training over that at the start; that a decay or penalty is set; and
whether the network fits its own rows worse than the linear model does.

Why it hurts: what is taken off the weights in each step is more than the loss adds, so that the network says hardly
more than a constant.

How sure: likely, when the matrices shrink to less than half and the network falls behind the linear model, or to less
than a tenth and it fits worse. A decay that shrinks weights a little is what it is for.

What to try: a hundredth of the decay; none.

References: Krogh & Hertz 1992, *A simple weight decay can improve generalization*; Loshchilov & Hutter 2019, *Decoupled
weight decay regularization*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import alike, fits_worse_than_linear, is_baseline, worse_than_linear
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE
from foldwise.settings import Settings

EXPLAINS = ("dead-units", "vanishing-gradients", *SLOW, *UNSURE)
SHRUNK = 0.5  # of their size at the start is what weights have that shrank; in good trainings they grow
GONE = 0.1  # of their size: what is left says nothing, whether scores show it or not
STRENGTHS = ("weight_decay", "l1", "l2")


def find(sight: Sight) -> Finding | None:
    """Look for weights that shrank, under a decay, in a network that fits badly."""
    s = sight.settings
    if s is None or is_baseline(sight) or sight.start is None or len(sight.looks) < 2:
        return None
    own = {name: getattr(s, name) for name in STRENGTHS if getattr(s, name)}
    first = {w.name: w.norm for w in sight.start.weights if len(w.shape) >= 2 and w.norm > 0}
    shares = [w.norm / first[w.name] for w in sight.looks[-1].weights if w.name in first]
    if not own or not shares or not np.median(shares) < SHRUNK:
        return None
    fits = fits_worse_than_linear(sight) or not alike(sight)
    if not (fits and (worse_than_linear(sight) or np.median(shares) < GONE)):
        return None
    said = " and ".join(f"`{name}` {value:.3g}" for name, value in own.items())
    return Finding(
        "decay-dominates",
        "likely",
        f"the weight matrices shrank to {np.median(shares):.1%} of their size at the start under {said}, and the "
        "network fits worse than the linear model",
        trials=sight.about,
        remedies=(
            Remedy("decay ÷ 100", {name: value / 100 for name, value in own.items()}),
            Remedy("no decay", _none(s, own)),
        ),
    )


def _none(s: Settings, own: dict[str, Any]) -> dict[str, Any]:
    return {name: 0.0 for name in own if getattr(s, name)}
