"""From what the user asked for to a plan: baselines, and the search over networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Protocol, get_args, runtime_checkable

from torch import nn

from foldwise.errors import NetworkError, PlanError, SettingsError, did_you_mean
from foldwise.nets.build import Net, own_options
from foldwise.plans.defaults import LOSSES_OF_TASK, NEEDS_LABELS, base_settings, baselines, default_grid
from foldwise.plans.plan import Plan
from foldwise.plans.ranges import LogRange, Range, several
from foldwise.plans.search import Grid, Values, as_grid, grid_trials
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


def ask(
    task: str,
    rows: int,
    search: Any,
    net: Net | None,
    folds: int,
    seeds: int,
    seed: int,
    *,
    trials: int | None = None,
    soft: bool = False,
    loss: Callable[..., Any] | str | None = None,
    links: Sequence[HasKnobs] = (),
) -> Plan:
    """Plan a cross-validated search; a constant and a linear model are always among the trials.

    `trials` is how many to draw from the search, `soft` whether the targets are probabilities of classes, and `loss`
    what trials learn that the search gives no loss: a name, or a function of the user's own.
    """
    if seeds < 1:
        raise PlanError(f"`seeds` must be at least 1; got {seeds}.")
    own = Own(net, loss, links)
    _refuse_unfit(own)
    grid = _default_grid(own) if search is None else as_grid(search)
    _refuse_what_is_not_taken(grid, own)
    base = base_settings(task, rows)
    searched = grid_trials(
        grid,
        lambda values: _base_of(values, base, own),
        options=own.options,
        knobs=own.knobs,
        trials=trials,
        seed=seed,
    )
    _refuse_wrong_loss(searched, task, soft, own)
    _refuse_too_much_noise(searched, task)
    always = [make_settings(values, base=base) for values in baselines()]
    trials_of_plan = tuple(dict.fromkeys([*always, *searched]))
    return Plan("cross-validation", trials_of_plan, folds, tuple(range(seed, seed + seeds)))


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
