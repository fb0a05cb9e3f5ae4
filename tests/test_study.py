"""Whole studies: from a table to predictions, by hand and by surprise."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import metrics as sk
from sklearn import model_selection
from torch import nn

import foldwise
import studies
import zoo
from foldwise import Grid
from foldwise.data.prepare import apply_preparation, learn_preparation
from foldwise.engine.dropout import key_dropouts
from foldwise.engine.loop import PlanSummary, Progress
from foldwise.errors import DataError, FoldwiseError, NetworkError, PlanError, SettingsError
from foldwise.judge.metrics import METRICS
from foldwise.nets.build import build
from foldwise.study import Study
from foldwise.terminal import Display

TRIALS = [
    {"dropout": 0.2, "epochs": 4, "learning_rate": 0.02},
    {"network": "linear", "scaling": "standard"},
    {"network": "constant", "epochs": 0},
]
FAST = {**studies.SMALL, "epochs": 1}


@pytest.fixture(scope="module", params=studies.TASKS)
def named(request: pytest.FixtureRequest) -> tuple[str, Study]:
    """A study of each task, over four folds with two seeds."""
    return request.param, studies.study(
        studies.job(studies.table(request.param), request.param, TRIALS, folds=4, seeds=2)
    )


# Predictions


def members_by_hand(study: Study, trial: int, task: str, new: pl.DataFrame) -> np.ndarray:
    """Apply each network of a trial by hand: `[members, rows, outputs]`."""
    frame = studies.table(task)
    features, rows = study.columns.encode(frame), study.columns.encode(new)
    targets = study.task.encode(frame)
    numbers = np.array([f.kind == "number" for f in study.columns.features])
    found = []
    for models in study.models:
        for place in models.of_trial(trial - 1):
            member = models.members[place]
            train = study.folds.train[member.fold]
            constants = learn_preparation(features, train[None], numbers, member.settings.scaling)
            outputs = study.task.outputs
            module = build(member.settings, features.shape[1], outputs).double().eval()
            torch.nn.utils.vector_to_parameters(models.parameters[place], module.parameters())
            with torch.no_grad():
                made = module(torch.from_numpy(apply_preparation(constants, 0, rows))).numpy()
            if study.task.kind == "regression":
                made = made * targets[train].std(axis=0) + targets[train].mean(axis=0)
            found.append(made)
    return np.stack(found)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores into shares."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Turn a score into a probability."""
    return 1 / (1 + np.exp(-scores))


@pytest.mark.parametrize("trial", [1, 2, 3])
def test_predictions_are_the_mean_over_the_members(named: tuple[str, Study], trial: int) -> None:
    task, study = named
    new = studies.table(task, rows=15, seed=4)
    made = members_by_hand(study, trial, task, new)
    assert len(made) == 8
    numbers = study.task.kind == "regression"
    ours = study.predict(new, trial) if numbers else study.predict(new, trial, calibrated=False)
    if numbers:
        natural = np.exp if study.task.log else np.asarray
        names = (
            ["prediction"]
            if len(study.task.targets) == 1
            else [f"prediction of {t}" for t in study.task.targets]
        )
        expected, spread = natural(made.mean(0)), natural(made).std(0, ddof=1)
        np.testing.assert_allclose(ours.select(names).to_numpy(), expected, rtol=1e-9)
        np.testing.assert_allclose(ours.drop(names).to_numpy(), spread, rtol=1e-6, atol=1e-9)
        return
    if study.task.kind == "binary":
        shares = sigmoid(made).mean(0)
        shares = np.concatenate([1 - shares, shares], axis=1)
    else:
        shares = (sigmoid if study.task.kind == "multilabel" else softmax)(made).mean(0)
    given = ours.select(pl.selectors.starts_with("probability")).to_numpy()
    np.testing.assert_allclose(given, shares, rtol=1e-9)
    if study.task.kind == "multilabel":
        labels = ours.select("prediction of red", "prediction of round").to_numpy()
        np.testing.assert_array_equal(labels, shares > 0.5)
    else:
        np.testing.assert_allclose(given.sum(axis=1), 1)
        classes = np.array(study.task.classes[0])
        assert ours["prediction"].to_list() == classes[shares.argmax(1)].tolist()


def test_the_constant_is_the_prior_of_its_training_rows(named: tuple[str, Study]) -> None:
    task, study = named
    targets = study.task.encode(studies.table(task))
    mine = study.predictions.filter(trial=3)
    for fold in range(4):
        train = targets[study.folds.train[fold]]
        if study.task.kind == "regression":
            expected = (np.exp if study.task.log else np.asarray)(train.mean(axis=0))
        elif train.ndim == 1:
            expected = np.bincount(train) / len(train)
        else:
            expected = train.mean(axis=0)
        given = mine.filter(fold=fold + 1).drop("trial", "seed", "fold", "row").to_numpy()
        np.testing.assert_allclose(given, np.tile(expected, (len(given), 1)), rtol=1e-6)


def test_scores_are_those_of_the_out_of_fold_predictions(named: tuple[str, Study]) -> None:
    task, study = named
    frame = studies.table(task)
    for result in study.results:
        mine = study.predictions.filter(trial=result.number).sort("seed", "row")
        values = mine.drop("trial", "seed", "fold", "row").to_numpy()
        rows = mine["row"].to_numpy()
        truth = frame.select(study.task.targets).to_numpy()[rows]
        if task == "log regression":
            expected = math.sqrt(np.mean((np.log(values) - np.log(truth)) ** 2))
        elif study.task.kind == "regression":
            expected = math.sqrt(sk.mean_squared_error(truth, values))
        elif study.task.kind == "multilabel":
            expected = np.mean((values > 0.5) == truth)
        elif task == "soft":
            expected = np.mean(values.argmax(1) == truth.argmax(1))
        else:
            classes = np.array(study.task.classes[0])
            expected = np.mean(classes[values.argmax(1)] == truth[:, 0])
        assert result.score == pytest.approx(expected, rel=1e-5)


def test_a_study_shows_its_headline_and_its_trials(named: tuple[str, Study]) -> None:
    _, study = named
    best = study.results[0]
    assert study.headline.startswith(" and ".join(study.task.targets) + ": ")
    assert study.leaderboard.height == 3
    assert best.name in repr(study)
    assert best.name in study._repr_html_()


def test_predictions_do_not_depend_on_the_other_rows(named: tuple[str, Study]) -> None:
    task, study = named
    new = studies.table(task, rows=12, seed=9)
    whole = study.predict(new)
    part = study.predict(new[5:8].select(reversed(new.columns)))
    for name in whole.columns:
        if whole[name].dtype.is_float():
            np.testing.assert_allclose(
                part[name].to_numpy(), whole[name][5:8].to_numpy(), rtol=1e-12, atol=1e-12
            )
        else:
            assert part[name].to_list() == whole[name][5:8].to_list()


def test_there_must_be_rows_and_the_trial_to_predict(named: tuple[str, Study]) -> None:
    task, study = named
    with pytest.raises(DataError, match="0 rows"):
        study.predict(studies.table(task).head(0))
    with pytest.raises(PlanError, match=r"there is no trial 9\.\nhint: trials are numbered 1 to 3"):
        study.predict(studies.table(task), trial=9)


# Two outputs for two classes


def test_a_binary_target_with_two_outputs() -> None:
    frame = studies.table("binary")
    job = studies.job(frame, "binary", [{"loss": "cross_entropy", "epochs": 4}, {"epochs": 4}])
    study = studies.study(job)
    assert sorted(s.cohort.outputs for s in job.stacks) == [1, 2]
    both = [study.predict(frame, trial).select(pl.selectors.starts_with("probability")) for trial in (1, 2)]
    for shares in both:
        assert shares.columns == ["probability of no", "probability of yes"]
        np.testing.assert_allclose(shares.to_numpy().sum(axis=1), 1)
    assert not both[0].equals(both[1])


def test_the_constant_of_two_outputs_is_the_prior_too() -> None:
    job = studies.job(
        studies.table("binary"), "binary", [{"network": "constant", "epochs": 0, "loss": "cross_entropy"}]
    )
    study = studies.study(job)
    share = (studies.table("binary")["ill"] == "yes").to_numpy()
    for fold in range(3):
        given = study.predictions.filter(fold=fold + 1)["probability of yes"].to_numpy()
        np.testing.assert_allclose(given, share[study.folds.train[fold]].mean(), rtol=1e-6)


# Sealed test rows


SEALED = {"task": "regression", "trials": TRIALS, "test": 0.25, "folds": 3}


def test_sealed_rows_teach_nothing() -> None:
    frame = studies.table("regression")
    job = studies.job(frame, **SEALED)
    sealed = np.setdiff1d(np.arange(47), job.table.row)
    assert len(sealed) == 12
    mine = pl.int_range(47).is_in(sealed.tolist())
    other = frame.with_columns(
        size=pl.when(mine).then(1e9).otherwise("size"),
        age=pl.when(mine).then(None).otherwise("age"),
        color=pl.when(mine).then(pl.lit("unheard of")).otherwise("color"),
        price=pl.when(mine).then(-1e6).otherwise("price"),
    )
    first, second = (studies.study(studies.job(f, **SEALED)) for f in (frame, other))
    assert first.columns == second.columns
    assert first.history.equals(second.history)
    assert first.predictions.equals(second.predictions)
    assert all(
        torch.equal(a.parameters, b.parameters) for a, b in zip(first.models, second.models, strict=True)
    )
    assert first.headline == second.headline
    assert not set(first.predictions["row"]) & set(sealed.tolist())
    assert first.open_test().score != second.open_test().score


def test_an_opening_scores_the_ensemble_and_is_remembered(tmp_path: Path) -> None:
    frame = studies.table("regression")
    study = studies.study(studies.job(frame, **SEALED))
    study.save(tmp_path / "run")
    assert study.openings == []
    sealed = frame[np.setdiff1d(np.arange(47), study.row).tolist()]
    opening = study.open_test()
    errors = study.predict(sealed)["prediction"] - sealed["price"]
    assert opening.score == pytest.approx(math.sqrt((errors**2).mean()))
    assert opening.low < opening.score < opening.high
    assert (opening.rows, opening.times_opened) == (12, 1)
    assert "untouched" not in opening.sentence
    again = foldwise.load(tmp_path / "run")
    assert [o["times_opened"] for o in again.openings] == [1]
    second = again.open_test()
    assert second.score == opening.score
    assert "opened 2 times, so this is no longer an untouched test" in second.sentence
    assert len(foldwise.load(tmp_path / "run").openings) == 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "log regression"])
def test_an_opening_has_the_score_of_its_metric(task: str) -> None:
    frame = studies.table(task)
    study = studies.study(
        studies.job(frame, task, TRIALS, test=0.25, metric="mae" if "regression" in task else "log_loss")
    )
    sealed = frame[np.setdiff1d(np.arange(47), study.row).tolist()]
    truth = sealed.select(study.task.targets).to_numpy()
    # scores are those of the networks as they are
    shown = study.predict(sealed, **({} if "regression" in task else {"calibrated": False}))
    if task == "log regression":
        expected = sk.mean_absolute_error(truth[:, 0], shown["prediction"].to_numpy())
    else:
        shares = shown.select(pl.selectors.starts_with("probability")).to_numpy()
        if task == "multilabel":
            expected = np.mean([sk.log_loss(truth[:, i], shares[:, i]) for i in range(2)])
        else:
            expected = sk.log_loss(truth[:, 0], shares, labels=list(study.task.classes[0]))
    assert study.open_test().score == pytest.approx(expected, rel=1e-6)


def test_without_sealed_rows_there_is_nothing_to_open() -> None:
    study = studies.study(studies.job(studies.table("binary"), "binary"))
    with pytest.raises(
        PlanError, match=r"no test rows were sealed in this study\.\nhint: --test 0\.2 when fitting"
    ):
        study.open_test()


# fit: what can be asked for


def fitted(task: str = "binary", **asked: Any) -> Study:
    """Fit a small table with one small perceptron."""
    frame = asked.pop("frame", studies.table(task))
    if not {"folds", "holdout", "fold_column"} & set(asked):
        asked["folds"] = 2
    return foldwise.fit(frame, target=studies.TASKS[task], **{"search": FAST, **asked})


def test_arrays_are_taken() -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    study = foldwise.fit(x, y, search=FAST, folds=2)
    assert study.task.kind == "binary"
    assert study.predict(x).height == 40


def test_folds_and_seeds_and_repeats_multiply() -> None:
    study = fitted(folds=3, repeats=2, seeds=2, seed=5)
    assert len(study.folds) == 6
    assert study.plan.seeds == (5, 6)
    assert study.plan_summary.members == len(study.plan.trials) * 12
    assert study.predictions.filter(trial=1, seed=6).height == 2 * 47


@pytest.mark.parametrize(
    ("asked", "how"),
    [
        ({"holdout": 0.3}, "stratified hold-out of 30 % of the rows"),
        ({"folds": model_selection.ShuffleSplit(2, random_state=0)}, "ShuffleSplit of scikit-learn"),
        ({"groups": "group"}, "grouped stratified 2-fold cross-validation"),
        ({"fold_column": "group"}, "6 folds given by a column"),
        ({"time": "moment"}, "2 folds in time: each learns from the past"),
    ],
)
def test_every_way_to_make_folds(asked: dict[str, Any], how: str) -> None:
    frame = studies.table("binary").with_columns(
        group=pl.int_range(47) % 6, moment=pl.int_range(47).reverse()
    )
    study = fitted(frame=frame, **asked)
    assert study.folds.how.startswith(how)
    assert math.isfinite(study.headline_result.value)
    roles = {c.name: c.role for c in study.columns.columns}
    for name in asked.values():
        if isinstance(name, str):
            assert roles[name] != "feature"


def test_the_past_is_validated_on_the_future() -> None:
    frame = studies.table("binary").with_columns(moment=47 - pl.int_range(47))
    study = fitted(frame=frame, time="moment")
    assert (
        study.predictions["row"].max() < 47 - 15
    )  # the table runs backwards: its last rows are the first in time


def test_leave_one_out() -> None:
    study = foldwise.fit(
        studies.table("regression", rows=12), target="price", search={**FAST, "batch_size": 64}, folds="loo"
    )
    assert len(study.folds) == 12
    assert study.predictions.filter(trial=1)["row"].sort().to_list() == list(range(12))


@pytest.mark.parametrize(
    ("error", "asked", "said"),
    [
        (PlanError, {"folds": 60}, "60 folds need at least 60 rows; there are 47."),
        (PlanError, {"folds": 1}, "`folds` must be at least 2; got 1."),
        (
            PlanError,
            {"folds": "five"},
            "`folds` must be a number, 'loo' or a scikit-learn splitter; got 'five'.",
        ),
        (
            PlanError,
            {"folds": 30},
            "these classes have fewer rows than the 30 folds: `no: 24 rows`, `yes: 23 rows`.",
        ),
        (PlanError, {"seeds": 0}, "`seeds` must be at least 1; got 0."),
        (PlanError, {"repeats": 0}, "`repeats` must be at least 1; got 0."),
        (PlanError, {"test": 1.2}, "`test` must be a share between 0 and 1; got 1.2."),
        (PlanError, {"seed": -1}, "the folds cannot be made"),
        (DataError, {"groups": "colour"}, "there is no column `colour`.\nhint: Did you mean `color`?"),
        (DataError, {"time": "age"}, "column `age` decides the folds and has 4 missing cells."),
        (SettingsError, {"metric": "rmse"}, "`rmse` is not a metric for this binary target."),
        (
            SettingsError,
            {"metric": "acuracy"},
            "there is no metric `acuracy`.\nhint: Did you mean `accuracy`?",
        ),
        (SettingsError, {"device": "quantum"}, "the device `quantum` cannot be used: "),
        (SettingsError, {"device": "cuda:99"}, "the device `cuda:99` cannot be used: "),
        (SettingsError, {"dtype": "float16"}, "there is no dtype `float16`.\nhint: float32 or float64"),
        (SettingsError, {"search": {"widht": [8]}}, "there is no setting `widht`"),
        (SettingsError, {"search": {"momentum": 0.9}}, "`momentum` has no effect with optimizer adamw"),
        (NetworkError, {"search": Grid(network="custom")}, "network `custom` needs a network of your own."),
    ],
)
def test_what_cannot_be_done_is_said(error: type[FoldwiseError], asked: dict[str, Any], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        fitted(**asked)


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    frame = pl.DataFrame({"x": np.arange(20.0), "kind": ["cat"] * 15 + ["dog"] * 3 + ["owl"] * 2})
    with pytest.raises(
        PlanError,
        match=re.escape("fewer rows than the 5 folds: `dog: 3 rows`, `owl: 2 rows`.\nhint: --folds 2"),
    ):
        foldwise.fit(frame, target="kind")


def test_the_default_search_runs_in_the_end() -> None:
    study = foldwise.fit(studies.table("regression"), target="price", folds=2)
    assert study.leaderboard.height >= 14
    assert {"constant", "linear", "mlp"} == {r.settings.network for r in study.results}


def test_single_precision_is_the_default() -> None:
    assert {m.parameters.dtype for m in fitted().models} == {torch.float32}
    assert {m.parameters.dtype for m in fitted(dtype="float64").models} == {torch.float64}


@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if "binary" in m.tasks])
def test_every_metric_of_classes(name: str) -> None:
    study = fitted(metric=name)
    scores = [r.score for r in study.results]
    assert scores == sorted(scores, reverse=METRICS[name].higher_is_better)
    assert study.metric_label in study.headline


# Networks of one's own


class Telling(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.summaries: list[PlanSummary] = []
        self.reports: list[Progress] = []
        self.studies: list[Study] = []

    def plan(self, summary: PlanSummary) -> None:
        self.summaries.append(summary)

    def progress(self, now: Progress) -> None:
        self.reports.append(now)

    def finished(self, study: Study) -> None:
        self.studies.append(study)


@pytest.mark.parametrize("name", ["Residual", "Normalized", "Branching", "reusing"])
def test_networks_of_ones_own(name: str) -> None:
    network, display = zoo.NETWORKS[name], Telling()
    takes = {"width": [4, 5], **({"dropout": [0.0, 0.4]} if network.drops else {})}
    study = fitted(
        net=network.net,
        search={**takes, "epochs": 2, "learning_rate": [0.01, 0.02], "batch_size": 16},
        display=display,
    )
    own = [r for r in study.results if r.settings.network == "custom"]
    assert len(own) == 4 * (2 if network.drops else 1)
    (summary,) = display.summaries
    assert study.plan_summary == summary
    said = "cannot be stacked" if network.way == "one by one" else "no chain of known layers"
    assert [said in note for note in summary.notes] == ([] if network.way == "chain" else [True])
    assert ("one by one" in summary.engine) == (network.way == "one by one")
    assert display.studies == [study]
    number = own[-1].number
    assert study.predict(studies.table("binary"), number).height == 47
    assert study.replay(number, 2, data=studies.table("binary")).matches


def test_a_dropout_that_is_searched_has_an_effect() -> None:
    study = fitted(
        net=zoo.Normalized, search={"width": 4, "dropout": [0.0, 0.5], "epochs": 2, "batch_size": 16}
    )
    own = sorted(r.number for r in study.results if r.settings.network == "custom")
    curves = [study.history.filter(trial=number)["training_loss"] for number in own]
    assert not curves[0].equals(curves[1])


def returns_nothing(inputs: int, outputs: int) -> None:
    """Forget to return the network."""


class TooMany(nn.Linear):
    """Gives one output more than is needed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs + 1)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (returns_nothing, "the network `returns_nothing` gave a NoneType, not a torch.nn.Module."),
        (TooMany, "the network `TooMany` gives (8, 2) for a batch of shape (8, 7); (8, 1) is needed."),
        (
            nn.Linear(7, 1),
            "`net` must be a class or function that makes a network; got an instance of Linear.",
        ),
        (nn.Linear, "the network `Linear` could not be built"),
    ],
)
def test_networks_that_do_not_fit_are_refused(net: Any, said: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(said)):
        fitted(net=net, search={"epochs": 1})


# Ctrl-C


class Impatient(Telling):
    """Presses Ctrl-C in the second epoch."""

    def progress(self, now: Progress) -> None:
        super().progress(now)
        if now.epoch == 2 and self.reports[-2].epoch < 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_fit_is_kept(tmp_path: Path) -> None:
    display = Impatient()
    study = fitted(search={**FAST, "epochs": 9}, display=display, out=tmp_path / "run")
    assert study.interrupted
    assert any("interrupted" in w for w in study.warnings)
    again = foldwise.load(tmp_path / "run")
    assert again.interrupted
    assert again.history["epoch"].max() == 2
    assert {r.status for r in again.results} == {"finished", "stopped at epoch 2"}
    assert again.predict(studies.table("binary")).equals(study.predict(studies.table("binary")))
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


# A run that cannot be written


def test_a_folder_that_fails_while_training_loses_nothing(tmp_path: Path) -> None:
    class Removing(Telling):
        """Puts a file where the folder was."""

        def progress(self, now: Progress) -> None:
            if (tmp_path / "run").is_dir():
                shutil.rmtree(tmp_path / "run")
                (tmp_path / "run").write_text("taken")

    study = fitted(display=Removing(), out=tmp_path / "run")
    assert study.folder is not None
    assert study.folder != tmp_path / "run"
    assert any("could not be written" in w and str(study.folder) in w for w in study.warnings)
    assert foldwise.load(study.folder).headline == study.headline


def test_a_study_in_no_folder_has_no_page_by_itself(tmp_path: Path) -> None:
    study = studies.study(studies.job(studies.table("binary"), "binary"))
    with pytest.raises(FoldwiseError, match="this study is in no folder"):
        study.report()
    assert study.report(tmp_path / "new" / "page.html").stat().st_size > 10_000


def test_dropout_is_off_in_prediction() -> None:
    module = zoo.Normalized(3, 2, 4)
    key_dropouts(module)
    x = torch.randn(5, 3)
    assert torch.equal(module.eval()(x), module.eval()(x))


def test_the_table_of_settings_has_a_column_for_what_differs() -> None:
    search = [
        {"network": "linear", "learning_rate": [0.01, 0.03], "epochs": 1},
        {"network": "mlp", "width": 4, "hidden1.l2": [0, 0.1], "epochs": 1},
    ]
    study = foldwise.fit(example="iris", search=search, folds=2)
    table = study.settings.sort("trial")
    assert table.columns[:2] == ["trial", "score"]
    assert {"network", "learning_rate", "hidden1.l2"} <= {*table.columns}
    assert not {"batch_size", "width"} & {*table.columns}  # the same wherever they have an effect
    assert table["hidden1.l2"].to_list()[-2:] == [0.0, 0.1]
    assert table["learning_rate"].to_list()[0] is None
