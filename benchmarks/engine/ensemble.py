"""Peer: the ensembling recipe of torch.func, stack_module_state + functional_call + vmap + grad.

https://docs.pytorch.org/tutorials/intermediate/ensembling.html, with Adam on the stacked tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.engine.peer import BETA1, BETA2, EPSILON, RATE, Variant, World
from benchmarks.engine.plain import perceptron


class Ensemble:
    """All members in one stack."""

    def __init__(self, world: World, threads: int, device: str = "cpu", **how: Any) -> None:
        self.threads = threads
        self.tables = torch.from_numpy(world.tables).to(device)
        self.targets = torch.from_numpy(world.targets).to(device)
        self.folds = torch.from_numpy(world.folds).to(device).unsqueeze(1)
        modules = [perceptron(world.network).to(device) for _ in world.folds]
        self.stacked, _ = stack_module_state(modules)
        for parameter, start in zip(self.stacked.values(), world.start, strict=True):
            parameter.data.copy_(torch.from_numpy(start))
        skeleton = perceptron(world.network).to("meta")

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(skeleton, parameters, (x,)), y)

        self.gradient = vmap(grad(loss))
        self.optimizer = torch.optim.Adam(
            self.stacked.values(), lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, **how
        )

    def epoch(self, batches: np.ndarray) -> None:
        """Let all members take each step together."""
        torch.set_num_threads(self.threads)
        on_device = torch.from_numpy(batches).to(self.tables.device)
        detached = {name: p.detach() for name, p in self.stacked.items()}  # shares memory with the stack
        for batch in on_device.unbind(1):
            gradients = self.gradient(detached, self.tables[self.folds, batch], self.targets[batch])
            for name, parameter in self.stacked.items():
                parameter.grad = gradients[name]
            self.optimizer.step()

    def weights(self) -> list[np.ndarray]:
        """Copy the stacked weights."""
        return [p.detach().cpu().numpy().copy() for p in self.stacked.values()]


VARIANTS: list[Variant] = [
    (
        f"{way}, {threads} thread{'s' * (threads > 1)}",
        lambda world, t=threads, h=how: Ensemble(world, t, **h),
    )
    for way, how in {"Adam": {}, "Adam, fused": {"fused": True}}.items()
    for threads in (1, 2)
]
ON_CUDA: list[Variant] = [
    (way, lambda world, h=how: Ensemble(world, 1, "cuda", **h))
    for way, how in {"Adam": {}, "Adam, fused": {"fused": True}}.items()
]
