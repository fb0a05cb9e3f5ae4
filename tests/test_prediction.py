"""Predictions: intervals and sets by hand, for every task, after loading, and what they cover."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import foldwise
import studies
from foldwise.data.folds import Folds
from foldwise.errors import FoldwiseError
from foldwise.judge import conformal
from foldwise.judge.heldout import Judges
from foldwise.judge.metrics import natural, probabilities
from foldwise.outcome import member_outputs
from foldwise.prediction import Own, numbered, read_new, sureness
from foldwise.study import Study

NEW = 9


def made(task: str, **asked: Any) -> Study:
    asked = {"folds": 3, "seeds": 2, **asked}
    trials = [{"epochs": 3}, {"network": "constant", "epochs": 0}]
    return studies.study(studies.job(studies.table(task), task, trials, **asked))


def new_rows(task: str, rows: int = NEW) -> pl.DataFrame:
    return studies.table(task, rows=rows, seed=5)


def split_of(study: Study, trial: int) -> dict[int, list[torch.Tensor]]:
    """Give the outputs of each fold's members, and of no other code than `member_outputs`."""
    models = next(m for m in study.models if m.of_trial(trial - 1))
    return {
        fold: [i for i, p in enumerate(models.of_trial(trial - 1)) if models.members[p].fold == fold]
        for fold in range(len(study.folds))
    }


def repeated() -> Folds:
    """Three folds, twice: each row is left out by two of six."""
    from foldwise.data.folds import make_folds

    return make_folds(47, 3, repeats=2)


# By hand


@pytest.mark.parametrize("folds", [3, repeated()], ids=["k folds", "repeated"])
@pytest.mark.parametrize("task", ["regression", "log regression", "two numbers"])
def test_intervals_of_numbers_by_hand(task: str, folds: Any) -> None:
    study, new, level = made(task, folds=folds), new_rows(task), 0.8
    shown = study.predict(new, 1, interval=level)
    outputs = member_outputs(study, new, 1).double().numpy()
    of_fold = {fold: outputs[own].mean(axis=0) for fold, own in split_of(study, 1).items()}
    log = study.task.log
    lines = study.predictions.filter(pl.col("trial") == 1)
    names = [name for name in lines.columns if name.startswith("prediction")]
    for t, target in enumerate(study.task.targets):
        lows, highs = [], []
        for place in range(47):
            own = lines.filter(pl.col("row") == place)[names[t]].to_numpy()
            said = np.mean(np.log(own) if log else own)  # every fold has as many seeds
            residual = abs(study.targets[place, t] - said)
            folds_out = np.flatnonzero(study.folds.validation[:, place])
            center = np.mean([of_fold[f][:, t] for f in folds_out], axis=0)
            lows.append(center - residual)
            highs.append(center + residual)
        upper = math.ceil(level * 48)
        low, high = np.sort(lows, axis=0)[48 - upper - 1], np.sort(highs, axis=0)[upper - 1]
        end = "" if len(study.task.targets) == 1 else f" of {target}"
        np.testing.assert_allclose(shown[f"low{end}"], np.exp(low) if log else low, rtol=1e-9)
        np.testing.assert_allclose(shown[f"high{end}"], np.exp(high) if log else high, rtol=1e-9)
        assert (shown[f"low{end}"] < shown[f"high{end}"]).all()


def test_one_hold_out_is_split_conformal() -> None:
    study, new = made("regression", holdout=0.4, folds=5), new_rows("regression")
    shown = study.predict(new, 1, interval=0.75)
    lines = study.predictions.filter(pl.col("trial") == 1).group_by("row").mean().sort("row")
    residuals = np.sort(np.abs(study.targets[lines["row"], 0] - lines["prediction"].to_numpy()))
    half = residuals[math.ceil(0.75 * (len(residuals) + 1)) - 1]
    np.testing.assert_allclose(shown["low"], shown["prediction"] - half, rtol=1e-9)
    np.testing.assert_allclose(shown["high"], shown["prediction"] + half, rtol=1e-9)


@pytest.mark.parametrize("folds", [3, repeated()], ids=["k folds", "repeated"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_sets_by_hand(task: str, folds: Any) -> None:
    study, new, level = made(task, folds=folds), new_rows(task), 0.6
    shown = study.predict(new, 1, interval=level)
    outputs = probabilities(member_outputs(study, new, 1).double(), study.task).numpy()
    of_fold = {fold: outputs[own].mean(axis=0) for fold, own in split_of(study, 1).items()}
    lines = study.predictions.filter(pl.col("trial") == 1)
    names = [name for name in lines.columns if name.startswith("probability")]
    classes = study.task.classes[0]
    for n in range(NEW):
        expected = []
        for c, label in enumerate(classes):
            below = 0  # rows whose score 1 − p is below that of this class
            for place in range(47):
                own = lines.filter(pl.col("row") == place)[names[study.targets[place]]].mean()
                out = np.flatnonzero(study.folds.validation[:, place])
                below += own > np.mean([of_fold[f][n, c] for f in out])
            if below < level * 48 or label == shown["prediction"][n]:
                expected.append(label)
        assert shown["set"][n].to_list() == expected


def test_sets_of_labels_are_those_of_each_label() -> None:
    study, new = made("multilabel"), new_rows("multilabel")
    shown = study.predict(new, 1, interval=0.9)
    for target in ("red", "round"):
        for value, chosen in zip(shown[f"prediction of {target}"], shown[f"set of {target}"], strict=True):
            assert value in chosen.to_list()
            assert set(chosen.to_list()) <= {0, 1}


# What always holds


@pytest.mark.parametrize("task", ["regression", "log regression", "binary", "multiclass", "multilabel"])
def test_a_higher_level_holds_more(task: str) -> None:
    study, new = made(task), new_rows(task, 30)
    shown = [study.predict(new, 1, interval=level) for level in (0.5, 0.9)]
    for name in [n for n in shown[0].columns if n.startswith("low")]:
        assert (shown[0][name] >= shown[1][name]).all()
    for name in [n for n in shown[0].columns if n.startswith("high")]:
        assert (shown[0][name] <= shown[1][name]).all()
    for name in [n for n in shown[0].columns if n.startswith("set")]:
        pairs = zip(shown[0][name].to_list(), shown[1][name].to_list(), strict=True)
        assert all(set(a) <= set(b) for a, b in pairs)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass", "multilabel", "soft"])
def test_the_spread_is_that_between_members(task: str) -> None:
    study, new = made(task), new_rows(task)
    shown = study.predict(new, 1)
    outputs = member_outputs(study, new, 1).double()
    if task == "regression":
        expected = natural(outputs, study.task).std(0).numpy()[:, 0]
    else:
        spread = probabilities(outputs, study.task).std(0).numpy()
        if task == "multilabel":
            np.testing.assert_allclose(shown.select("spread of red", "spread of round"), spread, rtol=1e-9)
            return
        best = [study.task.classes[0].index(label) for label in shown["prediction"]]
        expected = spread[np.arange(NEW), best]
    np.testing.assert_allclose(shown["spread"], expected, rtol=1e-9)


@pytest.mark.parametrize("task", [*studies.TASKS])
def test_a_loaded_study_predicts_the_same(task: str, tmp_path: Path) -> None:
    study, new = made(task), new_rows(task)
    again = foldwise.load(study.save(tmp_path / "run"))
    interval = None if task == "soft" else 0.9
    for trial in (None, 2):
        assert again.predict(new, trial, interval=interval).equals(
            study.predict(new, trial, interval=interval)
        )
    assert again.calibration == study.calibration


def test_rows_that_no_fold_validated_do_not_count() -> None:
    study = made("regression", holdout=0.4, folds=5)
    assert len(Own(study, 1).judges.places) == int(study.folds.validation.sum()) < 47


# What it covers


def test_intervals_cover_numbers() -> None:
    random = np.random.default_rng(0)
    found = []
    for seed in range(6):
        X = random.normal(size=(300, 3))
        y = X[:, 0] + random.normal(size=300) * (0.5 + np.abs(X[:, 1]))
        study = foldwise.fit(
            X[:100], y[:100], search={"network": "linear", "epochs": 5}, seed=seed, log_target=False
        )
        shown = study.predict(X[100:], interval=0.8)
        found.append(((shown["low"].to_numpy() <= y[100:]) & (y[100:] <= shown["high"].to_numpy())).mean())
    assert 0.74 < np.mean(found) < 0.88


# What is refused or warned of


@pytest.mark.parametrize(
    ("task", "asked", "said"),
    [
        ("regression", {"interval": 1.0}, "`interval` is a share between 0 and 1; got 1."),
        ("regression", {"interval": 90}, "`interval` is a share between 0 and 1; got 90."),
        ("binary", {"interval": 0.99}, "an interval of 0.99 needs 99 rows that were validated; this study has 47."),
        ("soft", {"interval": 0.9}, "prediction sets hold classes, and the targets of this study are probabilities."),
        ("regression", {"calibrated": False}, "`calibrated=False` has no effect: numbers have no probabilities."),
        ("binary", {"interval": 0.9, "trial": 7}, "there is no trial 7."),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(task: str, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(FoldwiseError) as error:
        made(task).predict(new_rows(task), **asked)
    assert error.value.problem == said
    assert error.value.hint


def test_the_level_of_the_hint_is_possible() -> None:
    study = made("regression")
    with pytest.raises(FoldwiseError, match=r"interval=0\.97"):
        study.predict(new_rows("regression"), interval=0.99)
    study.predict(new_rows("regression"), interval=0.97)


def test_folds_in_time_are_warned_of() -> None:
    frame = studies.table("regression").with_columns(day=pl.Series(range(47)))
    study = foldwise.fit(frame, target="price", time="day", folds=3, search={"width": 4, "epochs": 1})
    with pytest.warns(UserWarning, match="the folds of this study are in time"):
        study.predict(frame, interval=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.predict(frame)


def test_runs_from_before_targets_were_kept_predict_without() -> None:
    study, new = made("binary"), new_rows("binary")
    study.targets, study.calibration = None, None
    assert study.predict(new).equals(study.predict(new, calibrated=False))
    with pytest.raises(FoldwiseError, match="before targets were kept"):
        study.predict(new, interval=0.9)


@pytest.mark.parametrize("suffix", ["", ".csv", ".parquet"])
def test_the_command_line_writes_intervals_and_sets(tmp_path: Path, suffix: str) -> None:
    study = made("multiclass")
    folder = study.save(tmp_path / "run")
    new_rows("multiclass").write_csv(tmp_path / "new.csv")
    out = tmp_path / f"out{suffix}"
    words = ["predict", str(folder), str(tmp_path / "new.csv"), "--interval", "0.8"]
    words += ["-o", str(out)] if suffix else []
    done = subprocess.run([sys.executable, "-m", "foldwise", *words], capture_output=True, check=True)
    expected = study.predict(new_rows("multiclass"), interval=0.8)["set"].to_list()
    if suffix == ".parquet":
        assert pl.read_parquet(out)["set"].to_list() == expected
        return
    text = pl.read_csv(out if suffix else done.stdout)["set"].to_list()
    assert text == [" | ".join(chosen) for chosen in expected]


# What a study keeps of it


def test_what_is_believed_is_kept(tmp_path: Path) -> None:
    study = made("multiclass")
    assert study.variance is not None
    assert (study.variance.trials, study.variance.folds, study.variance.seeds) == (1, 3, 2)
    assert study.luck is not None
    assert study.luck.looks == 3 + 1  # three epochs of the one, and the constant
    again = foldwise.load(study.save(tmp_path / "run"))
    assert (again.variance, again.luck, again.sureness) == (study.variance, study.luck, study.sureness)
    assert again.results == study.results


def test_the_variance_is_that_of_the_members_losses() -> None:
    """With one trial, fold and seed are one-way: by hand from the history."""
    study = made("regression")
    kept = study.history.filter((pl.col("trial") == 1) & (pl.col("epoch") == study.results[0].epoch))
    if study.results[0].number != 1:
        kept = study.history.filter((pl.col("trial") == 1) & (pl.col("epoch") == study.results[1].epoch))
    losses = kept.sort("seed", "fold")["score"].to_numpy().reshape(2, 3) ** 2
    assert study.variance is not None
    assert study.variance.seed == pytest.approx(losses.var(axis=0, ddof=1).mean(), rel=1e-6)


def test_sets_on_the_page_are_those_of_held_out_rows() -> None:
    study = made("multiclass")
    assert study.sureness is not None
    assert sum(study.sureness.counts) == 47
    distances = made("regression").sureness
    assert distances is not None
    within = sum(distances.counts[:10])
    assert within >= 0.9 * 47 - 1


# What is said of many rows, and of rows that are not alike


@pytest.mark.parametrize("task", ["log regression", "two numbers", "multiclass", "multilabel"])
def test_many_new_rows_are_taken_part_by_part(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, new = made(task, folds=repeated()), new_rows(task, 25)
    whole = study.predict(new, 1, interval=0.8)
    sizes = []
    over = Judges.over

    def counted(judges: Judges, by_fold: np.ndarray) -> np.ndarray:
        sizes.append(by_fold.shape[1])
        return over(judges, by_fold)

    monkeypatch.setattr(Judges, "over", counted)
    monkeypatch.setattr("foldwise.prediction.AT_ONCE", 10)
    parts = study.predict(new, 1, interval=0.8)
    assert {*sizes} == {10, 5}
    for name in whole.columns:
        if whole[name].dtype.is_float():
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)
        else:
            assert parts[name].equals(whole[name])


@pytest.mark.parametrize("asked", [{"folds": 3}, {"holdout": 0.4, "folds": 5}], ids=["k folds", "hold-out"])
def test_grouped_folds_are_warned_of(asked: dict[str, Any]) -> None:
    frame = studies.table("regression").with_columns(farm=pl.Series(np.arange(47) // 4))
    study = foldwise.fit(frame, target="price", groups="farm", search={"width": 4, "epochs": 1}, **asked)
    with pytest.warns(UserWarning, match="the folds of this study are grouped"):
        study.predict(frame, interval=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.predict(frame)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_row_of_weight_two_bounds_like_two_rows(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat what intervals and sets are made from, row by row, and compare."""
    study, new = made(task, folds=3), new_rows(task, 25)
    times = np.random.default_rng(3).integers(1, 4, 47)
    study.weights = times.astype(float)
    level = 0.8 if task == "regression" else 0.4
    weighted, page = study.predict(new, interval=level), sureness(study)
    assert page is not None
    study.weights = np.ones(47)
    plain = study.predict(new, interval=level)
    name = {"regression": "intervals", "multiclass": "prediction_sets"}[task]
    at_once, seen = getattr(conformal, name), list[Any]()

    def repeated(said: Any, each: Any, which: Any, *more: Any) -> Any:
        *rest, weights = more
        assert weights is None
        seen.append(which)
        return at_once(said, each.repeat(times), which.repeat(times), *rest)

    monkeypatch.setattr(f"foldwise.prediction.{name}", repeated)
    assert study.predict(new, interval=level).equals(weighted)
    assert len(seen) == 1
    if task == "regression":
        assert not plain["low"].equals(weighted["low"])


def test_sureness_needs_as_many_rows_as_an_interval() -> None:
    """Nine rows are enough for 90 %; 0.9 / (1 − 0.9) is a little more than 9 in floating numbers."""
    study = made("binary")
    few = dataclasses.replace(
        study.folds, validation=study.folds.validation & (study.folds.validation.any(axis=0).cumsum() <= 9)
    )
    study.folds = few
    study.predictions = study.predictions.filter(pl.col("row") < 9)
    found = sureness(study, 0.9)
    assert found is not None
    assert sum(found.counts) == 9
    assert sureness(study, 0.91) is None


# Which row is which


def test_a_prediction_written_down_says_its_row_and_its_identifier() -> None:
    frame = studies.table("regression").with_columns(customer_id=pl.Series(range(900, 947)).shuffle(0))
    study = studies.study(studies.job(frame, "regression"))
    new = frame.sample(5, seed=1)
    predicted = study.predict(new)
    said = numbered(study, read_new(study, new), predicted)
    assert said.columns == ["row", "customer_id", "prediction", "spread"]
    assert said["row"].to_list() == [0, 1, 2, 3, 4]
    assert said["customer_id"].to_list() == new["customer_id"].to_list()
    assert said.drop("row", "customer_id").equals(predicted)
    without = new.drop("customer_id")
    assert numbered(study, without, predicted).columns == ["row", "prediction", "spread"]


@pytest.mark.parametrize("name", ["row", "prediction"])
def test_an_identifier_hides_no_column_of_the_predictions(name: str) -> None:
    frame = studies.table("regression").with_columns(pl.Series(range(47)).alias(name))
    study = studies.study(studies.job(frame, "regression"))
    assert next(c for c in study.columns.columns if c.name == name).kind == "identifier"
    predicted = study.predict(frame.head(3))
    assert numbered(study, frame.head(3), predicted).columns == ["row", "prediction", "spread"]
