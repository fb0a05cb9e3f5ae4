"""Every way to validate, from Python and from the command line: which rows are scored, and how they are averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn import model_selection

import foldwise
import studies
from foldwise import cli
from foldwise.errors import PlanError
from foldwise.study import Study

SEARCH = {"network": "mlp", "width": [3, 5], "depth": 1, "epochs": 2}
SPLITTER = (
    "from sklearn.model_selection import KFold\nMINE = KFold(4, shuffle=True, random_state=3)\nKIND = KFold\n"
)
ROWS = 47

WAYS: dict[str, tuple[list[str], dict[str, Any], int, int | None]] = {
    # what is typed, what is given to fit, how many folds, how often each row is scored (None: not all alike)
    "k-fold": (["--folds", "4"], {"folds": 4}, 4, 1),
    "repeated": (["--folds", "3", "--repeats", "3"], {"folds": 3, "repeats": 3}, 9, 3),
    "hold-out": (["--holdout", "0.3"], {"holdout": 0.3}, 1, None),
    "repeated hold-out": (["--holdout", "0.3", "--repeats", "4"], {"holdout": 0.3, "repeats": 4}, 4, None),
    "grouped": (["--groups", "patient", "--folds", "3"], {"groups": "patient", "folds": 3}, 3, 1),
    "in time": (["--time", "day", "--folds", "3"], {"time": "day", "folds": 3}, 3, None),
    "leave-one-out": (["--folds", "loo"], {"folds": "loo"}, ROWS, 1),
    "a column": (["--fold-column", "part"], {"fold_column": "part"}, 3, 1),
    "a splitter": (
        ["--folds", "split.py:MINE"],
        {"folds": model_selection.KFold(4, shuffle=True, random_state=3)},
        4,
        1,
    ),
    "nested": (["--folds", "3", "--nested", "2"], {"folds": 3, "nested": 2}, 3, 1),
}


def frame(task: str = "binary") -> pl.DataFrame:
    rows = np.arange(ROWS)
    return studies.table(task).with_columns(
        patient=pl.Series([f"p{n // 3}" for n in rows]),
        day=pl.Series(rows * 7 % 47),
        part=pl.Series(np.repeat([0, 1, 2], [8, 12, 27])),
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    frame().write_csv(tmp_path / "table.csv")
    (tmp_path / "split.py").write_text(SPLITTER)
    (tmp_path / "search.json").write_text(str(SEARCH).replace("'", '"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments: str) -> Study:
    """Type a study, and load it."""
    with pytest.raises(SystemExit) as left:
        cli.main(
            ["fit", *arguments, "--target", "ill", "--search", "search.json", "--metric", "log_loss", "--out", "run",
             "--overwrite", "--quiet"]
        )  # fmt: skip
    assert left.value.code in (0, 1)
    return foldwise.load("run")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_validate_loses_no_row_and_is_the_same_when_typed(way: str, place: Path) -> None:
    arguments, asked, folds, times = WAYS[way]
    study = foldwise.fit("table.csv", target="ill", search=SEARCH, metric="log_loss", **asked)
    assert len(study.folds) == folds
    scored = study.folds.validation.sum(axis=0)
    if times is not None:
        assert (scored == times).all()
    assert not (study.folds.train & study.folds.validation).any()
    winner = study.predictions.filter(pl.col("trial") == study.results[0].number)
    counts = winner.group_by("row").len().sort("row")
    assert counts["row"].to_list() == np.flatnonzero(scored).tolist()
    assert counts["len"].to_list() == scored[scored > 0].tolist()
    np.testing.assert_allclose(study.results[0].score, mean_of_rows(winner), rtol=1e-6)
    by_command = typed("table.csv", *arguments)
    assert by_command.folds.same_as(study.folds)
    assert by_command.leaderboard.equals(study.leaderboard)
    assert by_command.headline == study.headline
    assert by_command.nested == study.nested


def mean_of_rows(predictions: pl.DataFrame) -> float:
    """Average the log-losses of a trial's predictions over repeats, then over rows."""
    truth = frame()["ill"].to_numpy()[predictions["row"].to_numpy()]
    right = np.where(truth == "yes", predictions["probability of yes"], predictions["probability of no"])
    own = predictions.select("row").with_columns(loss=pl.Series(-np.log(right)))
    return own.group_by("row").mean()["loss"].mean()  # type: ignore[return-value]


def test_unequal_folds_count_every_row_once(place: Path) -> None:
    study = foldwise.fit("table.csv", target="ill", search=SEARCH, metric="log_loss", fold_column="part")
    for result in study.results:
        own = np.average(result.fold_scores, weights=[8, 12, 27])
        np.testing.assert_allclose(result.score, own, rtol=1e-6)


def test_repeated_folds_are_compared_by_the_corrected_test() -> None:
    """A tie is one by Nadeau & Bengio's test over all 9 folds, with n₂/n₁ = 1/2 and 8 degrees of freedom."""
    search = {
        "network": "mlp",
        "depth": 1,
        "width": 4,
        "epochs": 6,
        "learning_rate": [0.3, 0.1, 0.03, 0.01, 0.003],
    }
    study = foldwise.fit(frame(), target="ill", search=search, metric="log_loss", folds=3, repeats=3)
    best, seen = study.results[0], set()
    for result in study.results[1:]:
        difference = np.array(best.fold_scores) - np.array(result.fold_scores)
        assert len(difference) == 9
        t = difference.mean() / np.sqrt((1 / 9 + 1 / 2) * difference.var(ddof=1))
        alike = 2 * stats.t.sf(abs(t), 8) > 0.05
        assert result.tied == (alike and result.low <= best.high)
        seen.add(result.tied)
    assert seen == {True, False}


@pytest.mark.parametrize("nested", ["--nested", "--nested=5"])
def test_nested_needs_no_number(nested: str, place: Path) -> None:
    study = typed(nested, "table.csv", "--folds", "2")
    assert study.nested is not None
    assert study.nested.inside == 10


def test_a_splitter_inside_a_splitter_is_typed_too(place: Path) -> None:
    study = typed("table.csv", "--folds", "split.py:MINE", "--nested", "split.py:MINE")
    assert study.nested is not None
    assert study.nested.inside == 16


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nested", "1"], "`nested` must be a number of folds, at least 2"),
        (["--nested=many"], "`--nested` takes a number of folds or FILE.py:NAME; got `many`."),
        (["--nested", "--halving", "2"], "`halving` cannot be combined with `nested`"),
        (
            ["--folds", "split.py:KIND"],
            "`folds` must be a number, 'loo' or a scikit-learn splitter; got <class",
        ),
        (["--folds", "split.py:THEIRS"], "THEIRS"),
    ],
)
def test_what_cannot_be_typed_is_explained(
    arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "table.csv", "--target", "ill", *arguments])
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "hint: " in shown


def test_an_opening_elsewhere_is_not_forgotten(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"target": "ill", "search": SEARCH, "folds": 2, "test": 0.2}
    study = foldwise.fit(frame(), out=tmp_path / "run", **asked)
    load: Callable[[], Study] = lambda: foldwise.load(tmp_path / "run")  # noqa: E731
    one, other = load(), load()
    assert study.open_test().times_opened == 1
    assert one.open_test().times_opened == 2
    assert other.open_test().times_opened == 3
    assert study.open_test().times_opened == 4
    assert [o["times_opened"] for o in load().openings] == [1, 2, 3, 4]


def test_a_kind_of_splitter_is_no_splitter() -> None:
    with pytest.raises(PlanError, match="must be a number, 'loo' or a scikit-learn splitter"):
        foldwise.fit(frame(), target="ill", folds=model_selection.KFold)
