"""From what the user asked for to a plan: baselines, and the search over networks."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any, Protocol, get_args, runtime_checkable

from torch import nn

from foldwise.errors import NetworkError, PlanError, SettingsError, did_you_mean
from foldwise.nets.build import Net, own_options
from foldwise.plans.budget import NO_LIMITS, read_budget
from foldwise.plans.defaults import (
    LOSSES_OF_TASK,
    NEEDS_LABELS,
    base_settings,
    baselines,
    default_grid,
    one_setting,
)
from foldwise.plans.draw import TRIALS
from foldwise.plans.halving import read_halving
from foldwise.plans.plan import Plan
from foldwise.plans.policy import TO_THE_END, Policy
from foldwise.plans.ranges import LogRange, Range, several, written
from foldwise.plans.samplers import Learned, Source, Waiting, learns, read_sampler
from foldwise.plans.search import Grid, Ground, Values, as_grid, drawn_trials, ground_of, refuse_no_count
from foldwise.plans.strategy import Strategy
from foldwise.settings import SEARCHED, Loss, Settings, make_settings

STRUCTURE = ("width", "depth", "activation", "dropout")


@runtime_checkable
class HasKnobs(Protocol):
    """A link of the user's own, as far as a plan knows it: names and defaults of the numbers that a search may set."""

    @property
    def knobs(self) -> Mapping[str, float]:
        """Give names and defaults."""


@dataclass(frozen=True)
class Own:
    """What a user brings beside settings: a network, a loss or the name of one, links."""

    net: Net | None = None
    loss: Callable[..., Any] | str | None = None
    links: Sequence[HasKnobs] = ()

    @cached_property
    def takes(self) -> Mapping[str, inspect.Parameter]:
        """List the arguments that the network can be given."""
        return {} if self.net is None else own_options(self.net)

    @property
    def options(self) -> dict[str, Any]:
        """Give the network's arguments that are no settings, with their defaults."""
        return {name: p.default for name, p in self.takes.items() if name not in SEARCHED}

    @property
    def knobs(self) -> dict[str, float]:
        """Give what the links can be set by, with defaults."""
        return {name: float(value) for link in self.links for name, value in link.knobs.items()}


@dataclass(frozen=True)
class How:
    """How to search: as `fit` takes it."""

    trials: int | None = None
    sampler: Any = "latin"
    halving: int | None = None
    budget: str | None = None
    places: int | None = None


def ask(
    task: str,
    rows: int,
    search: Any,
    net: Net | None,
    folds: int,
    seeds: int,
    seed: int,
    *,
    soft: bool = False,
    loss: Callable[..., Any] | str | None = None,
    links: Sequence[HasKnobs] = (),
    **how: Any,
) -> tuple[Plan, Policy]:
    """Plan a cross-validated search; a constant and a linear model are always among the trials.

    `soft` is whether the targets are probabilities of classes, and `loss` what trials learn that the search gives no
    loss: a name, or a function of the user's own. `how` are the fields of `How`. The plan has the trials that train
    from the beginning; the policy starts what else there is.
    """
    if seeds < 1:
        raise PlanError(f"`seeds` must be at least 1; got {seeds}.")
    asked, own = How(**how), Own(net, loss, links)
    _refuse_unfit(own)
    grid = _default_grid(own) if search is None else as_grid(search)
    _refuse_what_is_not_taken(grid, own)
    base = base_settings(task, rows)
    ground = ground_of(grid, lambda values: _base_of(values, base, own), own.options, own.knobs)
    _refuse_useless_sampler(asked.sampler, search, ground)
    learned = learns(read_sampler(asked.sampler))
    searched = ground.examples() if learned else _drawn(ground, asked, seed)
    _refuse_wrong_loss(searched, task, soft, own)
    _refuse_too_much_noise(searched, task)
    always = tuple(dict.fromkeys(make_settings(values, base=base) for values in baselines()))
    plan = Plan("cross-validation", always, folds, tuple(range(seed, seed + seeds)))
    searched = [s for s in dict.fromkeys(searched) if s not in always]
    if not learned and (asked.halving, asked.budget, asked.places) == (None, None, None):
        return plan.grown(searched), TO_THE_END
    strategy = _strategy(asked, ground, searched, plan, seed)
    return plan.grown(strategy.opening()), strategy


def ask_one(
    task: str,
    rows: int,
    values: Values,
    *,
    net: Net | None = None,
    loss: Callable[..., Any] | str | None = None,
    links: Sequence[HasKnobs] = (),
) -> Settings:
    """Give the settings of a network that is trained without a search: `values`, over `defaults.one_setting`.

    >>> ask_one("regression", 100, {"width": 8}).learning_rate
    0.01
    """
    own = Own(net, loss, links)
    _refuse_unfit(own)
    grid = Grid(dict(values) or {"network": "mlp" if net is None else "custom"})
    _refuse_what_is_not_taken(grid, own)
    base = one_setting(task, rows)
    [asked] = grid.grids
    made = ground_of(grid, lambda v: _base_of(v, base, own), own.options, own.knobs).make(asked, "")
    _refuse_wrong_loss([made], task, False, own)
    _refuse_too_much_noise([made], task)
    return made


@dataclass(frozen=True)
class Searched:
    """A question to `ask` in plain values, so that a study that goes on can ask it again; `search` is JSON."""

    task: str
    rows: int
    search: str | None
    folds: int
    seeds: int
    seed: int
    soft: bool
    loss: str | None
    trials: int | None
    sampler: str
    halving: int | None
    budget: str | None
    places: int | None

    @classmethod
    def of(cls, policy: Policy, search: Any, loss: Any, *, sampler: Any, **plain: Any) -> Searched | None:
        """Write a question down; None where the plan says all, or where a sampler is an object and no name."""
        if policy is TO_THE_END or not isinstance(sampler, str):
            return None
        grids = None if search is None else json.dumps([written(grid) for grid in as_grid(search).grids])
        return cls(search=grids, loss=loss if isinstance(loss, str) else None, sampler=sampler, **plain)

    def again(
        self, net: Net | None, loss: Callable[..., Any] | None, links: Sequence[HasKnobs]
    ) -> tuple[Plan, Policy]:
        """Ask again; a network, loss and links of the user's own must be those of then."""
        how = {f.name: getattr(self, f.name) for f in fields(How)}
        search = None if self.search is None else Grid(*json.loads(self.search))
        return ask(
            self.task, self.rows, search, net, self.folds, self.seeds, self.seed,
            soft=self.soft, loss=loss or self.loss, links=links, **how,
        )  # fmt: skip


def _drawn(ground: Ground, asked: How, seed: int) -> list[Settings]:
    count = asked.trials
    if count is None and asked.sampler != "latin":
        count = int(min(TRIALS, ground.size))
    return drawn_trials(ground, count, seed, asked.sampler)


BATCHES = 8
"""About how many times a sampler that learns is asked; it can only learn from those that have ended."""
FEWEST_AT_A_TIME = 4


def _strategy(asked: How, ground: Ground, searched: Sequence[Settings], plan: Plan, seed: int) -> Strategy:
    budget = NO_LIMITS if asked.budget is None else read_budget(asked.budget)
    members = plan.folds * len(plan.seeds)
    budget.refuse_too_little(members)
    for name in ("trials", "places"):
        if (given := getattr(asked, name)) is not None:
            refuse_no_count(name, given)
    source: Source = Waiting(searched)
    places: float = math.inf
    if learns(asked.sampler):
        count = asked.trials or (math.inf if budget.limited else TRIALS)
        source = Learned(ground, asked.sampler, count, seed, plan.trials)
        places = max(FEWEST_AT_A_TIME, (TRIALS if count == math.inf else count) // BATCHES)
    named = asked.sampler if isinstance(asked.sampler, str) else type(asked.sampler).__name__
    drawn = named if learns(asked.sampler) or ground.ranges or asked.trials else "every combination"
    return Strategy(
        source,
        members,
        len(plan.trials),
        searched,
        places if asked.places is None else asked.places,
        None
        if asked.halving is None
        else read_halving(asked.halving, max((s.epochs for s in searched), default=0), source.left),
        budget,
        drawn,
    )


def _refuse_useless_sampler(sampler: Any, search: Any, ground: Ground) -> None:
    if isinstance(sampler, str) and sampler == "latin":
        return
    said = f"sampler `{sampler}`" if isinstance(sampler, str) else "`sampler`"
    if search is None:
        raise PlanError(
            f"{said} draws trials from a search, and there is none.",
            hint='search={"learning_rate": foldwise.LogRange(1e-4, 1e-1)} (--search FILE)',
        )
    if ground.size == 1:
        raise PlanError(
            f"{said} has nothing to choose: the search gives every setting one value.",
            hint="give ranges or lists of values",
        )


def _default_grid(own: Own) -> Grid:
    return default_grid() if own.net is None else Grid(learning_rate=[3e-4, 1e-3, 3e-3])


def _base_of(values: Values, base: Values, own: Own) -> Values:
    """Give what trials have that the search does not name; it may depend on the network."""
    network = values.get("network", "mlp" if own.net is None else "custom")
    if network == "constant":  # which has one best value and takes no steps
        return {**base, "epochs": 0}
    loss = {} if own.loss is None else {"loss": "custom" if callable(own.loss) else own.loss}
    if network != "custom":
        return {**base, **loss}
    needed = [name for name, p in own.takes.items() if p.default is inspect.Parameter.empty]
    given = tuple(name for name in STRUCTURE if name in values or name in needed)
    return {"network": "custom", "initialization": "own", "takes": given, **base, **loss}


def _refuse_unfit(own: Own) -> None:
    """Refuse what is no network, loss or link, and names that mean two things."""
    if own.net is not None and (isinstance(own.net, nn.Module) or not callable(own.net)):
        is_module = isinstance(own.net, nn.Module)
        got = f"an instance of {type(own.net).__name__}" if is_module else repr(own.net)
        raise NetworkError(
            f"`net` must be a class or function that makes a network; got {got}.",
            hint="net=MyNet, not net=MyNet(): each member gets a network of its own",
        )
    if isinstance(own.loss, str) and own.loss not in (known := get_args(Loss)):
        raise SettingsError(
            f"there is no loss `{own.loss}`.",
            hint=did_you_mean(own.loss, known) or f"one of {', '.join(known)}",
        )
    if not (own.loss is None or isinstance(own.loss, str) or callable(own.loss)):
        raise SettingsError(
            f"`loss` must be a function or the name of a loss; got {own.loss!r}.",
            hint="a function of outputs and targets that gives one value per row",
        )
    if not isinstance(own.links, Sequence) or not all(isinstance(link, HasKnobs) for link in own.links):
        raise SettingsError("`links` must be a list of foldwise.Link.", hint="links=[foldwise.Link(…)]")
    knobs = [name for link in own.links for name in link.knobs]
    for name in knobs:
        meanings = [
            *(["a setting"] if name in Settings.model_fields else []),
            *(["an argument of your network"] if name in own.takes else []),
            *(["a knob of another link"] if knobs.count(name) > 1 else []),
        ]
        if meanings:
            raise SettingsError(
                f"the knob `{name}` of a link is also {' and '.join(meanings)}.", hint="give it another name"
            )


def _refuse_what_is_not_taken(grid: Grid, own: Own) -> None:
    """Refuse settings that the user's own network does not take, and knobs that are no numbers."""
    for values in grid.grids:
        networks = several(values.get("network", "mlp" if own.net is None else "custom"))
        useless = [name for name in STRUCTURE if name in values and name not in own.takes]
        if own.net is not None and "custom" in networks and useless:
            raise SettingsError(
                f"`{useless[0]}` is searched, but `{getattr(own.net, '__name__', own.net)}` does not take it.",
                hint=f"add an argument `{useless[0]}` to its constructor, or leave it out of the search",
            )
        for name in own.knobs.keys() & values.keys():
            if wrong := [v for v in several(values[name]) if not isinstance(v, Real | Range | LogRange)]:
                raise SettingsError(f"`{name}`, a knob of a link, must be a number; got {wrong[0]!r}.")


def _refuse_too_much_noise(searched: Iterable[Settings], task: str) -> None:
    most = max((s.label_noise for s in searched), default=0.0)
    if task != "regression" and most > 1:
        raise SettingsError(
            f"`label_noise` is the share of labels that are drawn anew, at most 1; got {most:g}.",
            hint="for numbers it is a deviation, and may be more",
        )


def _refuse_wrong_loss(searched: Iterable[Settings], task: str, soft: bool, own: Own) -> None:
    """Refuse losses that the task cannot be learnt with, and a loss that no trial has."""
    used = {s.loss for s in searched if s.network != "constant"}
    for loss in (s.loss for s in searched):
        fitting = [name for name in LOSSES_OF_TASK[task] if not (soft and name in NEEDS_LABELS)]
        if loss in fitting:
            continue
        target = "probabilities of classes" if soft and loss in NEEDS_LABELS else f"a {task} target"
        raise SettingsError(f"loss `{loss}` is not for {target}.", hint=f"loss: {' or '.join(fitting)}")
    if "custom" in used and not callable(own.loss):
        raise SettingsError(
            "loss `custom` needs a function of your own.",
            hint="foldwise.fit(..., loss=my_loss), or --loss FILE.py:NAME; it takes outputs and targets",
        )
    if own.loss is not None and (asked := "custom" if callable(own.loss) else own.loss) not in used:
        raise SettingsError(
            f"`loss` has no effect: the search gives every trial another one than {asked}.",
            hint=f'leave one of them out, or search "loss": ["{asked}", …]',
        )
