"""The learning rate over a member's training, as a factor of its rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

Schedule = Callable[[Tensor, Tensor], Tensor]


def constant(step: Tensor, total: Tensor) -> Tensor:
    """Keep the rate."""
    return torch.ones_like(step, dtype=torch.float64)


def cosine(step: Tensor, total: Tensor) -> Tensor:
    """Fall as ½(1 + cos(πt/T)), t = 0 … T−1 (Loshchilov & Hutter 2017, without restarts)."""
    return (1 + torch.cos(math.pi * step.double() / total)) / 2


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine}


def factors(members: Mapping[str, Tensor], step: Tensor, total: Tensor) -> Float[Tensor, " members"]:
    """Give each member the factor of its own schedule at its own step (steps done so far).

    `members` marks, for each schedule by name, the members that have it.
    """
    out = torch.ones_like(step, dtype=torch.float64)
    for name, own in members.items():
        out = torch.where(own, SCHEDULES[name](step, total), out)
    return out
