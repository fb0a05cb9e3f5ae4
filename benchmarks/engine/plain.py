"""Peer: a loop in plain PyTorch, one member after another, written by hand and tuned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.engine.peer import BETA1, BETA2, EPSILON, RATE, Variant, World
from benchmarks.subject import Network


def perceptron(network: Network) -> nn.Sequential:
    """Chain the layers of a network."""
    modules: list[nn.Module] = []
    for inputs, outputs in network.layers:
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


class Plain:
    """No DataLoader, no schedule, no validation: nothing but the steps."""

    def __init__(self, world: World, threads: int, device: str = "cpu", **how: Any) -> None:
        self.threads = threads
        self.tables = torch.from_numpy(world.tables).to(device)
        self.targets = torch.from_numpy(world.targets).to(device)
        self.folds = world.folds
        self.modules = [perceptron(world.network).to(device) for _ in world.folds]
        for place, module in enumerate(self.modules):
            for parameter, start in zip(module.parameters(), world.start, strict=True):
                parameter.data.copy_(torch.from_numpy(start[place]))
        self.optimizers = [
            torch.optim.Adam(m.parameters(), lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, **how)
            for m in self.modules
        ]

    def epoch(self, batches: np.ndarray) -> None:
        """Train the members one after another."""
        torch.set_num_threads(self.threads)
        on_device = torch.from_numpy(batches).to(self.tables.device)
        for module, optimizer, fold, own in zip(
            self.modules, self.optimizers, self.folds, on_device, strict=True
        ):
            features = self.tables[fold]
            for batch in own:
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(module(features[batch]), self.targets[batch]).backward()
                optimizer.step()

    def weights(self) -> list[np.ndarray]:
        """Stack the members' weights."""
        each = zip(*(m.parameters() for m in self.modules), strict=True)
        return [torch.stack([p.detach() for p in same]).cpu().numpy() for same in each]


WAYS: dict[str, dict[str, bool]] = {
    "Adam": {},
    "Adam, foreach": {"foreach": True},
    "Adam, fused": {"fused": True},
}
VARIANTS: list[Variant] = [
    (f"{way}, {threads} thread{'s' * (threads > 1)}", lambda world, t=threads, h=how: Plain(world, t, **h))
    for way, how in WAYS.items()
    for threads in (1, 2)
]
ON_CUDA: list[Variant] = [
    (way, lambda world, h=how: Plain(world, 1, "cuda", **h)) for way, how in WAYS.items()
]
