"""What checks of a network share: which layers ran on a batch, in which order, with what; their twins."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foldwise.checks.look import mean_over_rows, undisturbed
from foldwise.checks.sight import Network
from foldwise.engine.dropout import KeyedDropout

ROWS = 64  # of the batch are enough for questions of yes or no
NORMALIZES = (
    nn.modules.batchnorm._BatchNorm,  # no public name covers all of them
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class Ran:
    """A layer without layers inside, as it ran: the tensors that it was given and gave, and copies of their values.

    The copies stay as they were when something works in place on the tensors later.
    """

    name: str
    layer: nn.Module
    given: Tensor
    gave: Tensor
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Pass:
    """A forward pass: the layers in the order in which they ran, and the outputs, with their graph."""

    layers: list[Ran]
    outputs: Tensor

    @property
    def weighted(self) -> list[Ran]:
        """Give the layers that multiply by a matrix or convolve."""
        return [own for own in self.layers if is_weighted(own.layer)]


def is_weighted(layer: nn.Module) -> bool:
    """Tell whether a layer has a weight of two or more axes; a table of embeddings is looked up, not multiplied."""
    weight = layer._parameters.get("weight")
    table = isinstance(layer, nn.Embedding | nn.EmbeddingBag)
    return weight is not None and weight.ndim >= 2 and not table


def rate_of(layer: nn.Module) -> float:
    """Give the rate of a dropout layer; 0 for other layers."""
    if isinstance(layer, KeyedDropout):
        return layer.rate
    return float(layer.p) if isinstance(layer, nn.modules.dropout._DropoutNd) else 0.0


def forward(module: nn.Module, inputs: Tensor, *, training: bool = False, dropout: bool = True) -> Pass:
    """Run a network with a graph for gradients, note its layers, and leave no trace.

    In training it is a copy that runs, because buffers that are put back would break the graph; without `dropout` that
    rests all the same.
    """
    met: list[Ran] = []
    module = copy.deepcopy(module) if training else module

    def note(name: str) -> Callable[..., None]:
        def noted(layer: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(gave, Tensor):
                before = came.pop(id(layer), given[0].detach())
                met.append(Ran(name, layer, given[0], gave, before, gave.detach().clone()))

        return noted

    came: dict[int, Tensor] = {}

    def arrives(layer: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            came[id(layer)] = given[0].detach().clone()

    handles = []
    for name, layer in module.named_modules():
        if not any(layer.children()):
            handles.append(layer.register_forward_pre_hook(arrives))
            handles.append(layer.register_forward_hook(note(name or type(layer).__name__)))
    try:
        keeping = torch.random.fork_rng(devices=[]) if training else undisturbed(module)
        with keeping, torch.enable_grad():
            module.train(training)
            for layer in () if dropout else module.modules():
                if rate_of(layer):
                    layer.eval()
            return Pass(met, module(inputs))
    finally:
        for handle in handles:
            handle.remove()


def fewer(network: Network, rows: int = ROWS) -> Network:
    """Give the same network with a smaller batch."""
    return replace(
        network,
        inputs=network.inputs[:rows],
        targets=None if network.targets is None else network.targets[:rows],
        weights=None if network.weights is None else network.weights[:rows],
    )


def mean_loss(network: Network, outputs: Tensor, targets: Tensor | None = None) -> Tensor:
    """Compute what a step follows: the mean over rows, weighted where rows are."""
    assert network.loss is not None
    assert network.targets is not None
    each = network.loss(outputs, network.targets if targets is None else targets)
    return mean_over_rows(each, network.weights)


def deviation(values: Tensor) -> float:
    """Compute how much rows differ: the deviation between them, averaged over units.

    >>> deviation(torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    0.5
    """
    return float(values.detach().double().flatten(1).std(0, correction=0).mean())


def output_gradient(network: Network, outputs: Tensor, targets: Tensor | None = None) -> Tensor:
    """Compute the gradient of the mean loss at outputs; zeros where it does not depend on them."""
    leaf = outputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = mean_loss(network, leaf, targets)
    if not loss.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(loss, [leaf], allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def gradient_if_taken(network: Network, outputs: Tensor, targets: Tensor | None = None) -> Tensor | None:
    """Compute `output_gradient`; None where the loss refuses such outputs, as one of probabilities does."""
    try:
        return output_gradient(network, outputs, targets)
    except (RuntimeError, ValueError):
        return None


def take_steps(module: nn.Module, network: Network, steps: int) -> list[dict[str, Tensor | None]]:
    """Take steps of Adam on a batch, in place, and give the gradients of each by name; dropout rests."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(named.values(), lr=1e-3)
    found: list[dict[str, Tensor | None]] = []
    for _ in range(steps):
        found.append(gradients_of(module, network))
        for name, p in named.items():
            p.grad = found[-1][name]
        optimizer.step()
    return found


def gradients_of(module: nn.Module, network: Network) -> dict[str, Tensor | None]:
    """Compute the gradients of the mean loss on a batch by name, in evaluation; None: there is none."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with undisturbed(module), torch.enable_grad():
        module.eval()
        loss = mean_loss(network, module(network.inputs))
        if not loss.requires_grad:
            return dict.fromkeys(named)
        return dict(
            zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True)
        )


@torch.no_grad()
def redrawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a network and draw its matrices anew from N(0, 2/fan_in), as for a healthy start; biases become 0.

    Vectors that scale something, and begin with 0 so that a branch is shut, are opened.
    """
    twin = copy.deepcopy(module)
    chance = torch.Generator().manual_seed(seed)
    for layer in twin.modules():
        for name, p in layer.named_parameters(recurse=False):
            if p.ndim >= 2:
                fan_in = math.prod(p.shape[1:])
                p.copy_(torch.randn(p.shape, generator=chance) * math.sqrt(2 / fan_in))
            elif name == "bias":
                p.zero_()
            elif not p.any():
                p.fill_(1)
    return twin


def plural(names: list[str], one: str, more: str) -> str:
    """Write names with a verb.

    >>> plural(["a", "b"], "drops", "drop")
    'a and b drop'
    """
    return f"{joined(names)} {one if len(names) == 1 else more}"


def joined(names: list[str]) -> str:
    """Write names of layers in a sentence, the first few of many.

    >>> joined(["a", "b"]), joined([f"hidden{i}" for i in range(1, 9)])
    ('a and b', 'hidden1, hidden2, hidden3 and 5 more')
    """
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
