"""Targets far larger than what the network gives: training ends before outputs have got there.

Evidence: the size of the targets of a batch against that of the outputs at the start; and the loss of the batch at the
end of the loop against that of the best outputs that are the same for all rows.

Why it hurts: initial weights give outputs near 1. Weights have to grow by the size of the targets before the network
can say anything of how they differ; with Adam each moves by about the learning rate in a step, and with plain gradient
descent the gradients, which are as large as the targets, make training diverge.

How sure: likely, where targets are a hundred times as large, and the loop, whose weights do move, ends with no less
than the loss of a constant, or without a finite loss. What a table gives is always scaled, so it is seen in loops of
the user's own alone.

What to try: subtract the mean of the training targets and divide by their deviation, and turn predictions back; or let
the network end with that scale and shift.

References: LeCun, Bottou, Orr & Müller 1998, *Efficient BackProp*; Bishop 1995, *Neural networks for pattern
recognition*, section 8.2.
"""

from __future__ import annotations

import math

from torch import Tensor

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import best_constant, steps_of
from foldwise.checks.sight import Network, Sight, run
from foldwise.checks.symptoms import SLOW, UNSTEADY

EXPLAINS = (
    "start-loss",
    "loss-sum",
    "overfit-one-batch",
    "clipped-always",
    "rate-too-high",
    *UNSTEADY,
    *SLOW,
)
FAR = 100.0  # times the outputs at the start, or 1
NOTHING = 0.9  # of the loss of the best constant: whoever has so much left has learned nothing of the rows
FEWEST = 20  # steps


def find(sight: Sight) -> Finding | None:
    """Look for large targets that a loop did not reach."""
    network, loop = sight.network, sight.loop
    if network is None or network.targets is None or loop is None or loop.still or len(sight.looks) < 2:
        return None
    if not network.targets.is_floating_point() or sight.looks[-1].step < FEWEST:
        return None
    outputs = run(network.module, network.inputs)
    if outputs.numel() != network.targets.numel():
        return None
    targets, given = _size(network.targets), _size(outputs)
    if not targets > FAR * max(given, 1.0):
        return None
    return _found(
        sight, network, f"targets are about {targets:.2g} in size, outputs {given:.2g} at the start"
    )


def _found(sight: Sight, network: Network, sizes: str) -> Finding | None:
    constant, last = best_constant(network), sight.looks[-1]
    if not constant > 0 or last.loss < NOTHING * constant:
        return None
    end = (
        f"the loss is {last.loss:.3g}, where one number for all rows has {constant:.3g}"
        if math.isfinite(last.loss)
        else "the loss is no number any more"
    )
    return Finding(
        "unscaled-targets",
        "likely",
        f"{sizes}, and after {steps_of(last.step)} {end}",
        step=0,
        remedies=(Remedy("scale the targets to mean 0 and deviation 1, and turn predictions back"),),
    )


def _size(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())
