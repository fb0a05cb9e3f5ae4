"""From whatever the user has to rows of numbers: read, seal test rows, plan columns, encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from foldwise.data.columns import ColumnPlan, plan_columns
from foldwise.data.dates import find_form, parse
from foldwise.data.examples import load_example
from foldwise.data.folds import seal
from foldwise.data.read import find_columns, fingerprint, from_arrays, read_table
from foldwise.data.target import Task, complete_targets, plan_target
from foldwise.errors import DataError

ROW = "__foldwise_row__"  # the place of a row in the table as it was read


@dataclass(frozen=True)
class Source:
    """Where the rows came from, so that they can be found again, and a fingerprint to know them by."""

    path: str | None
    example: str | None
    fingerprint: str
    reading: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Development rows as numbers, the plan that made them so, and the test rows that nobody has looked at."""

    frame: pl.DataFrame
    row: Int[np.ndarray, " rows"]
    sealed: pl.DataFrame | None
    task: Task
    columns: ColumnPlan
    features: Float[np.ndarray, "rows features"]
    targets: np.ndarray
    groups: np.ndarray | None
    time: np.ndarray | None
    fold_numbers: np.ndarray | None
    source: Source

    @property
    def numbers(self) -> Bool[np.ndarray, " features"]:
        """Mark the features that are numbers; the others are flags."""
        return np.array([feature.kind == "number" for feature in self.columns.features])


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
        frame, name = load_example(example)
        targets = [name] if target is None else _names(target)
    elif y is not None:
        if target is not None:
            raise DataError("`y` and `target` are two ways to say the same.", hint="give one of them")
        frame, targets = from_arrays(data, y)
    else:
        if target is None:
            raise DataError("no target was named.", hint="--target COLUMN, or foldwise.fit(X, y)")
        frame, targets = read_table(data, **reading), _names(target)
    path = str(data) if isinstance(data, str | Path) else None
    return (
        frame,
        find_columns(frame, targets, what="target"),
        Source(path, example, fingerprint(frame), dict(reading)),
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
    drop: Sequence[str] = (),
    drop_missing_targets: bool = False,
    groups: str | None = None,
    time: str | None = None,
    fold_column: str | None = None,
    test: float | None = None,
    seed: int = 0,
) -> Table:
    """Set test rows apart, then plan and encode the development rows alone."""
    roles = _roles(frame, groups, time, fold_column)
    frame = complete_targets(frame.with_row_index(ROW), targets, drop_missing=drop_missing_targets)
    sealed = None
    if test is not None:
        sealed_rows = _seal(frame, targets, task, roles, test, seed)
        frame, sealed = frame.filter(pl.Series(~sealed_rows)), frame.filter(pl.Series(sealed_rows))
    row = frame[ROW].to_numpy().astype(np.int64)
    frame = frame.drop(ROW)
    plan = plan_columns(
        frame, targets=targets, roles=roles, overrides={**(columns or {}), **dict.fromkeys(drop, "drop")}
    )
    found = plan_target(frame, targets, kind=task, log=log_target)
    by_role = {role: _cells(frame, name) for name, role in roles.items()}
    return Table(
        frame=frame,
        row=row,
        sealed=None if sealed is None else sealed.drop(ROW),
        task=found,
        columns=plan,
        features=plan.encode(frame),
        targets=found.encode(frame),
        groups=by_role.get("group"),
        time=_moments(frame, roles),
        fold_numbers=by_role.get("fold"),
        source=source,
    )


def _roles(
    frame: pl.DataFrame, groups: str | None, time: str | None, fold_column: str | None
) -> dict[str, str]:
    asked = {"group": groups, "time": time, "fold": fold_column}
    return {find_columns(frame, [name])[0]: role for role, name in asked.items() if name is not None}


def _seal(
    frame: pl.DataFrame,
    targets: Sequence[str],
    kind: str | None,
    roles: Mapping[str, str],
    share: float,
    seed: int,
) -> Bool[np.ndarray, " rows"]:
    task = plan_target(frame, targets, kind=kind)
    names = {role: name for name, role in roles.items()}
    return seal(
        len(frame),
        share,
        task.encode(frame) if task.kind in ("binary", "multiclass") and not task.soft else None,
        _cells(frame, names["group"]) if "group" in names else None,
        _moments(frame, roles),
        seed,
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
