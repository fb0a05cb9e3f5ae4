"""Initial weights: keyed by seed, parameter and position, so a member starts the same wherever it trains.

Everything is drawn and measured in float64 on the CPU; a member rounds it to the numbers that it trains in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldwise.engine.dropout import KeyedDropout
from foldwise.engine.random import key, normal, uniform
from foldwise.errors import NetworkError
from foldwise.nets.features import Fourier, Polynomial, median_distance
from foldwise.settings import Settings

LOOKED_AT = 512  # the first training rows of a member's first epoch, where not all are needed
CLOSE = 0.01  # how far a variance may be from 1 for lsuv
ROUNDS = 10
DIRECTIONS, PHASES = -1, -2  # numbers of what feature maps draw; parameters are numbered from 0


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Give (fan_in, fan_out) of a weight `[out, in, *kernel]`.

    >>> fans((8, 4, 3, 3))
    (36, 72)
    """
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier(key: Tensor, shape: tuple[int, ...], s: Settings) -> Tensor:
    """Draw from U(−a, a), a = √(6/(fan_in+fan_out)): variance 2/(fan_in+fan_out) (Glorot & Bengio 2010)."""
    bound = math.sqrt(6 / sum(fans(shape)))
    return (uniform(key, math.prod(shape)) * 2 - 1) * bound


def kaiming(key: Tensor, shape: tuple[int, ...], s: Settings) -> Tensor:
    """Draw from N(0, 2/fan_in) (He et al. 2015)."""
    return normal(key, math.prod(shape)) * math.sqrt(2 / fans(shape)[0])


def normal_deviation(key: Tensor, shape: tuple[int, ...], s: Settings) -> Tensor:
    """Draw from N(0, initial_deviation²)."""
    return normal(key, math.prod(shape)) * s.initial_deviation


def orthogonal(key: Tensor, shape: tuple[int, ...], s: Settings) -> Tensor:
    """Draw a matrix `[out, in·kernel]` whose rows or columns, whichever are fewer, are orthonormal (Saxe et al. 2014).

    Q of a normal matrix, with the signs of R's diagonal, is spread evenly over all such matrices (Mezzadri 2007).
    """
    drawn = normal(key, math.prod(shape)).view(shape[0], -1)
    wide = drawn.shape[0] < drawn.shape[1]
    q, r = torch.linalg.qr(drawn.T if wide else drawn)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return q.T if wide else q


def constant(key: Tensor, shape: tuple[int, ...], s: Settings) -> Tensor:
    """Give every weight the value initial_value."""
    return torch.full(shape, s.initial_value, dtype=torch.float64)


INITIALIZATIONS: dict[str, Callable[[Tensor, tuple[int, ...], Settings], Tensor]] = {
    "xavier": xavier,
    "kaiming": kaiming,
    "normal": normal_deviation,
    "orthogonal": orthogonal,
    "lsuv": orthogonal,  # and then unit_variance
    "constant": constant,
}


@torch.no_grad()
def initialize(module: nn.Module, s: Settings, seed: int) -> None:
    """Fill a module's weights in place by the scheme that the settings name.

    Parameters of two or more axes are drawn, in float64 and then rounded; biases become zero; others (such as
    scales of normalization layers) keep what the module gave them.
    """
    for number, (name, parameter) in enumerate(module.named_parameters()):
        if parameter.ndim >= 2 and parameter.numel():
            own = key(torch.tensor(seed), "weights", number)
            drawn = INITIALIZATIONS[s.initialization](own, tuple(parameter.shape), s)
            parameter.copy_(drawn.reshape(parameter.shape))
        elif name.rpartition(".")[2] == "bias":
            parameter.zero_()


@torch.no_grad()
def unit_variance(
    module: nn.Module, rows: Float[Tensor, "rows features"], weights: Float[Tensor, " rows"]
) -> None:
    """Divide each layer's weights, in order of execution, by the deviation of its outputs on some rows.

    Until the variance over rows and units is within 0.01 of 1, or for 10 rounds: layer-sequential unit variance
    (Mishkin & Matas 2016, algorithm 1). `weights` say how much each row counts. Dropout rests meanwhile, batch
    normalization takes the statistics of these rows, and running statistics stay as they are. A layer whose outputs do
    not vary is left.
    """
    if len(rows) < 2:
        return
    scaled: set[nn.Module] = set()

    def scale(layer: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
        if layer in scaled or not isinstance(output, Tensor):
            return output
        scaled.add(layer)
        for _ in range(ROUNDS):
            variance = _variance(output, weights)
            if not (0 < variance < math.inf) or abs(variance - 1) < CLOSE:
                break
            layer.get_parameter("weight").div_(math.sqrt(variance))
            output = layer.forward(*args, **kwargs)
        return output

    # in the forward hook, so that all layers are done in one pass: those behind see what the scaled ones give
    layers = [m for m in module.modules() if (w := m._parameters.get("weight")) is not None and w.ndim >= 2]
    hooks = [layer.register_forward_hook(scale, with_kwargs=True) for layer in layers]
    try:
        _pass_without_trace(module, rows)
    except Exception as error:
        raise NetworkError(
            f"`lsuv` cannot measure the network `{type(module).__name__}`: {error}",
            hint="its forward pass must also take float64 on the CPU; or another initialization",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _variance(outputs: Tensor, weights: Float[Tensor, " rows"]) -> float:
    if len(outputs) != len(weights):  # a layer that folds its rows: which is whose is not known
        return float(outputs.var(correction=0))
    shares = (weights / weights.sum()).to(outputs)
    by_row = outputs.flatten(1)
    mean = (shares @ by_row).mean()
    return float((shares @ (by_row - mean).square()).mean())


def _pass_without_trace(module: nn.Module, rows: Tensor) -> None:
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = {child: child.training for child in module.modules()}
    for child in module.modules():
        child.training = not isinstance(child, KeyedDropout)
    try:
        module(rows)
    finally:
        for child, training in modes.items():
            child.training = training
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])


def learn_features(
    features: nn.Module,
    s: Settings,
    seed: int,
    rows: Float[Tensor, "rows features"],
    weights: Float[Tensor, " rows"],
) -> None:
    """Let a feature map learn from a member's prepared training rows, and draw what it takes at random.

    Of the rows, random cosines look at the first `LOOKED_AT` alone.
    """
    if isinstance(features, Polynomial):
        features.learn(rows, weights)
    if isinstance(features, Fourier):
        directions, phases = (key(torch.tensor(seed), "features", number) for number in (DIRECTIONS, PHASES))
        distance = median_distance(rows[:LOOKED_AT], weights[:LOOKED_AT])
        features.learn(
            normal(directions, features.directions.numel()),
            uniform(phases, features.outputs),
            s.fourier_scale * distance,
        )


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Call a module's constructor under torch's own generator seeded from a member's seed; restore it after."""
    first, second = key(torch.tensor(seed), "module").tolist()
    before = torch.get_rng_state()
    # the CPU's generator alone: torch.manual_seed would also seed those of the GPUs, which the user may be using
    torch.default_generator.manual_seed(((first & 0x7FFFFFFF) << 32) | (second & 0xFFFFFFFF))
    try:
        return make()
    finally:
        torch.set_rng_state(before)
