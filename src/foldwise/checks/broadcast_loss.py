"""The loss of a row does not know which target is its own.

Evidence: the gradient of the loss at the outputs, once more with the targets given to other rows: it is the same.

Why it hurts: outputs of shape `(rows, 1)` and targets of shape `(rows,)` are broadcast to `(rows, rows)`, every
output against every target. The best that can be learned then is one constant for all rows: the mean.

How sure: it cannot be otherwise. A loss that compares rows with each other, or divides by the weights of a batch,
depends on which target is whose, and is not meant.

What to try: give outputs and targets the same shape, by `outputs.squeeze(-1)` or `targets.unsqueeze(-1)`.

References: NumPy and PyTorch documentation, *Broadcasting semantics*.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foldwise.checks.finding import Finding
from foldwise.checks.losses import usual_loss
from foldwise.checks.probe import fewer, gradient_if_taken, output_gradient
from foldwise.checks.sight import Network, Sight, run
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("wrong-loss", "start-loss", "overfitting", *BLOCKED)
FAR = 10  # times the largest target
SAME = 1e-3  # of the largest gradient; rounding stays below


def find(sight: Sight) -> Finding | None:
    """Look whether gradients stay as they are when targets change places."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None or len(network.targets) < 4:
        return None
    network = fewer(network)
    assert network.targets is not None
    moved = _moved(network.targets)
    if torch.equal(moved, network.targets):
        return None
    outputs = _near(run(network.module, network.inputs), network.targets)
    chance = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
    if not _same(network, outputs + 0.1 * chance, moved, outputs):
        return None
    if network.targets.is_floating_point():
        # absolute errors have the same gradient for all outputs that lie below all targets
        among = float(network.targets.mean()) + float(network.targets.std()) * chance
        if gradient_if_taken(network, among) is not None and not _same(network, among, moved, outputs):
            return None
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(network.targets.shape)}"
    # of several losses in a loop the one that was overheard may know its targets from another
    certain = sight.loop is None or outputs.shape != network.targets.shape
    return Finding(
        "broadcast-loss",
        "sure" if certain else "hint",
        f"the gradient at the outputs is the same when the targets are given to other rows ({shapes}): "
        "each output is compared with every row's target, or with none",
        trials=sight.about,
        remedies=usual_loss(sight, "outputs and targets of the same shape"),
    )


def _same(network: Network, outputs: Tensor, moved: Tensor, own: Tensor) -> bool:
    """Tell whether gradients at some outputs are there, and the same with other targets.

    Where the loss refuses them, as one of probabilities does, it is asked at the network's own outputs.
    """
    assert network.targets is not None
    first, second = (gradient_if_taken(network, outputs, t) for t in (network.targets, moved))
    if first is None or second is None:
        first, second = (output_gradient(network, own, t) for t in (network.targets, moved))
    size = float(first.abs().max())
    return 0 < size < float("inf") and not float((first - second).abs().max()) > SAME * size


def _near(outputs: Tensor, targets: Tensor) -> Tensor:
    """Bring outputs down that are so large that rounding hides all differences between targets."""
    most = FAR * (max(1.0, float(targets.abs().max())) if targets.is_floating_point() else 1.0)
    largest = float(outputs.abs().max())
    return outputs * (most / largest) if math.isfinite(largest) and largest > most else outputs


def _moved(targets: Tensor) -> Tensor:
    """Give each row the target of another one, as different as can be."""
    order = targets.reshape(len(targets), -1)[:, 0].argsort(stable=True)
    moved = targets.clone()
    moved[order] = targets[order.roll(len(order) // 2)]
    return moved
