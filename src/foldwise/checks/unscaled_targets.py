"""Targets far larger than what the network gives: training ends before outputs have got there.

Evidence: the size of the targets of a batch against that of the outputs at the start; how much of the loss a unit of
output moves there; the outputs of the batch at the end of the loop, how far they are from the mean of the targets on
average, against the targets' deviation, and how large; and the loss then against that of the best outputs that are the
same for all rows.

Why it hurts: initial weights give outputs near 1. Weights have to grow by the size of the targets before the network
can say anything of how they differ; with Adam each moves by about the learning rate in a step, and with plain gradient
descent the gradients, which are as large as the targets, make training diverge.

How sure: likely, where targets are a hundred times as large, and the loop, whose weights do move, ends with outputs
that are off by more than the targets' deviation, below a thirtieth of the targets in size or no numbers, and with 0.9
or more of the loss of a constant. Outputs that have got there and know little of the rows are no fault of the scale,
nor are those that the loop turns back: a unit of them moves more than a tenth of the loss. What a table gives is always
scaled, so it is seen in loops of the user's own alone.

What to try: subtract the mean of the training targets and divide by their deviation, and turn predictions back; or let
the network end with that scale and shift.

References: LeCun, Bottou, Orr & Müller 1998, *Efficient BackProp*; Bishop 1995, *Neural networks for pattern
recognition*, section 8.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import Look
from foldwise.checks.probe import gradient_if_taken, mean_loss
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
NEAR = 0.1  # of the loss is moved by a unit of output; for squared errors 2 over the distance in such units
SMALL = 1 / 30  # of the size of the targets
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
    if not targets > FAR * max(given, 1.0) or not _of_a_unit(network, outputs) < NEAR:
        return None
    if _got_there(network, sight.looks[-1]):
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


def _of_a_unit(network: Network, outputs: Tensor) -> float:
    """Give what share of the loss at the start moves when every output moves by 1; NaN: there is no telling."""
    slope = gradient_if_taken(network, outputs)
    if network.loss is None or slope is None:
        return math.nan
    with torch.no_grad():
        loss = abs(float(mean_loss(network, outputs)))
    return float(slope.double().abs().sum()) / loss if loss > 0 else math.nan


def _got_there(network: Network, look: Look) -> bool:
    """Tell whether outputs are where targets are: as to their mean, within the targets' deviation, and their size."""
    if look.outputs is None or look.targets is None:
        return True
    outputs, targets = (t.double().reshape(len(t), -1) for t in (network.ended(look.outputs), look.targets))
    if not torch.isfinite(outputs).all():
        return False
    apart = float((outputs.mean(0) - targets.mean(0)).norm())
    return apart <= float(targets.std(0, correction=0).norm()) and _size(outputs) > SMALL * _size(targets)


def _size(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())
