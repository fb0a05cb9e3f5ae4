"""Initial weights far too large or far too small for the number of inputs of their layers.

Evidence: the deviation of a layer's initial weights times √fan-in, which is how much the layer magnifies a signal;
usual initializations give 0.3 to 1.5. And, for weights that are too small, how much smaller the signal is that
arrives at the last layer than the inputs are, and than it is in a twin of the network with weights drawn from N(0,
2/fan-in).

Why it hurts: signals grow or shrink by that factor at each layer, and gradients with them on the way back. Too
large, the loss starts high, bounded activations are saturated, and the network fits by its random features; too
small, it stays close to a constant for long.

How sure: likely. Layers behind which a normalization takes the scale away, output layers that start small, and
branches that begin shut beside a skip are healthy, and not meant.

What to try: Kaiming or Xavier initialization, or LSUV, which measures.

References: Glorot & Bengio 2010, *Understanding the difficulty of training deep feedforward neural networks*; He et
al. 2015, *Delving deep into rectifiers*; Mishkin & Matas 2016, *All you need is a good init*.
"""

from __future__ import annotations

import math

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import NORMALIZES, Pass, Ran, deviation, fewer, forward, joined, redrawn
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import BLOCKED, BREAKS

EXPLAINS = ("saturating-activation", "vanishing-signal", "exploding-signal", *BREAKS, *BLOCKED)
# √(variance·fan-in) is 0.58 for PyTorch's linear layers, 1.41 by Kaiming, between 0.2 and 1.4 by Xavier, 1 by LSUV; ten
# times as much is above 4, a hundredth of it below 0.03
LARGE, SMALL = 4.0, 0.03
GROWN = 2.0  # times what the inputs vary by: large weights may well make up for small signals, as LSUV does
SHRUNK = 0.1  # of the twin's signal


def find(sight: Sight) -> Finding | None:
    """Look for layers whose initial weights do not suit their number of inputs."""
    if sight.network is None:
        return None
    network = fewer(sight.network)
    passed = forward(network.module, network.inputs)
    scaled = _scaled_layers(passed)
    own = {ran.name: gain(ran) for ran in scaled}
    usual = GROWN * min(1.0, deviation(network.inputs))
    large = [ran.name for ran in scaled if own[ran.name] > LARGE and deviation(ran.gave) > usual]
    inner = {ran.name for ran in passed.weighted[:-1]}
    small = [name for name, g in own.items() if 0 < g < SMALL and name in inner]
    if not large and not (small and _shrunk(network, passed)):
        return None
    names = large or small
    worst = max(names, key=lambda name: abs(math.log(own[name])))
    return Finding(
        "initial-scale",
        "likely",
        f"the initial weights of {joined(sight.all_called(names))} are too {'large' if large else 'small'}: "
        f"{sight.called(worst)} multiplies a signal by "
        f"{own[worst]:.2g}, where usual initial weights do by 0.3 to 1.5",
        trials=sight.about,
        where=tuple(names),
        step=0,
        remedies=_remedies(sight, names),
    )


def gain(ran: Ran) -> float:
    """Compute by how much a layer magnifies a signal: √(mean square of its weights · fan-in)."""
    weight = ran.layer.get_parameter("weight").detach().double()
    return math.sqrt(float(weight.square().mean()) * math.prod(weight.shape[1:]))


def _scaled_layers(passed: Pass) -> list[Ran]:
    """List the layers to be trained behind which no normalization takes the scale away."""
    normalized = {id(own.given) for own in passed.layers if isinstance(own.layer, NORMALIZES)}
    return [
        own
        for own in passed.weighted
        if own.layer.get_parameter("weight").requires_grad and id(own.gave) not in normalized
    ]


def _shrunk(network: Network, passed: Pass) -> bool:
    twin = forward(redrawn(network.module), network.inputs)
    usual = min(deviation(twin.weighted[-1].before), deviation(network.inputs))
    return deviation(passed.weighted[-1].before) < SHRUNK * usual


def _remedies(sight: Sight, names: list[str]) -> tuple[Remedy, ...]:
    if sight.settings is None:
        return (Remedy(f"Kaiming or Xavier initialization for {joined(sight.all_called(names))}"),)
    return tuple(
        Remedy(f"initialization {name}", {"initialization": name}) for name in ("kaiming", "xavier", "lsuv")
    )
