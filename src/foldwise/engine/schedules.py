"""The learning rate over a member's training, as a factor of its rate; equal to `torch.optim.lr_scheduler`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

PLATEAU: dict[str, float] = {"plateau_factor": 1.0, "plateau_best": math.inf, "plateau_waited": 0.0}
"""What a member with schedule `plateau` remembers, and how it starts: tensors `[members, 1]`."""


@dataclass(frozen=True)
class When:
    """How far members are; `settings` are float64 `[members]`."""

    step: Int64[Tensor, " members"]  # steps done
    total_steps: Int64[Tensor, " members"]
    epoch: Int64[Tensor, " members"]  # epochs done
    settings: Mapping[str, Tensor]
    plateau: Float[Tensor, " members"] | None = (
        None  # the factor to which the validation curve has led so far
    )

    @property
    def warmup_steps(self) -> Float[Tensor, " members"]:
        """Count the steps over which the rate rises."""
        return torch.round(self.settings["warmup"] * self.total_steps)


Schedule = Callable[[When], Float[Tensor, " members"]]


def constant(when: When) -> Tensor:
    """Keep the rate."""
    return torch.ones_like(when.step, dtype=torch.float64)


def step(when: When) -> Tensor:
    """Multiply by γ every `decay_every` epochs: γ^⌊epoch/every⌋."""
    return when.settings["decay_factor"] ** torch.floor(when.epoch / when.settings["decay_every"])


def exponential(when: When) -> Tensor:
    """Multiply by γ after each epoch: γ^epoch."""
    return when.settings["decay_per_epoch"] ** when.epoch


def cosine(when: When) -> Tensor:
    """Fall as ½(1 + cos(πt/T)), t = 0 … T−1 (Loshchilov & Hutter 2017, without restarts)."""
    done, total = (when.step - when.warmup_steps).clamp_min(0), when.total_steps - when.warmup_steps
    return (1 + torch.cos(math.pi * done / total.clamp_min(1))) / 2


def one_cycle(when: When) -> Tensor:
    """Rise from 1/start_divisor to 1 and fall to 1/(start_divisor·end_divisor), both by half a cosine.

    The highest rate is at step peak_at·T − 1, the lowest at step T − 1 (Smith & Topin 2019, in the form of
    `torch.optim.lr_scheduler.OneCycleLR`).
    """
    low = 1 / when.settings["start_divisor"]
    least = low / when.settings["end_divisor"]
    peak, last = when.settings["peak_at"] * when.total_steps - 1, when.total_steps - 1.0
    up = torch.where(peak == 0, 1.0, when.step / peak)  # a peak at the first step
    down = (when.step - peak) / (last - peak)
    return torch.where(when.step <= peak, _half_cosine(low, 1, up), _half_cosine(1, least, down))


def _half_cosine(start: Tensor | float, end: Tensor | float, share: Tensor) -> Tensor:
    return end + (start - end) / 2 * (1 + torch.cos(math.pi * share))


def plateau(when: When) -> Tensor:
    """Keep the factor to which the validation curve has led; see `lower_on_plateau`."""
    return constant(when) if when.plateau is None else when.plateau


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "plateau": plateau,
}


def factors(members: Mapping[str, Tensor], when: When) -> Float[Tensor, " members"]:
    """Give each member the factor of its own schedule at its own step, after its own warm-up.

    `members` marks, for each schedule by name, the members that have it. Over W warm-up steps the factor is (t+1)/W.
    """
    out = torch.ones_like(when.step, dtype=torch.float64)
    for name, own in members.items():
        out = torch.where(own, SCHEDULES[name](when), out)
    return out * ((when.step + 1) / when.warmup_steps.clamp_min(1)).clamp_max(1)


def lower_on_plateau(
    remembered: Mapping[str, Float[Tensor, "members 1"]],
    curve: Float[Tensor, " members"],
    settings: Mapping[str, Tensor],
) -> None:
    """Note an epoch's fold-mean validation loss; lower the factor by γ after `patience` epochs without a better one.

    Better is less than best·(1 − threshold); in the form of `torch.optim.lr_scheduler.ReduceLROnPlateau`. Changes
    `remembered` (see `PLATEAU`) in place.
    """
    factor, best, waited = (remembered[name].squeeze(1) for name in PLATEAU)
    better = curve < best * (1 - settings["threshold"])
    best.copy_(torch.where(better, curve, best))
    waited.copy_(torch.where(better, 0, waited + 1))
    lower = waited > settings["patience"]
    factor.mul_(torch.where(lower, settings["decay_factor"], 1.0))
    waited.mul_(~lower)
