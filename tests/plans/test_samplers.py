"""Samplers: how their values are spread, that they are exact, that some learn."""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from curves import run
from foldwise.errors import FoldwiseError, PlanError, SettingsError
from foldwise.plans.ask import ask
from foldwise.plans.ranges import LogRange, Range
from foldwise.plans.samplers import Learned
from foldwise.plans.search import Grid, ground_of
from foldwise.plans.strategy import Strategy
from foldwise.settings import Settings

SPACE = {
    "learning_rate": LogRange(1e-4, 1e-1),
    "dropout": Range(0, 0.5),
    "width": LogRange(4, 64),
    "depth": Range(1, 4),
    "batch_size": [16, 32, 64],
    "activation": ["relu", "tanh"],
    "hidden1.l2": [0, 0.01],
    "epochs": 5,
}


def planned(search: Any, **how: Any) -> list[Settings]:
    """Draw trials, without the baselines."""
    plan, _ = ask("binary", 500, search, None, 3, 1, how.pop("seed", 0), **how)
    return list(plan.trials[3:])


def learned(sampler: Any, search: Any = SPACE, trials: float = 40, seed: int = 0) -> Learned:
    """Make a source that learns."""
    grids = search if isinstance(search, list) else [search]
    return Learned(ground_of(Grid(*grids), {}), sampler, trials, seed)


# Drawn beforehand


@pytest.mark.parametrize("sampler", ["latin", "random", "sobol"])
def test_draws_are_as_likely_as_ranges_say(sampler: str) -> None:
    drawn = planned(SPACE, sampler=sampler, trials=256)
    rates, dropouts = [math.log10(s.learning_rate) for s in drawn], [s.dropout for s in drawn]
    assert stats.kstest(rates, "uniform", args=(-4, 3)).pvalue > 0.01
    assert stats.kstest(dropouts, "uniform", args=(0, 0.5)).pvalue > 0.01
    assert stats.chisquare([*Counter(s.depth for s in drawn).values()]).pvalue > 0.01
    assert {s.batch_size for s in drawn} == {16, 32, 64}
    assert len(set(drawn)) == 256


def test_sobol_points_fill_pairs_more_evenly_than_others() -> None:
    def emptiest(sampler: str) -> float:
        found = []
        for seed in range(5):
            drawn = planned({**SPACE, "epochs": 5}, sampler=sampler, trials=256, seed=seed)
            pairs = [((math.log10(s.learning_rate) + 4) / 3, s.dropout * 2) for s in drawn]
            cells = Counter((int(7.999 * a), int(7.999 * b)) for a, b in pairs)
            found.append(max(abs(cells[a, b] - 4) for a in range(8) for b in range(8)))
        return float(np.mean(found))

    assert emptiest("sobol") < 3 < min(emptiest("latin"), emptiest("random"))


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe", "gp"])
def test_the_same_seed_draws_the_same_trials(sampler: str) -> None:
    reordered = dict(reversed(SPACE.items()))
    assert planned(SPACE, sampler=sampler, trials=8) == planned(reordered, sampler=sampler, trials=8)
    assert planned(SPACE, sampler=sampler, trials=8) != planned(SPACE, sampler=sampler, trials=8, seed=1)


def test_lists_are_drawn_from_too() -> None:
    few = {"width": [4, 8, 16], "depth": [1, 2], "epochs": 3}
    for sampler in ("random", "sobol"):
        assert len(set(planned(few, sampler=sampler))) == 6
        assert len(set(planned(few, sampler=sampler, trials=5))) == 5
    assert len(planned(SPACE, sampler="random")) == 32


# Asked one after the other


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_suggestions_are_what_the_search_allows(sampler: str) -> None:
    def score(s: Settings, epoch: int) -> Sequence[float]:
        return [s.dropout + s.width / 64] * 3

    plan, policy = ask("binary", 500, SPACE, None, 3, 1, 0, sampler=sampler, trials=16)
    courses, *_ = run(policy, plan.trials, score)
    tried = [c.settings for c in courses[3:]]
    assert len(set(tried)) == 16
    for s in tried:
        assert 1e-4 <= s.learning_rate <= 1e-1
        assert float(f"{s.learning_rate:.3g}") == s.learning_rate
        assert float(f"{s.dropout:.3g}") == s.dropout <= 0.5
        assert isinstance(s.width, int)
        assert s.depth in (1, 2, 3, 4)
        assert 4 <= s.width <= 64
        assert s.batch_size in (16, 32, 64)
        assert s.activation in ("relu", "tanh")
        assert s.of_block("hidden1").get("l2", 0) in (0, 0.01)
        assert s.epochs == 5


def bowl(s: Settings, epoch: int) -> Sequence[float]:
    """Score settings by how far they are from the best ones."""
    far = (math.log10(s.learning_rate) + 2.3) ** 2 + 20 * (s.dropout - 0.2) ** 2
    return [far + 0.5 * (s.activation == "relu")] * 3


TOY = {
    "learning_rate": LogRange(1e-5, 1),
    "dropout": Range(0, 0.9),
    "activation": ["relu", "tanh"],
    "epochs": 1,
}


def nearest(sampler: str, seed: int, trials: int) -> float:
    """Give the best score that a search finds."""
    plan, policy = ask("binary", 500, TOY, None, 3, 1, seed, sampler=sampler, trials=trials, places=4)
    courses, *_ = run(policy, plan.trials, bowl)
    return min(c.best for c in courses[3:])


@pytest.mark.parametrize(
    ("sampler", "seeds", "trials"), [("tpe", 6, 48), pytest.param("gp", 3, 24, marks=pytest.mark.slow)]
)
def test_a_sampler_that_learns_comes_nearer_than_chance(sampler: str, seeds: int, trials: int) -> None:
    learned, drawn = ([nearest(name, s, trials) for s in range(seeds)] for name in (sampler, "random"))
    assert np.median(learned) < np.median(drawn) / 2
    assert sum(np.less(learned, drawn)) > seeds / 2


def test_what_was_stopped_is_told_as_pruned() -> None:
    source = learned("tpe", trials=4)
    finished, halved, broken, going = (course_of(n, s) for n, s in enumerate(source.take(4)))
    for course in (finished, halved):
        course.note(9.0, (9.0,)), course.note(0.5, (0.5,))
    broken.note(9.0, (9.0,)), broken.note(math.inf, (math.nan,))
    for course, stopped in ((finished, False), (halved, True), (broken, False)):
        source.tell(course, stopped)
        source.tell(course, stopped)  # who is told twice hears it once
    states = [(t.state.name, t.value) for t in source.mappings[0].study.trials]
    assert states == [("COMPLETE", 0.5), ("PRUNED", 0.5), ("PRUNED", None), ("RUNNING", None)]
    assert going.settings in source.open


def course_of(number: int, settings: Settings) -> Any:
    """Start a trial."""
    from foldwise.plans.course import Course

    return Course(number, settings)


def test_mappings_are_searched_apart() -> None:
    search = [
        {"network": "linear", "learning_rate": LogRange(1e-3, 1)},
        {"network": "mlp", "optimizer": "sgd", "momentum": Range(0.1, 0.9), "depth": 1},
        {"network": "mlp", "optimizer": ["adam", "adamw"], "width": [4, 8], "depth": 2},
    ]
    source = learned("tpe", search, trials=30)
    taken: list[Settings] = []
    while source.left and (batch := source.take(4)):
        for s in batch:
            taken.append(s)
            course = course_of(len(taken), s)
            course.note(1.0, (1.0,)), course.note(s.learning_rate, (s.learning_rate,))
            source.tell(course, False)
    kinds = Counter((s.network, s.optimizer == "sgd") for s in taken)
    assert kinds == {
        ("linear", False): 13,
        ("mlp", True): 13,
        ("mlp", False): 4,
    }  # of which there are but four
    assert len(set(taken)) == 30


def test_a_sampler_of_ones_own_is_left_as_it_is() -> None:
    own = optuna.samplers.TPESampler(seed=3)
    first, again = planned(SPACE, sampler=own, trials=6), planned(SPACE, sampler=own, trials=6)
    assert first == again
    _, policy = ask("binary", 500, SPACE, None, 3, 1, 0, sampler=own, trials=6)
    assert isinstance(policy, Strategy)
    assert policy.how.startswith("TPESampler · 4 trials at a time")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_repeats_itself_is_helped() -> None:
    few = {"width": [4, 8, 16], "depth": [1, 2, 3], "epochs": 3}
    stubborn = optuna.samplers.PartialFixedSampler(
        {"width": 0, "depth": 0}, optuna.samplers.RandomSampler(seed=0)
    )
    taken = learned(stubborn, few).take(9)
    assert len(set(taken)) == 9


def test_what_does_not_go_together_is_not_suggested() -> None:
    # each pair does, and only all three do not: nothing that a look at pairs beforehand finds
    search = {"width": [1, 2, 4], "normalization": ["none", "layer"], "depth": [0, 1, 2], "epochs": 3}
    source = Learned(ground_of(Grid({**search, "width": [2, 4]}), {"width": 1}), "tpe", 100, 0)
    assert source.take(100)
    bad = {
        "nesterov": [False, True],
        "dampening": [0.0, 0.1],
        "momentum": 0.9,
        "optimizer": "sgd",
        "epochs": 3,
    }
    with pytest.raises(SettingsError, match="nesterov"):
        ask("binary", 500, bad, None, 3, 1, 0, sampler="tpe")


def test_optuna_keeps_its_own_voice() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    optuna.logging.get_verbosity()  # which sets its logger up
    logger, before = logging.getLogger("optuna"), optuna.logging.get_verbosity()
    logger.addHandler(handler)
    try:
        planned(SPACE, sampler="tpe", trials=6)
        assert said == []
        optuna.create_study()
        assert said
    finally:
        logger.removeHandler(handler)
    assert optuna.logging.get_verbosity() == before


# Refused


@pytest.mark.parametrize(
    ("how", "says", "hint"),
    [
        ({"sampler": "tpr"}, "there is no sampler `tpr`", "Did you mean `tpe`?"),
        ({"sampler": "anneal"}, "there is no sampler `anneal`", "latin, random, sobol, tpe, gp, cmaes"),
        (
            {"sampler": 3},
            "`sampler` must be a name or a sampler of Optuna; got 3",
            "optuna.samplers.TPESampler",
        ),
        (
            {"sampler": "sobol", "search": None},
            "sampler `sobol` draws trials from a search, and there is none",
            "LogRange",
        ),
        (
            {"sampler": "tpe", "search": {"width": 8}},
            "sampler `tpe` has nothing to choose",
            "ranges or lists",
        ),
        ({"places": 0}, "`places` must be a whole number of at least 1; got 0", ""),
        ({"sampler": "tpe", "trials": 0}, "`trials` must be a whole number of at least 1; got 0", ""),
        ({"halving": 1}, "`halving` must be a whole number", ""),
        ({"budget": "lots"}, "`lots` is no number", "2000 epochs"),
        (
            {"budget": "2 members"},
            "a budget of 2 members is less than one trial takes: it has 3 members",
            "30 members",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(how: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(FoldwiseError) as caught:
        planned(**{"search": SPACE, **how})
    assert says in caught.value.problem
    assert hint in caught.value.hint


def test_what_is_not_installed_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        SettingsError, match=r"the sampler `tpe` needs Optuna\.\nhint: pip install 'foldwise\[search\]'"
    ):
        planned(SPACE, sampler="tpe")
    assert planned(SPACE, sampler="sobol", trials=4)
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs the package cmaes\.\nhint: pip install cmaes"):
        planned(SPACE, sampler="cmaes")


def test_a_sampler_for_a_search_that_is_no_search() -> None:
    with pytest.raises(PlanError):
        planned({"width": [8]}, sampler="random")
