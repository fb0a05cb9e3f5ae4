"""Initial weights: keyed by seed, parameter and position, so a member starts the same wherever it trains."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from foldwise.engine.random import key, normal, uniform


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Give (fan_in, fan_out) of a weight `[out, in, *kernel]`.

    >>> fans((8, 4, 3, 3))
    (36, 72)
    """
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier(key: Tensor, shape: tuple[int, ...], deviation: float) -> Tensor:
    """Draw from U(−a, a), a = √(6/(fan_in+fan_out)): variance 2/(fan_in+fan_out) (Glorot & Bengio 2010)."""
    bound = math.sqrt(6 / sum(fans(shape)))
    return (uniform(key, math.prod(shape)) * 2 - 1) * bound


def kaiming(key: Tensor, shape: tuple[int, ...], deviation: float) -> Tensor:
    """Draw from N(0, 2/fan_in) (He et al. 2015)."""
    return normal(key, math.prod(shape)) * math.sqrt(2 / fans(shape)[0])


def normal_deviation(key: Tensor, shape: tuple[int, ...], deviation: float) -> Tensor:
    """Draw from N(0, deviation²)."""
    return normal(key, math.prod(shape)) * deviation


INITIALIZATIONS: dict[str, Callable[[Tensor, tuple[int, ...], float], Tensor]] = {
    "xavier": xavier,
    "kaiming": kaiming,
    "normal": normal_deviation,
}


def initialize(module: nn.Module, scheme: str, seed: int, deviation: float) -> None:
    """Fill a module's weights in place by a scheme of `INITIALIZATIONS`.

    Parameters of two or more axes are drawn, in float64 and then rounded; biases become zero; others (such as
    scales of normalization layers) keep what the module gave them.
    """
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            if parameter.ndim >= 2:
                own = key(torch.tensor(seed), "weights", number)
                drawn = INITIALIZATIONS[scheme](own, tuple(parameter.shape), deviation)
                parameter.copy_(drawn.view(parameter.shape))
            elif name.rpartition(".")[2] == "bias":
                parameter.zero_()


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
