"""The multi-layer perceptron, and the linear network that it is without hidden layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from foldwise.nets.activations import ACTIVATIONS


def mlp(
    inputs: int, outputs: int, *, width: int, depth: int, activation: str = "relu", dropout: float = 0.0
) -> nn.Sequential:
    """Chain `depth` hidden layers of `width` units and a linear output.

    Maps `[..., inputs] → [..., outputs]`. With `depth=0` it is linear regression or, under cross-entropy, softmax
    regression. Blocks are named hidden1, hidden2, … and output.

    >>> [name for name, _ in mlp(4, 3, width=8, depth=1).named_children()]
    ['hidden1', 'activation1', 'dropout1', 'output']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, depth + 1):
        layers[f"hidden{i}"] = nn.Linear(inputs, width)
        layers[f"activation{i}"] = ACTIVATIONS[activation]()
        layers[f"dropout{i}"] = nn.Dropout(dropout)
        inputs = width
    layers["output"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)
