"""Weights in a whole study: 1 is no weight, 0 an absent row, 2 a row twice, in training and in every score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn import metrics as sk

import foldwise
import studies
from foldwise import cli
from foldwise.data.folds import Folds, make_folds
from foldwise.data.prepare import learn_preparation
from foldwise.data.weights import Weighting
from foldwise.engine.rows import Rows, padded_validation, place_rows
from foldwise.errors import StoreError
from foldwise.study import Study

# In full batches: one step per epoch, whose gradient no order of rows changes.
FULL: dict[str, Any] = {"optimizer": "sgd", "batch_size": 1000, "epochs": 6, "learning_rate": 0.2}
TRIALS: list[dict[str, Any]] = [
    {**FULL, "network": "linear"},
    {**FULL, "network": "linear", "scaling": "standard", "weight_decay": 0.1},
    {"network": "constant", "epochs": 0},
]
TASKS = ["regression", "log regression", "two numbers", "binary", "multiclass", "multilabel", "soft"]
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.integers(1, 4, 47)


def table(task: str) -> pl.DataFrame:
    """Draw a table of numbers with a column that gives the folds; the levels of a category are told by counts."""
    fold = pl.Series("fold", np.arange(47) % 3)
    return studies.table(task).drop("color", "old").with_columns(fold)


def made(frame: pl.DataFrame, task: str, trials: list[dict[str, Any]] = TRIALS, **asked: Any) -> Study:
    job = studies.job(frame, task, trials, fold_column="fold", **asked)
    return studies.study(job)


def predictions(study: Study, rows: np.ndarray | None = None) -> np.ndarray:
    """Lay out all predictions by member, with some rows alone."""
    frame = study.predictions.sort("trial", "seed", "fold", "row")
    if rows is not None:
        frame = frame.filter(pl.col("row").is_in(rows.tolist()))
    return frame.drop("trial", "seed", "fold", "row").to_numpy()


def same_bits(one: Study, other: Study) -> None:
    """Compare what was learned and what is said of it."""
    for mine, theirs in zip(one.models, other.models, strict=True):
        assert torch.equal(mine.parameters, theirs.parameters)
    assert one.history.equals(other.history)
    assert one.results == other.results
    np.testing.assert_array_equal(predictions(one), predictions(other))
    assert one.headline == other.headline


# Weight 2


@pytest.mark.parametrize("task", TASKS)
def test_a_weight_of_2_is_a_row_twice(task: str) -> None:
    frame = table(task)
    twice = np.repeat(np.arange(47), WEIGHTS)
    first = np.flatnonzero(np.diff(twice, prepend=-1))
    weighted = made(frame, task, weights=WEIGHTS)
    repeated = made(frame[twice], task)
    assert (weighted.folds.validation[:, twice] == repeated.folds.validation).all()
    np.testing.assert_allclose(predictions(weighted), predictions(repeated, first), rtol=1e-8, atol=1e-8)
    for one, other in zip(weighted.results, repeated.results, strict=True):
        assert (one.number, one.epoch) == (other.number, other.epoch)
        assert one.score == pytest.approx(other.score, rel=1e-8)
        assert one.fold_scores == pytest.approx(other.fold_scores, rel=1e-8)
    for name in ("training_loss", "validation_loss", "score"):
        one, other = (s.history.sort("trial", "fold", "epoch")[name].to_numpy() for s in (weighted, repeated))
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.mark.parametrize("task", ["binary", "multiclass", "soft"])
def test_a_class_of_weight_2_is_there_twice(task: str) -> None:
    frame = table(task)
    if task == "soft":  # every row is of one class, though written as shares
        classes, labels = np.arange(47) // 2 % 3, ["p", "q", "r"]
        frame = frame.with_columns(**{name: pl.Series((classes == i) * 1.0) for i, name in enumerate(labels)})
    else:
        labels, classes = np.unique(frame[studies.TASKS[task][0]].to_numpy(), return_inverse=True)
    weights = np.arange(1, len(labels) + 1)
    twice = np.repeat(np.arange(47), weights[classes])
    weighted = made(frame, task, class_weights=dict(zip(labels, weights.tolist(), strict=True)))
    repeated = made(frame[twice], task)
    first = np.flatnonzero(np.diff(twice, prepend=-1))
    # the constants of a fold know nothing of classes, and repeated rows do: so the network without inputs alone
    constant = [s.predictions.filter(trial=3).sort("row") for s in (weighted, repeated)]
    one, other = (c.drop("trial", "seed", "fold") for c in constant)
    other = other.filter(pl.col("row").is_in(first.tolist()))
    np.testing.assert_allclose(one.drop("row").to_numpy(), other.drop("row").to_numpy(), rtol=1e-8)
    by_number = [next(r for r in s.results if r.number == 3) for s in (weighted, repeated)]
    assert by_number[0].score == pytest.approx(by_number[1].score, rel=1e-8)


def test_weights_of_rows_and_classes_multiply() -> None:
    frame = table("binary")
    by_class = np.where(frame["ill"].to_numpy() == "yes", 2.5, 0.5)
    trials = TRIALS[2:]
    both = made(frame, "binary", trials, weights=WEIGHTS, class_weights={"yes": 2.5, "no": 0.5})
    product = made(frame, "binary", trials, weights=WEIGHTS * by_class)
    np.testing.assert_allclose(predictions(both), predictions(product), rtol=1e-12)
    assert both.results[0].score == pytest.approx(product.results[0].score, rel=1e-12)


# Weight 0, and weights that are all alike

SMALL = [{}, {"network": "linear", "scaling": "standard"}, {"network": "constant", "epochs": 0}]


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_row_of_weight_0_is_absent(task: str) -> None:
    frame = studies.table(task).with_columns(w=pl.Series(WEIGHTS * (np.arange(47) % 5 > 0)))
    present = np.flatnonzero(frame["w"].to_numpy())
    asked: dict[str, Any] = {"weights": "w", "test": 0.2}
    one = studies.study(studies.job(frame, task, SMALL, **asked))
    other = studies.study(studies.job(frame[present], task, SMALL, **asked))
    same_bits(one, other)
    assert one.row.tolist() == present[other.row].tolist()
    assert vars(one.open_test()) | {"when": ""} == vars(other.open_test()) | {"when": ""}
    assert one.plan_summary.notes == (
        "Rows are weighted by `w`, in training and in every score; 10 rows of weight 0 left out.",
    )
    assert "10 rows of weight 0 left out" in one.headline_result.how


@pytest.mark.parametrize("task", ["two numbers", "soft"])
@pytest.mark.parametrize("weight", [1, 0.1, 3])
def test_weights_that_are_all_alike_change_not_one_bit(task: str, weight: float) -> None:
    plain = studies.study(studies.job(studies.table(task), task, SMALL, test=0.2))
    job = studies.job(studies.table(task), task, SMALL, test=0.2, weights=np.full(47, weight))
    weighted = studies.study(job)
    assert job.rows_for(job.plan.trials[0].loss).weights is None
    same_bits(plain, weighted)
    assert vars(plain.open_test()) | {"when": ""} == vars(weighted.open_test()) | {"when": ""}


# Scores


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("holdout", [None, 0.5])
def test_accuracy_of_balanced_classes_is_balanced_accuracy(
    weights: str | None, holdout: float | None
) -> None:
    frame = studies.table("multiclass").with_columns(w=pl.Series(WEIGHTS + 0.5))
    job = studies.job(
        frame, "multiclass", SMALL, weights=weights, class_weights="balanced", test=0.3, holdout=holdout
    )
    study = studies.study(job)
    classes = np.array(study.task.classes[0])
    for result in study.results:
        mine = study.predictions.filter(trial=result.number).sort("row")
        rows = mine["row"].to_numpy()
        given = classes[mine.select(pl.selectors.starts_with("probability")).to_numpy().argmax(1)]
        own = None if weights is None else frame["w"].to_numpy()[rows]
        expected = sk.balanced_accuracy_score(frame["kind"].to_numpy()[rows], given, sample_weight=own)
        assert result.score == pytest.approx(expected, rel=1e-12)
    assert study.sealed is not None
    given = study.predict(study.sealed)["prediction"].to_numpy()
    own = None if weights is None else study.sealed["w"].to_numpy()
    expected = sk.balanced_accuracy_score(study.sealed["kind"].to_numpy(), given, sample_weight=own)
    assert study.open_test().score == pytest.approx(expected, rel=1e-12)


def test_the_score_of_each_epoch_and_fold_is_weighted() -> None:
    frame = studies.table("regression").with_columns(w=pl.Series(WEIGHTS))
    study = studies.study(studies.job(frame, "regression", SMALL[:2], weights="w"))
    truth = frame["price"].to_numpy()
    for result in study.results:
        mine = study.predictions.filter(trial=result.number).sort("row")
        error = (mine["prediction"].to_numpy() - truth) ** 2
        assert result.score == pytest.approx(np.sqrt(np.average(error, weights=WEIGHTS)), rel=1e-12)
        kept = study.history.filter(trial=result.number, epoch=result.epoch).sort("fold")["score"]
        for fold, own in enumerate(study.folds.validation_rows):
            expected = np.sqrt(np.average(error[own], weights=WEIGHTS[own]))
            assert result.fold_scores[fold] == pytest.approx(expected, rel=1e-12)
            assert kept[fold] == pytest.approx(expected, rel=1e-12)
    assert "Rows are weighted by `w`, in training and in every score." in study.headline_result.how


@pytest.mark.parametrize("beside", [False, True])
def test_the_opened_test_is_weighted(beside: bool) -> None:
    weights = np.linspace(0.1, 5, 47)
    frame = studies.table("regression").with_columns(w=weights)
    study = studies.study(
        studies.job(frame, "regression", SMALL[:1], test=0.3, weights=weights if beside else "w")
    )
    assert study.sealed is not None
    own = study.sealed["w"].to_numpy()
    error = (study.predict(study.sealed)["prediction"].to_numpy() - study.sealed["price"].to_numpy()) ** 2
    opening = study.open_test()
    assert opening.score == pytest.approx(np.sqrt(np.average(error, weights=own)), rel=1e-9)
    assert opening.low < opening.score < opening.high


def test_the_weight_column_is_not_needed_to_predict() -> None:
    frame = studies.table("binary").with_columns(w=pl.Series(WEIGHTS))
    study = studies.study(studies.job(frame, "binary", SMALL[:1], weights="w"))
    assert study.predict(frame.drop("w")).equals(study.predict(frame))


# Rows on the device


def placed(weights: np.ndarray | None, folds: Folds) -> Rows:
    features = np.zeros((4, 1))
    preparation = learn_preparation(features, folds.train, np.ones(1, bool), "standard")
    return place_rows(
        features, np.zeros(4, int), folds, {"standard": preparation}, None,
        device=torch.device("cpu"), dtype=torch.float32, weights=weights,
    )  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_weights_are_1_in_the_mean_over_the_training_rows(shared: bool) -> None:
    folds = make_folds(4, numbers=np.array([0, 0, 1, 1]))
    own = np.array([1.0, 3.0, 10.0, 30.0])
    weights = np.broadcast_to(own, (2, 4)) if shared else np.stack([own, own * [1, 2, 1, 1]])
    rows = placed(weights, folds)
    index, of = torch.tensor([[2, 3], [0, 1], [1, 1]]), torch.tensor([0, 1, 1])
    light, heavy = (2 / 4, 6 / 4) if shared else (2 / 7, 12 / 7)
    expected = torch.tensor([[0.5, 1.5], [light, heavy], [heavy, heavy]])
    found = rows.weights_of(index, of)
    assert found is not None
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert placed(None, folds).weights_of(index, of) is None


def test_validation_rows_count_by_weight_and_once() -> None:
    validation = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]], dtype=bool)
    folds = Folds(~validation, validation, "overlapping")
    weights = torch.tensor([2.0, 6.0, 0.5], dtype=torch.float64)
    index, counted = padded_validation(folds, torch.device("cpu"), weights)
    assert index.tolist() == [[0, 1], [1, 1], [1, 2]]
    torch.testing.assert_close(counted, torch.tensor([[2, 2], [2, 0], [2, 0.5]], dtype=torch.float64))


# Runs


@pytest.fixture
def weighted() -> Study:
    frame = studies.table("binary").with_columns(w=pl.Series(WEIGHTS))
    job = studies.job(frame, "binary", SMALL, weights="w", class_weights={"yes": 2, "no": 1}, test=0.2)
    return studies.study(job)


def test_weights_come_back_from_the_run_folder(weighted: Study, tmp_path: Path) -> None:
    again = foldwise.load(weighted.save(tmp_path / "run"))
    assert again.weighting == weighted.weighting == Weighting("w", classes=(1, 2))
    assert weighted.sealed_weights is not None
    for name in ("weights", "sealed_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(weighted, name))
    first, second = again.open_test(), weighted.open_test()
    assert (first.score, first.low, first.high) == (second.score, second.low, second.high)


def test_runs_from_before_there_were_weights_have_none(tmp_path: Path) -> None:
    study = studies.study(studies.job(studies.table("binary"), "binary", SMALL, test=0.2))
    run = study.save(tmp_path / "run")
    described = json.loads((run / "study.json").read_text())
    del described["weighting"]
    (run / "study.json").write_text(json.dumps(described))
    assert not any("weights" in name for name in load_file(run / "state.safetensors"))
    again = foldwise.load(run)
    assert again.weighting == Weighting()
    assert again.weights.tolist() == [1] * len(study.row)
    assert again.open_test().score == study.open_test().score
    assert again.replay(1, 1, data=studies.table("binary")).matches


@pytest.mark.parametrize(
    "change",
    [
        lambda d, t: d["weighting"].update(classes=[1.0]),
        lambda d, t: d["weighting"].update(classes="even"),
        lambda d, t: d["weighting"].update(absent="many"),
        lambda d, t: t.pop("weights"),
        lambda d, t: t.pop("sealed.weights"),
        lambda d, t: t.update(weights=t["weights"][1:]),
        lambda d, t: t.update(weights=-t["weights"]),
        lambda d, t: t.update({"sealed.weights": t["weights"].clone()}),
        lambda d, t: t.update({"sealed.weights": t["sealed.weights"].float()}),
    ],
)
def test_weights_that_do_not_fit_are_damage(
    weighted: Study, tmp_path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
) -> None:
    run = weighted.save(tmp_path / "run")
    described, tensors = json.loads((run / "study.json").read_text()), load_file(run / "state.safetensors")
    change(described, tensors)
    (run / "study.json").write_text(json.dumps(described))
    save_file({name: t.contiguous() for name, t in tensors.items()}, run / "state.safetensors")
    with pytest.raises(StoreError, match="is damaged"):
        foldwise.load(run)


@pytest.mark.parametrize("asked", [{"weights": WEIGHTS}, {"weights": "w", "class_weights": "balanced"}])
def test_a_replay_finds_the_weights_again(asked: dict[str, Any], tmp_path: Path) -> None:
    frame = studies.table("binary").with_columns(w=pl.Series(WEIGHTS * (np.arange(47) % 5 > 0)))
    study = studies.study(studies.job(frame, "binary", SMALL, test=0.2, **asked))
    again = foldwise.load(study.save(tmp_path / "run"))
    for trial, fold in ((1, 1), (2, 3), (3, 2)):
        replay = again.replay(trial, fold, data=frame)
        assert replay.matches, replay.table()
        assert replay.largest < 1e-6


# The command line and fit


def run_line(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    frame = studies.table("binary").with_columns(w=pl.Series(WEIGHTS - 1))
    frame.write_csv(tmp_path / "visits.csv")
    search = {"network": "linear", "epochs": 1}
    (tmp_path / "search.json").write_text(json.dumps(search), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "classes"),
    [
        (["--class-weights", "balanced"], "balanced"),
        (["--class-weights", "yes=5", "--class-weights", "no=1"], (1.0, 5.0)),
        ([], None),
    ],
)
def test_weights_on_the_command_line(
    files: Path, capsys: pytest.CaptureFixture[str], typed: list[str], classes: Any
) -> None:
    code = run_line(
        "fit", files / "visits.csv", "--target", "ill", "--folds", "2", "--search", files / "search.json",
        "--weights", "w", *typed, "--out", files / "run",
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code in (0, 1), said
    absent = int((WEIGHTS == 1).sum())
    assert f"{absent} rows of weight 0 left out" in " ".join(said.split())
    study = foldwise.load(files / "run")
    assert study.weighting == Weighting("w", classes=classes, absent=absent)
    assert "ill: accuracy" in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--class-weights", "yes"], "`--class-weights` takes balanced or CLASS=WEIGHT; got `yes`."),
        (
            ["--class-weights", "yes=many"],
            "`--class-weights` takes balanced or CLASS=WEIGHT; got `yes=many`.",
        ),
        (
            ["--class-weights", "yes=1", "--class-weights", "yes=2"],
            "class `yes` is given two weights: 1 and 2.",
        ),
        (["--class-weights", "yes=1", "--class-weights", "maybe=2"], "names an unknown class, `maybe`"),
        (["--class-weights", "balanced", "--class-weights", "yes=2"], "CLASS=WEIGHT; got `balanced`."),
        (["--weights", "weight"], "there is no column `weight`"),
        (["--weights", "color"], "the weight column `color` holds no numbers"),
        (["--weights", "size"], "the weight column `size` is negative in rows"),
        (["--weights", "ill"], "the weight column `ill` holds no numbers"),
    ],
)
def test_weights_that_cannot_be_had_are_told(
    files: Path, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    code = run_line("fit", files / "visits.csv", "--target", "ill", *typed, "--out", files / "run")
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (files / "run").exists()


def test_fit_takes_weights_beside_arrays() -> None:
    random = np.random.default_rng(0)
    x, y, w = random.normal(size=(40, 2)), random.integers(0, 2, 40), random.integers(0, 3, 40)
    search = {"network": "linear", "epochs": 1}
    study = foldwise.fit(x, y, weights=w, class_weights="balanced", folds=2, search=search)
    assert study.weighting == Weighting(given=True, classes="balanced", absent=int((w == 0).sum()))
    assert study.row.tolist() == np.flatnonzero(w).tolist()
    assert study.weights.tolist() == w[w > 0].tolist()
    assert "Rows are weighted as given and classes are balanced" in repr(study)


def test_weights_on_a_small_scale_leave_the_constant_as_it_is() -> None:
    frame = studies.table("binary", rows=60)
    weights = np.random.default_rng(0).uniform(0.5, 2, 60)
    scores = []
    for scale in (1.0, 1e-5):
        study = foldwise.fit(
            frame, target="ill", weights=weights * scale, metric="log_loss", folds=3,
            search={"width": 4, "epochs": 1},
        )  # fmt: skip
        scores.append(next(r.score for r in study.results if r.settings.network == "constant"))
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
