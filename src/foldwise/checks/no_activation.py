"""No activation between the layers: however deep, the network is a linear one.

Evidence: the value halfway between two rows. What comes out of the last layer with weights is there exactly the
mean of the values at the two rows, for weights drawn at random, though several layers run one after the other.

Why it hurts: a product of matrices is a matrix. The network can learn no more than linear or softmax regression
can, and learns it with more effort.

How sure: likely; the network is linear beyond doubt. Where a layer in the middle is narrower than both inputs and
outputs of the network, it may be meant so (a regression of low rank), and is no more than a hint.

What to try: an activation behind each hidden layer.

References: Saxe, McClelland & Ganguli 2014, *Exact solutions to the nonlinear dynamics of learning in deep linear
neural networks*.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import ROWS, forward, redrawn
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import POOR

EXPLAINS = ("overfit-one-batch", *POOR)
EXACT = 1e-3  # of the outputs' deviation; rounding of float32 over many layers stays below, any bend is above
ROUNDING = 1e-4
WIDE = 10  # inputs are taken so many times as far out, where an activation bends


def find(sight: Sight) -> Finding | None:
    """Look whether a network of several layers is affine."""
    if sight.network is None or not sight.network.inputs.is_floating_point():
        return None
    passed = forward(sight.network.module, sight.network.inputs[:2])
    layers = passed.weighted
    # first as it is, which is quick and says no of most networks; then with other weights, by which branches open
    affine = len(layers) > 1 and all(_affine(sight.network, make) for make in (_as_it_is, redrawn))
    if not affine:
        return None
    widths = [own.after.shape[-1] for own in layers]
    ends = min(layers[0].before.shape[-1], widths[-1])
    narrow = min(widths[:-1]) < ends
    return Finding(
        "no-activation",
        "hint" if narrow else "likely",
        f"{len(layers)} layers with weights run one after the other, and together they are a linear function: "
        "halfway between two rows the outputs are the mean of those at the rows",
        trials=sight.about,
        where=tuple(own.name for own in layers),
        remedies=(Remedy("an activation, such as ReLU, behind each hidden layer"),),
    )


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


def _affine(network: Network, make: Callable[[nn.Module], nn.Module]) -> bool:
    module = make(network.module)
    # half the rows and the other half, so that pairs have two rows each
    rows = network.inputs[: 2 * (min(len(network.inputs), ROWS) // 2)] * WIDE
    if len(rows) < 2:
        return False
    first, second = rows.chunk(2)
    together = torch.cat([first, second, (first + second) / 2])
    last = forward(module, together).weighted[-1].after
    if len(last) != len(together):
        return False
    a, b, middle = last.chunk(3)
    return _small(middle - (a + b) / 2, torch.cat([a, b]))


def _small(error: Tensor, values: Tensor) -> bool:
    flat = values.double().flatten(1)
    scale = float(flat.std(0, correction=0).mean())
    told_apart = scale > ROUNDING * float(
        flat.abs().max()
    )  # else rows are alike, and there is nothing to see
    return told_apart and float(error.double().abs().max()) < EXACT * scale
