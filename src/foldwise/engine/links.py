"""The links of a training step: each turns a gradient into a better one, or into the step to take.

A link names what it remembers and is a function of the direction so far, what it remembers and the present (`Now`).
It may overwrite the direction and what it remembers; it touches nothing else. An optimizer is a chain of links; a
new regularizer or rule is one more link, never an edit to the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from foldwise.engine import schedules
from foldwise.engine.schedules import When
from foldwise.engine.shares import Shares
from foldwise.engine.state import Layout
from foldwise.errors import SettingsError

Direction = Float[Tensor, "members parameters"]
Remembered = Mapping[str, Tensor]


@dataclass(frozen=True)
class Now:
    """What a link may look at; settings are `[members, 1]`, in the dtype of the parameters."""

    parameters: Float[Tensor, "members parameters"]
    layout: Layout  # which parameters are which: names and shapes
    settings: Mapping[str, Float[Tensor, "members 1"]]
    shares: Shares  # how much each parameter has of rate, decay and penalties
    when: When
    scheduled: Mapping[str, Tensor]  # by name of the schedule, which members have it
    updates: Float[Tensor, " members"]  # steps that changed the parameters; an overflow in float16 skips one


@dataclass(frozen=True)
class Link:
    """One part of a step.

    `apply(direction, remembered, now)` gives the new direction: `[members, parameters]`, each member from its own
    slice alone. `moments` are remembered as tensors `[members, parameters]` of zeros; `scalars` as float64
    `[members, 1]` with the value given. `knobs` are settings of the link's own, by default value: a search may
    name them, and `now.settings` has them per member. At the stage `gradient` a link comes before the optimizer;
    at the stage `weights` it gets the weights after the step in the place of the direction.

    >>> signs = Link(lambda direction, remembered, now: direction.sign_())
    >>> signs.stage
    'gradient'
    """

    apply: Callable[[Direction, Remembered, Now], Direction]
    moments: tuple[str, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    knobs: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    stage: Literal["gradient", "weights"] = "gradient"

    def __post_init__(self) -> None:
        if self.stage not in ("gradient", "weights"):
            raise SettingsError(
                f"a link's `stage` is gradient or weights; got {self.stage!r}.", hint='stage="weights"'
            )


def chain(*links: Link) -> Link:
    """Apply links one after another, as one link."""

    def apply(direction: Direction, remembered: Remembered, now: Now) -> Direction:
        for link in links:
            direction = link.apply(direction, remembered, now)
        return direction

    return Link(
        apply,
        moments=tuple(name for link in links for name in link.moments),
        scalars={name: value for link in links for name, value in link.scalars.items()},
        knobs={name: value for link in links for name, value in link.knobs.items()},
    )


def _scale_by_rate(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    factor = schedules.factors(now.scheduled, now.when).unsqueeze(1)
    direction = direction.mul_(-now.settings["learning_rate"] * factor.to(direction))
    return direction if now.shares.rate is None else direction.mul_(now.shares.rate)


scale_by_rate = Link(_scale_by_rate)
"""d ← −η·schedule(t)·d: the step to add to the parameters; a block may have a factor of its own."""
