"""Nested cross-validation as one job is that of plain nested loops, and no choice sees the rows it is scored on."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import model_selection

import foldwise
import studies
from foldwise import collect
from foldwise.data.folds import Folds, make_folds
from foldwise.data.nest import nest
from foldwise.data.prepare import learn_target_scale
from foldwise.engine.losses import losses_for
from foldwise.errors import FoldwiseError, PlanError, SettingsError
from foldwise.job import Job
from foldwise.judge.verdict import Headline, judge
from foldwise.nesting import inner_curves, judge_nested
from foldwise.plans.plan import Member
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone
from test_resume import Stopping, same

FEW = make_folds(47, numbers=np.repeat([0, 1, 2], [10, 15, 22]))
TRIALS: list[dict[str, Any]] = [
    {"learning_rate": 0.5, "epochs": 20},
    {"learning_rate": 0.2, "width": 7, "epochs": 12},
    {"network": "linear", "learning_rate": 0.1, "epochs": 6},
    {"network": "constant", "epochs": 0},
]


def row_losses(job: Job, trial: int, fold: int, seed: int) -> dict[int, np.ndarray]:
    """Train one member alone, in plain PyTorch, and give the losses of its validation rows by epoch."""
    table, settings = job.table, job.plan.trials[trial]
    member = Member(trial, fold, seed, settings)
    module = job.nursery(settings.loss).start(member)
    loss, regression = losses_for(job.task)[settings.loss], job.task.kind == "regression"
    train, validation = job.folds.train[fold], job.folds.validation[fold]
    data = prepare_fold(
        table.features, loss.shaped(table.targets), train, validation, table.numbers, settings.scaling, regression,
        job.dtype,
    )  # fmt: skip
    shift, scale = 0.0, 1.0
    if regression:
        learnt = learn_target_scale(table.targets, train[None])
        shift, scale = learnt.shift[0].item(), learnt.scale[0].item()

    def losses(outputs: Any) -> np.ndarray:
        targets = job.targets[np.flatnonzero(validation)]
        return job.metric.per_row(outputs * scale + shift, targets, job.task).double().numpy()

    if not settings.epochs:
        return {0: losses(outputs_of(module, data))}
    epochs = train_alone(member, copy.deepcopy(module), data, Own(loss.form))
    return {epoch.number: losses(epoch.outputs) for epoch in epochs}


def by_plain_loops(job: Job, outer: Folds, seeds: Sequence[int]) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Choose trial and epoch for each outer fold by loops over inner folds, and give the losses of all rows."""
    per_row = np.zeros(47)
    choices = []
    for fold in range(len(outer)):
        inside = np.flatnonzero(job.folds.groups == fold + 1)
        means = {}
        for trial in range(len(job.plan.trials)):
            alone = [row_losses(job, trial, i, seed) for i in inside for seed in seeds]
            for epoch in alone[0]:
                means[trial, epoch] = np.concatenate([losses[epoch] for losses in alone]).mean()
        trial, epoch = min(means, key=lambda which: means[which])
        choices.append((trial, epoch))
        scored = [row_losses(job, trial, fold, seed)[epoch] for seed in seeds]
        per_row[outer.validation[fold]] = np.mean(scored, axis=0)
    return choices, per_row


@pytest.mark.parametrize(("task", "metric"), [("regression", None), ("binary", "log_loss")])
def test_one_job_is_a_nested_loop_over_networks_trained_alone(task: str, metric: str | None) -> None:
    folds = nest(FEW, 2, seed=3)
    job = studies.job(studies.table(task), task, TRIALS, folds=folds, seeds=2, metric=metric)
    study = studies.study(job)
    choices, per_row = by_plain_loops(job, FEW, (0, 1))
    assert study.nested is not None
    assert [(c.trial - 1, c.epoch) for c in study.nested.choices] == choices
    assert len({*choices}) > 1  # or nothing is chosen
    np.testing.assert_allclose(study.headline_result.value, job.metric.finish(per_row.mean()), rtol=1e-9)
    for fold, choice in enumerate(study.nested.choices):
        own = job.metric.finish(per_row[FEW.validation[fold]].mean())
        np.testing.assert_allclose(choice.outer, own, rtol=1e-9)


def test_baselines_beside_a_nested_score_are_nested_too() -> None:
    folds, frame = nest(FEW, 2, seed=3), studies.table("regression")
    study = studies.study(studies.job(frame, "regression", TRIALS, folds=folds))
    said = re.search(r"linear model (\S+?)( \(no clear difference\))?, constant (\S+)", study.headline)
    assert said is not None
    for shown, settings in ((said[1], TRIALS[2]), (said[3], TRIALS[3])):
        alone = studies.study(studies.job(frame, "regression", [settings], folds=folds))
        assert float(shown) == pytest.approx(alone.headline_result.value, rel=0.02)
    assert "judged in the same way" in study.headline_result.how


@pytest.mark.parametrize("patience", [0, 2])
def test_each_choice_is_the_winner_of_a_study_of_the_inner_folds_alone(patience: int) -> None:
    frame = studies.table("regression")
    more = {"epochs": 12, "early_stopping": patience}
    trials = [{"learning_rate": rate, **more} for rate in (0.3, 0.1, 0.03)]
    folds = nest(FEW, 3)
    job = studies.job(frame, "regression", trials, folds=folds)
    study = studies.study(job)
    assert study.nested is not None
    for fold, choice in enumerate(study.nested.choices):
        own = folds.groups == fold + 1
        alone = studies.job(
            frame, "regression", trials, folds=Folds(folds.train[own], folds.validation[own], "")
        )
        winner = studies.study(alone).results[0]
        assert (choice.trial, choice.epoch) == (winner.number, winner.epoch)
        np.testing.assert_allclose(choice.inner, winner.score, rtol=1e-12)
    if patience:
        assert all("stopped early" in r.status or "finished" in r.status for r in study.results)


@pytest.mark.parametrize("patience", [0, 2])
def test_the_leaderboard_is_that_without_nesting(patience: int) -> None:
    frame = studies.table("regression")
    trials = [{**t, "early_stopping": patience if t.get("epochs", 3) else 0, "epochs": 2 * t.get("epochs", 3)}
              for t in TRIALS]  # fmt: skip
    plain = studies.study(studies.job(frame, "regression", trials, folds=FEW))
    study = studies.study(studies.job(frame, "regression", trials, folds=nest(FEW, 3)))
    status = ["place", "number", "score", "low", "high", "epoch", "tied", "fold_scores"]
    for one, other in zip(plain.results, study.results, strict=True):
        for name in status:
            assert getattr(one, name) == getattr(other, name), name
    order = ["trial", "seed", "fold", "row"]
    assert plain.predictions.sort(order).equals(study.predictions.sort(order))
    assert plain.folds.same_as(study.folds)
    assert plain.plan == study.plan
    new = frame.drop("price")
    assert plain.predict(new).equals(study.predict(new))
    assert plain.outcome == study.outcome
    if not patience:
        assert plain.history.sort("trial", "fold", "epoch").equals(
            study.outer_history.sort("trial", "fold", "epoch")
        )


def test_epochs_after_a_trial_had_waited_long_enough_are_no_looks_at_its_rows() -> None:
    """It goes on for the folds inside, whose epochs it may have to give; luck and looks are those without nesting."""
    frame = studies.table("regression")
    trials = [{"learning_rate": rate, "epochs": 30, "early_stopping": 2} for rate in (1.0, 0.5, 0.3)]
    plain, nested = (studies.job(frame, "regression", trials, folds=f) for f in (FEW, nest(FEW, 3)))
    for job in (plain, nested):
        job.train(studies.quiet)
    pairs = [*zip(plain.field.courses, nested.field.courses, strict=True)]
    assert any(one.epoch < other.epoch for one, other in pairs), "none went on, which this is about"
    assert [one.epoch + 1 for one, _ in pairs] == [other.considered for _, other in pairs]
    for one, other in zip(collect.records(plain), collect.records(nested), strict=True):
        assert one.curve is not None
        np.testing.assert_array_equal(one.curve, other.curve)
        assert (one.kept, one.epoch) == (other.kept, other.epoch)
    lucks = [judge_job(job).luck for job in (plain, nested)]
    assert lucks[0] is not None
    assert lucks[0] == lucks[1]


def judge_job(job: Job) -> Headline:
    return judge(
        job.plan.trials, collect.records(job), job.outer, job.metric, "price", weights=job.score_weights
    )[1]


def test_no_choice_sees_the_rows_that_it_is_scored_on() -> None:
    frame = studies.table("regression")
    trials = [{"learning_rate": rate, "epochs": 8, "early_stopping": 2} for rate in (1.0, 0.3, 0.1, 0.03)]
    folds = nest(FEW, 2)
    before = studies.study(studies.job(frame, "regression", trials, folds=folds)).nested
    assert before is not None
    random = np.random.default_rng(5)
    for fold, rows in enumerate(FEW.validation_rows):
        price = frame["price"].to_numpy().copy()
        price[rows] = random.normal(100, 50, len(rows))
        changed = frame.with_columns(price=pl.Series(price))
        after = studies.study(studies.job(changed, "regression", trials, folds=folds)).nested
        assert after is not None
        one, other = before.choices[fold], after.choices[fold]
        assert (one.trial, one.epoch, one.inner) == (other.trial, other.epoch, other.inner)
        assert one.outer != other.outer


def test_what_is_kept_of_outer_members_is_of_the_epochs_chosen() -> None:
    trials = [{"learning_rate": rate, "epochs": 7} for rate in (1.0, 0.1)]
    job = studies.job(studies.table("binary"), "binary", trials, folds=nest(FEW, 3), metric="log_loss")
    studies.study(job)
    curves = inner_curves(job)
    for stack in job.stacks:
        assert stack.inside.kept is not None
        for place, at in stack.inside.at.items():
            member = stack.members[place]
            assert stack.inside.kept.epoch[at] == curves[member.trial, member.fold].argmin()


def test_a_member_that_cannot_be_trained_is_no_choice() -> None:
    trials = [{"learning_rate": 1e9, "optimizer": "sgd", "epochs": 4}, {"network": "constant", "epochs": 0}]
    study = studies.study(studies.job(studies.table("regression"), "regression", trials, folds=nest(FEW, 2)))
    assert study.nested is not None
    assert {c.trial for c in study.nested.choices} == {2}
    assert np.isfinite(study.headline_result.value)


def test_the_plan_counts_the_members_inside() -> None:
    frame = studies.table("regression")
    plain = studies.job(frame, "regression", TRIALS[:2], folds=FEW, seeds=2).summary()
    nested = studies.job(frame, "regression", TRIALS[:2], folds=nest(FEW, 4), seeds=2).summary()
    assert (plain.members, plain.nested) == (2 * 3 * 2, 0)
    assert (nested.members, nested.folds, nested.nested) == (2 * (3 + 12) * 2, 3, 12)
    assert nested.bytes > 2 * plain.bytes


def test_both_engines_choose_alike() -> None:
    search = {"width": 4, "depth": 1, "epochs": 5, "learning_rate": [0.3, 0.1]}
    asked: dict[str, Any] = {"target": "price", "folds": 3, "nested": 2, "search": search, "device": "cpu"}
    one, other = (
        foldwise.fit(studies.table("regression"), engine=engine, dtype="float64", **asked).nested
        for engine in ("resident", "stacked")
    )
    assert one is not None
    assert other is not None
    for mine, theirs in zip(one.choices, other.choices, strict=True):
        assert (mine.trial, mine.epoch) == (theirs.trial, theirs.epoch)
        np.testing.assert_allclose([mine.inner, mine.outer], [theirs.inner, theirs.outer], rtol=1e-8)


def test_inner_members_are_in_the_history() -> None:
    study = studies.study(
        studies.job(studies.table("regression"), "regression", TRIALS[:2], folds=nest(FEW, 2))
    )
    counts = study.history.filter(pl.col("epoch") == 1).group_by("trial", "fold").agg(pl.col("inner").sort())
    assert counts["inner"].to_list() == [[None, 1, 2]] * 6
    assert sorted(study.outer_history["fold"].unique()) == [1, 2, 3]


# Which folds


def inside(folds: Folds, fold: int) -> tuple[np.ndarray, np.ndarray]:
    own = folds.groups == fold + 1
    return folds.train[own], folds.validation[own]


def test_inner_folds_divide_the_training_rows_of_each_fold() -> None:
    random = np.random.default_rng(0)
    classes, groups = random.integers(0, 2, 90), random.integers(0, 20, 90)
    for by in ({}, {"classes": classes}, {"groups": groups}, {"classes": classes, "groups": groups}):
        outer = make_folds(90, 4, repeats=2, **by)
        folds = nest(outer, 3, **by)
        assert len(folds) == 8 + 8 * 3
        assert folds.outer.same_as(outer)
        for fold in range(8):
            train, validation = inside(folds, fold)
            assert (validation.sum(axis=0) == outer.train[fold]).all()
            assert ((train | validation) == outer.train[fold]).all()
            if "groups" in by:
                assert all(not {*groups[t]} & {*groups[v]} for t, v in zip(train, validation, strict=True))
            elif "classes" in by:
                counts = (validation & (classes == 1)).sum(axis=1)
                assert counts.max() - counts.min() <= 1


def test_inner_folds_are_in_time_and_keep_the_folds_of_a_column_whole() -> None:
    time = np.random.default_rng(1).permutation(60) // 2
    folds = nest(make_folds(60, 3, time=time), 2, time=time)
    for fold in range(3):
        for train, validation in zip(*inside(folds, fold), strict=True):
            assert time[train].max() < time[validation].min()
            assert time[validation].max() < time[folds.validation[fold]].min()
    numbers = np.arange(40) % 5
    folds = nest(make_folds(40, numbers=numbers), 4, numbers=numbers)
    for fold in range(5):
        train, validation = inside(folds, fold)
        assert all(not {*numbers[t]} & {*numbers[v]} for t, v in zip(train, validation, strict=True))


def test_a_splitter_is_nested_in_a_splitter() -> None:
    study = foldwise.fit(
        example="iris", search={"width": 4, "epochs": 2}, folds=model_selection.KFold(3, shuffle=True, random_state=1),
        nested=model_selection.ShuffleSplit(2, random_state=0),
    )  # fmt: skip
    assert study.nested is not None
    assert study.nested.inside == 6


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nested": 1}, "`nested` must be a number of folds, at least 2, or a scikit-learn splitter; got 1."),
        ({"nested": "5"}, "got '5'"),
        ({"nested": 5, "folds": model_selection.KFold(3)}, "must be made by a splitter too"),
        ({"nested": 60}, "inside fold 1, which has 120 training rows: these classes have fewer rows than the 60 folds"),
        ({"nested": model_selection.PredefinedSplit(np.arange(150) % 3)}, "inside fold 1, which has 120 training rows"),
        ({"nested": 2, "halving": 2}, "`halving` cannot be combined with `nested`"),
        ({"nested": 2, "budget": "2000 epochs"}, "`budget` cannot be combined with `nested`"),
        ({"nested": 2, "search": {"width": 4, "epochs": 2, "schedule": "plateau"}}, "schedule `plateau` cannot be"),
    ],
)  # fmt: skip
def test_what_cannot_be_nested_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises((PlanError, SettingsError), match=re.escape(said)) as error:
        foldwise.fit(**{"example": "iris", "search": {"width": [4, 5], "epochs": 8}, **asked})
    assert isinstance(error.value, FoldwiseError)
    assert error.value.hint


def test_a_sampler_that_learns_is_refused() -> None:
    pytest.importorskip("optuna")
    search = {"learning_rate": foldwise.LogRange(1e-3, 1e-1), "epochs": 2}
    with pytest.raises(PlanError, match="`sampler` cannot be combined with `nested`"):
        foldwise.fit(example="iris", search=search, nested=2, sampler="tpe", trials=4)


# Stored, resumed, shown


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nested") / "run"
    search = {"width": [4, 8], "epochs": 4, "learning_rate": 0.03}
    foldwise.fit(example="iris", search=search, folds=3, nested=True, out=folder, places=1)
    return folder


def test_a_nested_study_is_loaded_and_replayed(run: Path) -> None:
    study = foldwise.load(run)
    assert study.nested is not None
    assert [c.fold for c in study.nested.choices] == [1, 2, 3]
    assert study.nested.inside == 15
    assert study.nested.sentence in repr(study)
    assert study.nested.sentence in study.headline_result.how.lower()
    assert f"accuracy {study.headline_result.value:.3f}" in study.headline
    assert study.replay(4, 2).matches


def test_the_page_lists_the_choices(run: Path) -> None:
    study = foldwise.load(run)
    page = (run / "report.html").read_text()
    assert study.nested is not None
    assert 'id="nested-table"' in page
    for choice in study.nested.choices:
        assert f"<td>{choice.trial} · {choice.name}</td>" in page
    assert "3-fold cross-validation; 15 folds inside them" in page


@pytest.mark.parametrize("places", [None, 1])
def test_a_nested_study_goes_on(places: int | None, tmp_path: Path) -> None:
    frame = studies.table("binary")
    search = {"network": "mlp", "width": [3, 4], "depth": 1, "epochs": 5, "early_stopping": 2}
    asked: dict[str, Any] = {"target": "ill", "search": search, "folds": 3, "nested": 2, "places": places}
    foldwise.fit(frame, out=tmp_path / "whole", **asked)
    stopped = foldwise.fit(frame, out=tmp_path / "run", display=Stopping(9), **asked)
    assert stopped.interrupted
    assert foldwise.resume(tmp_path / "run", frame, display=Stopping(12)).interrupted
    foldwise.resume(tmp_path / "run", frame)
    same(tmp_path / "whole", tmp_path / "run")
    whole, resumed = foldwise.load(tmp_path / "whole"), foldwise.load(tmp_path / "run")
    assert whole.nested == resumed.nested
    assert whole.headline == resumed.headline


def test_where_nothing_could_be_scored_inside_there_is_no_score() -> None:
    job = studies.job(studies.table("regression"), "regression", TRIALS[2:], folds=nest(FEW, 2))
    study = studies.study(job)
    for course in job.field.courses:
        course.inside[:] = [(np.inf, *means[1:]) for means in course.inside]
    found = judge_nested(job, study.results, "price", "")
    assert found is not None
    nested, headline = found
    assert np.isnan(headline.value)
    assert np.isnan([nested.choices[0].inner, nested.choices[0].outer]).all()
    assert np.isfinite(nested.choices[1].outer)


def test_no_choice_sees_the_classes_of_the_rows_that_it_is_scored_on() -> None:
    frame = studies.table("binary")
    trials = [{"learning_rate": rate, "epochs": 6} for rate in (1.0, 0.1)]
    asked: dict[str, Any] = {"folds": nest(FEW, 2), "class_weights": "balanced", "metric": "log_loss"}
    before = studies.study(studies.job(frame, "binary", trials, **asked)).nested
    assert before is not None
    for fold, rows in enumerate(FEW.validation_rows):
        labels = frame["ill"].to_numpy().copy()
        labels[rows] = ["yes"] * (len(rows) - 1) + ["no"]
        changed = frame.with_columns(ill=pl.Series(labels.tolist()))
        after = studies.study(studies.job(changed, "binary", trials, **asked)).nested
        assert after is not None
        one, other = before.choices[fold], after.choices[fold]
        assert (one.trial, one.epoch, one.inner) == (other.trial, other.epoch, other.inner)
        assert one.outer != other.outer


def test_folds_that_diverge_are_outer_ones() -> None:
    trials = [{"learning_rate": 1e9, "optimizer": "sgd", "epochs": 4}]
    study = studies.study(studies.job(studies.table("regression"), "regression", trials, folds=nest(FEW, 2)))
    [status] = [r.status for r in study.results if "diverged" in r.status]
    assert {int(n) for n in re.findall(r"\d+", status)} <= {1, 2, 3}
