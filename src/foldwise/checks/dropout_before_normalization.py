"""Dropout directly before batch normalization: the running statistics are those of another network.

Evidence: dropout whose output reaches a batch normalization with no layer of weights between them, and the variance
of what arrives there with dropout against that without.

Why it hurts: dropout raises the variance of a unit by about 1/(1 − rate) in training, and not in evaluation. The
running statistics are learned in training, so that in evaluation every unit comes out too small.

How sure: likely where the variance is more than a third too large, else a hint.

What to try: dropout behind the normalization and its activation, or only before the last layer.

References: Li, Chen, Hu & Yang 2019, *Understanding the disharmony between dropout and batch normalization by
variance shift*.
"""

from __future__ import annotations

from torch import nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import Pass, Ran, forward, is_weighted, joined, rate_of
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR

EXPLAINS = ("jitter", *POOR, *FITS_TOO_WELL)
SHIFT = 4 / 3


def find(sight: Sight) -> Finding | None:
    """Look for normalization over a batch behind dropout."""
    if sight.network is None or len(sight.network.inputs) < 2:
        return None
    network = sight.network
    places = _behind_dropout(forward(network.module, network.inputs[:8]))
    if not places:
        return None
    resting = forward(network.module, network.inputs, training=True, dropout=False)
    masked = forward(network.module, network.inputs, training=True)
    shift = {
        own.name: _variance(masked, own.name) / max(_variance(resting, own.name), 1e-30) for own in places
    }
    worst = max(shift, key=lambda name: shift[name])
    return Finding(
        "dropout-before-normalization",
        "likely" if shift[worst] > SHIFT else "hint",
        f"dropout comes right before {joined(sight.all_called(shift))}: the variance that "
        f"{sight.called(worst)} takes in is {shift[worst]:.2g} times as large with dropout "
        "as without it, as in evaluation",
        trials=sight.about,
        where=tuple(shift),
        remedies=_remedies(sight),
    )


def _behind_dropout(passed: Pass) -> list[Ran]:
    """List the normalizations over a batch before which dropout came later than any layer of weights."""
    found, dropped = [], False
    for own in passed.layers:
        if rate_of(own.layer) > 0:
            dropped = True
        elif is_weighted(own.layer):
            dropped = False
        elif isinstance(own.layer, nn.modules.batchnorm._BatchNorm):
            if dropped:
                found.append(own)
            dropped = False
    return found


def _variance(passed: Pass, name: str) -> float:
    own = next(ran for ran in passed.layers if ran.name == name)
    return float(own.before.double().movedim(1, -1).flatten(0, -2).var(0).mean())


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    by_hand = Remedy("dropout behind the normalization and its activation")
    s = sight.settings
    if s is not None and s.network == "custom" and "dropout" in s.takes:
        return (by_hand, Remedy("no dropout", {"dropout": 0.0}))
    return (by_hand,)
