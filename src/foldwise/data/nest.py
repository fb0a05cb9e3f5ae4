"""Folds inside folds: the training rows of each fold are divided once more, by the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from foldwise.data.folds import Folds, is_splitter, make_folds
from foldwise.errors import PlanError

INNER_FOLDS = 5
"""How many folds lie inside each outer one when their number is not given."""


def nest(
    outer: Folds,
    asked: Any = INNER_FOLDS,
    *,
    divided_by: Any = None,
    classes: Int[np.ndarray, " rows"] | None = None,
    class_names: Sequence[object] = (),
    groups: np.ndarray | None = None,
    time: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
    seed: int = 0,
) -> Folds:
    """Put folds inside the training rows of every fold; the outer ones come first.

    `asked` is the number of folds inside each, or a scikit-learn splitter, which must be given when the outer folds
    were `divided_by` one. Inner folds are stratified, grouped and ordered in time as the outer ones are, and rows
    that a column gives one fold (`numbers`) stay together. Raises PlanError when the rows do not allow it.

    >>> folds = nest(make_folds(9, 3), 2)
    >>> len(folds), folds.groups.tolist()
    (9, [0, 0, 0, 1, 1, 2, 2, 3, 3])
    >>> (folds.train[3] | folds.validation[3]).tolist() == folds.train[0].tolist()
    True
    """
    asked = _read(asked, divided_by)
    train, validation, group = [outer.train], [outer.validation], [np.zeros(len(outer), dtype=np.int64)]
    for fold, rows in enumerate(map(np.flatnonzero, outer.train)):

        def own(values: np.ndarray | None, rows: np.ndarray = rows) -> Any:
            return None if values is None else values[rows]

        try:
            inner = make_folds(
                len(rows),
                asked,
                classes=own(classes),
                class_names=class_names,
                groups=own(groups if numbers is None else numbers),
                time=own(time),
                seed=seed,
            )
        except PlanError as error:
            raise PlanError(
                f"inside fold {fold + 1}, which has {len(rows)} training rows: {error.problem}",
                hint="fewer folds inside each: --nested 2 is the least",
            ) from error
        for into, part in ((train, inner.train), (validation, inner.validation)):
            whole = np.zeros((len(inner), len(outer.train[fold])), dtype=bool)
            whole[:, rows] = part
            into.append(whole)
        group.append(np.full(len(inner), fold + 1))
    return Folds(np.concatenate(train), np.concatenate(validation), outer.how, np.concatenate(group))


def _read(asked: Any, divided_by: Any) -> Any:
    if asked is True:
        asked = INNER_FOLDS
    if is_splitter(asked):
        return asked
    if not isinstance(asked, int | np.integer) or isinstance(asked, bool) or asked < 2:
        raise PlanError(
            f"`nested` must be a number of folds, at least 2, or a scikit-learn splitter; got {asked!r}.",
            hint="nested=5 (--nested 5) puts five folds inside each",
        )
    if is_splitter(divided_by):
        raise PlanError(
            f"the folds inside those of {type(divided_by).__name__} must be made by a splitter too.",
            hint=f"nested=sklearn.model_selection.{type(divided_by).__name__}(…)",
        )
    return int(asked)
