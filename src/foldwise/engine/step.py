"""The whole step of a stack: which links it is made of, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from foldwise.engine import optimizers, regularizers
from foldwise.engine.half import SCALING
from foldwise.engine.links import Direction, Link, Now, Remembered, chain, scale_by_rate
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.schedules import PLATEAU
from foldwise.errors import SettingsError
from foldwise.settings import Settings, is_off

REGULARIZERS: tuple[tuple[str, Link], ...] = (
    ("frozen", regularizers.freeze),
    ("l2", regularizers.add_l2),
    ("l1", regularizers.add_l1),
    ("clip_norm", regularizers.clip),
    ("weight_limit", regularizers.limit_weights),
)
"""The setting that asks for a link, and the link; those of the stage `gradient` come before the optimizer."""


@dataclass(frozen=True)
class Step:
    """The links of a step: those up to the direction that is added to the weights, and those after it."""

    to_direction: Link
    to_weights: Link

    def remembered(self) -> dict[str, float | None]:
        """Name what the links remember: with its first value for one number per member, None for one per weight."""
        links = (self.to_direction, self.to_weights)
        numbers = {name: value for link in links for name, value in link.scalars.items()}
        return {**{name: None for link in links for name in link.moments}, **numbers}


def step_of(trials: Sequence[Settings], own: Sequence[Link] = ()) -> Step:
    """Put the step of a stack together: gradient, penalties, clipping, the user's links, optimizer, rate; limits.

    A penalty is a part of the loss, so clipping sees it; weight decay belongs to the optimizer, so it does not.
    """
    _refuse_shared_names(own)
    asked = [link for setting, link in REGULARIZERS if any(asks(s, setting) for s in trials)]
    wanted = [*asked, *map(_checked, own)]
    watching = [Link(lambda direction, remembered, now: direction, scalars=PLATEAU)]
    plateaus = watching if any(s.schedule == "plateau" for s in trials) else []
    gradient = [link for link in wanted if link.stage == "gradient"]
    return Step(
        chain(*gradient, OPTIMIZERS[trials[0].optimizer](trials), scale_by_rate, *plateaus),
        chain(*(link for link in wanted if link.stage == "weights")),
    )


LINKS = [
    link for part in (optimizers, regularizers) for link in vars(part).values() if isinstance(link, Link)
]
OURS = {*(name for link in LINKS for name in (*link.moments, *link.scalars)), *PLATEAU, *SCALING}
"""Names under which our own links, schedules and float16 remember something."""


def _refuse_shared_names(own: Sequence[Link]) -> None:
    names = [name for link in own for name in (*link.moments, *link.scalars)]
    if taken := [name for name in names if name in OURS or names.count(name) > 1]:
        raise SettingsError(
            f"something else remembers a value called `{taken[0]}`.",
            hint="give what your link remembers a name of its own",
        )


def _checked(link: Link) -> Link:
    """Give a user's link that says so when its result has another shape than what it got."""

    def apply(direction: Direction, remembered: Remembered, now: Now) -> Direction:
        name = getattr(link.apply, "__name__", "a link")
        try:
            result = link.apply(direction, remembered, now)
        except Exception as error:
            raise SettingsError(
                f"the link `{name}` fails: {type(error).__name__}: {error}",
                hint="it takes direction, remembered, now; now.settings has columns [members, 1], its knobs too",
            ) from error
        if not isinstance(result, Tensor) or result.shape != now.parameters.shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise SettingsError(
                f"the link `{name}` must give {tuple(now.parameters.shape)}, members and parameters; got {got}.",
                hint="return the direction, changed for each member by itself",
            )
        return result

    return replace(link, apply=apply)


def asks(s: Settings, setting: str) -> bool:
    """Tell whether a trial asks for a setting, for the whole network or for a block."""
    whole = setting in Settings.model_fields and not is_off(s, setting)
    return whole or any(name == setting and value for _, name, value in s.blocks)
