"""`missing=` makes the study of a table whose cells were emptied beforehand, from fit to whatever is done with it."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.model_selection import cross_val_score

import foldwise
import studies
from foldwise import NetClassifier, NetRegressor, SearchCV, cli
from foldwise.arguments import read_missing
from foldwise.errors import DataError, SettingsError
from foldwise.study import Study
from foldwise.terminal import Display
from test_resume import SEARCH, Stopping, often, same

__all__ = ["often"]
CODES = ["unknown", {"age": -999, "size": ["-1", 77]}]
TYPED = ("--missing", "unknown", "--missing", "age=-999", "--missing", "size=-1", "--missing", "size=77.0")


def tables(task: str = "regression", rows: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Draw a table with empty cells, and the same table with codes in them."""
    random = np.random.default_rng(3)
    empty = studies.table(task, rows).with_columns(pl.col("size").round(3))
    for name in ("size", "color", "old"):
        empty = empty.with_columns(pl.when(pl.Series(random.random(rows) > 0.15)).then(name).alias(name))
    text = pl.col("old").cast(pl.String).fill_null("unknown")  # else true and false
    either = pl.Series(np.where(random.random(rows) < 0.5, -1.0, 77.0))
    coded = empty.with_columns(
        pl.col("color").fill_null("unknown"),
        text,
        pl.col("age").fill_null(-999),
        pl.col("size").fill_null(either),
    )
    assert not coded.null_count().pipe(sum).item()
    return empty, coded


def told(study: Study) -> list[str]:
    """Give what a study says that depends on what it learned."""
    columns = [
        (c.name, c.kind, c.dtype, c.missing, c.distinct, c.levels, c.parts) for c in study.columns.columns
    ]
    tables = (study.leaderboard, study.predictions, study.history)
    return [repr(part) for part in (columns, *(table.rows() for table in tables), study.headline)]


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_it_is_the_study_of_the_emptied_table(task: str, tmp_path: Path) -> None:
    empty, coded = tables(task)
    empty.write_csv(tmp_path / "empty.csv")
    coded.write_csv(tmp_path / "coded.csv")
    asked = {"target": studies.TASKS[task], "search": SEARCH, "folds": 3, "test": 0.2, "display": Display()}
    wanted = foldwise.fit(tmp_path / "empty.csv", checks=False, **asked)
    study = foldwise.fit(tmp_path / "coded.csv", missing=CODES, checks=False, out=tmp_path / "run", **asked)
    assert told(study) == told(wanted)
    assert told(foldwise.fit(coded, missing=CODES, checks=False, **asked))[1:] == told(wanted)[1:]
    again = foldwise.load(tmp_path / "run")
    assert again.columns == study.columns
    assert again.predict(coded).equals(wanted.predict(empty))
    assert again.predict(tmp_path / "coded.csv").equals(wanted.predict(empty))
    opened, opened_too = again.open_test(), wanted.open_test()
    assert (opened.score, opened.low, opened.high) == (opened_too.score, opened_too.low, opened_too.high)
    assert again.replay(4, 2).matches
    refit, refit_too = again.refit(1, 4, display=Display()), wanted.refit(1, 4, display=Display())
    assert refit.models.parameters.equal(refit_too.models.parameters)
    sizes = {"trial": 4, "sizes": [0.3, 0.6, 1.0], "seeds": 1, "repeats": 1}
    answers = [s.ask("learning_curve", display=Display(), **sizes).table for s in (again, wanted)]
    assert answers[0].equals(answers[1])


def test_targets_read_as_missing_are_gone_on_with_too(tmp_path: Path) -> None:
    _, coded = tables("binary")
    coded = coded.with_columns(ill=pl.when(pl.int_range(60) % 9 > 0).then("ill").otherwise(pl.lit("unknown")))
    coded.write_csv(tmp_path / "coded.csv")
    asked: dict[str, Any] = {"target": "ill", "search": SEARCH, "folds": 2, "missing": CODES, "test": 0.2}
    with pytest.raises(DataError, match=re.escape("the target `ill` is missing in 7 of 60 rows")):
        foldwise.fit(tmp_path / "coded.csv", **asked)
    asked["drop_missing_targets"] = True
    foldwise.fit(tmp_path / "coded.csv", out=tmp_path / "whole", **asked)
    foldwise.fit(tmp_path / "coded.csv", out=tmp_path / "run", display=Stopping(7), **asked)
    study = foldwise.resume(tmp_path / "run")
    same(tmp_path / "whole", tmp_path / "run")
    assert len(study.row) + study.sealed.height == 53
    assert study.replay(4, 1).matches


def test_runs_that_say_nothing_of_it_open_still(tmp_path: Path) -> None:
    empty, _ = tables()
    study = foldwise.fit(
        empty, target="price", search=SEARCH, folds=2, checks=False, out=tmp_path / "run", display=Display()
    )
    described = json.loads((tmp_path / "run" / "study.json").read_text())
    for column in described["columns"]["columns"]:
        del column["codes"]
    (tmp_path / "run" / "study.json").write_text(json.dumps(described))
    assert foldwise.load(tmp_path / "run").columns == study.columns


def test_codes_that_a_check_finds_are_read_as_it_says() -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(random.normal(size=(200, 3)), schema=["a", "net income", "c"])
    gone = pl.Series(random.random(200) < 0.1)
    frame = frame.with_columns(
        pl.when(~gone).then(pl.col("net income") + 50).otherwise(-999.0).alias("net income"),
        y=pl.col("a") + 0.1 * pl.col("c"),
    )
    [found] = [f for f in foldwise.check(frame, target="y", folds=3) if f.code == "missing-codes"]
    assert str(found).endswith(
        "To do: read them as missing (--missing 'net income=-999', missing={\"net income\": -999})."
    )
    options = found.remedies[0].options
    assert [f.code for f in foldwise.check(frame, target="y", folds=3, **options) if f.alarm] == []


# The command line


def test_it_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, coded = tables()
    coded.write_csv(tmp_path / "coded.csv")
    (tmp_path / "search.json").write_text(json.dumps(SEARCH))
    rest = ("--target", "price", "--search", tmp_path / "search.json", "--folds", "2")
    for command in (
        ("fit", tmp_path / "coded.csv", *rest, *TYPED, "--out", tmp_path / "run", "--checks", "off"),
        ("check", "--data", tmp_path / "coded.csv", *rest, *TYPED),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in command])
        assert ended.value.code == 0
    study = foldwise.load(tmp_path / "run")
    assert {c.name: c.codes for c in study.columns.columns} == {
        "size": ("-1", "77.0", "unknown"), "age": ("-999", "unknown"), "color": ("unknown",), "old": ("unknown",),
        "price": ("unknown",),
    }  # fmt: skip
    by_hand = foldwise.fit(
        coded, target="price", search=SEARCH, folds=2, missing=CODES, checks=False, display=Display()
    )
    assert study.predictions.equals(by_hand.predictions)
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [
                "fit",
                str(tmp_path / "coded.csv"),
                "-t",
                "price",
                "--missing",
                "-99",
                "--out",
                str(tmp_path / "no"),
            ]
        )
    assert ended.value.code == 2
    assert "error: no cell of the table is -99" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("typed", ["income=", "=5", "", " "])
def test_what_is_typed_wrong_is_refused(typed: str) -> None:
    with pytest.raises(SettingsError, match="takes VALUE or COLUMN=VALUE"):
        read_missing([typed])


# Estimators

OWN: dict[str, Any] = {"width": 4, "depth": 1, "epochs": 3}


@pytest.mark.parametrize("search", [None, {"learning_rate": [0.01, 0.1]}])
def test_an_estimator_reads_them_in_x_alone(search: Any) -> None:
    empty, coded = tables("binary")
    y = np.where(empty["ill"] == "yes", 1.0, -1.0)  # -1 is a code of a column too
    empty, coded = empty.drop("ill"), coded.drop("ill")
    asked = {**OWN, "search": search, **({} if search is None else {"folds": 3})}
    wanted = NetClassifier(**asked).fit(empty, y)
    model = NetClassifier(**asked, missing=["unknown", *CODES]).fit(coded, y)
    assert np.array_equal(model.predict_proba(coded), wanted.predict_proba(empty))
    assert model.classes_.tolist() == [-1.0, 1.0]


def test_arrays_and_parts_of_tables() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3))
    y = x[:, 0] + 0.1 * random.normal(size=60)
    coded, empty = x.copy(), x.copy()
    coded[0, 1], empty[0, 1] = -9, np.nan  # which one part of the rows lacks
    model, wanted = NetRegressor(**OWN, missing={"x1": -9}), NetRegressor(**OWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(model.fit(coded, y).predict(coded), wanted.fit(empty, y).predict(empty))
    with pytest.warns(UserWarning, match="no cell of column `x1` is -9"):
        scores = cross_val_score(model, coded, y, cv=3)
    assert np.allclose(scores[1:], cross_val_score(wanted, empty, y, cv=3)[1:])
    found = [
        SearchCV(m, {"learning_rate": [0.01, 0.1]}, cv=3).fit(*r)
        for m, r in ((model, (coded, y)), (wanted, (empty, y)))
    ]
    assert np.array_equal(found[0].cv_results_["mean_test_score"], found[1].cv_results_["mean_test_score"])
    with pytest.raises(ValueError, match="x7"):
        NetRegressor(**OWN, missing={"x7": -9}).fit(coded, y)
