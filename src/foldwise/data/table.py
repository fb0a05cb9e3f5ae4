"""From whatever the user has to rows of numbers: read, seal test rows, plan columns, encode."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from foldwise.data.columns import ColumnPlan, plan_columns
from foldwise.data.dates import find_form, parse
from foldwise.data.examples import load_example
from foldwise.data.folds import seal
from foldwise.data.missing import Codes, read_codes
from foldwise.data.read import FRAME_ENDINGS, find_columns, fingerprint, from_arrays, read_table
from foldwise.data.target import Task, complete_targets, plan_target
from foldwise.data.weights import (
    Weighting,
    even,
    is_column,
    read_class_weights,
    read_weights,
    score_weights,
)
from foldwise.errors import DataError, listed

ROW = "__foldwise_row__"  # the place of a row in the table as it was read
WEIGHT = "__foldwise_weight__"  # how much a row counts


@dataclass(frozen=True)
class Source:
    """Where the rows came from, so that they can be found again, and a fingerprint to know them by."""

    path: str | None  # absolute; None for rows from memory
    example: str | None
    fingerprint: str
    reading: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Development rows as numbers, the plan that made them so, and the test rows that nobody has looked at.

    `weights` says how much each row counts: above 0, and 1 where rows are not weighted. Those of classes, in
    `weighting`, are not in it.
    """

    frame: pl.DataFrame
    row: Int[np.ndarray, " rows"]
    sealed: pl.DataFrame | None
    sealed_row: Int[np.ndarray, " sealed_rows"] | None
    task: Task
    columns: ColumnPlan
    features: Float[np.ndarray, "rows features"]
    targets: np.ndarray
    groups: np.ndarray | None
    time: np.ndarray | None
    fold_numbers: np.ndarray | None
    source: Source
    weighting: Weighting
    weights: Float[np.ndarray, " rows"]
    sealed_weights: Float[np.ndarray, " sealed_rows"] | None

    @property
    def numbers(self) -> Bool[np.ndarray, " features"]:
        """Mark the features that are numbers; the others are flags."""
        return np.array([feature.kind == "number" for feature in self.columns.features])

    def score_weights(
        self, scored: Bool[np.ndarray, " rows"], targets: np.ndarray | None = None
    ) -> Float[np.ndarray, " rows"] | None:
        """Say what each row counts in a score of some rows; None when all count alike.

        `targets` tell the classes of rows, when they are not the table's own.
        """
        return score_weights(
            self.weights, self.targets if targets is None else targets, scored, self.weighting.classes
        )


def read_source(
    data: Any, y: Any, target: str | Sequence[str] | None, example: str | None, reading: Mapping[str, Any]
) -> tuple[pl.DataFrame, list[str], Source]:
    """Read the rows and find the targets' names. Exactly one of `data` and `example` must be given."""
    if (data is None) == (example is None):
        raise DataError(
            "give one table: a file, a frame, arrays or an example.",
            hint='foldwise.fit("train.csv", target="price")',
        )
    if example is not None:
        _refuse_beside_example(y, reading)
        frame, name = load_example(example)
        targets = [name] if target is None else _names(target)
    elif y is not None:
        if target is not None:
            raise DataError("`y` and `target` are two ways to say the same.", hint="give one of them")
        frame, targets = from_arrays(read_table(data, **reading), y)
    else:
        if target is None:
            raise DataError("no target was named.", hint="--target COLUMN, or foldwise.fit(X, y)")
        frame, targets = read_table(data, **reading), _names(target)
    path = str(Path(data).expanduser().absolute()) if is_path(data) and y is None else None
    return (
        frame,
        find_columns(frame, targets, what="target"),
        Source(path, example, fingerprint(frame), dict(reading)),
    )


def read_again(
    data: Any,
    source: Source,
    fits: Callable[[pl.DataFrame], bool],
    *,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
) -> pl.DataFrame:
    """Read another table, as `source` was read when that `fits`, else by what is found out.

    What is given here wins over how `source` was read, which says nothing about tables that are no text.
    """
    given: dict[str, Any] = {"separator": separator, "encoding": encoding, "header": header}
    before: dict[str, Any] = {
        name: source.reading.get(name) if value is None else value for name, value in given.items()
    }
    is_text = is_path(data) and Path(data).suffix.lower() not in FRAME_ENDINGS
    if not is_text or before == given:
        return read_table(data, **given)
    tried: list[pl.DataFrame | DataError] = []
    for options in (before, given):
        try:
            tried.append(frame := read_table(data, **options))
        except DataError as error:
            tried.append(error)
        else:
            if fits(frame):
                return frame
    read = [result for result in tried if isinstance(result, pl.DataFrame)]
    if not read:
        raise next(result for result in tried if isinstance(result, DataError))
    return read[0]


def is_path(data: Any) -> bool:
    """Tell whether a table is a file."""
    return isinstance(data, str | os.PathLike)


def _refuse_beside_example(y: Any, reading: Mapping[str, Any]) -> None:
    given = {"y": y, **reading}
    if useless := [name for name, value in given.items() if value is not None]:
        raise DataError(
            f"{listed(useless)} cannot be used with an example, which is read as it is.",
            hint="leave it out, or give a table instead of the example",
        )


def _names(target: str | int | Sequence[str]) -> list[Any]:
    return [target] if isinstance(target, str | int) else list(target)


def open_table(
    frame: pl.DataFrame,
    targets: Sequence[str],
    source: Source,
    *,
    task: str | None = None,
    log_target: bool | None = None,
    columns: Mapping[str, Any] | None = None,
    drop: str | Sequence[str] = (),
    missing: Any = None,
    drop_missing_targets: bool = False,
    groups: str | None = None,
    time: str | None = None,
    fold_column: str | None = None,
    weights: Any = None,
    class_weights: Any = None,
    test: float | None = None,
    seed: int = 0,
) -> Table:
    """Take out rows of weight 0, set test rows apart, then plan and encode the development rows alone.

    Before all this, cells that hold a value of `missing` are emptied.
    """
    roles = _roles(frame, groups, time, fold_column, weights if is_column(weights) else None)
    overrides = _overrides(frame, columns or {}, _names(drop))
    aside = [name for name, kind in overrides.items() if kind == "drop"]
    codes = missing if isinstance(missing, Codes) else read_codes(frame, missing, aside=aside)
    frame = codes.emptied(frame)
    every = frame.height
    frame = _weighted(frame, weights)
    absent = every - frame.height
    frame = complete_targets(
        frame, targets, drop_missing=drop_missing_targets, places=frame[ROW].to_numpy().astype(np.int64)
    )
    # which classes there are is asked of all rows; nothing that is learnt is
    found = plan_target(frame, targets, kind=task, log=log_target)
    sealed = None
    if test is not None:
        sealed_rows = _seal(frame, found, roles, test, seed)
        frame, sealed = frame.filter(pl.Series(~sealed_rows)), frame.filter(pl.Series(sealed_rows))
        found = _task_without(frame, sealed, found, log_target)
    weighting = Weighting(
        column=next((name for name, role in roles.items() if role == "weight"), None),
        given=weights is not None and not is_column(weights),
        classes=read_class_weights(class_weights, found),
        absent=absent,
    )
    row, own = frame[ROW].to_numpy().astype(np.int64), even(frame[WEIGHT].to_numpy(writable=True))
    frame = frame.drop(ROW, WEIGHT)
    plan = plan_columns(frame, targets=targets, roles=roles, overrides=overrides, places=row, codes=codes)
    if sealed is not None:
        _refuse_unfit(sealed, found, plan)
    by_role = {role: _cells(frame, name) for name, role in roles.items() if role != "weight"}
    return Table(
        frame=frame,
        row=row,
        sealed=None if sealed is None else sealed.drop(ROW, WEIGHT),
        sealed_row=None if sealed is None else sealed[ROW].to_numpy().astype(np.int64),
        task=found,
        columns=plan,
        features=plan.encode(frame),
        targets=found.encode(frame),
        groups=by_role.get("group"),
        time=_moments(frame, roles),
        fold_numbers=by_role.get("fold"),
        source=source,
        weighting=weighting,
        weights=own,
        sealed_weights=None if sealed is None else even(sealed[WEIGHT].to_numpy(writable=True)),
    )


def open_again(
    frame: pl.DataFrame,
    source: Source,
    *,
    row: Int[np.ndarray, " rows"],
    sealed_row: Int[np.ndarray, " sealed_rows"] | None,
    task: Task,
    columns: ColumnPlan,
    weighting: Weighting,
    weights: Float[np.ndarray, " rows"],
    sealed_weights: Float[np.ndarray, " sealed_rows"] | None,
) -> Table:
    """Make the table of a study again from the same cells, by what was decided then; nothing is decided anew."""
    frame = columns.read(frame)
    sealed, frame = None if sealed_row is None else frame[sealed_row], frame[row]
    roles = {column.name: column.role for column in columns.columns}
    by_role = {role: _cells(frame, name) for name, role in roles.items() if role in ("group", "fold")}
    return Table(
        frame=frame,
        row=row,
        sealed=sealed,
        sealed_row=sealed_row,
        task=task,
        columns=columns,
        features=columns.encode(frame),
        targets=task.encode(frame),
        groups=by_role.get("group"),
        time=_moments(frame, roles),
        fold_numbers=by_role.get("fold"),
        source=source,
        weighting=weighting,
        weights=weights,
        sealed_weights=sealed_weights,
    )


def _weighted(frame: pl.DataFrame, weights: Any) -> pl.DataFrame:
    """Number the rows, write the weight of each beside it, and leave out those that count nothing."""
    own = np.ones(frame.height) if weights is None else read_weights(frame, weights)
    return frame.with_row_index(ROW).with_columns(pl.Series(WEIGHT, own)).filter(pl.col(WEIGHT) > 0)


def _overrides(frame: pl.DataFrame, columns: Mapping[str, Any], drop: Sequence[str]) -> dict[str, Any]:
    kinds = dict(
        zip(
            find_columns(frame, columns, what="column to give a kind (--column)"),
            columns.values(),
            strict=True,
        )
    )
    dropped = find_columns(frame, drop, what="column to drop (--drop)")
    if both := [name for name in dropped if name in kinds]:
        raise DataError(
            f"{listed(both)} is to be dropped and is given a kind, {kinds[both[0]]}.",
            hint="name it in `drop` or in `columns` (--drop, --column), not in both",
        )
    return {**kinds, **dict.fromkeys(dropped, "drop")}


def _task_without(frame: pl.DataFrame, sealed: pl.DataFrame, every: Task, log: bool | None) -> Task:
    """Decide what is learnt without the sealed rows, so that their targets can be written in its terms too."""
    try:
        found = plan_target(frame, every.targets, kind=every.kind, log=log)
    except DataError as error:
        raise DataError(f"without the sealed test rows, {error.problem}", hint=error.hint) from error
    if every.kind != "regression":
        return every
    positive = bool((replace(found, log=False).encode(sealed) > 0).all())
    return replace(found, log=found.log and positive)


def _refuse_unfit(sealed: pl.DataFrame, task: Task, plan: ColumnPlan) -> None:
    """Refuse test rows that could not be scored, before anything is trained; nothing of them is kept."""
    try:
        task.encode(sealed)
        plan.encode(sealed)
    except DataError as error:
        raise DataError(f"among the sealed test rows, {error.problem}", hint=error.hint) from error


def _roles(
    frame: pl.DataFrame, groups: str | None, time: str | None, fold_column: str | None, weights: str | None
) -> dict[str, str]:
    asked = {"group": groups, "time": time, "fold": fold_column, "weight": weights}
    roles: dict[str, str] = {}
    for role, name in asked.items():
        if name is None:
            continue
        found = find_columns(frame, [name])[0]
        if found in roles:
            raise DataError(
                f"column `{found}` cannot be the {roles[found]} and the {role}.", hint="name another column"
            )
        roles[found] = role
    return roles


def _seal(
    frame: pl.DataFrame, task: Task, roles: Mapping[str, str], share: float, seed: int
) -> Bool[np.ndarray, " rows"]:
    names = {role: name for name, role in roles.items()}
    classes = task.kind in ("binary", "multiclass") and not task.soft
    return seal(
        len(frame),
        share,
        task.encode(frame) if classes else None,
        _cells(frame, names["group"]) if "group" in names else None,
        _moments(frame, roles),
        seed,
        task.classes[0] if classes else (),
    )


def _moments(frame: pl.DataFrame, roles: Mapping[str, str]) -> np.ndarray | None:
    """Read the time column as numbers that rise with time: dates, dates written as text, or numbers."""
    name = next((name for name, role in roles.items() if role == "time"), None)
    if name is None:
        return None
    _cells(frame, name)
    cells = frame[name]
    if cells.dtype == pl.String:
        found = find_form(cells)
        if found is None:
            raise DataError(
                f"column `{name}` gives the time, and its text is no date: `{cells[0]}`.",
                hint="dates such as 2024-01-31, or numbers that rise with time",
            )
        cells = parse(cells, found.form)
    return cells.to_physical().to_numpy()


def _cells(frame: pl.DataFrame, name: str) -> np.ndarray:
    cells = frame[name]
    if cells.null_count():
        raise DataError(
            f"column `{name}` decides the folds and has {cells.null_count()} missing cells.",
            hint="fill them, or use another column",
        )
    return cells.to_numpy()
