"""What training minimizes: functions of outputs and targets that give one value per row.

They work on the last axis and leave the axes before it alone, so one function serves a network alone
(`[batch, outputs]`), a stack (`[members, batch, outputs]`) and evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PerRow = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def squared_error(
    outputs: Float[Tensor, "*axes outputs"],
    targets: Float[Tensor, "*axes outputs"],
    knobs: Mapping[str, Tensor],
) -> Float[Tensor, "*axes"]:
    """Compute (output − target)², averaged over the outputs of a row."""
    return (outputs - targets).square().mean(-1)


def half_squared_error(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute ½(output − target)², averaged over the outputs of a row."""
    return squared_error(outputs, targets, knobs) / 2


def cross_entropy(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute −Σ q log softmax(outputs) in nats, from raw scores.

    `targets` are class numbers `[...]` or probabilities `[..., classes]`; with smoothing ε they become
    q = (1−ε)·target + ε/C (Szegedy et al. 2016).
    """
    logs = F.log_softmax(outputs, dim=-1)
    if targets.is_floating_point():
        right = (targets * logs).sum(-1)
    else:
        right = logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    smoothing = knobs.get("label_smoothing")
    return -right if smoothing is None else -((1 - smoothing) * right + smoothing * logs.mean(-1))


def binary_cross_entropy(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute log(1+eˣ) − x·q from one raw score x per label, averaged over the labels of a row.

    `targets` are 0 and 1, `[..., labels]`; with smoothing ε, q = (1−ε)·target + ε/2.
    """
    smoothing = knobs.get("label_smoothing")
    if smoothing is not None:
        targets = targets * (1 - smoothing.unsqueeze(-1)) + smoothing.unsqueeze(-1) / 2
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)


LOSSES: dict[str, PerRow] = {
    "squared_error": squared_error,
    "half_squared_error": half_squared_error,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}
