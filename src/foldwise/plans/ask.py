"""From what the user asked for to a plan: baselines, and the search over networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from foldwise.errors import NetworkError, PlanError, SettingsError
from foldwise.nets.build import Net, own_options
from foldwise.plans.defaults import LOSSES_OF_TASK, base_settings, baselines, default_grid
from foldwise.plans.plan import Plan
from foldwise.plans.search import Grid, as_grid, grid_trials
from foldwise.settings import Settings, make_settings

STRUCTURE = ("width", "depth", "activation", "dropout")


def ask(task: str, rows: int, search: Any, net: Net | None, folds: int, seeds: int, seed: int) -> Plan:
    """Plan a cross-validated search; a constant and a linear model are always among the trials."""
    if seeds < 1:
        raise PlanError(f"`seeds` must be at least 1; got {seeds}.")
    base = base_settings(task, rows)
    trials = [make_settings({**base, **values}) for values in baselines()]
    if net is not None:
        trials += _own_trials(net, search, base)
    else:
        trials += grid_trials(default_grid() if search is None else as_grid(search), base)
    _refuse_wrong_loss(trials, task)
    return Plan("cross-validation", tuple(dict.fromkeys(trials)), folds, tuple(range(seed, seed + seeds)))


def _taken(takes: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the settings that the network is given: those searched, and those without a default of its own."""
    needed = [name for name, p in takes.items() if p.default is inspect.Parameter.empty]
    return tuple(name for name in STRUCTURE if name in values or name in needed)


def _refuse_wrong_loss(trials: list[Settings], task: str) -> None:
    fitting = LOSSES_OF_TASK[task]
    wrong = [s.loss for s in trials if s.loss not in fitting]
    if wrong:
        raise SettingsError(
            f"loss `{wrong[0]}` is not for a {task} target.", hint=f"loss: {' or '.join(fitting)}"
        )


def _own_trials(net: Net, search: Any, base: Mapping[str, Any]) -> list[Settings]:
    if isinstance(net, nn.Module) or not callable(net):
        got = f"an instance of {type(net).__name__}" if isinstance(net, nn.Module) else repr(net)
        raise NetworkError(
            f"`net` must be a class or function that makes a network; got {got}.",
            hint="net=MyNet, not net=MyNet(): each member gets a network of its own",
        )
    grid = as_grid(search) if search is not None else Grid(learning_rate=[3e-4, 1e-3, 3e-3])
    takes = own_options(net)
    for values in grid.grids:
        useless = [name for name in STRUCTURE if name in values and name not in takes]
        if useless:
            raise SettingsError(
                f"`{useless[0]}` is searched, but `{getattr(net, '__name__', net)}` does not take it.",
                hint=f"add an argument `{useless[0]}` to its constructor, or leave it out of the search",
            )
    options = [name for name in takes if name not in Settings.model_fields]
    defaults = {"network": "custom", "initialization": "own", **base}
    return [
        settings
        for values in grid.grids
        for settings in grid_trials(Grid(values), {**defaults, "takes": _taken(takes, values)}, options)
    ]
