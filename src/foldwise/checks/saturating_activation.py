"""A bounded activation, such as a sigmoid, that lets little of signals or gradients through, at the start.

Evidence: what arrives at the layers behind bounded activations on a batch of training rows: the share of values at
the flat ends, how much rows still differ at the last layer, and how much of the gradient arrives at the first.

Why it hurts: a sigmoid's slope is at most ¼, and next to 0 at its ends. Each layer takes a part of signals and
gradients away, so that a stack of several hardly learns at the bottom.

How sure: likely.

What to try: ReLU or another activation with slope 1; normalization before the activation.

References: Hochreiter 1991, *Untersuchungen zu dynamischen neuronalen Netzen*; Glorot & Bengio 2010, *Understanding
the difficulty of training deep feedforward neural networks*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.signals import Stations, stations
from foldwise.checks.symptoms import BLOCKED
from foldwise.checks.vanishing_signal import vanishes
from foldwise.errors import percent

EXPLAINS = ("vanishing-signal", "saturated-units", *BLOCKED)
MOST = 0.8  # of values may be at the flat ends; residual networks of tanh with 15 blocks have 0.7 in their last layer


def find(sight: Sight) -> Finding | None:
    """Look for bounded activations that block the way."""
    seen = stations(sight)
    if seen is None:
        return None
    bounded = [own for own in seen.stations if own.bounded]
    if not bounded:
        return None
    worst = max(bounded, key=lambda own: own.saturated)
    if worst.saturated > MOST:
        where, said = (
            worst.name,
            f"{percent(worst.saturated)} of what {sight.called(worst.name)} takes in is at the ends of its range",
        )
    elif 2 * len(bounded) >= len(seen.stations) and vanishes(seen):
        where, said = bounded[-1].name, _said(seen)
    else:
        return None
    return Finding(
        "saturating-activation",
        "likely",
        f"{said}, at the start, behind a bounded activation",
        trials=sight.about,
        where=(where,),
        step=0,
        remedies=_remedies(sight),
    )


def _said(seen: Stations) -> str:
    return (
        f"rows differ by {seen.stations[-1].signal:.1g} where the last layer takes them in and by "
        f"{seen.inputs:.2g} as "
        f"inputs, and {seen.gradients:.1g} of the gradient at the last layer arrives at the first hidden one"
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None or s.network == "custom":
        return (Remedy("ReLU"), Remedy("normalization before the activation"))
    found = [Remedy("ReLU", {"activation": "relu"})]
    if s.normalization == "none":
        found.append(Remedy("batch normalization", {"normalization": "batch"}))
        found.append(Remedy("ReLU and batch normalization", {"activation": "relu", "normalization": "batch"}))
    return tuple(found)
