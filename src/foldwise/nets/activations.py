"""Nonlinearities of hidden layers, by name; the output layer has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledSigmoid(nn.Module):
    """Compute 4σ(x) − 2, a sigmoid that is close to y = x at 0, so that signals keep their variance there.

    >>> ScaledSigmoid()(torch.zeros(1)).item()
    0.0
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each entry."""
        return 4 * torch.sigmoid(x) - 2


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "scaled_sigmoid": ScaledSigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
