"""Signals or gradients grow on the way through the network, at its start.

Evidence: on a batch of training rows, the deviation between rows of what arrives at the last layer, against that of
the inputs; the gradient at the first hidden layer against that at the last.

Why it hurts: the outputs and the loss start high, and the first steps are spent on getting them down; with many
layers they overflow.

How sure: likely. Normalization keeps signals in bounds while gradients may grow 100-fold over 30 layers, which
trains well; that is not meant.

What to try: normalization inside residual branches, fewer layers, smaller initial weights.

References: He et al. 2015, *Delving deep into rectifiers*; Zhang, Dauphin & Ma 2019, *Fixup initialization*; Hanin
& Rolnick 2018, *How to start training*.
"""

from __future__ import annotations

import math

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.signals import Stations, remedies_of, stations
from foldwise.checks.symptoms import BREAKS

EXPLAINS = ("uneven-layers", *BREAKS)
GROWN, STEEP = 100.0, 3000.0  # signal, gradient


def find(sight: Sight) -> Finding | None:
    """Look whether signals or gradients grow by far."""
    seen = stations(sight)
    said = None if seen is None else _said(seen)
    if said is None:
        return None
    assert seen is not None
    lsuv = Remedy("initialization lsuv", {"initialization": "lsuv"})
    others = remedies_of(sight)
    return Finding(
        "exploding-signal",
        "likely",
        f"{said}, at the start, with {len(seen.stations) + 1} layers one after the other",
        trials=sight.about,
        where=(seen.stations[-1].name,),
        step=0,
        remedies=others if sight.settings is None else (*others[-1:], lsuv, *others[:1]),
    )


def _said(seen: Stations) -> str | None:
    last = seen.stations[-1]
    if not math.isfinite(last.signal) or last.signal > GROWN * seen.inputs > 0:
        return (
            f"rows differ by {last.signal:.2g} where the last layer takes them in, and by {seen.inputs:.2g} "
            "as inputs"
        )
    if seen.gradients > STEEP:
        return f"the gradient at the first hidden layer is {seen.gradients:.1g} times that at the last"
    return None
