"""Where the trials of a search come from: drawn beforehand, or asked of a sampler that learns from those before."""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from foldwise.errors import SettingsError, did_you_mean
from foldwise.plans.course import Course
from foldwise.plans.draw import POINTS, Drawn, Space
from foldwise.plans.ranges import Axis, Listed, LogRange, Whole
from foldwise.plans.search import Ground
from foldwise.settings import Settings

LEARNING = {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler"}
"""Samplers of Optuna that learn from the trials before: Parzen estimators, a Gaussian process, evolution."""
SAMPLERS = (*POINTS, *LEARNING)
LISTING = ("GridSampler", "BruteForceSampler")
REPEATS = 3
"""How often a sampler may suggest what was tried before until a trial is drawn at random instead."""
PATIENCE = 1_000
"""After how many random draws of what was tried before there is taken to be nothing else."""


class Source(Protocol):
    """Gives the trials of a search one after the other, no two alike."""

    @property
    def left(self) -> float:
        """Count the trials that are still to come, at most."""

    def take(self, count: int) -> list[Settings]:
        """Give the next trials, up to so many; none when there are no more."""

    def tell(self, course: Course, stopped: bool) -> None:
        """Hear how a trial ended; `stopped` because others were better, or nothing was left. The first time counts."""


class Waiting:
    """Trials that were drawn beforehand."""

    def __init__(self, trials: Sequence[Settings]) -> None:
        self.trials = list(trials)

    @property
    def left(self) -> float:
        """Count the trials that are still to come."""
        return len(self.trials)

    def take(self, count: int) -> list[Settings]:
        """Give the next trials."""
        taken, self.trials = self.trials[:count], self.trials[count:]
        return taken

    def tell(self, course: Course, stopped: bool) -> None:
        """Learn nothing."""


def read_sampler(given: Any) -> Any:
    """Check what the user gave as a sampler: a name, or one of Optuna's own."""
    if isinstance(given, str):
        if given not in SAMPLERS:
            raise SettingsError(
                f"there is no sampler `{given}`.",
                hint=did_you_mean(given, SAMPLERS) or f"one of {', '.join(SAMPLERS)}",
            )
        if given in LEARNING:
            _optuna(f"the sampler `{given}`")
        if given == "cmaes" and importlib.util.find_spec("cmaes") is None:
            raise SettingsError("the sampler `cmaes` needs the package cmaes.", hint="pip install cmaes")
        return given
    if not isinstance(given, _optuna("a sampler that is no name").samplers.BaseSampler):
        raise SettingsError(
            f"`sampler` must be a name or a sampler of Optuna; got {given!r}.",
            hint=f"one of {', '.join(SAMPLERS)}, or optuna.samplers.TPESampler(…)",
        )
    if (name := type(given).__name__) in LISTING:
        raise SettingsError(
            f"the sampler {name} goes through a list, which is no sampling.",
            hint="leave `sampler` out: every combination of lists of values is a trial",
        )
    return given


def _optuna(what: str) -> Any:
    try:
        import optuna
    except ImportError:
        raise SettingsError(f"{what} needs Optuna.", hint="pip install 'foldwise[search]'") from None
    return optuna


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from logging, for as long as it is asked from here."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is experimental, and of settings drawn on their own
            yield
    finally:
        logging.set_verbosity(before)


def learns(sampler: Any) -> bool:
    """Tell whether a sampler is Optuna's."""
    return not isinstance(sampler, str) or sampler in LEARNING


@dataclass
class Apart:
    """One of the mappings of a search, which are searched apart: each has a study of its own.

    One study over all of them would need a sampler that knows settings which not every trial has; few do.
    """

    space: Space
    study: Any
    fixed: Drawn
    asked: int = 0
    exhausted: bool = False


class Learned:
    """Trials asked of a sampler of Optuna, who is told how they ended.

    A suggestion that rounds to what was tried before would train the same networks again; after a few of these, a
    trial is drawn at random. Trials that were stopped are told as pruned, with the score that they had, and those
    that never had one as pruned without.
    """

    def __init__(
        self, ground: Ground, sampler: Any, trials: float, seed: int, taken: Sequence[Settings] = ()
    ) -> None:
        self.ground, self.most = ground, trials
        self.random = np.random.default_rng([seed % 2**64, 7])
        self.seen: set[Settings] = set(taken)
        self.open: dict[Settings, tuple[Apart, Any]] = {}
        self.given = 0
        optuna = _optuna("a search that learns")
        with _quiet():
            self.mappings = [
                Apart(
                    {n: space[n] for n in sorted(space) if space[n].size > 1},
                    optuna.create_study(sampler=_made(sampler, seed + number)),
                    {n: axis.at(0) for n, axis in space.items() if axis.size == 1},
                )
                for number, space in enumerate(ground.spaces)
            ]

    @property
    def left(self) -> float:
        """Count the trials that are still to come, at most."""
        done = all(m.exhausted for m in self.mappings)
        return 0 if done else min(self.most, self.ground.size) - self.given

    def take(self, count: int) -> list[Settings]:
        """Ask for the next trials, of each mapping alike."""
        taken: list[Settings] = []
        while len(taken) < min(count, self.left + len(taken)):
            mapping = min((m for m in self.mappings if not m.exhausted), key=lambda m: m.asked)
            with _quiet():
                settings = self._ask(mapping)
            if settings is None:
                mapping.exhausted = True
                continue
            mapping.asked += 1
            self.given += 1
            taken.append(settings)
        return taken

    def tell(self, course: Course, stopped: bool) -> None:
        """Tell the sampler the best score of a trial."""
        from optuna.trial import TrialState

        if course.settings not in self.open:
            return
        mapping, trial = self.open.pop(course.settings)
        known = math.isfinite(course.best)
        with _quiet():
            if known:
                trial.report(course.best, max(1, course.epoch))
            if known and not stopped:
                mapping.study.tell(trial, course.best)
            else:
                mapping.study.tell(trial, state=TrialState.PRUNED)

    def _ask(self, mapping: Apart) -> Settings | None:
        from optuna.trial import TrialState

        for attempt in range(REPEATS + PATIENCE):
            if attempt >= REPEATS:
                drawn = {n: axis.at(self.random.random()) for n, axis in mapping.space.items()}
                if self._made(mapping, drawn) is None:
                    continue
                mapping.study.enqueue_trial({n: _told(mapping.space[n], value) for n, value in drawn.items()})
            trial = mapping.study.ask()
            values = {n: _suggested(trial, n, axis) for n, axis in mapping.space.items()}
            if (settings := self._made(mapping, values)) is not None:
                self.seen.add(settings)
                self.open[settings] = (mapping, trial)
                return settings
            mapping.study.tell(trial, state=TrialState.FAIL)
        return None

    def _made(self, mapping: Apart, values: Drawn) -> Settings | None:
        """Make settings; None for those that were tried, or that do not go together though each pair does."""
        try:
            settings = self.ground.make({**mapping.fixed, **values}, "a trial of the search")
        except SettingsError:
            return None
        return None if settings in self.seen else settings


def _made(sampler: Any, seed: int) -> Any:
    if not isinstance(sampler, str):
        return copy.deepcopy(sampler)  # which learns as it goes: the user's own stays as it is
    import optuna

    return getattr(optuna.samplers, LEARNING[sampler])(seed=seed % 2**32)


# How an axis is known to Optuna: numbers of a list by their place in it, whose order tells something


def _in_order(axis: Listed) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in axis.values)
    return (
        numbers
        and len(axis.values) > 2
        and list(axis.values) in (sorted(axis.values), sorted(axis.values)[::-1])
    )


def _suggested(trial: Any, name: str, axis: Axis) -> Any:
    if isinstance(axis, Listed):
        last = len(axis.values) - 1
        if _in_order(axis):
            return axis.values[trial.suggest_int(name, 0, last)]
        return axis.values[trial.suggest_categorical(name, list(range(last + 1)))]
    log, ends = isinstance(axis.range, LogRange), (axis.range.low, axis.range.high)
    if isinstance(axis, Whole):
        return trial.suggest_int(name, *map(int, ends), log=log)
    return axis.near(trial.suggest_float(name, *map(float, ends), log=log))


def _told(axis: Axis, value: Any) -> Any:
    return axis.values.index(value) if isinstance(axis, Listed) else value
