"""A loss that falls below every bound as outputs grow: there is nothing to arrive at.

Evidence: the loss along the direction in which it falls: 1000 times as far out it is 1000 times as far below 0.

Why it hurts: with every step the outputs and the weights grow, the right rows count as much as the wrong ones, and
training ends where numbers end. A hinge without its `max(0, …)` is such a loss, and the cross-entropy of 0 and 1
given targets that are neither.

How sure: likely. A likelihood, which falls with the logarithm, is not meant.

What to try: bound the loss below: `clamp_min(0)` for a hinge; `log_softmax` before `nll_loss`, which takes logarithms
of probabilities.

References: Rosasco et al. 2004, *Are loss functions all the same?*
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from foldwise.checks.finding import Finding
from foldwise.checks.losses import usual_loss
from foldwise.checks.probe import fewer, mean_loss, output_gradient
from foldwise.checks.sight import Sight, run
from foldwise.checks.softmax_hidden import are_shares
from foldwise.checks.symptoms import BREAKS

EXPLAINS = BREAKS
FAR = 1e4
BY_HAND = {
    "nll_loss": "log_softmax before nll_loss, which takes log-probabilities, or cross_entropy of raw scores"
}


def find(sight: Sight) -> Finding | None:
    """Look whether the loss falls evenly without end."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network)
    outputs = run(network.module, network.inputs)
    step = -output_gradient(network, outputs)
    # logarithms of shares stay what they are, whatever comes before: beyond them such a loss is never asked
    within = partial(log_softmax, dim=-1) if are_shares(outputs.exp()) else _as_they_are
    size = float(step.abs().mean())
    if not 0 < size < math.inf:
        return None
    try:
        with torch.no_grad():
            start, far, farther = (
                float(mean_loss(network, within(outputs + t * step / size))) for t in (0, FAR, 1000 * FAR)
            )
    except (RuntimeError, ValueError):  # a loss of probabilities refuses what is none
        return None
    ends = far < -0.01 * FAR * size and farther < 100 * far
    if not ends or not math.isfinite(far):
        return None
    return Finding(
        "unbounded-loss",
        "likely",
        f"the loss is {start:.3g} at the start, {far:.3g} where outputs are {FAR:g} larger and "
        f"{farther:.3g} where they are "
        f"{1000 * FAR:g} larger: it has no least value",
        trials=sight.about,
        remedies=usual_loss(
            sight, BY_HAND.get(network.loss_name, "bound the loss below, such as by clamp_min(0)")
        ),
    )


def _as_they_are(outputs: Tensor) -> Tensor:
    return outputs
