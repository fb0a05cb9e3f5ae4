"""Loops by hand for the checks of loops: a small table, networks, and a loop in which something is changed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldwise
from foldwise.checks.finding import Finding
from foldwise.checks.order import check_module

ROWS, BATCH = 96, 16


def table() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 6, generator=source)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))


def modal() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def adam(net: nn.Module) -> Any:
    return torch.optim.Adam(net.parameters(), 0.01)


def turn(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def validate(net: nn.Module, x: Tensor) -> None:
    net.eval()
    with torch.no_grad():
        net(x)
    net.train()


def found(
    code: str,
    how: Callable[..., None] = turn,
    *,
    net: nn.Module | None = None,
    optimizer: Any = None,
    schedule: Any = None,
    after: Callable[[nn.Module, Tensor], None] = validate,
    epochs: int = 8,
    told: bool = True,
) -> Finding | None:
    """Train under `watch`, and give what one check finds."""
    net = net or network()
    optimizer = optimizer or adam(net)
    x, y = table()
    with foldwise.watch(net, optimizer if told else None) as watch:
        for _ in range(epochs):
            for rows in torch.randperm(ROWS).split(BATCH):
                how(net, optimizer, x[rows], y[rows])
                if schedule:
                    schedule.step()
            after(net, x)
    finding: Finding | None = check_module(code).find(watch.sight())
    return finding
