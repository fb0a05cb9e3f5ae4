"""Units of sigmoid or tanh that sit at the flat ends, where they hardly have a slope.

Evidence: the share of outputs of each bounded activation between layers that are within 2 % of its range from either
end, at the start and later. Outputs of the network are not counted: there it is what being right looks like.

Why it hurts: what comes back through a unit is multiplied by its slope, so that what lies before it learns slowly.

How sure: likely, when most outputs of a layer are at the ends at the start; later on only when the network falls behind
the linear model as well, because networks that have learned a task may well use the ends.

What to try: at the start smaller initial weights (Xavier's are made for these activations); later a smaller rate; ReLU.

References: Glorot & Bengio 2010, *Understanding the difficulty of training deep feedforward neural networks*; LeCun,
Bottou, Orr & Müller 1998, *Efficient BackProp*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.look import LayerLook, Look
from foldwise.checks.progress import (
    fits_worse_than_linear,
    is_baseline,
    steps_of,
    that_change,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSURE
from foldwise.errors import percent

EXPLAINS = ("vanishing-gradients", "rate-too-low", "uneven-layers", *POOR, *UNSURE)
MOST = 0.5  # of a layer's outputs; good starts have less than 0.1, trained networks up to 0.3


def find(sight: Sight) -> Finding | None:
    """Look for a layer of which most outputs are at the flat ends."""
    if not sight.looks or is_baseline(sight):
        return None
    at_first = sight.start is not None and bool(_saturated(sight.start))
    look = sight.looks[0] if at_first else sight.looks[-1]
    found = _saturated(look)
    if not found:
        return None
    worst = max(found, key=lambda own: own.saturated)
    behind = worse_than_linear(sight) or fits_worse_than_linear(sight)
    when = "at the start" if look.step == 0 else f"after {steps_of(look.step)}"
    return Finding(
        "saturated-units",
        "likely" if at_first or behind else "hint",
        f"{percent(worst.saturated)} of the outputs of {_called(sight, worst)} are at the flat ends {when}",
        trials=sight.about,
        where=tuple(own.name for own in found),
        step=look.step,
        remedies=_remedies(sight, at_first),
    )


def _called(sight: Sight, own: LayerLook) -> str:
    said = sight.called(own.name)
    return said if own.kind in said else f"{said} ({own.kind})"


def _saturated(look: Look) -> list[LayerLook]:
    """Give the bounded activations before the last layer with weights of which most outputs are at the ends."""
    weighted = {own.name for own in look.weighted}
    last = max((place for place, own in enumerate(look.layers) if own.name in weighted), default=0)
    return [own for own in look.layers[:last] if own.saturated > MOST and own.units > 1]


def _remedies(sight: Sight, at_first: bool) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None or s.network not in ("mlp", "residual"):
        return (
            Remedy("smaller initial weights") if at_first else Remedy("a smaller learning rate"),
            Remedy("ReLU"),
        )
    xavier = Remedy("Xavier's initial weights", {"initialization": "xavier"})
    slower = smaller("learning_rate", s.learning_rate, 10)
    relu = Remedy("ReLU and Kaiming's initial weights", {"activation": "relu", "initialization": "kaiming"})
    return that_change(s, (xavier, relu, slower) if at_first else (slower, relu))
