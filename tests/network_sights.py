"""Sights of one network and one batch, as checks of the start see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldwise.checks.look import look_at
from foldwise.checks.sight import Network, Sight
from foldwise.settings import Settings, make_settings

INPUTS, ROWS = 10, 128


def rows(seed: int = 0, count: int = ROWS, inputs: int = INPUTS) -> Tensor:
    """Draw inputs."""
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed))


def classes_of(x: Tensor, classes: int) -> Tensor:
    """Cut the first column, and the product of two others, into classes of one size."""
    value = x[:, 0] + x[:, 1] * x[:, 2]
    return (value.argsort().argsort() * classes // len(x)).long()


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the squared error of a row."""
    return (outputs - targets).square().mean(-1)


def entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of a row."""
    return F.cross_entropy(outputs, targets, reduction="none")


def binary(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of a row with one score, averaged over labels."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)


def seeded(make: Callable[..., nn.Module], *arguments: Any, seed: int = 0) -> nn.Module:
    """Build a network whose constructor draws by a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*arguments)


def numbers(
    make: Callable[..., nn.Module], seed: int = 0, loss: Callable[..., Tensor] = squared, **settings: Any
) -> Sight:
    """Show a network that learns a number; with settings, as a trial of a study would be."""
    x = rows(seed)
    y = x[:, :1] + x[:, 1:2] * x[:, 2:3]
    return _sight(seeded(make, INPUTS, 1, seed=seed), x, (y - y.mean()) / y.std(), loss, settings)


def classes(
    make: Callable[..., nn.Module],
    count: int = 3,
    seed: int = 0,
    loss: Callable[..., Tensor] = entropy,
    **settings: Any,
) -> Sight:
    """Show a network that learns classes."""
    x = rows(seed)
    return _sight(seeded(make, INPUTS, count, seed=seed), x, classes_of(x, count), loss, settings)


def labels(
    make: Callable[..., nn.Module], count: int = 1, seed: int = 0, loss: Callable[..., Tensor] = binary
) -> Sight:
    """Show a network that learns labels that are 0 or 1."""
    x = rows(seed)
    return _sight(seeded(make, INPUTS, count, seed=seed), x, (x[:, :count] > 0).float(), loss, {})


def _sight(
    module: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor], settings: dict[str, Any]
) -> Sight:
    network = Network(module, x, y, loss)
    s: Settings | None = make_settings(settings) if settings else None
    return Sight(network=network, looks=(look_at(module, x, y, loss),), settings=s, trial=4)
