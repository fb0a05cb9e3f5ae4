"""A network that does worse than the linear model, on the rows that it learned from as well.

Evidence: scores fold by fold beside those of the linear model, by the corrected test; the lowest training loss of both,
where targets are shares of classes above their entropy, which no outputs can undercut.

Why it hurts: a network contains a linear model. When it fits worse, it was not trained as it could be, or is held back.

How sure: likely, when it is worse beyond what folds differ by, and its training loss ends more than 1 %
above the linear model's.

What to try: what holds it back taken away (dropout, noise, decay); a wider network; more epochs.

References: Goodfellow, Bengio & Courville 2016, *Deep Learning*, sections 5.2 and 11.3; Nadeau & Bengio 2003,
*Inference for the generalization error* (the corrected test).
"""

from __future__ import annotations

from typing import Any

from foldwise.checks.finding import Finding, Remedy, larger
from foldwise.checks.progress import (
    CHANCE,
    alike,
    fits_worse_than_linear,
    floor,
    least,
    p_better,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import UNSURE

EXPLAINS = UNSURE
NOISY = 0.01  # instead of `CHANCE` where training loss is that under noise, and says less
LAST = 0.8  # of the epochs: what is kept after them was still getting better
HOLDS_BACK = ("dropout", "input_noise", "weight_decay", "l1", "l2", "weight_limit")


def find(sight: Sight) -> Finding | None:
    """Look for a network that the linear model beats, on its own rows too."""
    curve = sight.curve
    if curve is None or curve.diverged or not alike(sight):
        return None
    noisy = sight.settings is not None and (sight.settings.dropout or sight.settings.input_noise)
    if not (worse_than_linear(sight, NOISY if noisy else CHANCE) and fits_worse_than_linear(sight)):
        return None
    linear, lowest = sight.others["linear"], floor(sight)
    above = f" above the {lowest:.3g} that targets leave at best" if lowest else ""
    return Finding(
        "underfitting",
        "likely",
        f"the training loss comes down to {least(curve.training) - lowest:.3g}{above}, that of the linear model to "
        f"{least(linear.training) - lowest:.3g}, and the linear model's scores are better, "
        f"p = {p_better(sight, curve, linear):.2g}",
        trials=sight.about,
        step=None if not sight.looks else sight.looks[-1].step,
        remedies=_remedies(sight),
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    assert s is not None
    held: dict[str, Any] = {name: 0.0 for name in HOLDS_BACK if getattr(s, name)}
    found = [Remedy(f"no {' and no '.join(held)}".replace("_", " "), held)] if held else []
    if s.network in ("mlp", "residual"):
        found.append(larger("width", s.width, 4))
    faster = larger("learning_rate", s.learning_rate, 10)
    if sight.curve is not None and sight.curve.kept > LAST * len(sight.curve.training):
        found.insert(0, faster)  # it was getting better to the end
    found.append(larger("epochs", s.epochs, 4))
    return tuple(found)
