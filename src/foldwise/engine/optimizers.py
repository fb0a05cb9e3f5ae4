"""Optimizers, each a chain of links; equal to `torch.optim` step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.engine.links import Direction, Link, Now, Remembered, chain
from foldwise.engine.regularizers import add_decay
from foldwise.settings import Settings


def _accelerate(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    velocity = remembered["velocity"].mul_(now.settings["momentum"]).add_(direction)
    return direction.copy_(velocity)  # the moment itself is not handed on: the next link may overwrite it


def _damped(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    # torch takes the first gradient whole, and without momentum every one
    momentum = now.settings["momentum"]
    whole = (momentum == 0) | (now.updates == 0).unsqueeze(1)
    share = torch.where(whole, 1, 1 - now.settings["dampening"])
    return _accelerate(direction.mul_(share), remembered, now)


def _look_ahead(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    velocity = remembered["velocity"].mul_(now.settings["momentum"]).add_(direction)
    return direction.addcmul_(velocity, now.settings["momentum"])


def _rest(now: Now, name: str) -> Float[Tensor, "members 1"]:
    """Give 1 − β, taken in double precision: in single, 1 − 0.99999999 would be 0."""
    return (1 - now.when.settings[name]).unsqueeze(1).to(now.parameters)


def _scale_by_adam(gradient: Direction, remembered: Remembered, now: Now) -> Direction:
    first, second = remembered["first"], remembered["second"]
    beta1, beta2 = (now.when.settings[name].unsqueeze(1) for name in ("beta1", "beta2"))
    first.lerp_(gradient, _rest(now, "beta1"))
    second.lerp_(gradient.square_(), _rest(now, "beta2"))
    times = (now.updates + 1).unsqueeze(1)
    bias1, bias2 = 1 - beta1**times, (1 - beta2**times).sqrt()
    # m̂/(√v̂ + ε) with both corrections moved to vectors over members, which saves passes over the parameters
    spread = torch.sqrt(second, out=gradient).add_((now.settings["epsilon"] * bias2).to(gradient))
    return torch.div(first, spread, out=spread).mul_((bias2 / bias1).to(gradient))


def _scale_by_nadam(gradient: Direction, remembered: Remembered, now: Now) -> Direction:
    first, second, product = (remembered[name] for name in ("first", "second", "momentum_product"))
    beta1, beta2 = (now.when.settings[name].unsqueeze(1) for name in ("beta1", "beta2"))
    times = (now.updates + 1).unsqueeze(1)
    present, coming = (
        beta1 * (1 - 0.5 * 0.96 ** (t * now.when.settings["momentum_decay"].unsqueeze(1)))
        for t in (times, times + 1)
    )
    product.mul_(present)
    first.lerp_(gradient, _rest(now, "beta1"))
    second.lerp_(gradient.square(), _rest(now, "beta2"))
    bias2 = 1 - beta2**times
    spread = (second / bias2.to(second)).sqrt_().add_(now.settings["epsilon"])
    own, mean = (1 - present) / (1 - product), coming / (1 - product * coming)
    return gradient.mul_(own.to(gradient)).addcmul_(first, mean.to(gradient)).div_(spread)


def _scale_by_root_mean_square(gradient: Direction, remembered: Remembered, now: Now) -> Direction:
    square = remembered["square"]
    square.lerp_(gradient.square(), _rest(now, "alpha"))
    return gradient.div_(square.sqrt().add_(now.settings["epsilon"]))


def _scale_by_deviation(gradient: Direction, remembered: Remembered, now: Now) -> Direction:
    square, mean = remembered["square"], remembered["mean"]
    square.lerp_(gradient.square(), _rest(now, "alpha"))
    mean.lerp_(gradient, _rest(now, "alpha"))
    return gradient.div_(square.addcmul(mean, mean, value=-1).sqrt_().add_(now.settings["epsilon"]))


def _scale_by_sum_of_squares(gradient: Direction, remembered: Remembered, now: Now) -> Direction:
    total = remembered["sum_of_squares"].addcmul_(gradient, gradient)
    spread = (total + now.settings["initial_accumulator"]).sqrt_().add_(now.settings["epsilon"])
    slower = 1 / (1 + now.updates.unsqueeze(1) * now.settings["rate_decay"].double())
    return gradient.div_(spread).mul_(slower.to(gradient))


accelerate = Link(_accelerate, moments=("velocity",))
"""v ← μv + d, d ← v: momentum (Polyak 1964, in the form of torch.optim)."""

accelerate_damped = Link(_damped, moments=("velocity",))
"""v ← μv + (1−dampening)d, d ← v; the first gradient counts whole."""

look_ahead = Link(_look_ahead, moments=("velocity",))
"""v ← μv + d, d ← d + μv: Nesterov's momentum (Sutskever et al. 2013, in the form of torch.optim.SGD)."""

scale_by_adam = Link(_scale_by_adam, moments=("first", "second"))
"""d ← m̂/(√v̂ + ε), with bias-corrected means of d and d² (Kingma & Ba 2015)."""

scale_by_nadam = Link(_scale_by_nadam, moments=("first", "second"), scalars={"momentum_product": 1.0})
"""Adam whose mean of gradients looks ahead, with a momentum that grows to β₁ (Dozat 2016)."""

scale_by_root_mean_square = Link(_scale_by_root_mean_square, moments=("square",))
"""s ← αs + (1−α)d², d ← d/(√s + ε): RMSprop (Hinton 2012)."""

scale_by_deviation = Link(_scale_by_deviation, moments=("square", "mean"))
"""RMSprop that divides by √(s − m²) + ε with the mean m of d (Graves 2013)."""

scale_by_sum_of_squares = Link(_scale_by_sum_of_squares, moments=("sum_of_squares",))
"""s ← s + d², d ← d/(√s + ε)/(1 + t·rate_decay): Adagrad (Duchi et al. 2011)."""


Trials = Sequence[Settings]


def _sgd(trials: Trials) -> Link:
    moving = look_ahead if trials[0].nesterov else accelerate
    damped = any(s.dampening for s in trials)
    return chain(add_decay, *_if_asked(accelerate_damped if damped else moving, trials))


def _rmsprop(trials: Trials) -> Link:
    scaled = scale_by_deviation if trials[0].centered else scale_by_root_mean_square
    return chain(add_decay, scaled, *_if_asked(accelerate, trials))


def _if_asked(moving: Link, trials: Trials) -> list[Link]:
    return [moving] if any(s.momentum for s in trials) else []


OPTIMIZERS: dict[str, Callable[[Trials], Link]] = {
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adagrad": lambda trials: chain(add_decay, scale_by_sum_of_squares),
    "adam": lambda trials: chain(add_decay, scale_by_adam),
    "adamw": lambda trials: chain(scale_by_adam, add_decay),
    "nadam": lambda trials: chain(add_decay, scale_by_nadam),
}
"""By name, the links of an optimizer for the trials of a stack; the learning rate comes after them."""
