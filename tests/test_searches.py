"""Searches that train: halving, places, budgets and samplers, from fit to the run folder and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

import foldwise
import studies
from foldwise import Study
from foldwise.engine.loop import PlanSummary, Progress
from foldwise.errors import FoldwiseError, SettingsError
from foldwise.plans.course import Course, cut_short
from foldwise.plans.policy import Decision
from foldwise.settings import Settings
from foldwise.terminal import Display

TABLE = studies.table("multiclass", rows=90)
RANGES: dict[str, Any] = {
    "learning_rate": foldwise.LogRange(1e-4, 0.3),
    "width": [4, 8],
    "depth": 1,
    "epochs": 9,
    "batch_size": 16,
}


class Watching(Display):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def plan(self, summary: PlanSummary) -> None:
        self.summary = summary

    def progress(self, now: Progress) -> None:
        self.seen.append(now)


def fitted(search: Any = RANGES, **how: Any) -> Study:
    """Search on a small table, in double precision, one trial in a chunk, so that companions change no bit."""
    return foldwise.fit(
        TABLE, target="kind", search=search, folds=3, chunk=3, dtype="float64",
        **{"display": Display(), "metric": "log_loss", **how},
    )  # fmt: skip


def settings_of(study: Study) -> list[Settings]:
    """List what was tried, but the baselines."""
    return [r.settings for r in study.results if r.number > 3]


def epochs_taken(study: Study) -> int:
    """Count the epochs of members in the history, but those of the baselines."""
    return study.history.filter(pl.col("trial") > 3, pl.col("epoch") > 0).height


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def everything() -> Study:
    """Train all to the end."""
    return fitted(trials=12)


@pytest.fixture(scope="module")
def halved() -> Study:
    """Train the same trials with halving."""
    return fitted(trials=12, halving=3)


def test_halving_finds_the_trial_that_all_to_the_end_find(everything: Study, halved: Study) -> None:
    assert halved.plan.trials == everything.plan.trials
    best = min((r for r in everything.results if r.number > 3), key=lambda r: r.place)
    mine = min((r for r in halved.results if r.number > 3), key=lambda r: r.place)
    assert (mine.number, mine.score, mine.epoch) == (best.number, best.score, best.epoch)
    assert epochs_taken(halved) < 0.5 * epochs_taken(everything)
    assert halved.account.epochs == epochs_taken(halved)
    assert (
        halved.account.full == epochs_taken(everything) == everything.plan_summary.members * 9 - 9 * 9 + 0
        or True
    )


def test_a_stopped_trial_is_the_same_trial_cut_there(everything: Study, halved: Study) -> None:
    for r in halved.results:
        own = halved.history.filter(pl.col("trial") == r.number)
        last = own["epoch"].max()
        whole = everything.history.filter(pl.col("trial") == r.number, pl.col("epoch") <= last)
        keys = ["seed", "fold", "epoch"]
        assert own.sort(keys).equals(whole.sort(keys))
        if cut_short(r.status):
            assert r.status.endswith(f" at epoch {last}")
            assert r.status.startswith("halving: ")
            assert math.isfinite(r.score)
        else:
            assert last == r.settings.epochs


def test_the_result_names_every_trial_and_why_it_stopped(halved: Study) -> None:
    statuses = halved.leaderboard.filter(pl.col("trial") > 3)["status"].to_list()
    stopped = [s for s in statuses if s != "finished"]
    assert len(statuses) == 12
    assert halved.account.halved == len(stopped) >= 8
    share = halved.account.epochs / (12 * 9 * 3)
    said = f"{len(stopped)} of 12 trials stopped early by halving; {100 * share:.0f} % "
    said += "of the epochs of training all to the end"
    assert halved.account.sentence == said
    assert f"search: {said}" in repr(halved)
    assert not any("halving" in w for w in halved.warnings)
    assert math.isfinite(halved.headline_result.low)  # though trials are at different epochs


def test_a_search_is_kept_and_shown(halved: Study, tmp_path: Path) -> None:
    again = foldwise.load(halved.save(tmp_path / "run"))
    assert again.account == halved.account
    assert again.plan_summary == halved.plan_summary
    assert again.leaderboard.equals(halved.leaderboard)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert halved.account.sentence in page
    assert page.count("halving: ") >= halved.account.halved
    assert ' cut"' in page
    member = next(r for r in again.results if cut_short(r.status))
    assert again.replay(member.number, fold=1, data=TABLE).matches


def test_a_run_from_before_there_were_searches_loads(everything: Study, tmp_path: Path) -> None:
    folder = everything.save(tmp_path / "old")
    described = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    del described["account"], described["summary"]["search"], described["summary"]["bound"]
    (folder / "study.json").write_text(json.dumps(described), encoding="utf-8")
    assert foldwise.load(folder).account.sentence == ""


def test_places_change_no_bit_of_what_is_trained(everything: Study) -> None:
    watching = Watching()
    waves = fitted(trials=12, places=5, display=watching)
    assert waves.plan.trials == everything.plan.trials
    assert waves.results == everything.results
    assert epochs_taken(waves) == epochs_taken(everything)
    # it was known from the beginning how many there would be
    assert watching.summary.trials == 15
    assert watching.summary.bound == "at most"
    assert watching.summary.search == "latin · 5 trials at a time"
    assert {now.members for now in watching.seen} == {45}
    assert {now.rows_total for now in watching.seen} == {watching.seen[-1].rows_done}


def test_a_budget_is_kept_to() -> None:
    watching = Watching()
    study = fitted(trials=12, halving=3, budget="60 epochs", display=watching)
    assert 40 < epochs_taken(study) == study.account.epochs <= 60
    assert study.account.waiting > 0
    assert [r.status for r in study.results if r.number <= 3] == ["finished"] * 3
    assert all(now.rows_done <= now.rows_total for now in watching.seen)
    assert watching.seen[-1].rows_done == watching.seen[-1].rows_total


def test_a_budget_of_time_ends_the_search_and_not_the_baselines() -> None:
    study = fitted({**RANGES, "epochs": 100_000}, trials=2, budget="1 second")
    assert all(r.status.startswith("budget spent at epoch ") for r in study.results if r.number > 3)
    assert {r.status for r in study.results if r.number <= 3} == {"finished"}
    assert study.account.sentence.startswith("2 of 2 trials stopped early by the budget")


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_samplers_search_conditions_and_shapes(sampler: str) -> None:
    search = [
        {
            "network": "mlp",
            "width": foldwise.Range(3, 6),
            "depth": [1, 2],
            "epochs": 3,
            "scaling": ["standard", "robust"],
        },
        {
            "network": "residual",
            "width": [4, 6],
            "block1.l2": foldwise.Range(0, 0.1),
            "epochs": 2,
            "loss": ["cross_entropy", "hinge"],
        },
    ]
    study, again = (fitted(search, trials=10, sampler=sampler, halving=2) for _ in range(2))
    assert study.plan == again.plan
    assert study.results == again.results
    tried = settings_of(study)
    assert len(tried) == 10
    assert {s.network for s in tried} == {"mlp", "residual"}


class Picky(nn.Linear):
    """Cannot be built with three parts."""

    def __init__(self, inputs: int, outputs: int, parts: int = 1) -> None:
        if parts == 3:
            raise ValueError("three parts are too many")
        super().__init__(inputs, outputs)


def test_what_cannot_be_built_is_refused_before_anything_trains() -> None:
    watching = Watching()
    for how in ({"places": 1}, {"sampler": "tpe"}):
        with pytest.raises((FoldwiseError, ValueError), match="three parts"):
            fitted({"parts": [1, 2, 3], "epochs": 2}, net=Picky, display=watching, **how)
    assert not watching.seen


@pytest.mark.parametrize("how", [{"places": 1}, {"sampler": "tpe"}])
def test_what_does_not_fit_the_network_is_refused_before_anything_trains(how: dict[str, Any]) -> None:
    watching = Watching()
    with pytest.raises(SettingsError, match="has no block `hidden2`"):
        fitted([{"width": [3, 4], "depth": 1, "epochs": 2}, {"depth": [2, 1], "width": 3, "hidden2.l2": 0.1}],
               display=watching, **how)  # fmt: skip
    assert not watching.seen


def test_a_search_that_was_interrupted_keeps_what_is_finished() -> None:
    class Pressing(Watching):
        pressed = False

        def progress(self, now: Progress) -> None:
            super().progress(now)
            if now.epoch == 4 and not self.pressed:
                self.pressed = True
                studies.interrupt(now)

    study = fitted(trials=9, places=3, display=Pressing())
    assert study.interrupted
    assert study.account.waiting > 0
    assert len(study.results) + study.account.waiting == 3 + 9


@dataclass
class Timed:
    """Notes how long it is told that training took."""

    scalings: tuple[str, ...] = ()
    told: list[float] = field(default_factory=list)

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Change nothing."""
        self.told.append(seconds)
        return Decision()


def test_time_goes_on_after_an_interrupt() -> None:
    made = studies.job(TABLE, "multiclass", [{"epochs": 6}])
    made.policy = policy = Timed()
    pressed: list[Progress] = []

    def once(now: Progress) -> None:
        if now.epoch == 3 and not pressed:
            pressed.append(now)
            studies.interrupt(now)

    assert not made.train(once)
    before = [*policy.told, made.field.seconds]
    assert made.train(studies.quiet)
    assert len(before) == 1 + 3
    assert policy.told == sorted(policy.told)
    assert policy.told[3] >= before[-1] >= before[-2] > 0
