"""What remedies do to a table and to folds: columns left out, cells read as missing, rows kept together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from jaxtyping import Int

from foldwise.data.columns import ColumnPlan
from foldwise.data.encode import Column
from foldwise.data.folds import Folds, make_folds
from foldwise.data.missing import emptied, written
from foldwise.data.table import Table
from foldwise.data.weights import Weighting

ChangeTable = Callable[[Table], Table]
ChangeFolds = Callable[[Table, Folds], Folds]


def without_columns(names: set[str]) -> ChangeTable:
    """Leave columns out."""

    def aside(column: Column) -> Column:
        if column.name not in names:
            return column
        return dataclasses.replace(column, kind="drop", role="set aside", use="set aside: as you asked")

    return lambda table: _planned_anew(table, table.frame, aside)


def as_missing(codes: Mapping[str, float]) -> ChangeTable:
    """Read a value of each of some number columns as missing."""

    def changed(table: Table) -> Table:
        frame = table.frame.with_columns(
            emptied(table.frame[name], [written(code)]) for name, code in codes.items()
        )

        def counted(column: Column) -> Column:
            if column.name not in codes:
                return column
            cells = frame[column.name]
            return dataclasses.replace(
                column,
                missing=cells.null_count(),
                distinct=cells.drop_nulls().n_unique(),
                codes=(*column.codes, written(codes[column.name])),
            )

        return _planned_anew(table, frame, counted)

    return changed


def _planned_anew(table: Table, frame: pl.DataFrame, change: Callable[[Column], Column]) -> Table:
    plan = ColumnPlan(tuple(change(column) for column in table.columns.columns))
    return dataclasses.replace(table, frame=frame, columns=plan, features=plan.encode(frame))


def balanced(table: Table) -> Table:
    """Let all classes count alike, in training and in scores."""
    w = table.weighting
    return dataclasses.replace(table, weighting=Weighting(w.column, w.given, "balanced", w.absent))


def together(folds: Folds, groups: Int[np.ndarray, " rows"]) -> Folds | None:
    """Keep rows of a group on one side of each fold: the side of one of them, drawn at random.

    Where each row is validated once, it still is. None where a fold would lose a side.

    >>> halves = make_folds(4, 2)
    >>> pairs = together(halves, np.array([0, 0, 1, 1]))
    >>> pairs is None or bool((pairs.validation[:, 0] == pairs.validation[:, 1]).all())
    True
    """
    mixed = np.random.default_rng(0).permutation(len(groups))
    train, validation = np.zeros_like(folds.train), np.zeros_like(folds.validation)
    for fold in range(len(folds)):
        used = folds.train[fold] | folds.validation[fold]
        order = mixed[used[mixed]]
        names, first = np.unique(groups[order], return_index=True)
        scored = names[folds.validation[fold][order[first]]]
        validation[fold] = used & np.isin(groups, scored)
        train[fold] = used & ~validation[fold]
    if not (train.any(1).all() and validation.any(1).all()):
        return None
    return Folds(train, validation, f"{folds.how}, groups kept together", folds.group)


def kept_together(folds: Folds, groups: Int[np.ndarray, " rows"]) -> ChangeFolds | None:
    """Give the change of folds that keeps groups together; None where they do not allow it."""
    changed = together(folds, groups)
    return None if changed is None else lambda table, old: changed


def learn_all_others(table: Table, folds: Folds) -> Folds:
    """Let each fold learn from all rows that it is not scored on."""
    return Folds(~folds.validation, folds.validation, f"{folds.how}, all other rows learned", folds.group)


def drawn_anew(table: Table, folds: Folds) -> Folds:
    """Draw as many folds at random, with an equal share of each class in each."""
    classes = table.targets if table.targets.ndim == 1 else None
    count = max(2, len(folds))
    if classes is not None:
        least = int(np.bincount(classes.astype(np.int64))[np.unique(classes).astype(np.int64)].min())
        classes = classes if least >= count else None
    return make_folds(len(table.features), count, classes=classes)


def learn_less(folds: Folds) -> ChangeFolds | None:
    """Give the change of folds that learns from no row that is scored; None where a fold would learn nothing."""
    train = folds.train & ~folds.validation
    if not train.any(1).all():
        return None
    return lambda table, old: Folds(
        train, folds.validation, f"{folds.how}, no row on both sides", folds.group
    )
