"""The residual network for tables, and the block that any network may add to its input."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from foldwise.nets.activations import ACTIVATIONS
from foldwise.nets.normalization import normalization


class Residual(nn.Sequential):
    """Add to its input what the layers inside make of it: x + layers(x) (He et al. 2016).

    >>> Residual(nn.ReLU())(Tensor([-1, 2]))
    tensor([-1.,  4.])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Sequential gives it
        """Apply the layers, and add."""
        return input + super().forward(input)


def residual(
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
    """Chain a linear stem, `depth` blocks h + W₂·drop(a(W₁·norm(h))) and an output W·a(norm(h)).

    Maps `[..., inputs] → [..., outputs]`. It is the ResNet of Gorishniy et al. 2021 (section 3.3), whose blocks keep
    the way from stem to output free of layers, so that signals and gradients pass any depth; without the dropout
    behind W₂, which their settings leave at 0 most of the time, and with inner layers as wide as the blocks. Parts
    are named stem, block1, block2, …, output; inside a block are inner (W₁) and outer (W₂).

    >>> [name for name, _ in residual(4, 3, width=8, depth=1, normalize="layer").named_children()]
    ['stem', 'block1', 'normalization', 'activation', 'output']
    """

    def normalized() -> OrderedDict[str, nn.Module]:
        norm = normalization(normalize, width, groups)
        return OrderedDict() if norm is None else OrderedDict(normalization=norm)

    biased = normalize != "batch"  # normalization over a batch takes the mean away, and these biases with it
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Linear(inputs, width, bias=biased))
    for i in range(1, depth + 1):
        block = normalized()
        block["inner"] = nn.Linear(width, width)
        block["activation"] = ACTIVATIONS[activation]()
        block["dropout"] = nn.Dropout(dropout)
        block["outer"] = nn.Linear(width, width, bias=biased)
        layers[f"block{i}"] = Residual(block)
    layers |= normalized()
    layers["activation"] = ACTIVATIONS[activation]()
    layers["output"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
