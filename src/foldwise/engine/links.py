"""The links of a training step: each turns a gradient into a better one, or into the step to take.

A link names the moments it keeps and is a function of the direction so far, its moments and the present
(`Now`). It may overwrite the direction and its own moments; it touches nothing else. An optimizer is a chain of
links; a new regularizer or rule is one more link, never an edit to the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from foldwise.engine import schedules


@dataclass(frozen=True)
class Now:
    """What a link may look at; settings are `[members, 1]`, in the dtype of the parameters."""

    parameters: Float[Tensor, "members parameters"]
    step: Int64[Tensor, " members"]
    total_steps: Int64[Tensor, " members"]
    settings: Mapping[str, Tensor]
    schedules: Mapping[str, Tensor]  # by name, which members have it
    decay: (
        Float[Tensor, "members parameters"] | None
    )  # λ where weights decay, 0 elsewhere; None: no decay at all


Direction = Float[Tensor, "members parameters"]


@dataclass(frozen=True)
class Link:
    """One part of a step: the moments it keeps, and what it does to the direction."""

    moments: tuple[str, ...]
    apply: Callable[[Direction, Mapping[str, Tensor], Now], Direction]


def chain(*links: Link) -> Link:
    """Apply links one after another, as one link."""

    def apply(direction: Direction, moments: Mapping[str, Tensor], now: Now) -> Direction:
        for link in links:
            direction = link.apply(direction, moments, now)
        return direction

    return Link(tuple(name for link in links for name in link.moments), apply)


def _add_decay(direction: Direction, moments: Mapping[str, Tensor], now: Now) -> Direction:
    return direction if now.decay is None else direction.addcmul_(now.parameters, now.decay)


def _accelerate(direction: Direction, moments: Mapping[str, Tensor], now: Now) -> Direction:
    velocity = moments["velocity"].mul_(now.settings["momentum"]).add_(direction)
    return direction.copy_(velocity)  # the moment itself is not handed on: the next link may overwrite it


def _scale_by_adam(gradient: Direction, moments: Mapping[str, Tensor], now: Now) -> Direction:
    first, second = moments["first"], moments["second"]
    beta1, beta2 = now.settings["beta1"], now.settings["beta2"]
    first.lerp_(gradient, 1 - beta1)
    second.lerp_(gradient.square_(), 1 - beta2)
    times = (now.step + 1).double().unsqueeze(1)
    bias1, bias2 = 1 - beta1.double() ** times, (1 - beta2.double() ** times).sqrt()
    # m̂/(√v̂ + ε) with both corrections moved to vectors over members, which saves passes over the parameters
    spread = torch.sqrt(second, out=gradient).add_((now.settings["epsilon"] * bias2).to(gradient))
    return torch.div(first, spread, out=spread).mul_((bias2 / bias1).to(gradient))


def _scale_by_rate(direction: Direction, moments: Mapping[str, Tensor], now: Now) -> Direction:
    factor = schedules.factors(now.schedules, now.step, now.total_steps).unsqueeze(1)
    return direction.mul_(-now.settings["learning_rate"] * factor.to(direction))


add_decay = Link((), _add_decay)
"""d ← d + λw: weight decay. Before momentum it is an L2 penalty; after Adam it is decoupled (AdamW)."""

accelerate = Link(("velocity",), _accelerate)
"""v ← μv + d, d ← v: momentum (Polyak 1964, in the form of torch.optim.SGD)."""

scale_by_adam = Link(("first", "second"), _scale_by_adam)
"""d ← m̂/(√v̂ + ε), with bias-corrected means of d and d² (Kingma & Ba 2015)."""

scale_by_rate = Link((), _scale_by_rate)
"""d ← −η·schedule(t)·d: the step to add to the parameters."""
