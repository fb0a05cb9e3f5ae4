"""All units of a layer start equal, and nothing makes them differ: the layer is one unit, many times.

Evidence: the weights of the units of a layer, at the start and after a few steps of Adam on a copy: they are the
same for all units, both times.

Why it hurts: what is equal and gets equal gradients stays equal. A layer of 100 such units computes what one unit
would.

How sure: it cannot be otherwise. A layer that starts with zeros and whose units part in the first steps, such as
the last one, or the end of a residual branch, is healthy and not meant.

What to try: random initial weights.

References: Rumelhart, Hinton & Williams 1986, *Learning internal representations by error propagation* (symmetry
breaking); Glorot & Bengio 2010, *Understanding the difficulty of training deep feedforward neural networks*.
"""

from __future__ import annotations

import copy

from torch import Tensor

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import Ran, fewer, forward, joined, take_steps
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = (
    "initial-scale", "saturating-activation", "vanishing-signal", "exploding-signal", "no-gradient",
    "start-loss", "saturated-units", *BLOCKED,
)  # fmt: skip

STEPS = 3


def find(sight: Sight) -> Finding | None:
    """Look for layers whose units are equal and stay so."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    equal = _equal(fewer(network))
    if not equal:
        return None
    widest = max(equal, key=lambda own: own.after.shape[-1])
    units = len(widest.layer.get_parameter("weight"))
    return Finding(
        "equal-weights",
        "sure",
        f"the {units} units of {sight.called(widest.name)} start with the same weights and still have the same after "
        f"{STEPS} steps: they stay one unit",
        trials=sight.about,
        where=tuple(own.name for own in equal),
        remedies=_remedies(sight, [own.name for own in equal]),
    )


def _equal(network: Network) -> list[Ran]:
    """List layers whose units are alike now and after a few steps, by which zeros in later layers have gone."""
    module = copy.deepcopy(network.module)
    layers = [
        own
        for own in forward(module, network.inputs).weighted
        if (w := own.layer.get_parameter("weight")).requires_grad and len(w) > 1 and _alike(w, 1e-6)
    ]
    if layers:
        take_steps(module, network, STEPS)
    return [own for own in layers if _alike(own.layer.get_parameter("weight"), 1e-3)]


def _alike(units: Tensor, close: float) -> bool:
    flat = units.detach().double().flatten(1)
    return bool((flat - flat[0]).abs().max() <= close * flat.abs().max())


def _remedies(sight: Sight, names: list[str]) -> tuple[Remedy, ...]:
    if sight.settings is None:
        return (Remedy(f"random initial weights for {joined(sight.all_called(names))}"),)
    return (
        Remedy("initialization kaiming", {"initialization": "kaiming"}),
        Remedy("initialization xavier", {"initialization": "xavier"}),
    )
