"""What cannot be had is refused before training, and what was asked for is never ignored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import foldwise
import studies
from foldwise.data.table import Table, open_table, read_source
from foldwise.errors import DataError, PlanError
from foldwise.fitting import folds_of
from foldwise.study import Study

SEARCH = {"network": "linear", "epochs": 1}


def opened(frame: pl.DataFrame, target: str = "y", **asked: Any) -> Table:
    frame, targets, source = read_source(frame, None, target, None, {})
    return open_table(frame, targets, source, **asked)


def series(labels: list[Any]) -> pl.DataFrame:
    """Rows in the order of time."""
    random = np.random.default_rng(0)
    return pl.DataFrame({"t": range(len(labels)), "x": random.normal(size=len(labels)), "y": labels})


# Sealed rows


def test_a_class_that_comes_late_is_known() -> None:
    table = opened(series(["a", "b"] * 16 + ["c", "a"] * 4), time="t", test=0.2)
    assert table.task.classes == (("a", "b", "c"),)
    assert table.sealed is not None
    assert set(table.task.encode(table.sealed)) == {0, 2}
    assert set(table.targets) == {0, 1}


def test_a_class_that_is_alone_before_the_test_is_refused() -> None:
    said = "without the sealed test rows, the target `y` has one class only, `a`."
    with pytest.raises(DataError, match=re.escape(said)):
        opened(series(["a"] * 32 + ["a", "b"] * 4), time="t", test=0.2)


def test_a_logarithm_that_the_test_does_not_have_is_not_chosen() -> None:
    skewed = np.exp(np.random.default_rng(0).normal(0, 1.5, size=40))
    assert opened(series([*skewed]), time="t", test=0.2).task.log
    late = np.append(skewed[:-1], 0.0)
    assert not opened(series([*late]), time="t", test=0.2).task.log
    with pytest.raises(DataError, match=r"the target `y` has no logarithm in row 39"):
        opened(series([*late]), time="t", test=0.2, log_target=True)


def test_the_logarithm_is_chosen_without_a_look_at_the_test() -> None:
    even = np.random.default_rng(0).uniform(1, 2, size=32)
    assert not opened(series([*even, *[1e6] * 8]), time="t", test=0.2).task.log


def test_cells_of_the_test_that_cannot_be_used_are_told_before_training() -> None:
    frame = series([*np.random.default_rng(1).normal(size=40)])
    frame = frame.with_columns(z=pl.Series([f"{i}.5" for i in range(39)] + ["many"]))
    said = "among the sealed test rows, column `z` holds text where numbers are expected: `many`"
    with pytest.raises(DataError, match=re.escape(said)):
        opened(frame, time="t", test=0.2)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"time": "same"}, "the latest rows cannot be sealed: all rows are of one time."),
        ({"groups": "same"}, "the test rows must be whole groups, and all rows are of one group."),
        ({}, "the test rows need a share of each class, and of `owl` there is one row only."),
        ({"groups": "half", "test": 0.9}, "no test rows can be sealed: "),
    ],
)
def test_shares_that_cannot_be_sealed(asked: dict[str, Any], said: str) -> None:
    frame = series(["cat"] * 20 + ["dog"] * 19 + ["owl"])
    frame = frame.with_columns(same=pl.lit(1), half=pl.int_range(40) // 20)
    with pytest.raises(PlanError, match=re.escape(said)) as refused:
        opened(frame, **{"test": 0.2, **asked})
    assert "folds" not in str(refused.value)


def test_a_test_share_smaller_than_the_classes_is_told() -> None:
    with pytest.raises(PlanError, match="a share of each of 3 classes, for which 2 of 40 rows do not do"):
        opened(series(["a", "b", "c", "c"] * 10), test=0.05)


def test_when_the_cut_falls_into_the_earliest_time_later_rows_are_sealed() -> None:
    frame = series([*np.arange(40.0)]).with_columns(t=pl.Series([0] * 36 + [1] * 4))
    table = opened(frame, time="t", test=0.2)
    assert table.sealed is not None
    assert table.sealed["t"].to_list() == [1] * 4


# Options without an effect


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"example": "iris", "y": [1, 2]}, "`y` cannot be used with an example"),
        ({"example": "iris", "separator": ";"}, "`separator` cannot be used with an example"),
        ({"example": "iris", "header": False}, "`header` cannot be used with an example"),
        ({"data": [[1.0], [2.0]], "y": [1, 2], "encoding": "utf-8"}, "`encoding` cannot be used with a table in"),
        ({"data": studies.table("binary"), "target": "ill", "header": True}, "`header` cannot be used with a table in"),
        ({"example": "iris", "drop": ["petal length (cm)"], "columns": {"petal length (cm)": "number"}},
         "`petal length (cm)` is to be dropped and is given a kind, number."),
        ({"example": "iris", "drop": ["petal"]}, "there is no column to drop (--drop) `petal`"),
        ({"example": "iris", "missing": {"specie": 0}},
         "there is no column `specie` (--missing specie=…).\nhint: Did you mean `species`?"),
    ],
)  # fmt: skip
def test_options_without_an_effect_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        foldwise.fit(**asked)


@pytest.mark.parametrize("instead", [{"holdout": 0.2}, {"fold_column": "species"}])
def test_folds_beside_what_needs_none_are_refused(instead: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"`folds` has no effect beside `{next(iter(instead))}`; got 3"):
        foldwise.fit(example="iris", folds=3, **instead)


def test_one_column_to_drop_may_be_a_text() -> None:
    frame = series([*np.arange(40.0) % 7]).with_columns(ab=pl.col("x") * 2, a=pl.col("x") * 3, b=-pl.col("x"))
    table = opened(frame, drop="ab")
    assert {c.name for c in table.columns.columns if c.kind == "drop"} == {"ab"}


def test_a_number_of_numpy_is_a_number_of_folds() -> None:
    table = opened(studies.table("regression"), "price")
    assert len(folds_of(table, np.int64(3), 1, None, 0)) == 3


def test_one_scored_row_is_no_validation() -> None:
    table = opened(studies.table("regression"), "price")
    said = "hold-out of 1 % of the rows leaves 1 row to be scored on"
    with pytest.raises(PlanError, match=said):
        folds_of(table, 5, 1, 0.01, 0)
    assert len(folds_of(table, 5, 1, 0.03, 0)) == 1


# Tables read again


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, pl.DataFrame]:
    """A study of a file with semicolons, in Latin-1, whose header must be named."""
    frame = studies.table("binary").rename({"size": "größe"})
    path = tmp_path_factory.mktemp("read") / "train.csv"
    path.write_bytes(frame.write_csv(separator=";").encode("latin-1"))
    study = foldwise.fit(
        path, target="ill", search=SEARCH, folds=2, separator=";", encoding="latin-1", header=True
    )
    return study, frame


def test_new_files_of_other_forms_are_read(trained: tuple[Study, pl.DataFrame], tmp_path: Path) -> None:
    study, frame = trained
    same = tmp_path / "same.csv"
    same.write_bytes(frame.write_csv(separator=";").encode("latin-1"))
    frame.write_csv(tmp_path / "comma.csv")
    frame.write_parquet(tmp_path / "new.parquet")
    frame.write_ipc(tmp_path / "new.arrow")
    odd = tmp_path / "odd.txt"
    odd.write_bytes(frame.write_csv(separator="#").encode("utf-16"))
    expected = study.predict(frame)
    for path in (same, tmp_path / "comma.csv", tmp_path / "new.parquet", str(tmp_path / "new.arrow")):
        assert study.predict(path).equals(expected), path
    assert study.predict(odd, separator="#", encoding="utf-16").equals(expected)


def test_a_new_file_that_fits_in_no_way_says_what_it_lacks(
    trained: tuple[Study, pl.DataFrame], tmp_path: Path
) -> None:
    study, frame = trained
    frame.drop("age").write_csv(tmp_path / "lacks.csv", separator=";")
    with pytest.raises(DataError, match=r"the table lacks `.*age`"):
        study.predict(tmp_path / "lacks.csv")
    with pytest.raises(DataError, match="there is no file"):
        study.predict(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="`separator` cannot be used with a table in memory"):
        study.predict(frame, separator=";")
    frame.write_parquet(tmp_path / "new.parquet")
    with pytest.raises(DataError, match=r"`encoding` cannot be used with `new\.parquet`"):
        study.predict(tmp_path / "new.parquet", encoding="latin-1")


def test_a_replay_reads_the_same_table_in_another_form(
    trained: tuple[Study, pl.DataFrame], tmp_path: Path
) -> None:
    study, frame = trained
    frame.write_parquet(tmp_path / "same.parquet")
    frame.write_csv(tmp_path / "comma.csv")
    for name in ("same.parquet", "comma.csv"):
        assert study.replay(1, 1, data=tmp_path / name).fold == 1


def test_a_replay_of_arrays_takes_them_again() -> None:
    frame = studies.table("regression")
    x, y = frame.drop("price"), frame["price"].to_numpy()
    study = foldwise.fit(x, y, search=SEARCH, folds=2)
    assert study.replay(1, 1, data=(x, y)).matches
    with pytest.raises(DataError, match=re.escape("data=table, or data=(X, y)")):
        study.replay(1, 1)


def test_a_relative_path_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies.table("regression").write_csv(tmp_path / "table.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in ("table.csv", "~/table.csv"):
        study = foldwise.fit(typed, target="price", search=SEARCH, folds=2)
        assert study.source.path == str(tmp_path / "table.csv")
        assert study.command == f"foldwise.fit({typed})"
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir("/")
            assert study.replay(1, 1).matches


def test_a_late_class_is_trained_without_and_tested_with() -> None:
    study = foldwise.fit(
        series(["a", "b"] * 16 + ["c", "a"] * 4), target="y", time="t", test=0.2, search=SEARCH, folds=2
    )
    assert 0 <= study.open_test().score <= 1
