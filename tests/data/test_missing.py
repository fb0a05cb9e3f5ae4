"""Values that are read as missing: which cells they are, and what is refused."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from foldwise.data.columns import ColumnPlan
from foldwise.data.missing import emptied, holds, read_codes, written
from foldwise.data.table import open_table, read_source
from foldwise.data.target import Task
from foldwise.errors import DataError, InputError


@pytest.mark.parametrize(
    ("cells", "value", "held"),
    [
        ([1, -9, None], -9, [1]),
        ([1, -9, None], "-9.0", [1]),
        ([1.5, -9.0, 2.0], -9, [1]),
        ([1.5, -99.9, 2.0], "-99.9", [1]),
        (pl.Series([1.5, -99.9], dtype=pl.Float32), -99.9, [1]),
        (pl.Series([1.5, -99.9]), np.float32(1.5), [0]),
        ([1.0, float("inf")], float("inf"), [1]),
        ([2**53, 2**53 + 1], 2**53 + 1, [1]),
        (["a", " unknown ", "Unknown"], "unknown", [1]),
        (["x", "-9", "-9.00", "9"], -9, [1, 2]),
        (["1,5", "-999,0"], "-999,0", [1]),
        ([True, False], "False", [1]),
        ([True, False], 1, []),
        ([datetime.date(1900, 1, 1), datetime.date(2000, 5, 6)], "1900-01-01", [0]),
        ([datetime.date(1900, 1, 1), datetime.date(2000, 5, 6)], "1.1.1900", [0]),
        ([datetime.datetime(1900, 1, 1), datetime.datetime(1900, 1, 1, 5)], datetime.date(1900, 1, 1), [0]),
        ([datetime.date(1900, 1, 1)], 1900, []),
        ([datetime.timedelta(1), datetime.timedelta(2)], 1, []),
        ([None, None], -9, []),
        ([[1], [2]], 1, []),
    ],
)
def test_cells_hold_a_value_however_it_is_written(cells: Any, value: Any, held: list[int]) -> None:
    assert holds(pl.Series("a", cells), written(value)).arg_true().to_list() == held


def test_what_is_left_of_text_has_the_type_that_a_file_would_give_it() -> None:
    for cells, left in (
        (["1", "?!", "3"], [1, None, 3]),
        (["1", "?!", "3.5"], [1.0, None, 3.5]),
        (["True", "?!", "False"], [True, None, False]),
        (["1", "?!", "b"], ["1", None, "b"]),
        (["1", "2", "3"], ["1", "2", "3"]),
    ):
        assert emptied(pl.Series(cells), ["?!"]).to_list() == left


FRAME = pl.DataFrame(
    {
        "income": [10, -999, 30],
        "town": ["Bern", "unknown", "Basel"],
        "gone": pl.Series([None] * 3, dtype=pl.Int64),
    }
)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"incom": -999}, "Did you mean `income`"),
        ({"income": -99}, "no cell of column `income` is -99"),
        ({"income": -99}, "from -999 to 30"),
        ({"town": "unknwon"}, "Did you mean `unknown`"),
        ({"town": "nobody"}, "the most frequent cell is B"),
        ({"gone": -9}, "is empty"),
        ({"income": [-999, -9]}, "no cell of column `income` is -9"),
        (-9, "no cell of the table is -9,"),
        ([-999, "unknwon"], "no cell of the table is unknwon"),
        ([{"income": -9}, "x"], "no cell of the table is x"),
        (None, ""),
        ([None], "None is a missing cell as it is"),
        ({"income": float("nan")}, "nan is a missing cell as it is"),
        ({"income": "NA"}, "`NA` is a missing cell as it is"),
        ({"income": [[1]]}, "[1] is no value"),
        ({"income": {-999}}, ""),
        ({"income": np.array([-999])}, ""),
        ({"income": pd.Series([-999])}, "is no value"),
    ],
)
def test_what_makes_no_sense_is_refused(given: Any, said: str) -> None:
    if not said:
        read_codes(FRAME, given)
        return
    with pytest.raises(DataError) as raised:
        read_codes(FRAME, given)
    assert said in str(raised.value)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(DataError) as raised:
        read_codes(FRAME, {"income": -9, "town": "x"})
    assert raised.value.problem.count("no cell of column") == 2
    assert not isinstance(raised.value, InputError)


def test_a_column_that_is_dropped_has_no_codes() -> None:
    frame, targets, source = read_source(FRAME, None, "income", None, {})
    for aside in ({"drop": "town"}, {"columns": {"town": "drop"}}):
        with pytest.raises(DataError, match="`town` is set aside"):
            open_table(frame, targets, source, missing={"town": "unknown"}, **aside)


def test_a_part_of_a_table_may_lack_a_value() -> None:
    with pytest.warns(UserWarning, match="no cell of column `income` is -9"):
        codes = read_codes(FRAME, {"income": [-9, -999]}, lenient=True)
    assert codes.of == {"income": ("-9", "-999")}
    assert codes.held == {"income": ("-999",)}


def test_a_missing_target_is_a_missing_target() -> None:
    frame = pl.DataFrame({"a": [*range(8)], "y": [1.5, -9, 2, 3, 4, 5, -9, 6]})
    source = read_source(frame, None, "y", None, {})[2]
    with pytest.raises(DataError, match=r"the target `y` is missing in 2 of 8 rows: rows 1, 6"):
        open_table(frame, ["y"], source, missing={"y": -9})
    table = open_table(frame, ["y"], source, missing=-9, drop_missing_targets=True)
    assert table.row.tolist() == [0, 2, 3, 4, 5, 7]


def test_classes_are_those_of_a_file_whose_cells_are_empty() -> None:
    frame = pl.DataFrame({"a": [*range(6)], "y": ["True", "False", "?!", "True", "False", "True"]})
    source = read_source(frame, None, "y", None, {})[2]
    table = open_table(frame, ["y"], source, missing="?!", drop_missing_targets=True)
    assert table.task == Task("binary", ("y",), ((False, True),))
    assert table.task.encode(table.columns.read(frame)[table.row]).tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("role", ["groups", "time", "fold_column", "weights"])
def test_a_column_with_a_role_must_not_lose_cells(role: str) -> None:
    frame = pl.DataFrame({"a": [*range(6)], "part": [1, 2, 1, 2, 9, 1], "y": [0.5, 1, 2, 3, 4, 5]})
    source = read_source(frame, None, "y", None, {})[2]
    with pytest.raises(DataError, match="missing"):
        open_table(frame, ["y"], source, missing={"part": 9}, **{role: "part"})


def test_the_plan_reads_new_tables_alike_and_survives_json() -> None:
    frame = pl.DataFrame({"a": [1.0, -9, 3, 5], "town": ["x", "x", "-", "-"], "y": [0.5, 1, 2, 3]})
    source = read_source(frame, None, "y", None, {})[2]
    table = open_table(frame, ["y"], source, missing=[{"a": -9}, "-"], columns={"town": "category"})
    column = table.columns.columns[0]
    assert (column.codes, column.missing) == (("-9", "-"), 1)
    assert column.use.endswith("(1 cell); -9 read as missing")
    written_down = table.columns.to_dict()
    again = ColumnPlan.from_dict(written_down)
    assert again == table.columns
    new = pl.DataFrame({"town": ["-", "x"], "a": ["-9.0", "7"]})
    empty = pl.DataFrame({"town": [None, "x"], "a": [None, 7.0]})
    assert np.array_equal(again.encode(new), again.encode(empty), equal_nan=True)
    for old in written_down["columns"]:
        del old["codes"]
    assert {c.codes for c in ColumnPlan.from_dict(written_down).columns} == {()}
