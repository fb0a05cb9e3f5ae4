"""Units of a layer that are 0 for every row: they get no gradient and do not come back.

Evidence: the share of units of each activation that are exactly 0 for every row of a batch of training rows, at the
start and after training. A sparse layer, in which most outputs are 0 but every unit answers to some rows, is healthy.

Why it hurts: where a ReLU is 0 its slope is 0 too, so what lies before it learns nothing from that row. A unit that is
0 for all rows learns nothing at all; the network is as narrow as what is left.

How sure: likely, when most units of a layer are dead and were not at the start; dead at the start as well, it is the
initial weights or the inputs that are to be looked at first.

What to try: a smaller learning rate, which does not throw units off; leaky ReLU, which has a slope everywhere.

References: Lu, Shin, Su & Karniadakis 2020, *Dying ReLU and initialization*; Maas, Hannun & Ng 2013, *Rectifier
nonlinearities improve neural network acoustic models* (leaky ReLU).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.progress import steps_of
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE
from foldwise.errors import percent

EXPLAINS = ("vanishing-gradients", *SLOW, *UNSURE)
MOST = 0.5  # of a layer's units may be dead


def find(sight: Sight) -> Finding | None:
    """Look for a layer of which most units are dead in the last look."""
    if not sight.looks:
        return None
    last = sight.looks[-1]
    dead = [own for own in last.activations if own.dead > MOST and own.units > 1]
    if not dead:
        return None
    before = {own.name: own.dead for own in sight.looks[0].activations}
    worst = max(dead, key=lambda own: own.dead)
    since = next(
        look.step
        for look in sight.looks
        if any(o.name == worst.name and o.dead > MOST for o in look.activations)
    )
    return Finding(
        "dead-units",
        "likely",
        f"{percent(worst.dead)} of the {worst.units} units of {sight.called(worst.name)} are 0 for every row after "
        f"{steps_of(last.step)}, {percent(before.get(worst.name, 0))} at the start",
        trials=sight.about,
        where=tuple(own.name for own in dead),
        step=since,
        remedies=_remedies(sight),
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (Remedy("a smaller learning rate"), Remedy("leaky ReLU"))
    found = [smaller("learning_rate", s.learning_rate, 10)]
    if s.network != "custom" and s.activation == "relu":
        found.append(Remedy("leaky ReLU", {"activation": "leaky_relu"}))
    return tuple(found)
