"""Weights of rows and classes: what is read, what is refused, and that weight 0 means absent and 2 means twice."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from foldwise.data.folds import make_folds
from foldwise.data.table import Table, open_table, read_source
from foldwise.data.target import Task
from foldwise.data.weights import (
    Weighting,
    read_class_weights,
    read_weights,
    score_weights,
    training_weights,
)
from foldwise.errors import DataError, SettingsError

BINARY = Task("binary", ("ill",), (("no", "yes"),))
NUMBERS = Task("multiclass", ("y",), ((0, 1, 2),))
TRUTH = Task("binary", ("y",), ((False, True),))
SOFT = Task("multiclass", ("p", "q"), (("p", "q"),), soft=True)


def frame(rows: int = 40, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "size": random.normal(size=rows),
            "color": random.choice(["red", "blue"], size=rows),
            "w": random.integers(0, 4, size=rows),
            "kind": random.choice(["a", "b", "c"], size=rows, p=[0.6, 0.3, 0.1]),
        }
    )


def opened(table: pl.DataFrame, target: str = "kind", **asked: Any) -> Table:
    table, targets, source = read_source(table, None, target, None, {})
    return open_table(table, targets, source, **asked)


# Weights of rows


@pytest.mark.parametrize(
    "given",
    [
        [2, 0, 1.5],
        (2.0, 0.0, 1.5),
        np.array([[2.0], [0.0], [1.5]]),
        np.array([2.0, 0.0, 1.5], dtype=np.float32),
        pd.Series([2.0, 0.0, 1.5], index=[7, 8, 9], name="w"),
        pl.Series([2.0, 0.0, 1.5]),
        "w",
        "text",
    ],
)
def test_weights_come_from_a_column_or_from_anything_with_a_number_for_each_row(given: Any) -> None:
    table = pl.DataFrame({"w": [2, 0, 1.5], "text": ["2", "0", "1,5"]}, strict=False)
    assert read_weights(table, given).tolist() == [2, 0, 1.5]


def test_truth_values_say_which_rows_count_and_columns_without_names_have_numbers() -> None:
    table = pl.DataFrame({"column_0": [True, False], "column_1": [1, 2]})
    assert read_weights(table, "column_0").tolist() == [1, 0]
    assert read_weights(table, 1).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([1, -1, 2, -0.5], "is negative in rows 1, 3 (counted from 0)."),
        ([1, None, 2, float("nan")], "is missing in rows 1, 3 (counted from 0)."),
        ([1, float("inf"), 2, 3], "is infinite in row 1 (counted from 0)."),
        ([float("-inf"), 1, None, 3], "is missing in row 2 (counted from 0)."),
        ([0, 0, 0, 0], "is 0 in every row."),
        (["1", "2", "many", "3"], "holds no numbers: `1`."),
        (["1", "2", "", "3"], "is missing in row 2 (counted from 0)."),
        ([dt.date(2024, 1, 31)] * 4, "holds no numbers: `2024-01-31`."),
    ],
)
def test_what_is_no_weight_is_refused(cells: list[Any], said: str) -> None:
    table = pl.DataFrame({"w": cells}, strict=False)
    with pytest.raises(DataError, match=re.escape(f"the weight column `w` {said}")):
        read_weights(table, "w")
    with pytest.raises(DataError, match=re.escape(f"`weights` {said}")):
        read_weights(pl.DataFrame({"x": range(4)}), cells)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(DataError) as refused:
        read_weights(pl.DataFrame({"w": [1.0, -1.0, None, float("-inf")]}), "w")
    for said in ("missing in row 2", "infinite in row 3", "negative in rows 1, 3"):
        assert said in str(refused.value)


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 5, np.ones((4, 2)), 3, "weight"])
def test_weights_that_do_not_fit_the_table_are_refused(weights: Any) -> None:
    with pytest.raises(DataError, match=r"`weights` has|there is no column"):
        read_weights(pl.DataFrame({"x": range(4), "w": 1.0}), weights)


def test_the_weight_column_is_no_feature() -> None:
    table = opened(frame(), weights="w")
    column = next(c for c in table.columns.columns if c.name == "w")
    assert (column.role, column.use) == ("weight", "how much a row counts")
    assert "w" not in {feature.column for feature in table.columns.features}
    assert table.weighting == Weighting(column="w", absent=int((frame()["w"] == 0).sum()))


@pytest.mark.parametrize("other", ["groups", "time", "fold_column"])
def test_a_column_has_one_role(other: str) -> None:
    with pytest.raises(DataError, match=r"column `w` cannot be the (group|time|fold) and the weight"):
        opened(frame(), weights="w", **{other: "w"})
    with pytest.raises(DataError, match="`kind` is the target; it cannot be the weight too"):
        opened(frame().with_columns(kind=1 + pl.int_range(40) % 2), weights="kind")


def same(one: Table, other: Table, but: set[str]) -> None:
    """Compare tables bit by bit, but for some fields."""
    for field in dataclasses.fields(Table):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in but:
            continue
        if isinstance(a, pl.DataFrame):
            assert a.equals(b), field.name
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, field.name)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("test", [None, 0.25])
@pytest.mark.parametrize("beside", [False, True])
def test_rows_of_weight_0_are_absent(test: float | None, beside: bool) -> None:
    every = frame().with_columns(kind=pl.when(pl.int_range(40) == 3).then(pl.lit("d")).otherwise("kind"))
    weights = every["w"].set(pl.Series(np.arange(40) == 3), 0).to_numpy()
    every = every.with_columns(w=pl.Series(weights))
    asked = {"test": test, "class_weights": "balanced"}
    present = np.flatnonzero(weights > 0)
    if beside:
        one = opened(every, weights=weights, **asked)
        other = opened(every[present], weights=weights[present], **asked)
    else:
        one = opened(every, weights="w", **asked)
        other = opened(every[present], weights="w", **asked)
    same(one, other, but={"row", "sealed_row", "source", "weighting"})
    assert present[other.row].tolist() == one.row.tolist()
    if one.sealed_row is not None and other.sealed_row is not None:
        assert present[other.sealed_row].tolist() == one.sealed_row.tolist()
    assert one.weighting == dataclasses.replace(other.weighting, absent=40 - len(present))
    assert one.task.classes == (("a", "b", "c"),)  # the only `d` is absent
    np.testing.assert_array_equal(one.weights, weights[one.row])


@pytest.mark.parametrize("weight", [1, 0.1, 7])
def test_weights_that_are_all_alike_change_nothing(weight: float) -> None:
    plain, weighted = opened(frame(), test=0.25), opened(frame(), test=0.25, weights=np.full(40, weight))
    same(plain, weighted, but={"weighting"})
    assert plain.weights.tolist() == [1] * len(plain.row)


def test_missing_targets_are_named_by_their_place_in_the_table() -> None:
    table = frame().with_columns(
        kind=pl.when(pl.int_range(40) == 20).then(None).otherwise("kind"), w=pl.int_range(40) // 10
    )
    with pytest.raises(DataError, match=re.escape("missing in 1 of 30 rows: row 20 (counted from 0)")):
        opened(table, weights="w")
    found = opened(table, weights="w", drop_missing_targets=True)
    np.testing.assert_array_equal(found.weights, found.row // 10)


def test_sealed_rows_keep_their_weights() -> None:
    weights = np.arange(40.0)
    named = opened(frame().with_columns(w=weights), weights="w", test=0.25)
    beside = opened(frame(), weights=weights, test=0.25)
    for table in (named, beside):
        assert table.sealed is not None
        assert table.sealed_weights is not None
        sealed = np.setdiff1d(np.arange(1, 40), table.row)
        np.testing.assert_array_equal(table.sealed_weights, weights[sealed])
        np.testing.assert_array_equal(table.weights, weights[table.row])
    assert named.sealed is not None
    assert named.sealed["w"].to_list() == named.sealed_weights.tolist()  # type: ignore[union-attr]
    assert beside.sealed is not None
    assert beside.sealed.columns == frame().columns


# Weights of classes


@pytest.mark.parametrize(
    ("asked", "task", "expected"),
    [
        (None, NUMBERS, None),
        ("balanced", NUMBERS, "balanced"),
        ({"yes": 5, "no": 1}, BINARY, (1, 5)),
        ({0: 1, 1: 2, 2: 0.5}, NUMBERS, (1, 2, 0.5)),
        ({"0": 1, "1": 2, "2": 0.5}, NUMBERS, (1, 2, 0.5)),
        ({np.int64(0): 1, np.float64(1): np.float32(2), "2.0": 0.5}, NUMBERS, None),
        ({True: 3, False: 1}, TRUTH, (1, 3)),
        ({"True": 3, "False": 1}, TRUTH, (1, 3)),
        ({"true": 3, "false": 1}, TRUTH, (1, 3)),
        ({"p": 3, "q": 1}, SOFT, (3, 1)),
    ],
)
def test_classes_are_named_as_the_user_writes_them(asked: Any, task: Task, expected: Any) -> None:
    if expected is None and asked is not None:  # "2.0" is no name of the class 2
        with pytest.raises(SettingsError, match=r"unknown class, `2\.0`"):
            read_class_weights(asked, task)
    else:
        assert read_class_weights(asked, task) == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"no": 1, "yess": 2}, "`class_weights` names an unknown class, `yess`.\nhint: Did you mean `yes`?"),
        ({"no": 1, "maybe": 2}, "unknown class, `maybe`.\nhint: the classes are `no`, `yes`"),
        ({"no": 1}, "`class_weights` says nothing of `yes`."),
        ({}, "`class_weights` says nothing of `no`, `yes`."),
        ({"no": 0, "yes": 1}, "the weight of class `no` must be a number above 0; got 0."),
        ({"no": -1, "yes": 1}, "the weight of class `no` must be a number above 0; got -1."),
        ({"no": 1, "yes": float("inf")}, "class `yes` must be a number above 0; got inf."),
        ({"no": 1, "yes": "2"}, "class `yes` must be a number above 0; got '2'."),
        ("balance", '`class_weights` must be "balanced" or give each class a weight'),
        ([1, 2], '`class_weights` must be "balanced" or give each class a weight'),
    ],
)
def test_class_weights_that_cannot_be_meant_are_refused(asked: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        read_class_weights(asked, BINARY)


def test_a_class_has_one_weight() -> None:
    with pytest.raises(SettingsError, match="class `1` is given two weights"):
        read_class_weights({1: 2, "1": 3, 0: 1, 2: 1}, NUMBERS)


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_only_classes_have_class_weights(kind: Any) -> None:
    with pytest.raises(SettingsError, match=f"this task is {kind}"):
        read_class_weights(
            "balanced", Task(kind, ("y", "z"), ((0, 1), (0, 1)) if kind == "multilabel" else ())
        )


# What follows

classes_of = st.lists(st.integers(0, 2), min_size=6, max_size=30).map(np.array)


@given(classes_of, st.integers(0, 99))
def test_balanced_weights_are_those_of_scikit_learn_on_the_training_rows(
    classes: np.ndarray, seed: int
) -> None:
    random = np.random.default_rng(seed)
    train = random.random((3, len(classes))) < 0.7
    train[:, 0] = True
    found = training_weights(np.ones(len(classes)), classes, train, "balanced")
    for fold, rows in enumerate(train):
        expected = compute_sample_weight("balanced", classes[rows])
        ours = np.ones(rows.sum()) if found is None else found[fold, rows]
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    scored = train[0]
    ours = score_weights(np.ones(len(classes)), classes, scored, "balanced")
    expected = compute_sample_weight("balanced", classes[scored])
    np.testing.assert_allclose(np.ones(scored.sum()) if ours is None else ours[scored], expected, rtol=1e-12)


@pytest.mark.parametrize("asked", ["balanced", (1.0, 2.5, 0.5), None])
@given(classes_of, st.integers(0, 99))
def test_a_weight_of_2_is_a_row_twice(asked: Any, classes: np.ndarray, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights, train = random.integers(1, 4, len(classes)), random.random((2, len(classes))) < 0.7
    train[:, 0] = True
    twice = np.repeat(np.arange(len(classes)), weights)
    ones = np.ones(len(twice))
    once = training_weights(weights.astype(float), classes, train, asked)
    repeated = training_weights(ones, classes[twice], train[:, twice], asked)
    for fold, rows in enumerate(train):
        own = weights[rows] if once is None else once[fold, rows]
        each = np.broadcast_to(ones, (2, len(ones))) if repeated is None else repeated
        total = np.bincount(twice, each[fold], minlength=len(classes))[rows]
        np.testing.assert_allclose(own, total, rtol=1e-12)


def test_no_fold_learns_from_classes_that_it_must_not_see() -> None:
    classes, folds = np.array([0, 0, 1, 1, 0, 1, 1, 1]), make_folds(8, 4)
    before = training_weights(np.ones(8), classes, folds.train, "balanced")
    assert before is not None
    for fold, (train, validation) in enumerate(zip(folds.train, folds.validation, strict=True)):
        changed = np.where(validation, 1 - classes, classes)
        after = training_weights(np.ones(8), changed, folds.train, "balanced")
        assert after is not None
        np.testing.assert_array_equal(before[fold, train], after[fold, train])


def test_a_mixture_of_classes_has_the_mean_of_their_weights() -> None:
    shares = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0], [0.5, 0.5]])
    train = np.ones((1, 4), bool)
    found = training_weights(np.ones(4), shares, train, (1.0, 3.0))
    assert found is not None
    np.testing.assert_allclose(found[0], [1, 2.5, 3, 2])
    balanced = score_weights(np.ones(4), shares, train[0], "balanced")
    assert balanced is not None
    np.testing.assert_allclose(balanced, shares @ [4 / (2 * 1.75), 4 / (2 * 2.25)], rtol=1e-12)
    hard = training_weights(np.ones(4), np.array([0, 1, 1, 0]), train, (1.0, 3.0))
    assert hard is not None
    one_hot = np.eye(2)[[0, 1, 1, 0]]
    np.testing.assert_array_equal(hard, training_weights(np.ones(4), one_hot, train, (1.0, 3.0)))


def test_without_weights_there_are_none() -> None:
    classes, train = np.array([0, 1, 0, 1]), np.ones((2, 4), bool)
    for asked in (None, "balanced", (1.0, 1.0)):
        assert training_weights(np.ones(4), classes, train, asked) is None
        assert score_weights(np.ones(4), classes, train[0], asked) is None


@pytest.mark.parametrize(
    ("weighting", "said"),
    [
        (Weighting(), ""),
        (Weighting("w"), "Rows are weighted by `w`, in training and in every score."),
        (
            Weighting(given=True, absent=1),
            "Rows are weighted as given, in training and in every score; 1 row of weight 0 left out.",
        ),
        (Weighting(classes="balanced"), "Classes are balanced, in training and in every score."),
        (
            Weighting("w", classes=(1.0, 2.5), absent=1200),
            "Rows are weighted by `w` and classes are weighted (no: 1, yes: 2.5), in training and in every "
            "score; 1,200 rows of weight 0 left out.",
        ),
    ],
)
def test_what_is_said_of_weights(weighting: Weighting, said: str) -> None:
    assert weighting.sentence(BINARY) == said
