"""What nested cross-validation cannot be combined with: whatever looks at outer scores while trials train."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foldwise.errors import PlanError, SettingsError
from foldwise.plans.policy import Policy
from foldwise.plans.samplers import Learned
from foldwise.plans.strategy import strategy_of
from foldwise.settings import Settings


def refuse_what_looks_ahead(trials: Sequence[Settings], policy: Policy) -> None:
    """Refuse a search that decides by scores of outer folds, and schedules that do.

    What is chosen for an outer fold must not depend on that fold's validation rows. Halving and a budget of epochs
    stop the trials that are worse on all outer folds, and a sampler that learns draws new trials by such scores, so
    that every choice would have seen the rows it is scored on. A budget of minutes or members stops all alike, and
    with early stopping each choice looks no further than its own curve does, see `Course`.
    Raises PlanError, or SettingsError for the schedule.
    """
    search = strategy_of(policy)
    if search is not None:
        looks = {
            "halving": search.halving is not None,
            "budget": search.budget.epochs < math.inf,
            "sampler": isinstance(search.source, Learned),
        }
        if found := [name for name, does in looks.items() if does]:
            raise PlanError(
                f"`{found[0]}` cannot be combined with `nested`: it decides by scores on the rows of all outer folds, "
                "and the choice for a fold must not have seen its rows.",
                hint=f"leave one of them out; without `{found[0]}`, all trials train on all inner folds",
            )
        trials = [*trials, *search.examples]
    if any(s.schedule == "plateau" for s in trials):
        raise SettingsError(
            "schedule `plateau` cannot be combined with `nested`: it lowers the learning rate of a fold's network by "
            "the fold's own validation rows.",
            hint="another schedule, such as cosine, or no `nested`",
        )
