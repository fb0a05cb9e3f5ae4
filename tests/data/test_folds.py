"""Folds: which rows are learnt from and which are scored on, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import model_selection

from foldwise.data.folds import Folds, make_folds, seal
from foldwise.errors import PlanError


def assert_partition(folds: Folds, times: int = 1) -> None:
    """Check that every row is validated so often, and learnt from in all other folds."""
    assert (folds.validation.sum(axis=0) == times).all()
    assert (folds.train == ~folds.validation).all()


rows_and_folds = st.integers(2, 60).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(2, rows)))


# Every row exactly once


@given(rows_and_folds, st.integers(0, 1000), st.integers(1, 3))
def test_k_folds_validate_each_row_once_in_each_repeat(
    sizes: tuple[int, int], seed: int, repeats: int
) -> None:
    rows, k = sizes
    folds = make_folds(rows, k, repeats=repeats, seed=seed)
    assert len(folds) == k * repeats
    assert_partition(folds, repeats)
    counts = folds.validation.sum(axis=1)
    assert counts.max() - counts.min() <= 1  # nothing is dropped to make sizes equal
    for repeat in range(repeats):
        part = slice(repeat * k, (repeat + 1) * k)
        assert (folds.validation[part].sum(axis=0) == 1).all()


@given(st.lists(st.integers(3, 30), min_size=2, max_size=4), st.integers(2, 3), st.integers(0, 99))
def test_stratified_folds_have_their_share_of_each_class(counts: list[int], k: int, seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = make_folds(len(classes), k, classes=classes, seed=seed)
    assert_partition(folds)
    for number, count in enumerate(counts):
        shares = (folds.validation & (classes == number)).sum(axis=1)
        assert shares.min() >= count // k
        assert shares.max() <= -(-count // k)


@given(st.lists(st.integers(0, 9), min_size=12, max_size=50), st.integers(0, 99))
def test_groups_stay_together(groups: list[int], seed: int) -> None:
    groups[:3] = [0, 1, 2]
    folds = make_folds(len(groups), 3, groups=np.array(groups), seed=seed)
    assert_partition(folds)
    for validation in folds.validation:
        inside = {g for g, v in zip(groups, validation, strict=True) if v}
        assert not inside & {g for g, v in zip(groups, validation, strict=True) if not v}


def test_groups_and_classes_together() -> None:
    groups = np.repeat(np.arange(12), 5)
    classes = np.tile([0, 0, 0, 1, 1], 12)
    folds = make_folds(60, 4, groups=groups, classes=classes)
    assert_partition(folds)
    assert folds.how == "grouped stratified 4-fold cross-validation"
    for validation in folds.validation:
        assert len(set(groups[validation]) & set(groups[~validation])) == 0
        assert classes[validation].mean() == pytest.approx(0.4)


@given(st.integers(2, 40))
def test_leave_one_out_leaves_each_row_out_once(rows: int) -> None:
    folds = make_folds(rows, "loo")
    assert_partition(folds)
    assert len(folds) == rows
    assert [v.tolist() for v in folds.validation_rows] == [[i] for i in range(rows)]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=40))
def test_a_column_of_folds_is_followed(numbers: list[str]) -> None:
    numbers[:2] = ["a", "b"]
    folds = make_folds(len(numbers), numbers=np.array(numbers))
    assert_partition(folds)
    for name, validation in zip(sorted(set(numbers)), folds.validation, strict=True):
        assert [n == name for n in numbers] == validation.tolist()


def test_folds_of_a_column_may_differ_in_size() -> None:
    folds = make_folds(10, numbers=np.array([3, 3, 3, 3, 3, 3, 3, 1, 1, 2]))
    assert folds.validation.sum(axis=1).tolist() == [2, 1, 7]
    assert folds.how == "3 folds given by a column"


# The future


@given(st.lists(st.integers(0, 30), min_size=8, max_size=60), st.integers(2, 4))
def test_nobody_learns_from_the_future(times: list[int], k: int) -> None:
    times[: k + 1] = range(100, 101 + k)  # enough different moments
    time = np.array(times)
    folds = make_folds(len(time), k, time=time)
    assert len(folds) == k
    for train, validation in zip(folds.train, folds.validation, strict=True):
        assert time[train].max() < time[validation].min()
    assert (folds.validation.sum(axis=0) <= 1).all()
    later = folds.validation.any(axis=0)
    assert later[time == time.max()].all()


@given(st.lists(st.integers(0, 30), min_size=10, max_size=40))
def test_the_order_of_the_rows_does_not_matter_when_there_is_a_time(times: list[int]) -> None:
    times[:4] = [100, 101, 102, 103]
    time, shuffled = np.array(times), np.random.default_rng(0).permutation(len(times))
    folds, other = make_folds(len(time), 3, time=time), make_folds(len(time), 3, time=time[shuffled])
    assert (folds.train[:, shuffled] == other.train).all()
    assert (folds.validation[:, shuffled] == other.validation).all()


# Hold-out and scikit-learn


@given(st.integers(10, 80), st.floats(0.1, 0.6), st.integers(1, 3), st.integers(0, 50))
def test_a_hold_out_validates_its_share(rows: int, share: float, repeats: int, seed: int) -> None:
    folds = make_folds(rows, holdout=share, repeats=repeats, seed=seed)
    assert len(folds) == repeats
    assert (folds.validation.sum(axis=1) == np.ceil(rows * share)).all()
    assert (folds.train == ~folds.validation).all()


def test_a_hold_out_is_stratified_and_keeps_groups() -> None:
    classes = np.repeat([0, 1], [40, 10])
    assert classes[make_folds(50, holdout=0.2, classes=classes).validation[0]].sum() == 2
    groups = np.repeat(np.arange(10), 5)
    validation = make_folds(50, holdout=0.3, groups=groups).validation[0]
    assert len(set(groups[validation])) == 3
    assert validation.sum() == 15


@pytest.mark.parametrize(
    "splitter",
    [
        model_selection.KFold(4, shuffle=True, random_state=1),
        model_selection.StratifiedKFold(4),
        model_selection.LeaveOneGroupOut(),
        model_selection.ShuffleSplit(3, test_size=0.25, random_state=0),
        model_selection.TimeSeriesSplit(3),
        model_selection.PredefinedSplit(np.arange(24) % 4),
    ],
    ids=lambda s: type(s).__name__,
)
def test_any_splitter_of_scikit_learn(splitter: Any) -> None:
    classes = np.arange(24) % 2
    groups = np.arange(24) // 6 if isinstance(splitter, model_selection.LeaveOneGroupOut) else None
    folds = make_folds(24, splitter, classes=classes, groups=groups)
    for (train, validation), ours, theirs in zip(
        splitter.split(np.zeros((24, 1)), classes, groups), folds.train, folds.validation, strict=True
    ):
        assert np.flatnonzero(ours).tolist() == sorted(train)
        assert np.flatnonzero(theirs).tolist() == sorted(validation)
    assert type(splitter).__name__ in folds.how


def test_k_folds_are_those_of_scikit_learn() -> None:
    ours = make_folds(23, 5, seed=3)
    theirs = model_selection.KFold(5, shuffle=True, random_state=3).split(np.zeros(23))
    assert [v.tolist() for v in ours.validation_rows] == [sorted(v) for _, v in theirs]


def test_the_same_seed_gives_the_same_folds() -> None:
    folds = make_folds(30, 5, seed=1)
    assert folds.same_as(make_folds(30, 5, seed=1))
    assert not folds.same_as(make_folds(30, 5, seed=2))


# What is refused


class Overlapping:
    """A splitter that scores on rows that were learnt from."""

    def split(self, x: object, y: object, groups: object) -> list[tuple[list[int], list[int]]]:
        return [([0, 1, 2], [2, 3])]


class Empty:
    """A splitter that scores on nothing."""

    def split(self, x: object, y: object, groups: object) -> list[tuple[list[int], list[int]]]:
        return [([0, 1], [2]), ([0, 1], [])]


NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"asked": 1}, "`folds` must be at least 2; got 1.\nhint: --holdout 0.2 validates on one share"),
        ({"asked": 0}, "`folds` must be at least 2; got 0."),
        ({"asked": -3}, "`folds` must be at least 2; got -3."),
        ({"asked": True}, "`folds` must be at least 2; got True."),
        ({"asked": 11}, "11 folds need at least 11 rows; there are 10.\nhint: --folds 5"),
        ({"asked": 2.5}, "`folds` must be a number, 'loo' or a scikit-learn splitter; got 2.5."),
        ({"asked": "lo"}, "`folds` must be a number, 'loo' or a scikit-learn splitter; got 'lo'."),
        ({"asked": None}, "`folds` must be a number, 'loo' or a scikit-learn splitter; got None."),
        ({"repeats": 0}, "`repeats` must be at least 1; got 0."),
        ({"asked": "loo", "repeats": 2}, "`repeats` needs folds drawn at random; folds='loo' gives the same"),
        ({"time": np.arange(10), "repeats": 2}, "`repeats` needs folds drawn at random; time gives the same"),
        ({"numbers": np.arange(10) % 2, "repeats": 2}, "`repeats` needs folds drawn at random; a fold column"),
        ({"holdout": 0.0}, "`holdout` must be a share between 0 and 1; got 0.0.\nhint: --holdout 0.2"),
        ({"holdout": 1.0}, "`holdout` must be a share between 0 and 1; got 1.0."),
        ({"holdout": 20}, "`holdout` must be a share between 0 and 1; got 20."),
        ({"holdout": 0.2, "time": np.arange(10)}, "time and holdout are different ways to make folds."),
        ({"asked": "loo", "holdout": 0.2}, "holdout and folds='loo' are different ways to make folds."),
        ({"asked": "loo", "numbers": np.arange(10)}, "a fold column and folds='loo' are different ways"),
        ({"asked": model_selection.KFold(2), "holdout": 0.2}, "holdout and a splitter are different ways"),
        ({"time": np.arange(10), "groups": np.arange(10)}, "groups cannot be combined with time."),
        ({"asked": "loo", "groups": np.arange(10)}, "groups cannot be combined with folds='loo'."),
        ({"numbers": np.arange(10) % 2, "groups": np.arange(10)}, "groups cannot be combined with a fold column."),
        ({"numbers": np.zeros(10)}, "the fold column holds one value only."),
        ({"time": np.arange(10) // 4}, "5 folds in time need at least 6 different times; there are 3.\nhint: --fol"),
        ({"groups": np.arange(10) // 4}, "5 folds need at least 5 groups; there are 3.\nhint: --folds 3"),
        ({"groups": np.zeros(10), "holdout": 0.3}, "2 folds need at least 2 groups; there are 1."),
        ({"asked": model_selection.GroupKFold(3)}, "the folds cannot be made: The 'groups' parameter should"),
        ({"asked": model_selection.KFold(20)}, "the folds cannot be made: Cannot have number of splits n_splits=20"),
        ({"asked": Overlapping()}, "row 2 is both a training and a validation row of fold 1."),
        ({"asked": Empty()}, "fold 2 has no validation rows."),
        (
            {"classes": np.array([0] * 4 + [1] * 5 + [2]), "class_names": NAMES},
            "these classes have fewer rows than the 5 folds: `cat: 4 rows`, `owl: 1 row`.\nhint: --folds 2",
        ),
        (
            {"classes": np.array([0] * 5 + [1] * 5), "class_names": NAMES, "asked": 6},
            "these classes have fewer rows than the 6 folds: `cat: 5 rows`, `dog: 5 rows`.\nhint: --folds 5",
        ),
        ({"classes": np.arange(10) == 0, "holdout": 0.2}, "this class has fewer rows than the 2 folds: `True: 1 row`"),
    ],
)  # fmt: skip
def test_what_the_rows_do_not_allow_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        make_folds(10, **{"asked": 5, **asked})


def test_one_row_cannot_be_left_out() -> None:
    with pytest.raises(PlanError, match="leave-one-out needs at least 2 rows; there are 1"):
        make_folds(1, "loo")


# Sealed rows


def test_sealed_rows_are_a_share_of_each_class() -> None:
    classes = np.repeat([0, 1], [80, 20])
    sealed = seal(100, 0.2, classes, None, None, 0)
    assert [sealed[classes == c].sum() for c in (0, 1)] == [16, 4]


def test_sealed_groups_are_whole() -> None:
    groups = np.arange(50) // 5
    sealed = seal(50, 0.2, None, groups, None, 0)
    assert not set(groups[sealed]) & set(groups[~sealed])
    assert sealed.sum() == 10


@given(st.lists(st.integers(0, 50), min_size=5, max_size=60), st.floats(0.1, 0.5))
def test_sealed_rows_are_the_latest_when_there_is_a_time(times: list[int], share: float) -> None:
    times[0], times[1] = 0, 60
    time = np.array(times)
    sealed = seal(len(time), share, None, None, time, 0)
    assert sealed.any()
    assert (~sealed).any()
    assert time[~sealed].max() < time[sealed].min()


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.2])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(PlanError, match=r"`test` must be a share between 0 and 1; got .*\nhint: --test 0.2"):
        seal(10, share, None, None, None, 0)


def test_the_latest_rows_cannot_be_all() -> None:
    with pytest.raises(PlanError, match="all rows are of one time"):
        seal(10, 0.2, None, None, np.zeros(10), 0)
