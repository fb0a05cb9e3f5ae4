"""The target: what is learned from it by default and on request, its numbers and the way back."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.read import read_table
from foldwise.data.target import Task, complete_targets, plan_target
from foldwise.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data"


def plan(cells, **options) -> Task:
    return plan_target(pl.DataFrame({"y": cells}), ["y"], **options)


def again(task: Task) -> Task:
    return Task.from_dict(json.loads(json.dumps(task.to_dict())))


def problem(work, *arguments, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        work(*arguments, **options)
    assert caught.value.hint, "every error has a cure"
    return caught.value


class TestKind:
    @pytest.mark.parametrize(
        ("cells", "kind", "classes"),
        [
            (["b", "a", "b"], "binary", (("a", "b"),)),
            (["c", "a", "b", "a"], "multiclass", (("a", "b", "c"),)),
            ([True, False, True], "binary", ((False, True),)),
            ([1, 2, 1], "binary", ((1, 2),)),
            ([0.0, 1.0, 1.0], "binary", ((0.0, 1.0),)),
            ([3, 1, 2] * 5, "multiclass", ((1, 2, 3),)),
            (list(range(20)) * 5, "multiclass", (tuple(range(20)),)),
            (list(range(21)) * 5, "regression", ()),
            ([3, 1, 2] * 4, "regression", ()),
            ([0.5, 1.5, 0.5], "regression", ()),
            (["1,5", "2,5", "3"], "regression", ()),
            ([dt.timedelta(1), dt.timedelta(3)], "regression", ()),
        ],
    )
    def test_found(self, cells, kind, classes):
        task = plan(cells)
        assert (task.kind, task.classes) == (kind, classes)
        assert [type(label) for labels in task.classes for label in labels] == [
            type(label) for labels in classes for label in labels
        ]
        assert again(task) == task

    @pytest.mark.parametrize(
        ("cells", "asked", "kind"),
        [
            ([1, 2, 3], "regression", "regression"),
            ([True, False], "regression", "regression"),
            (list(range(30)) * 2, "multiclass", "multiclass"),
            ([0, 1, 1], "multiclass", "multiclass"),
            ([0, 1, 1], "multilabel", "multilabel"),
            ([0, 1, 1], "classification", "binary"),
            ([0, 1, 2, 2], "classification", "multiclass"),
            ([0.5, 1.5, 0.5], "binary", "binary"),
        ],
    )
    def test_asked_for(self, cells, asked, kind):
        assert plan(cells, kind=asked).kind == kind

    @pytest.mark.parametrize(
        ("columns", "asked", "kind", "outputs"),
        [
            ({"a": [0, 1, 1], "b": [1, 0, 1]}, None, "multilabel", 2),
            ({"a": [True, False, True], "b": [1.0, 0.0, 1.0]}, None, "multilabel", 2),
            ({"a": [0.5, 1, 3], "b": [1, 0, 1]}, None, "regression", 2),
            ({"a": [0, 1, 1], "b": [1, 0, 1]}, "regression", "regression", 2),
            ({"a": [0.2, 1, 0], "b": [0.8, 0, 1]}, "multiclass", "multiclass", 2),
        ],
    )
    def test_several(self, columns, asked, kind, outputs):
        task = plan_target(pl.DataFrame(columns), list(columns), kind=asked)
        assert (task.kind, task.outputs) == (kind, outputs)
        assert task.soft == (kind == "multiclass")
        assert again(task) == task

    @pytest.mark.parametrize(
        ("cells", "outputs"), [(["a", "b"], 1), (["a", "b", "c", "c"], 3), ([0.5, 1.5], 1)]
    )
    def test_outputs(self, cells, outputs):
        assert plan(cells).outputs == outputs

    @pytest.mark.parametrize(
        ("name", "target", "kind", "log", "outputs"),
        [
            ("abalone/abalone.csv", "8", "regression", True, 1),
            ("adult/adult-train.csv", "14", "binary", False, 1),
            ("ames/ames.csv", "price", "regression", True, 1),
            ("bike-sharing/hour.csv", "cnt", "regression", False, 1),
            ("california-housing/housing.csv", "median_house_value", "regression", False, 1),
            ("credit-g/german.csv", "20", "binary", False, 1),
            ("diamonds/diamonds.csv", "price", "regression", True, 1),
            ("higgs-sample/binary.train", "0", "binary", False, 1),
            ("letter/letter-recognition.data", "Letter", "multiclass", False, 26),
            ("penguins/penguins.csv", "species", "multiclass", False, 3),
            ("wine-quality/winequality-white.csv", "11", "multiclass", False, 7),
        ],
    )
    def test_real_tables(self, name, target, kind, log, outputs):
        if not (path := DATA / name).exists():
            pytest.skip(f"{name} is not in ../shared/data")
        task = plan_target(read_table(path), [target])
        assert (task.kind, task.log, task.outputs) == (kind, log, outputs)


class TestLog:
    PRICES = np.exp(np.random.default_rng(0).normal(size=200)).tolist()

    def test_found_for_skewed_positive_numbers(self):
        assert plan(self.PRICES).log
        assert not plan([0.0, *self.PRICES]).log, "not all above 0"
        assert not plan(np.random.default_rng(0).normal(9, 1, 200).tolist()).log, "not skewed"
        assert not plan([1.5] * 190 + [2.5] * 10).log, "the logarithm is as skewed"

    def test_by_hand(self):
        assert not plan(self.PRICES, log=False).log
        assert plan([1.5, 2.5, 3.5], log=True).log

    def test_encodes_the_natural_logarithm(self):
        frame = pl.DataFrame({"y": self.PRICES})
        assert np.array_equal(plan(self.PRICES).encode(frame)[:, 0], np.log(self.PRICES))

    def test_every_output_must_want_it(self):
        frame = pl.DataFrame({"a": self.PRICES, "b": np.linspace(1, 2, 200)})
        assert not plan_target(frame, ["a", "b"]).log
        assert plan_target(frame.with_columns(b="a"), ["a", "b"]).log

    def test_refused(self):
        assert (
            "no logarithm in rows 1, 2 (counted from 0)" in problem(plan, [1.5, 0.0, -1.0], log=True).problem
        )
        assert "log_target is for regression" in problem(plan, ["a", "b"], log=True).problem
        task = plan(self.PRICES)
        assert "row 1" in problem(task.encode, pl.DataFrame({"y": [1.0, -1.0]})).problem


class TestEncode:
    def test_regression(self):
        encoded = plan(["1,234.5", "12", "7"]).encode(pl.DataFrame({"y": ["1,234.5", "7", "12"]}))
        assert encoded.tolist() == [[1234.5], [7], [12]]
        assert encoded.dtype == np.float64

    def test_classes(self):
        encoded = plan(["c", "a", "b", "a"]).encode(pl.DataFrame({"y": ["b", "a", "c"]}))
        assert encoded.tolist() == [1, 0, 2]
        assert encoded.dtype == np.int64

    @pytest.mark.parametrize("new", [[2, 1], [2.0, 1.0], ["2", "1"]])
    def test_whole_numbers_whatever_their_type(self, new):
        assert plan([1, 2, 1]).encode(pl.DataFrame({"y": new})).tolist() == [1, 0]

    def test_several(self):
        labels = pl.DataFrame({"a": [0, 1, 1], "b": [True, False, True]})
        assert plan_target(labels, ["b", "a"]).encode(labels).tolist() == [[1, 0], [0, 1], [1, 1]]
        shares = pl.DataFrame({"a": [0.2, 1, 0], "b": [0.8, 0, 1]})
        assert plan_target(shares, ["a", "b"], kind="multiclass").encode(shares).tolist() == [
            [0.2, 0.8],
            [1, 0],
            [0, 1],
        ]

    def test_texts_that_mark_missing_cells_in_files_can_be_classes_of_a_frame(self):
        frame = read_table(pd.DataFrame({"y": ["None", "some", "None", " some "]}))
        task = plan_target(frame, ["y"])
        assert task.classes == ((" some ", "None", "some"),)
        assert task.encode(frame).tolist() == [1, 2, 1, 0]

    def test_unknown_classes(self):
        task = plan(["<=50K", ">50K"])
        error = problem(task.encode, pl.DataFrame({"y": ["<=50K", "<=50K.", ">50K."]}))
        assert "holds unknown classes: `<=50K.`, `>50K.` in rows 1, 2 (counted from 0)" in error.problem
        assert "`<=50K`" in error.hint

    def test_missing_targets(self):
        task = plan(["a", "b"])
        assert (
            "is missing in 1 of 2 rows: row 1"
            in problem(task.encode, pl.DataFrame({"y": ["a", None]})).problem
        )
        assert "there is no target `y`" in problem(task.encode, pl.DataFrame({"x": [1]})).problem


class TestDecode:
    @pytest.mark.parametrize(
        "labels",
        [["x", "yy", "x"], [3, 1, 3], [True, False, True], [1.5, 0.5, 1.5], ["<script>", "", "<script>"]],
    )
    def test_labels_come_back_in_their_type(self, labels):
        frame = pl.DataFrame({"y": labels})
        task = again(plan(labels, kind="binary"))
        decoded = task.decode_classes(task.encode(frame))
        assert decoded.tolist() == labels
        assert [type(label) for label in decoded.tolist()] == [type(label) for label in labels]

    def test_dates_as_classes_are_text(self):
        days = [dt.date(2020, 1, 2), dt.date(2020, 1, 1)]
        task = again(plan(days, kind="binary"))
        assert task.decode_classes(task.encode(pl.DataFrame({"y": days}))).tolist() == [
            "2020-01-02",
            "2020-01-01",
        ]

    def test_labels(self):
        frame = pl.DataFrame({"a": [0, 1, 1], "b": [1, 0, 1]})
        task = plan_target(frame, ["a", "b"])
        assert task.decode_classes(task.encode(frame)).tolist() == [[0, 1], [1, 0], [1, 1]]

    def test_shares(self):
        frame = pl.DataFrame({"cat": [0.2, 1, 0], "dog": [0.8, 0, 1]})
        task = plan_target(frame, ["cat", "dog"], kind="multiclass")
        assert task.decode_classes(task.encode(frame).argmax(axis=1)).tolist() == ["dog", "cat", "dog"]

    @given(
        st.lists(st.integers(-(2**53), 2**53), min_size=2, max_size=9, unique=True)
        | st.lists(st.text(max_size=5), min_size=2, max_size=9, unique=True)
        | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=9, unique=True),
        st.randoms(use_true_random=False),
    )
    def test_any_labels_come_back(self, labels, random):
        cells = [*labels, *random.choices(labels, k=5)]
        task = again(plan(cells, kind="multiclass"))
        assert task.decode_classes(task.encode(pl.DataFrame({"y": cells}))).tolist() == cells
        assert list(task.classes[0]) == sorted(task.classes[0])


class TestComplete:
    FRAME = pl.DataFrame({"x": [1, 2, 3, 4], "a": [1.0, None, float("nan"), 4.0], "b": ["u", "v", "w", None]})

    def test_nothing_is_missing(self):
        assert complete_targets(self.FRAME, ["x"], drop_missing=False).equals(self.FRAME)

    def test_rows_are_named(self):
        error = problem(complete_targets, self.FRAME, ["a"], drop_missing=False)
        assert "the target `a` is missing in 2 of 4 rows: rows 1, 2 (counted from 0)" in error.problem
        assert "--drop-missing-targets" in error.hint

    def test_set_aside_when_asked(self):
        assert complete_targets(self.FRAME, ["a"], drop_missing=True)["x"].to_list() == [1, 4]
        assert complete_targets(self.FRAME, ["a", "b"], drop_missing=True)["x"].to_list() == [1]

    def test_infinite(self):
        frame = pl.DataFrame({"y": [1.0, float("inf"), None, float("-inf")]})
        assert "infinite in rows 1, 3" in problem(complete_targets, frame, ["y"], drop_missing=True).problem

    def test_all_missing(self):
        frame = pl.DataFrame({"y": pl.Series([None, None], dtype=pl.Float64), "z": [None, None]})
        for name in ("y", "z"):
            assert (
                "missing in every row" in problem(complete_targets, frame, [name], drop_missing=True).problem
            )

    def test_plans_look_at_complete_rows_alone(self):
        assert plan(["u", "v", "u", None]).classes == (("u", "v"),)


class TestRefused:
    @pytest.mark.parametrize(
        ("cells", "options", "text"),
        [
            (["a", "a"], {}, "one class only, `a`"),
            ([1, 1], {}, "is 1 in every row"),
            ([2.5, 2.5], {}, "is 2.5 in every row"),
            ([1, 1], {"kind": "binary"}, "one class only, `1`"),
            (["a", "b", "c"], {}, "a class of its own in each of 3 rows"),
            (["a", "b", "c", "c"], {"kind": "binary"}, "has 3 classes; binary takes two"),
            ([0, 1, 2], {"kind": "multilabel"}, "has 3 classes; multilabel takes two"),
            (
                ["a", "b"],
                {"kind": "regression"},
                "holds text where numbers are expected: `a`, `b` in rows 0, 1",
            ),
            (["a", "b"], {"kind": "regresion"}, "`regresion` is no task"),
            ([dt.date(2020, 1, 1), dt.date(2020, 1, 2)], {}, "holds dates"),
            ([[1], [2]], {}, "holds lists"),
            ([{"a": 1}, {"a": 2}], {"kind": "binary"}, "holds records"),
        ],
    )
    def test_one_target(self, cells, options, text):
        assert text in problem(plan, cells, **options).problem

    @pytest.mark.parametrize(
        ("columns", "kind", "text"),
        [
            ({"a": [0, 1], "b": [1, 0]}, "binary", "a binary task has one target; got 2"),
            ({"a": [0, 1], "b": [1, 1]}, None, "the target `b` has one class only, `1`"),
            ({"a": [0.5, 0.2], "b": [0.5, 0.9]}, "multiclass", "no class probabilities in row 1"),
            ({"a": [1.5, 0.2], "b": [-0.5, 0.8]}, "multiclass", "no class probabilities in row 0"),
            ({"a": ["u", "v"], "b": [1.5, 2.5]}, None, "column `a` holds text"),
            ({"a": [1.5, 2.5], "b": [3.5, 3.5]}, None, "the target `b` is 3.5 in every row"),
        ],
    )
    def test_several_targets(self, columns, kind, text):
        assert text in problem(plan_target, pl.DataFrame(columns), list(columns), kind=kind).problem

    def test_names(self):
        frame = pl.DataFrame({"price": [1.5, 2.5], "area": [1, 2]})
        assert "Did you mean `price`?" in problem(plan_target, frame, ["prise"]).hint
        assert "named twice" in problem(plan_target, frame, ["price", "price"]).problem
        assert "no target is named" in problem(plan_target, frame, []).problem
