"""A budget: what a search may spend, in members that start, epochs of members, or minutes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from foldwise.errors import PlanError

SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
UNITS = ("member", "epoch", *SECONDS)
EXAMPLES = '"2000 epochs", "300 members", "10 minutes", or several of them: "10 minutes, 2000 epochs"'


@dataclass(frozen=True)
class Budget:
    """What the trials of a search may spend, without the baselines; ∞ where nothing limits it.

    `members` may be started; `epochs` are counted for each member by itself; `seconds` of training.
    """

    members: float = math.inf
    epochs: float = math.inf
    seconds: float = math.inf

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self != NO_LIMITS

    @property
    def said(self) -> list[str]:
        """Say the limits."""
        limits = (
            (self.members, f"at most {self.members:,.0f} members"),
            (self.epochs, f"at most {self.epochs:,.0f} epochs of members"),
            (self.seconds, f"at most {self.seconds / 60:,.4g} minutes"),
        )
        return [said for limit, said in limits if limit < math.inf]

    def refuse_too_little(self, members: int) -> None:
        """Raise PlanError unless a trial of so many members can be started, and take an epoch."""
        for limit, unit in ((self.members, "members"), (self.epochs, "epochs")):
            if limit < members:
                raise PlanError(
                    f"a budget of {limit:g} {unit} is less than one trial takes: it has {members} members.",
                    hint=f'budget="{10 * members} {unit}" or more; or fewer folds or seeds',
                )


NO_LIMITS = Budget()


def read_budget(given: object) -> Budget:
    """Read what the user wrote.

    >>> read_budget("10 minutes, 2000 epochs")
    Budget(members=inf, epochs=2000.0, seconds=600.0)
    """
    if not isinstance(given, str):
        raise PlanError(f"`budget` must be text; got {given!r}.", hint=EXAMPLES)
    limits: dict[str, float] = {}
    for part in given.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", part)
        if match is None or match[2] not in UNITS:
            raise PlanError(
                f"`budget`: `{part.strip()}` is no number of members, epochs or minutes.", hint=EXAMPLES
            )
        amount, unit = float(match[1]), match[2]
        name = "seconds" if unit in SECONDS else f"{unit}s"
        if amount <= 0 or (unit not in SECONDS and not amount.is_integer()):
            kind = "positive" if unit in SECONDS else "a whole number of at least 1"
            raise PlanError(f"`budget`: the number of {unit}s must be {kind}; got {match[1]}.", hint=EXAMPLES)
        if name in limits:
            raise PlanError(f"`budget` limits the {name} twice.", hint=EXAMPLES)
        limits[name] = amount * SECONDS.get(unit, 1.0)
    return Budget(**limits)
