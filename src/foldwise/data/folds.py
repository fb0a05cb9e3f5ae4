"""Which rows a member learns from and which it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from sklearn import model_selection

from foldwise.errors import PlanError, listed, percent

FoldsAsked = int | Literal["loo"] | Sequence[int] | Any


@dataclass(frozen=True)
class Folds:
    """The training and validation rows of every fold, and one sentence on how they were made.

    Where folds lie inside others, `group` is 0 for the outer ones, which come first, and f + 1 for those that divide
    the training rows of the outer fold f (from 0). A mean over folds is one over a group.
    """

    train: Bool[np.ndarray, "folds rows"]
    validation: Bool[np.ndarray, "folds rows"]
    how: str
    group: Int[np.ndarray, " folds"] | None = None

    def __len__(self) -> int:
        return len(self.train)

    @property
    def groups(self) -> Int[np.ndarray, " folds"]:
        """Give each fold's group; 0 where none lies inside another."""
        return np.zeros(len(self), dtype=np.int64) if self.group is None else self.group

    @property
    def outer(self) -> Folds:
        """Give the folds that lie inside no other."""
        if self.group is None:
            return self
        own = self.group == 0
        return Folds(self.train[own], self.validation[own], self.how)

    @property
    def validation_rows(self) -> list[Int[np.ndarray, " fold_rows"]]:
        """List each fold's validation rows in ascending order."""
        return [np.flatnonzero(v) for v in self.validation]

    def same_as(self, other: Folds) -> bool:
        """Tell whether two sets of folds divide the rows alike."""
        return np.array_equal(self.train, other.train) and np.array_equal(self.validation, other.validation)


def make_folds(
    rows: int,
    asked: FoldsAsked = 5,
    *,
    repeats: int = 1,
    classes: Int[np.ndarray, " rows"] | None = None,
    class_names: Sequence[object] = (),
    groups: np.ndarray | None = None,
    time: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
    holdout: float | None = None,
    seed: int = 0,
) -> Folds:
    """Divide rows into folds.

    `asked` is a number of folds, "loo" (each row its own fold), or any scikit-learn splitter. `classes` (class
    numbers) stratifies; `groups` keeps rows of one group together; `time` validates on later rows only;
    `numbers` gives each row's fold; `holdout` validates once, on that share of the rows.
    Raises PlanError when the rows do not allow it.

    >>> folds = make_folds(10, 5)
    >>> folds.validation.sum(axis=0)
    array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    """
    _refuse_contradictions(asked, repeats, groups, time, numbers, holdout)
    if numbers is not None:
        return _numbered(numbers)
    if time is not None:
        return _ordered(time, _count(asked, rows))
    if is_splitter(asked):
        return _split(asked, rows, classes, groups, f"{type(asked).__name__} of scikit-learn")
    if asked == "loo":
        return _leave_one_out(rows)
    if holdout is not None:
        return _hold_out(rows, holdout, repeats, classes, class_names, groups, seed)
    return _k_fold(rows, _count(asked, rows), repeats, classes, class_names, groups, seed)


def _refuse_contradictions(
    asked: FoldsAsked, repeats: int, groups: object, time: object, numbers: object, holdout: float | None
) -> None:
    if not is_splitter(asked) and not isinstance(asked, int | np.integer) and asked != "loo":
        raise PlanError(
            f"`folds` must be a number, 'loo' or a scikit-learn splitter; got {asked!r}.",
            hint="a column that holds each row's fold is given as fold_column",
        )
    if repeats < 1:
        raise PlanError(f"`repeats` must be at least 1; got {repeats}.")
    schemes = [
        name
        for name, given in (
            ("time", time is not None),
            ("a fold column", numbers is not None),
            ("holdout", holdout is not None),
            ("folds='loo'", isinstance(asked, str) and asked == "loo"),
            ("a splitter", is_splitter(asked)),
        )
        if given
    ]
    if len(schemes) > 1:
        raise PlanError(
            f"{' and '.join(schemes)} are different ways to make folds.", hint="choose one of them"
        )
    if schemes and schemes != ["holdout"] and repeats > 1:
        raise PlanError(
            f"`repeats` needs folds drawn at random; {schemes[0]} gives the same folds each time."
        )
    if groups is not None and schemes and schemes[0] not in ("holdout", "a splitter"):
        raise PlanError(f"groups cannot be combined with {schemes[0]}.", hint="choose one of them")


def is_splitter(asked: FoldsAsked) -> bool:
    """Tell whether folds are asked for by an object that splits rows, as those of scikit-learn do."""
    return hasattr(asked, "split") and not isinstance(asked, str | type)


def refuse_impossible(
    asked: Any, *, repeats: int = 1, seeds: int = 1, holdout: float | None = None, test: float | None = None
) -> None:
    """Raise PlanError for what no table allows, before one is read.

    >>> refuse_impossible(5, holdout=2)
    Traceback (most recent call last):
    foldwise.errors.PlanError: `holdout` must be a share between 0 and 1; got 2.
    hint: --holdout 0.2
    """
    if isinstance(asked, int | np.integer):
        _refuse_few(asked)
    for name, count in (("repeats", repeats), ("seeds", seeds)):
        if count < 1:
            raise PlanError(f"`{name}` must be at least 1; got {count}.", hint=f"--{name} 1")
    for name, share in (("holdout", holdout), ("test", test)):
        if share is not None:
            _refuse_no_share(name, share)


def _refuse_few(asked: Any) -> None:
    if isinstance(asked, bool) or asked < 2:
        raise PlanError(
            f"`folds` must be at least 2; got {asked}.", hint="--holdout 0.2 validates on one share"
        )


def _refuse_no_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise PlanError(f"`{name}` must be a share between 0 and 1; got {share}.", hint=f"--{name} 0.2")


def _count(asked: Any, rows: int) -> int:
    _refuse_few(asked)
    if asked > rows:
        raise PlanError(
            f"{asked} folds need at least {asked} rows; there are {rows}.",
            hint=f"--folds {max(2, rows // 2)}",
        )
    return int(asked)


def _split(
    splitter: Any, rows: int, classes: Any, groups: Any, how: str, fails: str = "the folds cannot be made"
) -> Folds:
    nothing = np.zeros((rows, 1))
    try:
        pairs = list(splitter.split(nothing, classes if classes is not None else np.zeros(rows), groups))
        train, validation = np.zeros((2, len(pairs), rows), dtype=bool)
        for fold, (learnt, scored) in enumerate(pairs):
            train[fold, learnt] = True
            validation[fold, scored] = True
    except (ValueError, IndexError) as error:  # the second: a splitter made for another number of rows
        raise PlanError(f"{fails}: {error}") from error
    return _checked(Folds(train, validation, how))


def _checked(folds: Folds) -> Folds:
    for fold, (train, validation) in enumerate(zip(folds.train, folds.validation, strict=True), start=1):
        if not train.any() or not validation.any():
            raise PlanError(f"fold {fold} has no {'training' if not train.any() else 'validation'} rows.")
        if (train & validation).any():
            row = np.flatnonzero(train & validation)[0]
            raise PlanError(f"row {row} is both a training and a validation row of fold {fold}.")
    return folds


def _k_fold(
    rows: int, k: int, repeats: int, classes: Any, class_names: Sequence[object], groups: Any, seed: int
) -> Folds:
    if groups is not None:
        _enough_groups(groups, k)
    if classes is not None:
        _enough_of_each_class(classes, class_names, k)
    parts = []
    for repeat in range(repeats):
        state = {"n_splits": k, "shuffle": True, "random_state": seed + repeat}
        if groups is not None and classes is not None:
            splitter: Any = model_selection.StratifiedGroupKFold(**state)
        elif groups is not None:
            splitter = model_selection.GroupKFold(**state)
        elif classes is not None:
            splitter = model_selection.StratifiedKFold(**state)
        else:
            splitter = model_selection.KFold(**state)
        parts.append(_split(splitter, rows, classes, groups, ""))
    kind = "grouped " * (groups is not None) + "stratified " * (classes is not None)
    how = f"{kind}{k}-fold cross-validation" + (f", repeated {repeats} times" if repeats > 1 else "")
    return Folds(np.concatenate([p.train for p in parts]), np.concatenate([p.validation for p in parts]), how)


def _enough_groups(groups: np.ndarray, k: int) -> None:
    distinct = len(np.unique(groups))
    if distinct < k:
        raise PlanError(
            f"{k} folds need at least {k} groups; there are {distinct}.", hint=f"--folds {max(2, distinct)}"
        )


def _enough_of_each_class(classes: np.ndarray, names: Sequence[object], k: int) -> None:
    if few := _rarer_than(k, classes, names):
        said = listed([f"{name}: {count} row{'s' * (count != 1)}" for name, count in few])
        raise PlanError(
            f"{'these classes have' if len(few) > 1 else 'this class has'} fewer rows than the {k} folds: {said}.",
            hint=f"--folds {max(2, min(c for _, c in few))}, or join or leave out rare classes",
        )


def _rarer_than(k: int, classes: np.ndarray, names: Sequence[object]) -> list[tuple[object, int]]:
    numbers, counts = np.unique(classes, return_counts=True)
    counted = zip(numbers.tolist(), counts.tolist(), strict=True)
    return [(names[n] if n < len(names) else n, c) for n, c in counted if c < k]


def _leave_one_out(rows: int) -> Folds:
    if rows < 2:
        raise PlanError(f"leave-one-out needs at least 2 rows; there are {rows}.")
    own = np.eye(rows, dtype=bool)
    return Folds(~own, own, "leave-one-out")


def _hold_out(
    rows: int,
    share: float,
    repeats: int,
    classes: Any,
    class_names: Sequence[object],
    groups: Any,
    seed: int,
    fails: str = "the folds cannot be made",
) -> Folds:
    _refuse_no_share("holdout", share)
    how = f"hold-out of {percent(share)} of the rows" + (f", repeated {repeats} times" if repeats > 1 else "")
    options = {"n_splits": repeats, "test_size": share, "random_state": seed}
    if groups is not None:
        _enough_groups(groups, 2)
        return _split(
            model_selection.GroupShuffleSplit(**options), rows, None, groups, f"grouped {how}", fails
        )
    if classes is not None:
        _enough_of_each_class(classes, class_names, 2)
        return _split(
            model_selection.StratifiedShuffleSplit(**options), rows, classes, None, f"stratified {how}", fails
        )
    return _split(model_selection.ShuffleSplit(**options), rows, None, None, how, fails)


def _ordered(time: np.ndarray, k: int) -> Folds:
    moments, place = np.unique(time, return_inverse=True)
    if len(moments) < k + 1:
        raise PlanError(
            f"{k} folds in time need at least {k + 1} different times; there are {len(moments)}.",
            hint=f"--folds {max(2, len(moments) - 1)}",
        )
    # rows of the same moment stay on one side, so the moments are split and not the rows
    pairs = list(model_selection.TimeSeriesSplit(n_splits=k).split(moments))
    train = np.stack([np.isin(place, earlier) for earlier, _ in pairs])
    validation = np.stack([np.isin(place, later) for _, later in pairs])
    return Folds(
        train, validation, f"{k} folds in time: each learns from the past of the rows it is scored on"
    )


def _numbered(numbers: np.ndarray) -> Folds:
    names = np.unique(numbers)
    if len(names) < 2:
        raise PlanError(
            "the fold column holds one value only.", hint="it must give each row one of two or more folds"
        )
    validation = np.stack([numbers == name for name in names])
    return Folds(~validation, validation, f"{len(names)} folds given by a column")


def seal(
    rows: int,
    share: float,
    classes: Any,
    groups: Any,
    time: Any,
    seed: int,
    class_names: Sequence[object] = (),
) -> Bool[np.ndarray, " rows"]:
    """Choose the test rows: a random share (stratified, or whole groups), or the latest when there is a time."""
    _refuse_no_share("test", share)
    if time is not None:
        return _latest(rows, share, time)
    if groups is not None and len(np.unique(groups)) < 2:
        raise PlanError("the test rows must be whole groups, and all rows are of one group.", hint=NO_TEST)
    if groups is None and classes is not None:
        _enough_classes_to_seal(rows, share, classes, class_names)
    return _hold_out(
        rows, share, 1, classes, class_names, groups, seed, fails="no test rows can be sealed"
    ).validation[0]


NO_TEST = "leave out --test"


def _latest(rows: int, share: float, time: np.ndarray) -> Bool[np.ndarray, " rows"]:
    moments = np.sort(time)
    if moments[0] == moments[-1]:
        raise PlanError(
            "the latest rows cannot be sealed: all rows are of one time.", hint="leave out --time or --test"
        )
    start = moments[min(rows - 1, int(np.ceil(rows * (1 - share))))]
    # of the earliest rows some must be left, and rows of one moment stay together: then fewer are sealed
    return time >= start if start > moments[0] else time > start


def _enough_classes_to_seal(rows: int, share: float, classes: np.ndarray, names: Sequence[object]) -> None:
    if single := _rarer_than(2, classes, names):
        raise PlanError(
            f"the test rows need a share of each class, and of {listed([n for n, _ in single])} there is one row only.",
            hint="join or leave out rare classes, or leave out --test",
        )
    sealed, count = int(np.ceil(rows * share)), len(np.unique(classes))
    if min(sealed, rows - sealed) < count:
        raise PlanError(
            f"the test rows need a share of each of {count} classes, for which {sealed} of {rows} rows do not do.",
            hint=f"--test {max(0.2, round(count / rows + 0.005, 2)):g}, or leave it out",
        )
