"""How signals and gradients fare on their way through a network at its start; what several checks ask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Remedy
from foldwise.checks.look import BOUNDED, bounds_of, flat_share
from foldwise.checks.probe import NORMALIZES, Ran, deviation, fewer, forward, mean_loss
from foldwise.checks.sight import Network, Sight

ROWS = 128


@dataclass(frozen=True)
class Station:
    """A layer with weights, behind the first: what it is given.

    `signal` is the deviation between rows, averaged over units; `share` that part of the mean square which differs
    between rows, 1 where the mean over rows is 0, and near 0 where all rows look alike. `gradient` is the root of the
    mean square of the gradient there; `saturated` the share of values at the flat ends of a bounded activation.
    """

    name: str
    signal: float
    share: float
    gradient: float
    saturated: float
    bounded: bool
    dimensions: float


@dataclass(frozen=True)
class Stations:
    """All stations in order of execution; `inputs` are those of the network."""

    inputs: float  # deviation between rows, of the network's inputs
    stations: list[Station]
    normalized: bool
    skips: bool  # ways around layers

    @property
    def gradients(self) -> float:
        """Say how the gradient at the first station compares to that at the last."""
        if len(self.stations) < 2 or not self.stations[-1].gradient > 0:
            return math.nan
        return self.stations[0].gradient / self.stations[-1].gradient


# of networks that are still there: three checks ask for the same
_MEASURED: WeakKeyDictionary[nn.Module, Stations | None] = WeakKeyDictionary()


def stations(sight: Sight) -> Stations | None:
    """Measure a network at its start, without dropout, which would add noise; None where it cannot be."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    if network.module not in _MEASURED:
        _MEASURED[network.module] = _measured(network)
    return _MEASURED[network.module]


def _measured(network: Network) -> Stations | None:
    if not network.inputs.is_floating_point() or len(network.inputs) < 2:
        return None
    network = fewer(network, ROWS)
    # in training, normalization over a batch takes the statistics of the batch
    passed = forward(network.module, network.inputs, training=True, dropout=False)
    inner = [own for own in passed.weighted[1:] if own.given.requires_grad]
    loss = mean_loss(network, passed.outputs)
    if not inner or not loss.requires_grad:
        return None
    gradients = torch.autograd.grad(loss, [own.given for own in inner], allow_unused=True)
    normalized = any(isinstance(own.layer, NORMALIZES) for own in passed.layers)
    return Stations(
        deviation(network.inputs),
        [_station(own, g) for own, g in zip(inner, gradients, strict=True)],
        normalized,
        has_skips(passed.outputs),
    )


def has_skips(outputs: Tensor) -> bool:
    """Tell whether two ways that both come from layers meet in a sum or side by side.

    >>> layer, x = torch.nn.Linear(3, 3), torch.ones(1, 3)
    >>> has_skips(layer(layer(x))), has_skips(layer(x) + layer(layer(x)))
    (False, True)
    """
    seen, todo = set(), [outputs.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ways = [
            before
            for before, _ in node.next_functions
            if before is not None and not hasattr(before, "variable")
        ]
        if len(ways) > 1 and node.name().startswith(("AddBackward", "CatBackward")):
            return True
        todo.extend(ways)
    return False


def _station(own: Ran, gradient: Tensor | None) -> Station:
    values = own.before.double().flatten(1)
    square = float(values.square().mean())
    between = float(values.var(0, correction=0).mean())
    size = 0.0 if gradient is None else float(gradient.double().square().mean().sqrt())
    saturated, bounded = _saturated(values)
    return Station(
        own.name,
        math.sqrt(between),
        between / square if square else 0.0,
        size,
        saturated,
        bounded,
        dimensions(values),
    )


def dimensions(values: Tensor) -> float:
    """Count the directions in which rows `[rows, units]` differ, the larger ones more: the participation ratio.

    >>> round(dimensions(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()), 6)
    2.0
    """
    centered = values - values.mean(0)
    products = centered @ centered.T if len(values) < values.shape[1] else centered.T @ centered
    total = float(products.square().sum())
    return float(products.trace()) ** 2 / total if total > 0 else 0.0


def _saturated(values: Tensor) -> tuple[float, bool]:
    # what a sigmoid or tanh gives is told by its range, whether it is a layer or a function
    ends = bounds_of(values, sorted(set(BOUNDED.values()), key=lambda ends: ends[1] - ends[0]))
    return (math.nan, False) if ends is None else (float(flat_share(values, ends)), True)


def remedies_of(sight: Sight) -> tuple[Remedy, ...]:
    """Propose what lets signals pass: skips, normalization, fewer layers."""
    s = sight.settings
    if s is None or s.network == "custom":
        return (Remedy("skips around blocks of layers"), Remedy("normalization"), Remedy("fewer layers"))
    found = [Remedy("2 hidden layers", {"depth": 2})] if s.depth > 2 else []
    if s.network == "mlp":
        found.append(
            Remedy("a residual network with normalization", {"network": "residual", "normalization": "layer"})
        )
    if s.normalization == "none":
        found.append(Remedy("batch normalization", {"normalization": "batch"}))
    return tuple(found)
