"""Minimizing the loss moves the outputs away from the targets.

Evidence: the gradient of the loss at the outputs of a batch: which way a step takes each output, and which way its
target lies.

Why it hurts: the network learns the opposite of what it should, and the loss falls without end while it does.

How sure: likely; losses for numbers and classes, also robust, smoothed or weighted ones, move outputs towards
targets.

What to try: the other sign. A score that is to be large, such as a likelihood or an accuracy, is to be negated.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding
from foldwise.checks.losses import towards, usual_loss
from foldwise.checks.probe import fewer, output_gradient
from foldwise.checks.sight import Sight, run
from foldwise.checks.symptoms import BLOCKED, BREAKS
from foldwise.errors import percent

EXPLAINS = ("wrong-loss", "unbounded-loss", "probabilities-as-scores", *BREAKS, *BLOCKED)
MOST = 0.1  # of the gradient may point to the targets


def find(sight: Sight) -> Finding | None:
    """Look whether steps lead away from targets."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network)
    outputs = run(network.module, network.inputs)
    assert network.targets is not None
    way = towards(outputs, network.targets)
    if way is None:
        return None
    step = -output_gradient(network, outputs)
    size = float(step.abs().sum())
    if not 0 < size < float("inf"):
        return None
    right = float(step.abs()[step * way > 0].sum()) / size
    if right > MOST:
        return None
    return Finding(
        "loss-sign",
        "likely",
        f"{percent(1 - right)} of a step that lowers the loss moves outputs away from their targets",
        trials=sight.about,
        remedies=usual_loss(sight, "the other sign"),
    )
