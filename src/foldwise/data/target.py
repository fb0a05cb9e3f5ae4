"""Decide what is learned, and turn target columns into numbers and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Shaped

from foldwise.data.cells import number_form, rows_named
from foldwise.data.encode import as_numbers, as_text, refuse_nested
from foldwise.data.read import find_columns
from foldwise.errors import DataError, did_you_mean, listed

TaskKind = Literal["regression", "binary", "multiclass", "multilabel"]
Label = str | int | float | bool
TASK_KINDS: tuple[str, ...] = get_args(TaskKind)
MOST_INTEGER_CLASSES = 20
LEAST_ROWS_PER_INTEGER_CLASS = 5
SUM_TOLERANCE = 1e-3  # class probabilities are often written with three or four digits
LEAST_SKEWNESS = 1.0


@dataclass(frozen=True)
class Task:
    """What is learned from which columns."""

    kind: TaskKind
    targets: tuple[str, ...]
    classes: tuple[tuple[Label, ...], ...] = ()
    """Class labels in order, a tuple per target; one tuple of all targets when `soft`; () for regression."""
    soft: bool = False
    """The targets are class probabilities."""
    log: bool = False
    """Regression on the natural logarithm of the target."""

    @property
    def outputs(self) -> int:
        """Columns of the network's output: one per target or, for several classes, one per class."""
        return len(self.classes[0]) if self.kind == "multiclass" else len(self.targets)

    def encode(self, frame: pl.DataFrame) -> Shaped[np.ndarray, "rows ..."]:
        """Turn target columns into numbers.

        Regression gives float64 [rows, targets] (the logarithm when `log`), multilabel 0 and 1 likewise,
        binary and multiclass int64 class numbers [rows], soft classes float64 [rows, classes].
        Raises DataError for missing, infinite or unknown values.
        """
        names = find_columns(frame, self.targets, what="target")
        complete_targets(frame, names, drop_missing=False)
        if self.kind == "regression" or self.soft:
            numbers = _numbers(frame, names)
            return _log(numbers, names) if self.log else numbers
        coded = [
            _class_numbers(frame[name], labels) for name, labels in zip(names, self.classes, strict=True)
        ]
        return np.stack(coded, axis=1).astype(np.float64) if self.kind == "multilabel" else coded[0]

    def decode_classes(self, numbers: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
        """Give the labels of class numbers, in their original type; [rows, targets] for multilabel.

        >>> Task("multiclass", ("y",), (("a", "b", "c"),)).decode_classes(np.array([2, 0])).tolist()
        ['c', 'a']
        """
        numbers = np.asarray(numbers).astype(np.int64)
        if self.kind != "multilabel":
            return _labels(self.classes[0])[numbers]
        return np.stack(
            [_labels(labels)[n] for labels, n in zip(self.classes, numbers.T, strict=True)], axis=1
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the task as plain lists, texts and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Task:
        """Read what `to_dict` wrote, from JSON too."""
        classes = tuple(tuple(labels) for labels in written["classes"])
        return cls(**{**written, "targets": tuple(written["targets"]), "classes": classes})


def complete_targets(
    frame: pl.DataFrame,
    targets: Sequence[str | int],
    *,
    drop_missing: bool,
    places: Int[np.ndarray, " rows"] | None = None,
) -> pl.DataFrame:
    """Give the rows whose targets are all there.

    Raises DataError naming the rows (counted from 0) that miss a target, unless `drop_missing`, and those
    with an infinite one. `places` are the rows' numbers, where the frame is a part of a table.

    >>> complete_targets(pl.DataFrame({"y": [1.0, None, 3.0]}), ["y"], drop_missing=True)["y"].to_list()
    [1.0, 3.0]
    """
    names = find_columns(frame, targets, what="target")
    places = np.arange(frame.height) if places is None else places
    for name in names:
        _refuse_infinite(frame[name], places)
    missing = (
        frame.select(pl.any_horizontal(*(_is_missing(frame[name]) for name in names))).to_series().to_numpy()
    )
    rows = np.flatnonzero(missing)
    if len(rows) == frame.height:
        raise DataError(
            f"the target {listed(names)} is missing in every row.", hint="name a column that is filled"
        )
    if not len(rows):
        return frame
    if not drop_missing:
        raise DataError(
            f"the target {listed(names)} is missing in {len(rows)} of {frame.height} rows: "
            f"{rows_named(places[rows])}.",
            hint="fill them, or set these rows aside: `--drop-missing-targets` (drop_missing_targets=True)",
        )
    return frame.filter(~missing)


def plan_target(
    frame: pl.DataFrame, targets: Sequence[str | int], *, kind: str | None = None, log: bool | None = None
) -> Task:
    """Decide what is learned from the target columns.

    Text, truth values and two distinct whole numbers are classes. Whole numbers are classes too when they
    have at most 20 distinct values and 5 rows for each on average; every other number is regression. Several
    targets of 0 and 1 are labels; several numbers are regression with several outputs or, with
    `kind="multiclass"`, class probabilities. `kind` wins over all this ("classification" stands for binary
    or multiclass).

    Regression is on the logarithm when all values are positive, their skewness exceeds 1, and the skewness of
    their logarithms is less than half as large either way. `log` decides by hand.

    >>> plan_target(pl.DataFrame({"y": ["b", "a", "b"]}), ["y"])
    Task(kind='binary', targets=('y',), classes=(('a', 'b'),), soft=False, log=False)
    """
    names = tuple(find_columns(frame, targets, what="target"))
    if not names:
        raise DataError(
            "no target is named.",
            hint=f"name one: `--target NAME`; the columns are {listed(frame.columns, 12)}",
        )
    for name in names:
        refuse_nested(frame[name])
    frame = complete_targets(frame.select(names), names, drop_missing=True)
    wanted = _wanted_kind(frame, kind)
    if log and wanted != "regression":
        raise DataError(
            f"log_target is for regression; `{names[0]}` holds classes.", hint="leave log_target out"
        )
    if wanted == "regression":
        return Task("regression", names, log=_on_log_scale(_varying(frame), names, log))
    return _class_task(frame, names, wanted)


def _wanted_kind(frame: pl.DataFrame, kind: str | None) -> TaskKind:
    if kind is None:
        return _found_kind(frame)
    if kind == "classification":
        return "binary" if frame.width == 1 and frame.to_series().n_unique() <= 2 else "multiclass"
    for known in get_args(TaskKind):
        if kind == known:
            return known
    raise DataError(
        f"`{kind}` is no task.", hint=did_you_mean(kind, TASK_KINDS) or f"use {listed(TASK_KINDS)}"
    )


def _found_kind(frame: pl.DataFrame) -> TaskKind:
    columns = frame.get_columns()
    if len(columns) > 1:
        return "multilabel" if all(_is_label(column) for column in columns) else "regression"
    column = columns[0]
    _refuse_dates(column)
    distinct = column.n_unique()
    if not _is_numeric(column):
        return "binary" if distinct == 2 else "multiclass"
    if not _is_whole(column) or column.dtype == pl.String:
        return "regression"
    if distinct == 2:
        return "binary"
    few = distinct <= min(MOST_INTEGER_CLASSES, len(column) // LEAST_ROWS_PER_INTEGER_CLASS)
    return "multiclass" if few else "regression"


def _is_label(column: pl.Series) -> bool:
    return column.dtype == pl.Boolean or (column.dtype.is_numeric() and ((column == 0) | (column == 1)).all())


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype == pl.String:
        return number_form(column) is not None
    return column.dtype.is_numeric() or column.dtype == pl.Duration


def _is_whole(column: pl.Series) -> bool:
    return column.dtype.is_integer() or (column.dtype.is_float() and bool((column == column.floor()).all()))


def _is_missing(column: pl.Series) -> pl.Series:
    return column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()


def _refuse_infinite(column: pl.Series, places: Int[np.ndarray, " rows"]) -> None:
    if column.dtype.is_float() and len(
        rows := np.flatnonzero(column.is_infinite().fill_null(False).to_numpy())
    ):
        raise DataError(
            f"the target `{column.name}` is infinite in {rows_named(places[rows])}.",
            hint="correct or remove these rows",
        )


def _numbers(frame: pl.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "rows targets"]:
    return np.stack([_column_numbers(frame[name]) for name in names], axis=1)


def _column_numbers(column: pl.Series) -> Float[np.ndarray, " rows"]:
    _refuse_dates(column)
    return as_numbers(column, (number_form(column) or "") if column.dtype == pl.String else "")


def _refuse_dates(column: pl.Series) -> None:
    if column.dtype in (pl.Date, pl.Datetime, pl.Time):
        cure = 'turn them into numbers, for instance days from a start; as classes: task="multiclass"'
        raise DataError(f"the target `{column.name}` holds dates.", hint=cure)


def _varying(frame: pl.DataFrame) -> Float[np.ndarray, "rows targets"]:
    numbers = _numbers(frame, frame.columns)
    for name, values in zip(frame.columns, numbers.T, strict=True):
        if (values == values[0]).all():
            raise DataError(
                f"the target `{name}` is {values[0]:g} in every row.", hint="name a target that varies"
            )
    return numbers


def _on_log_scale(numbers: Float[np.ndarray, "rows targets"], names: Sequence[str], log: bool | None) -> bool:
    if log:
        _log(numbers, names)
    if log is not None:
        return log
    return bool((numbers > 0).all()) and all(_is_log_straighter(values) for values in numbers.T)


def _is_log_straighter(values: Float[np.ndarray, " rows"]) -> bool:
    """Tell whether positive values are skewed, and their logarithms less than half as much.

    >>> _is_log_straighter(np.exp(np.linspace(-2, 2, 99))), _is_log_straighter(np.linspace(1, 2, 99))
    (True, False)
    """
    raw = _skewness(values)
    return raw > LEAST_SKEWNESS and abs(_skewness(np.log(values))) < raw / 2


def _skewness(values: Float[np.ndarray, " rows"]) -> float:
    """Third standardized moment, mean(d³)/mean(d²)^1.5 of the deviations d.

    Not scipy's, which warns where values are nearly equal.

    >>> round(_skewness(np.array([0.0, 0.0, 3.0])), 4)
    0.7071
    """
    deviations = values - values.mean()
    if not (largest := np.abs(deviations).max()):
        return 0.0
    deviations = deviations / largest
    return float((deviations**3).mean() / (deviations**2).mean() ** 1.5)


def _log(
    numbers: Float[np.ndarray, "rows targets"], names: Sequence[str]
) -> Float[np.ndarray, "rows targets"]:
    for name, values in zip(names, numbers.T, strict=True):
        if len(rows := np.flatnonzero(values <= 0)):
            raise DataError(
                f"the target `{name}` has no logarithm in {rows_named(rows)}: it is not above 0.",
                hint="correct these rows, or learn the target itself: log_target=False",
            )
    return np.log(numbers)


def _class_task(frame: pl.DataFrame, names: tuple[str, ...], kind: TaskKind) -> Task:
    if kind == "multiclass" and len(names) > 1:
        _refuse_no_probabilities(_numbers(frame, names), names)
        return Task(kind, names, (names,), soft=True)
    if kind == "binary" and len(names) > 1:
        raise DataError(
            f"a binary task has one target; got {len(names)}.", hint='several are task="multilabel"'
        )
    classes = tuple(_classes(frame[name]) for name in names)
    for name, labels in zip(names, classes, strict=True):
        _check_classes(name, labels, kind, frame.height)
    return Task(kind, names, classes)


def _classes(column: pl.Series) -> tuple[Label, ...]:
    if column.dtype.is_temporal() or column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    return tuple(column.unique().sort().to_list())


def _check_classes(name: str, labels: Sequence[Label], kind: TaskKind, rows: int) -> None:
    if len(labels) == 1:
        raise DataError(
            f"the target `{name}` has one class only, `{labels[0]}`.", hint="give rows of two classes or more"
        )
    if kind != "multiclass" and len(labels) > 2:
        cure = 'task="multiclass"' if kind == "binary" else "give one column of 0 and 1 for each label"
        raise DataError(f"the target `{name}` has {len(labels)} classes; {kind} takes two.", hint=cure)
    if len(labels) == rows and rows > 2:
        raise DataError(
            f"the target `{name}` has a class of its own in each of {rows} rows.",
            hint='name another target, or task="regression" if it is a number',
        )


def _refuse_no_probabilities(numbers: Float[np.ndarray, "rows classes"], names: Sequence[str]) -> None:
    bad = (np.abs(numbers.sum(axis=1) - 1) > SUM_TOLERANCE) | (numbers < 0).any(axis=1)
    if len(rows := np.flatnonzero(bad)):
        raise DataError(
            f"{listed(names)} are no class probabilities in {rows_named(rows)}: they must sum to 1.",
            hint='correct these rows, or task="multilabel" or "regression"',
        )


def _labels(labels: Sequence[Label]) -> Shaped[np.ndarray, " classes"]:
    # Text as objects: numpy's own text type drops zero bytes at the end.
    return np.array(labels, dtype=object if isinstance(labels[0], str) else None)


def _class_numbers(column: pl.Series, labels: Sequence[Label]) -> Int[np.ndarray, " rows"]:
    known = as_text(pl.Series(list(labels))).to_list()
    text = as_text(column)
    numbers = text.replace_strict(
        {label: i for i, label in enumerate(known)}, default=None, return_dtype=pl.Int64
    )
    if len(rows := np.flatnonzero(numbers.is_null().to_numpy())):
        unknown = text.gather(rows).unique(maintain_order=True).to_list()
        raise DataError(
            f"the target `{column.name}` holds unknown classes: {listed(unknown)} in {rows_named(rows)}.",
            hint=did_you_mean(str(unknown[0]), known) or f"the classes are {listed(known, 12)}",
        )
    return numbers.to_numpy()
