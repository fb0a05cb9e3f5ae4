"""What several checks of the loss share."""

from __future__ import annotations

import torch
from torch import Tensor

from foldwise.checks.finding import Remedy
from foldwise.checks.sight import Sight
from foldwise.plans.defaults import LOSSES_OF_TASK


def usual_loss(sight: Sight, by_hand: str) -> tuple[Remedy, ...]:
    """Propose the usual loss of the task in place of the user's own, and what to do to theirs."""
    first = Remedy(by_hand)
    if sight.settings is None or sight.table is None:
        return (first,)
    name = LOSSES_OF_TASK[sight.table.task.kind][0]
    return (first,) if sight.settings.loss == name else (Remedy(f"loss {name}", {"loss": name}), first)


def towards(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Say in which direction each output has to go, −1, 0 or 1, to come closer to its target.

    Class numbers `[rows]`: up for the right class, down for others. Numbers of the outputs' shape: 0 and 1 as labels
    (up for 1), otherwise shares that sum to 1 (up for those above the mean), otherwise up to the target or down. None
    where targets have another form.
    """
    if not targets.is_floating_point():
        fits = targets.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] > 1
        if not fits or int(targets.min()) < 0 or int(targets.max()) >= outputs.shape[1]:
            return None
        return 2 * torch.nn.functional.one_hot(targets, outputs.shape[1]).to(outputs) - 1
    if targets.ndim == 1 and outputs.shape == (len(targets), 1):
        targets = targets[:, None]
    if targets.shape != outputs.shape:
        return None
    if bool(((targets == 0) | (targets == 1)).all()):
        return 2 * targets - 1
    shares = targets.shape[-1] > 1 and bool(
        ((targets.sum(-1) - 1).abs() < 1e-3).all() and (targets >= 0).all()
    )
    return torch.sign(targets - (targets.mean(-1, keepdim=True) if shares else outputs))
