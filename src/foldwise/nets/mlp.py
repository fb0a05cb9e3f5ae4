"""The multi-layer perceptron, and the linear network that it is without hidden layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from foldwise.nets.activations import ACTIVATIONS
from foldwise.nets.normalization import normalization


def mlp(
    inputs: int,
    outputs: int,
    *,
    width: int,
    depth: int,
    activation: str = "relu",
    normalize: str = "none",
    groups: int = 4,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Chain `depth` hidden layers drop(a(norm(Wh + b))) of `width` units and a linear output.

    Maps `[..., inputs] → [..., outputs]`. With `depth=0` it is linear regression or, under cross-entropy, softmax
    regression. Blocks are named hidden1, hidden2, … and output.

    >>> [name for name, _ in mlp(4, 3, width=8, depth=1, normalize="batch").named_children()]
    ['hidden1', 'normalization1', 'activation1', 'dropout1', 'output']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, depth + 1):
        # normalization over a batch takes the mean away, and a bias with it
        layers[f"hidden{i}"] = nn.Linear(inputs, width, bias=normalize != "batch")
        if (norm := normalization(normalize, width, groups)) is not None:
            layers[f"normalization{i}"] = norm
        layers[f"activation{i}"] = ACTIVATIONS[activation]()
        layers[f"dropout{i}"] = nn.Dropout(dropout)
        inputs = width
    layers["output"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)
