"""Signals or gradients die out on the way through the network, at its start.

Evidence: on a batch of training rows, the deviation between rows of what arrives at the last layer, against that of
the inputs; the gradient at the first hidden layer against that at the last; and, in networks of many layers without
normalization, in how many directions rows still differ at the end.

Why it hurts: where all rows look alike to the last layer, it cannot tell them apart; where no gradient arrives at
the first layers, they stay as they were drawn.

How sure: likely.

What to try: fewer layers, skips around blocks of layers, normalization.

References: Glorot & Bengio 2010, *Understanding the difficulty of training deep feedforward neural networks*;
Schoenholz et al. 2017, *Deep information propagation*; Hanin & Rolnick 2018, *How to start training*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding
from foldwise.checks.sight import Sight
from foldwise.checks.signals import Stations, remedies_of, stations
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("saturated-units", *BLOCKED)
LEFT = 0.01  # of a deviation; a perceptron of two sigmoid layers keeps 0.05 to 0.1, one of four 0.008
MANY = 16  # layers, from which on rows without normalization or skips come to differ in one direction only, and by less
FEW = 0.15  # of the directions beyond one in which rows differ behind the first layer


def find(sight: Sight) -> Finding | None:
    """Look whether signals arrive at the last layer, and gradients at the first."""
    seen = stations(sight)
    said = None if seen is None else _said(seen)
    if seen is None or said is None:
        return None
    return Finding(
        "vanishing-signal",
        "likely",
        f"{said}, at the start, with {len(seen.stations) + 1} layers one after the other",
        trials=sight.about,
        where=(seen.stations[-1].name,),
        step=0,
        remedies=remedies_of(sight),
    )


def vanishes(seen: Stations) -> bool:
    """Tell whether signals or gradients are hardly there at the other end."""
    return seen.stations[-1].signal < LEFT * seen.inputs or seen.gradients < LEFT


def _said(seen: Stations) -> str | None:
    first, last = seen.stations[0], seen.stations[-1]
    if not first.signal > 0:
        return None
    many = len(seen.stations) >= MANY and not (seen.normalized or seen.skips)
    if last.signal < (10 * LEFT if many else LEFT) * seen.inputs:
        return (
            f"rows differ by {last.signal:.2g} where the last layer takes them in, and by {seen.inputs:.2g} "
            "as inputs"
        )
    if seen.gradients < LEFT:
        return f"the gradient at the first hidden layer is {seen.gradients:.1g} of that at the last"
    if many and first.dimensions > 1.5 and last.dimensions - 1 < FEW * (first.dimensions - 1):
        return (
            f"rows differ in {last.dimensions:.1f} directions where the last layer takes them in, "
            f"and in {first.dimensions:.1f} behind the first"
        )
    return None
