"""The column plan: what a column is taken for, what the network is given of it, and that both are stable."""

import datetime as dt
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.columns import Column, ColumnPlan, plan_columns
from foldwise.data.read import read_table
from foldwise.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data"


def data_file(name: str) -> Path:
    if not (path := DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


def plan_one(cells, *, name: str = "c", **options) -> tuple[Column, ColumnPlan, pl.DataFrame]:
    """Plan a column beside another one, so that something is always left to learn from."""
    frame = read_table({name: cells, "other": [0.5 + i % 2 for i in range(len(cells))]})
    plan = plan_columns(frame, targets=[], **options)
    return plan.columns[0], plan, frame


def inputs(cells, **options) -> dict[str, list[float]]:
    """The inputs that a column becomes, by name."""
    _, plan, frame = plan_one(cells, **options)
    encoded = plan.encode(frame).T.tolist()
    names = [feature.name for feature in plan.features]
    return {name: values for name, values in zip(names, encoded, strict=True) if name != "other"}


def again(plan: ColumnPlan) -> ColumnPlan:
    return ColumnPlan.from_dict(json.loads(json.dumps(plan.to_dict())))


def problem(work, *arguments, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        work(*arguments, **options)
    assert caught.value.hint, "every error has a cure"
    return caught.value


class TestNearlyNumbers:
    def test_a_typing_error_is_told_with_its_row(self):
        cells = [*(f"{i % 5}.5" for i in range(40)), "1o.5"]
        column, plan, frame = plan_one(cells)
        assert column.kind == "category"
        assert column.remark == (
            "column `c` looks like numbers but for '1o.5' in row 40 (counted from 0), and is read as a category; "
            "correct or empty it to have it read as numbers"
        )
        assert column.use.endswith("; looks like numbers but for '1o.5'")
        numbered = plan_columns(frame, targets=[], places=np.arange(100, 141))
        assert "row 140 " in numbered.columns[0].remark
        assert again(plan) == plan
        mended = plan_one([*cells[:-1], None])[0]
        assert (mended.kind, mended.remark) == ("number", "")

    def test_a_column_set_aside_for_it_says_so(self):
        column, _, _ = plan_one([*(f"{i}.25" for i in range(40)), "x"])
        assert (column.kind, column.role) == ("identifier", "set aside")
        assert "'x' in row 40 (counted from 0), and is set aside: every cell is different;" in column.remark

    def test_a_mark_of_missing_cells_may_be_frequent(self):
        column, _, _ = plan_one([*map(str, range(60)), *["unknown"] * 40])
        assert "40 cells, such as 'unknown' in row 60 (counted from 0)" in column.remark

    @pytest.mark.parametrize(
        "cells",
        [
            [*"0123" * 10, *["3+"] * 8],
            ["a", "b"] * 20,
            [*map(str, range(30)), "a", "b", "c", "d"],
            ["1", "2", "x"],
            ["2024-01-05", "2024-02-07"] * 10,
        ],
    )
    def test_words_are_left_in_peace(self, cells):
        assert plan_one(cells)[0].remark == ""

    def test_what_was_asked_for_needs_no_remark(self):
        cells = [*(f"{i % 5}.5" for i in range(40)), "1o.5"]
        assert plan_one(cells, overrides={"c": "category"})[0].remark == ""


class TestNumbers:
    def test_as_they_are(self):
        assert inputs([1.5, 2, -3]) == {"c": [1.5, 2, -3]}
        assert inputs([3, 3, 5]) == {"c": [3, 3, 5]}

    def test_missing_cells_are_nan_and_flagged(self):
        found = inputs([1.5, None, float("nan"), 2.0])
        assert found["c is missing"] == [0, 1, 1, 0]
        assert [math.isnan(x) for x in found["c"]] == [False, True, True, False]

    def test_one_value_or_missing_is_a_flag_alone(self):
        assert inputs([7.0, None, 7.0]) == {"c is missing": [0, 1, 0]}

    @pytest.mark.parametrize(
        ("text", "numbers", "form"),
        [
            ([" 12 ", "3.5"], [12, 3.5], ""),
            (["1,234", "12", "1,234,567.5"], [1234, 12, 1234567.5], "1,234"),
            (["1,5", "12", "-0,25"], [1.5, 12, -0.25], "1,5"),
            (["1.234,5", "2", "3"], [1234.5, 2, 3], "1,5"),
            (["1e3", "-2E-1", "+4"], [1000, -0.2, 4], ""),
        ],
    )
    def test_text(self, text, numbers, form):
        column, plan, _ = plan_one(text)
        assert (column.kind, column.dtype, column.form) == ("number", "String", form)
        assert inputs(text)["c"] == numbers
        assert again(plan) == plan

    def test_durations_are_seconds_and_truth_can_be_a_number(self):
        assert inputs([dt.timedelta(minutes=1), dt.timedelta(seconds=1.5)]) == {"c": [60, 1.5]}
        assert inputs([dt.time(0, 1), dt.time(1)]) == {"c": [60, 3600]}
        assert inputs([True, False, True], overrides={"c": "number"}) == {"c": [1, 0, 1]}
        assert inputs([dt.date(1970, 1, 2), dt.date(1971, 1, 1)], overrides={"c": "number"}) == {
            "c": [1, 365]
        }

    @pytest.mark.parametrize("bad", [float("inf"), float("-inf"), "inf", "1e999"])
    def test_infinite_cells_name_their_rows(self, bad):
        cells = ["1", bad, "2"] if isinstance(bad, str) else [1.0, bad, 2.0]
        error = problem(plan_one, cells)
        assert "column `c` holds infinite values" in error.problem
        assert "row 1 (counted from 0)" in error.problem


class TestCategories:
    def test_one_flag_per_level_most_frequent_first(self):
        cells = ["a"] * 5 + ["b"] * 7 + ["c"] * 6
        column, _, _ = plan_one(cells)
        assert (column.kind, column.levels, column.distinct) == ("category", ("b", "c", "a"), 3)
        assert inputs(cells) == {f"c = {level}": [float(c == level) for c in cells] for level in "bca"}

    def test_equals_the_dummies_of_pandas(self):
        cells = np.random.default_rng(0).choice(["x", "y", "z", "w"], 100).tolist()
        expected = pd.get_dummies(pd.Series(cells), prefix="c", prefix_sep=" = ")
        assert inputs(cells) == {name: expected[name].astype(float).tolist() for name in inputs(cells)}
        assert set(inputs(cells)) == set(expected)

    def test_two_levels_need_one_flag_that_marks_the_rarer(self):
        assert inputs(["m"] * 6 + ["f"] * 5) == {"c = f": [0.0] * 6 + [1.0] * 5}

    def test_truth_needs_one_flag(self):
        assert inputs([True] * 6 + [False] * 5) == {"c = true": [1.0] * 6 + [0.0] * 5}
        assert inputs([True] * 5 + [False] * 6) == {"c = true": [1.0] * 5 + [0.0] * 6}

    def test_categories_of_polars(self):
        levels = pl.Enum(["x", "y", "z"])
        frame = pl.DataFrame({"c": pl.Series(["x", "y", "z"] * 5, dtype=levels), "other": range(5, 20)})
        plan = plan_columns(frame, targets=[], overrides={"other": "number"})
        assert plan.encode(frame)[:3, :3].tolist() == np.eye(3).tolist()

    def test_missing_is_a_level(self):
        cells = ["a"] * 5 + [None] + ["b"] * 5 + ["?", " NA "]
        flags = inputs(cells)
        assert list(flags) == ["c = a", "c = b", "c = (missing)"]
        assert np.flatnonzero(flags["c = (missing)"]).tolist() == [5, 11, 12]
        assert np.sum(list(flags.values()), axis=0).tolist() == [1.0] * 13

    def test_rare_levels_are_pooled(self):
        cells = ["a"] * 5 + ["b"] * 5 + ["c"] * 4 + ["d"]
        column, _, _ = plan_one(cells)
        assert (column.levels, column.pooled) == (("a", "b"), 2)
        assert inputs(cells)["c = (other)"] == [0.0] * 10 + [1.0] * 5

    def test_at_most_fifty_levels(self):
        cells = [f"l{i:02}" for i in range(60) for _ in range(5 + (i < 50))]
        column, plan, _ = plan_one(cells)
        assert column.levels == tuple(f"l{i:02}" for i in range(50))
        assert column.pooled == 10
        assert len(plan.features) == 51 + 1

    def test_no_level_with_five_rows(self):
        column, _, _ = plan_one(["a", "b", "c", "d"] * 3)
        assert (column.kind, column.role) == ("category", "set aside")
        assert "none of its 4 levels has 5 rows" in column.use

    def test_levels_named_like_a_pool_are_their_own(self):
        cells = ["(other)"] * 6 + ["(missing)"] * 5 + ["x", None]
        _, plan, frame = plan_one(cells)
        flags = plan.encode(frame)[:, :4]
        assert flags.sum(axis=1).tolist() == [1.0] * 13
        assert flags.sum(axis=0).tolist() == [6, 5, 1, 1]

    @pytest.mark.parametrize(
        ("training", "new", "flags"),
        [
            (["a"] * 5 + ["b"] * 5 + ["c"] * 5, "z", [0, 0, 0]),
            (["a"] * 5 + ["b"] * 5 + ["z"], "new", [0, 0, 1]),
            (["a"] * 5 + ["b"] * 5 + ["z"], None, [0, 0, 1]),
            (["a"] * 5 + ["b"] * 5 + [None], "z", [0, 0, 0]),
            (["a"] * 5 + ["b"] * 5 + [None], None, [0, 0, 1]),
            (["a"] * 6 + ["b"] * 5, "z", [0]),
        ],
    )
    def test_unseen_levels(self, training, new, flags):
        _, plan, _ = plan_one(training)
        assert plan.encode(pl.DataFrame({"c": [new], "other": [1.0]}))[0, :-1].tolist() == flags

    @pytest.mark.parametrize("new", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", " 2 ", "3"]])
    def test_numbers_as_levels_whatever_their_type(self, new):
        _, plan, _ = plan_one([1, 2, 3] * 5, overrides={"c": "category"})
        assert plan.columns[0].levels == ("1", "2", "3")
        assert plan.encode(pl.DataFrame({"c": new, "other": [1.0] * 3}))[:, :3].tolist() == np.eye(3).tolist()

    @pytest.mark.parametrize("new", [[True, False], [1, 0], ["True", "false"], [1.0, 0.0]])
    def test_truth_whatever_its_type(self, new):
        _, plan, _ = plan_one([True, False] * 5)
        assert plan.encode(pl.DataFrame({"c": new, "other": [1.0] * 2}))[:, 0].tolist() == [1, 0]


class TestDates:
    def test_parts(self):
        found = inputs(["2/1/2020", "12/31/2021", None])
        assert found["c elapsed days"][:2] == [(dt.date(2020, 2, 1) - dt.date(1970, 1, 1)).days, 18992]
        assert found["c year"][:2] == [2020, 2021]
        assert found["c month sine"][0] == pytest.approx(math.sin(2 * math.pi * 1 / 12))
        assert found["c month cosine"][1] == pytest.approx(math.cos(2 * math.pi * 11 / 12))
        assert found["c day of month sine"][1] == pytest.approx(math.sin(2 * math.pi * 30 / 31))
        assert found["c weekday sine"][0] == pytest.approx(math.sin(2 * math.pi * 5 / 7)), "a Saturday"
        assert found["c is missing"] == [0, 0, 1]
        assert all(math.isnan(values[2]) for name, values in found.items() if name != "c is missing")

    def test_parts_that_do_not_vary_are_left_out(self):
        assert list(inputs(["2020-03-02", "2020-03-09"])) == [
            "c elapsed days",
            "c day of month sine",
            "c day of month cosine",
        ]

    def test_hour_only_when_not_all_midnight(self):
        found = inputs([dt.datetime(2020, 3, 2, 6), dt.datetime(2020, 3, 2, 18)])
        assert found["c hour sine"] == pytest.approx([1, -1])
        assert "c weekday sine" not in found
        before_1970 = inputs([dt.datetime(1960, 3, 2, 6), dt.datetime(1960, 3, 2, 18)])
        assert before_1970["c hour sine"] == pytest.approx([1, -1])

    def test_ambiguous_form_is_said(self):
        assert "month/day/year (day/month/year fits too)" in plan_one(["1/2/2020", "3/4/2020"])[0].use
        assert "fits too" not in plan_one(["1/2/2020", "3/14/2020"])[0].use
        assert "day/month/year" in plan_one(["1/2/2020", "14/3/2020"])[0].use

    def test_text_and_typed_dates_agree(self):
        days = [dt.date(2020, 1, 1), dt.date(2021, 6, 15), dt.date(1999, 12, 31)]
        text = inputs([day.strftime("%d.%m.%Y") for day in days])
        assert text == inputs(days) == inputs([dt.datetime(d.year, d.month, d.day) for d in days])
        _, plan, _ = plan_one([day.isoformat() for day in days])
        other = [1.0] * 3
        typed = plan.encode(pl.DataFrame({"c": days, "other": other}))
        assert np.array_equal(typed, plan.encode(pl.DataFrame({"c": [str(d) for d in days], "other": other})))

    def test_a_typed_plan_reads_text(self):
        _, plan, frame = plan_one([dt.date(2020, 1, 1), dt.date(2021, 6, 15)])
        text = pl.DataFrame({"c": ["1.1.2020", "15.6.2021"], "other": frame["other"]})
        assert np.array_equal(plan.encode(text), plan.encode(frame))

    def test_zones_are_left_out(self):
        noon = pl.Series([dt.datetime(2020, 1, 1, 12), dt.datetime(2020, 7, 2, 13)])
        assert inputs(noon.dt.replace_time_zone("Europe/Zurich")) == inputs(noon)

    def test_other_cells_name_their_rows(self):
        _, plan, _ = plan_one(["2020-01-01", "2020-01-02"])
        error = problem(plan.encode, pl.DataFrame({"c": ["2020-02-30", "soon"], "other": [1.0, 2.0]}))
        assert "no dates written year-month-day: `2020-02-30`, `soon` in rows 0, 1" in error.problem


class TestSetAside:
    @pytest.mark.parametrize(
        ("cells", "kind", "why"),
        [
            ([5, 5, 5], "constant", "every cell is 5"),
            (["x", "x"], "constant", "every cell is x"),
            ([None, None], "constant", "no cell is filled"),
            (["", " NA "], "constant", "no cell is filled"),
            ([f"k{i}" for i in range(30)], "identifier", "every cell is different"),
            (list(range(30)), "identifier", "it numbers the rows"),
            (list(range(100, 400, 10)), "identifier", "it numbers the rows"),
            ([i for i in range(50) if i % 5], "identifier", "it numbers the rows"),
            ([f"a review of {i} long words" for i in range(30)], "text", "free text, 30 different cells"),
            (
                [f"a review of {i // 3 * 2} long words" for i in range(9)] + ["b c d e"] * 1,
                "category",
                "5 rows",
            ),
        ],
    )
    def test_nothing_to_learn_from(self, cells, kind, why):
        column, plan, _ = plan_one(cells)
        assert (column.kind, column.role) == (kind, "set aside")
        assert column.use.startswith("set aside: ")
        assert why in column.use
        assert [feature.column for feature in plan.features] == ["other"]

    @pytest.mark.parametrize(
        "name", ["id", "ID", "PID", "CustomerID", "userId", "row_id", "uuid", "rownames", "Index"]
    )
    def test_identifiers_by_name(self, name):
        assert plan_one([903, 17, 44, 5], name=name)[0].kind == "identifier"
        assert plan_one([903, 17, 17, 5], name=name)[0].kind == "number", "not different in every row"
        assert plan_one([903.5, 17.1, 44.2, 5.9], name=name)[0].kind == "number", "not whole"

    @pytest.mark.parametrize(
        ("cells", "name"),
        [
            (list(range(1990, 2020)), "year"),
            (list(range(9)), "c"),
            (list(range(30)), "x0"),
            (list(range(30)), "t"),
            ([float(i) for i in range(30)], "c"),
            (list(range(30, 0, -1)), "c"),
            ([i * i for i in range(30)], "c"),
            ([7, *range(30)], "c"),
            ([903, 17, 44, 5], "paid"),
            ([903, 17, 44, 5], "price_index"),
            (np.random.default_rng(0).permutation(1000).tolist(), "c"),
        ],
    )
    def test_genuine_numbers_are_kept(self, cells, name):
        column, _, _ = plan_one(cells, name=name)
        assert (column.kind, column.role) == ("number", "feature")

    def test_overrides_bring_back_and_send_away(self):
        assert inputs(list(range(30)), overrides={"c": "number"}) == {"c": list(range(30))}
        assert plan_one([1.5, 2.5], overrides={"c": "drop"})[0].use == "set aside: as you asked"
        assert plan_one([[1], [2]], overrides={"c": "drop"})[0].role == "set aside"


class TestRoles:
    FRAME = pl.DataFrame(
        {"x": [1.0, 2.0, 4.0], "g": ["a", "a", "b"], "when": ["1", "2", "3"], "y": [0, 1, 0]}
    )

    def test_they_are_no_features(self):
        plan = plan_columns(self.FRAME, targets=["y"], roles={"g": "group", "when": "time"})
        assert [column.role for column in plan.columns] == ["feature", "group", "time", "target"]
        assert plan.encode(self.FRAME.drop("g", "when", "y")).tolist() == [[1], [2], [4]]

    def test_the_targets_values_are_never_looked_at(self):
        plan = plan_columns(self.FRAME, targets=["y"], roles={"g": "group"})
        other = plan_columns(
            self.FRAME.with_columns(y=pl.Series([7, 8, 7])), targets=["y"], roles={"g": "group"}
        )
        assert plan == other

    def test_without_a_header(self):
        frame = pl.DataFrame({"column_0": [1.0, 2.0], "column_1": [0, 1]})
        plan = plan_columns(frame, targets=["1"], overrides={"0": "number"})
        assert [column.role for column in plan.columns] == ["feature", "target"]


class TestRefused:
    FRAME = pl.DataFrame({"age": [31, 45, 17], "town": ["a", "b", "a"], "y": [0, 1, 0]})

    @pytest.mark.parametrize(
        ("options", "text", "hint"),
        [
            ({"targets": ["price"]}, "there is no target `price`", "the columns are"),
            ({"targets": ["y"], "overrides": {"agee": "drop"}}, "no column to override `agee`", "`age`"),
            ({"targets": ["y"], "overrides": {"age": "nmber"}}, "`nmber` is no kind", "`number`"),
            ({"targets": ["y"], "overrides": {"y": "number"}}, "`y` is the target", "leave the override out"),
            ({"targets": ["y"], "roles": {"y": "group"}}, "it cannot be the group too", "another"),
            ({"targets": ["y"], "roles": {"twn": "group"}}, "there is no column `twn`", "`town`"),
            ({"targets": ["y"], "overrides": {"town": "number"}}, "`a`, `b`, `a` in rows 0, 1, 2", "correct"),
            ({"targets": ["y"], "overrides": {"town": "date"}}, "`a`, `b`, `a` in rows 0, 1, 2", "correct"),
            (
                {"targets": ["y"], "overrides": {"age": "drop", "town": "drop"}},
                "no column is left",
                "--column",
            ),
        ],
    )
    def test_useless_options(self, options, text, hint):
        error = problem(plan_columns, self.FRAME, **options)
        assert text in error.problem
        assert hint in error.hint

    @pytest.mark.parametrize("cells", [[[1], [2]], [{"a": 1}, {"a": 2}], [b"a", b"b"]])
    def test_cells_that_are_no_single_values(self, cells):
        frame = read_table({"c": pl.Series(cells), "x": [1.0, 2.0]})
        assert "column `c` holds" in problem(plan_columns, frame, targets=[]).problem

    def test_all_problems_at_once(self):
        frame = pl.DataFrame({"a": [[1], [2]], "b": [1.0, float("inf")], "c": [1, 2]})
        error = problem(plan_columns, frame, targets=[])
        assert "`a` holds lists" in error.problem
        assert "`b` holds infinite values" in error.problem

    def test_text_where_numbers_were(self):
        plan = plan_columns(self.FRAME, targets=["y"], overrides={"town": "drop"})
        error = problem(plan.encode, pl.DataFrame({"age": ["31", "old", "NA", "young"]}))
        assert (
            "column `age` holds text where numbers are expected: `old`, `young` in rows 1, 3" in error.problem
        )

    def test_infinite_values_in_a_new_table(self):
        plan = plan_columns(self.FRAME, targets=["y"], overrides={"town": "drop"})
        assert "row 1" in problem(plan.encode, pl.DataFrame({"age": [1.0, float("inf")]})).problem

    def test_missing_columns_are_listed(self):
        frame = pl.DataFrame({"age": [31, 45], "town_name": [1.5, 2.5], "rooms": [1, 3]})
        plan = plan_columns(frame, targets=[])
        error = problem(plan.encode, pl.DataFrame({"twn_name": [1.0], "age": [2]}))
        assert "lacks `town_name`, `rooms`" in error.problem
        assert "Did you mean `twn_name`?" in error.hint

    def test_long_cells_are_cut(self):
        plan = plan_columns(self.FRAME, targets=["y"], overrides={"town": "drop"})
        assert len(str(problem(plan.encode, pl.DataFrame({"age": ["x" * 10_000]})))) < 300


class TestRealTables:
    @pytest.mark.parametrize(
        ("name", "target", "features", "aside"),
        [
            ("abalone/abalone.csv", "8", 10, {}),
            ("adult/adult-train.csv", "14", 107, {}),
            (
                "ames/ames.csv",
                "price",
                303,
                {"rownames": "identifier", "Order": "identifier", "PID": "identifier"},
            ),
            ("bike-sharing/hour.csv", "cnt", 22, {"instant": "identifier"}),
            ("california-housing/housing.csv", "median_house_value", 14, {}),
            ("credit-g/german.csv", "20", 59, {}),
            ("diamonds/diamonds.csv", "price", 26, {}),
            ("higgs-sample/binary.train", "0", 28, {}),
            ("letter/letter-recognition.data", "Letter", 16, {}),
            ("penguins/penguins.csv", "species", 14, {}),
            ("phoneme/phoneme.csv", "5", 5, {}),
            ("spambase/spambase.data", "57", 57, {}),
            ("wine-quality/winequality-red.csv", "11", 11, {}),
        ],
    )
    def test_plans(self, name, target, features, aside):
        frame = read_table(data_file(name))
        plan = plan_columns(frame, targets=[target])
        assert {c.name: c.kind for c in plan.columns if c.role == "set aside"} == aside
        encoded = plan.encode(frame)
        assert encoded.shape == (frame.height, features)
        assert np.isnan(encoded).any() == any(c.missing and c.kind == "number" for c in plan.columns)
        assert again(plan) == plan

    def test_bike_sharing_dates(self):
        frame = read_table(data_file("bike-sharing/day.csv"))
        column = plan_columns(frame, targets=["cnt"]).columns[1]
        assert (column.name, column.kind, column.form) == ("dteday", "date", "%m/%d/%Y")

    def test_the_test_rows_of_adult(self):
        frame = read_table(data_file("adult/adult-train.csv"))
        new = read_table(data_file("adult/adult-test.csv")).drop("column_14")
        assert plan_columns(frame, targets=["14"]).encode(new).shape == (16281, 107)


FINITE = st.floats(-1e9, 1e9)
COLUMNS = {
    "number": FINITE,
    "whole": st.integers(-5, 5),
    "category": st.sampled_from(["a", "b", "c", "<script>", "=1+1"]),
    "truth": st.booleans(),
    "date": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
}


@st.composite
def tables(draw) -> pl.DataFrame:
    """Tables of every kind of column, with missing cells and levels rare enough to be pooled."""
    rows = draw(st.integers(6, 40))
    made = {}
    for name, cells in COLUMNS.items():
        gaps = st.none() | cells if draw(st.booleans()) else cells
        made[name] = draw(st.lists(gaps, min_size=rows, max_size=rows))
    made["always"] = [0.5 * i for i in range(rows)]
    return pl.DataFrame(made)


class TestProperties:
    @given(tables())
    def test_encoding_fits_the_plan(self, frame):
        plan = plan_columns(frame, targets=[])
        encoded = plan.encode(frame)
        assert encoded.dtype == np.float64
        assert encoded.shape == (frame.height, len(plan.features))
        assert len({feature.name for feature in plan.features}) == len(plan.features)
        kinds = np.array([feature.kind for feature in plan.features])
        assert np.isin(encoded[:, kinds == "flag"], [0.0, 1.0]).all()
        assert again(plan) == plan

    @given(tables(), st.randoms(use_true_random=False))
    def test_rows_are_encoded_one_by_one_whatever_their_order_and_that_of_columns(self, frame, random):
        plan = plan_columns(frame, targets=[])
        rows = random.sample(range(frame.height), frame.height // 2)
        columns = random.sample(frame.columns, frame.width)
        part = frame[rows].select(columns).with_columns(extra=pl.lit("x"))
        assert np.array_equal(again(plan).encode(part), plan.encode(frame)[rows], equal_nan=True)

    @given(tables(), st.randoms(use_true_random=False))
    def test_the_plan_does_not_depend_on_the_order_of_rows(self, frame, random):
        shuffled = frame[random.sample(range(frame.height), frame.height)]
        kept = [c for c in plan_columns(frame, targets=[]).columns if c.name not in ("whole", "always")]
        assert kept == [
            c for c in plan_columns(shuffled, targets=[]).columns if c.name not in ("whole", "always")
        ]

    @given(tables())
    def test_a_text_file_gives_the_same_inputs(self, tmp_path_factory, frame):
        path = tmp_path_factory.mktemp("csv") / "t.csv"
        frame.write_csv(path)
        plan = plan_columns(frame, targets=[])
        assert np.array_equal(plan.encode(read_table(path, header=True)), plan.encode(frame), equal_nan=True)


def test_a_column_of_one_value_that_is_asked_for_becomes_no_input() -> None:
    table = pl.DataFrame({"same": [1.0, 1.0], "size": [1.0, 2.0], "y": [0, 1]})
    plan = plan_columns(table, targets=["y"], overrides={"same": "number"})
    assert [feature.name for feature in plan.features] == ["size"]
    assert plan.encode(table).tolist() == [[1.0], [2.0]]
