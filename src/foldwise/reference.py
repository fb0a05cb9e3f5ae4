"""One member trained alone, by a plain PyTorch loop: the oracle that every engine must agree with.

It shares with the engines what defines a member (its start, row orders, dropout keys) and what a fold learns to
prepare its rows. Optimizers, schedules, losses and the forward pass are those of torch, one batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from foldwise.data.prepare import apply_preparation, learn_preparation, learn_target_scale
from foldwise.engine.dropout import KeyedDropout, begin_pass
from foldwise.engine.orders import epoch_order
from foldwise.engine.random import key
from foldwise.plans.plan import Member
from foldwise.settings import Settings


@dataclass(frozen=True)
class Alone:
    """The data of one fold: prepared rows, scaled targets, and which rows to learn from and to score on."""

    features: Float[Tensor, "rows features"]
    targets: Tensor
    train: Bool[np.ndarray, " rows"]
    validation: Bool[np.ndarray, " rows"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch left: the mean training loss and the outputs on the validation rows."""

    number: int
    training_loss: float
    outputs: Float[Tensor, "validation_rows outputs"]


def prepare_fold(
    features: Float[np.ndarray, "rows features"],
    targets: np.ndarray,
    train: Bool[np.ndarray, " rows"],
    validation: Bool[np.ndarray, " rows"],
    numbers: Bool[np.ndarray, " features"],
    scaling: str,
    regression: bool,
    dtype: torch.dtype,
) -> Alone:
    """Learn one fold's preparation from its training rows, and apply it to all rows."""
    prepared = apply_preparation(learn_preparation(features, train[None], numbers, scaling), 0, features)
    if regression:
        scale = learn_target_scale(targets, train[None])
        targets = (targets - scale.shift[0]) / scale.scale[0]
    y = torch.tensor(targets)
    return Alone(
        torch.from_numpy(prepared).to(dtype), y.to(dtype) if y.is_floating_point() else y, train, validation
    )


def train_alone(member: Member, module: nn.Module, data: Alone) -> Iterator[Epoch]:
    """Train a module in place, from its start, and give each epoch as it ends."""
    s = member.settings
    loss_function = loss_of(s)
    rows = int(data.train.sum())
    steps_per_epoch = -(-rows // s.batch_size)
    optimizer = optimizer_of(s, module)
    schedule = schedule_of(s, optimizer, s.epochs * steps_per_epoch)
    layers = [m for m in module.modules() if isinstance(m, KeyedDropout)]
    step = 0
    for epoch in range(1, s.epochs + 1):
        module.train()
        order = epoch_order(len(data.train), member.seed, epoch)
        order = order[torch.from_numpy(data.train)[order]]
        total = 0.0
        for batch in order.split(s.batch_size):
            for number, layer in enumerate(layers):
                layer.key = key(torch.tensor(member.seed), "dropout", number, step)
            begin_pass(module)
            optimizer.zero_grad()
            loss = loss_function(module(data.features[batch]), data.targets[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
            step += 1
        yield Epoch(epoch, total / rows, outputs_of(module, data))


@torch.no_grad()
def outputs_of(module: nn.Module, data: Alone) -> Float[Tensor, "validation_rows outputs"]:
    """Evaluate on the validation rows."""
    module.eval()
    outputs = module(data.features[torch.from_numpy(data.validation)])
    return outputs.clone()  # a network may give a view of its weights, which training goes on to change


def loss_of(s: Settings) -> Callable[[Tensor, Tensor], Tensor]:
    """Find torch's function for a loss."""
    match s.loss:
        case "squared_error":
            return F.mse_loss
        case "half_squared_error":
            return lambda outputs, targets: F.mse_loss(outputs, targets) / 2
        case "cross_entropy":
            return lambda outputs, targets: F.cross_entropy(
                outputs, targets, label_smoothing=s.label_smoothing
            )
        case "binary_cross_entropy":
            return lambda outputs, targets: F.binary_cross_entropy_with_logits(
                outputs, targets * (1 - s.label_smoothing) + s.label_smoothing / 2
            )


def optimizer_of(s: Settings, module: nn.Module) -> torch.optim.Optimizer:
    """Make torch's optimizer; weight decay is for weights (two or more axes) alone."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": s.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if s.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=s.learning_rate, momentum=s.momentum)
    return torch.optim.AdamW(groups, lr=s.learning_rate, betas=(s.beta1, s.beta2), eps=s.epsilon)


def schedule_of(
    s: Settings, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Make torch's schedule, stepped once per batch."""
    if s.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps))
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
