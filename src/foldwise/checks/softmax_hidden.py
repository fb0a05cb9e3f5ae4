"""Softmax as the activation of a hidden layer.

Evidence: what is given to a layer with weights, behind the first: in every row it is nowhere negative and sums to
1.

Why it hurts: the units share one unit of output, so each passes on little of what it gets, all of them compete, and
gradients shrink by about the number of units.

How sure: likely. Rows that sum to 1 and are inputs, such as one-hot columns, are not meant, nor are weights of
attention, which are multiplied with values and not given to a layer.

What to try: ReLU or another activation that treats each unit by itself; softmax belongs to the loss.

References: Bridle 1990, *Probabilistic interpretation of feedforward classification network outputs*.
"""

from __future__ import annotations

from torch import Tensor

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, plural
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("saturating-activation", "vanishing-signal", "saturated-units", *BLOCKED)
CLOSE = 1e-3


def find(sight: Sight) -> Finding | None:
    """Look for layers that are given shares."""
    if sight.network is None:
        return None
    network = fewer(sight.network)
    passed = forward(network.module, network.inputs)
    trained = [own for own in passed.weighted if own.given.requires_grad]
    given = [own for own in trained if are_shares(own.before)]
    if not given:
        return None
    units = given[0].before.shape[-1]
    return Finding(
        "softmax-hidden",
        "likely",
        f"what {plural(sight.all_called(own.name for own in given), 'takes', 'take')} in sums to 1 in every row, "
        f"over {units} units: a softmax stands before it",
        trials=sight.about,
        where=tuple(own.name for own in given),
        remedies=(Remedy("ReLU in place of softmax"),),
    )


def are_shares(values: Tensor) -> bool:
    """Tell whether every row is nowhere negative and sums to 1, over more than one entry."""
    if values.shape[-1] < 2 or not values.is_floating_point():
        return False
    whole = (values.double().sum(-1) - 1).abs() < CLOSE
    return bool((values >= 0).all() and whole.all())
