"""How much each row counts: the weights that the user gives, and those of classes.

A weight of 2 stands for a row that is there twice. Rows of weight 0 are taken out before anything is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Shaped

from foldwise.data.cells import cleaned, number_form, parse_numbers, rows_named
from foldwise.data.encode import as_text
from foldwise.data.frames import from_memory, tidy
from foldwise.data.read import find_columns
from foldwise.data.target import Label, Task
from foldwise.errors import DataError, SettingsError, did_you_mean, listed

ClassWeights = Literal["balanced"] | tuple[float, ...] | None
"""What the rows of each class count, in the order of the classes; balanced: every class counts alike."""


@dataclass(frozen=True)
class Weighting:
    """Which weights a study has, as they were asked for."""

    column: str | None = None
    given: bool = False
    """Whether weights were given beside the table."""
    classes: ClassWeights = None
    absent: int = 0
    """Rows of weight 0, which were taken out."""

    @property
    def of_rows(self) -> bool:
        """Whether rows have weights of their own."""
        return self.given or self.column is not None

    def sentence(self, task: Task) -> str:
        """Say how rows are weighted; empty when they are not.

        >>> Weighting("size", classes="balanced").sentence(Task("regression", ("y",)))
        'Rows are weighted by `size` and classes are balanced, in training and in every score.'
        """
        parts = []
        if self.of_rows:
            parts.append(f"rows are weighted {'as given' if self.column is None else f'by `{self.column}`'}")
        if self.classes == "balanced":
            parts.append("classes are balanced")
        elif self.classes is not None:
            each = [f"{c}: {w:g}" for c, w in zip(task.classes[0], self.classes, strict=True)]
            shown = ", ".join(each[:5]) + (f" and {len(each) - 5} more" if len(each) > 5 else "")
            parts.append(f"classes are weighted ({shown})")
        if not parts:
            return ""
        rows = "1 row" if self.absent == 1 else f"{self.absent:,} rows"
        left_out = f"; {rows} of weight 0 left out" if self.absent else ""
        said = " and ".join(parts)
        return f"{said[0].upper()}{said[1:]}, in training and in every score{left_out}."


# What the user gives


def read_weights(frame: pl.DataFrame, weights: Any) -> Float[np.ndarray, " rows"]:
    """Read what each row of a table counts: from the column of this name, or from an array beside the table.

    Raises DataError naming the rows (counted from 0) whose weight is missing, infinite or negative.

    >>> read_weights(pl.DataFrame({"x": [5, 6], "w": [1.0, 0.5]}), "w")
    array([1. , 0.5])
    """
    if is_column(weights):
        name = find_columns(frame, [weights])[0]
        return _checked(frame[name], f"the weight column `{name}`")
    cells = tidy(from_memory(weights))
    if cells.width != 1 or cells.height != frame.height:
        raise DataError(
            f"`weights` has {cells.height} rows and {cells.width} columns, and the table {frame.height} rows.",
            hint="give one weight for each row, or the name of a column",
        )
    return _checked(cells.to_series(), "`weights`")


def is_column(weights: Any) -> bool:
    """Tell the name (or, in tables without a header, the number) of a column from weights themselves."""
    return isinstance(weights, str | int)


def _checked(cells: pl.Series, what: str) -> Float[np.ndarray, " rows"]:
    weights = _as_numbers(cells, what)
    faults = {
        "is missing": np.isnan(weights),
        "is infinite": np.isinf(weights),
        "is negative": weights < 0,
    }
    said = [
        f"{what} {fault} in {rows_named(np.flatnonzero(rows))}."
        for fault, rows in faults.items()
        if rows.any()
    ]
    if said:
        raise DataError("\n".join(said), hint="give each row a weight of 0 (as if it were absent) or more")
    if not weights.any():
        raise DataError(f"{what} is 0 in every row.", hint="give the rows that count a weight above 0")
    return weights


def _as_numbers(cells: pl.Series, what: str) -> Float[np.ndarray, " rows"]:
    form = number_form(cells) if cells.dtype == pl.String else None
    if form is not None:
        cells = parse_numbers(cleaned(cells), form)
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null)):
        shown = cells.drop_nulls()
        raise DataError(
            f"{what} holds no numbers" + (f": `{shown[0]}`." if len(shown) else "."),
            hint="name a column that says how much each row counts",
        )
    return cells.cast(pl.Float64).fill_null(np.nan).to_numpy()


def even(weights: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Make weights that are all alike 1, so that they change not one bit.

    >>> even(np.array([0.1, 0.1])), even(np.array([2.0, 1.0]))
    (array([1., 1.]), array([2., 1.]))
    """
    return np.ones_like(weights) if (weights == weights[0]).all() else weights


def read_class_weights(asked: Any, task: Task) -> ClassWeights:
    """Read what the rows of each class count: "balanced", or a mapping from every class label to its weight.

    Labels may be written as text. Raises SettingsError when the task has no classes to weight, and for labels that
    are unknown or missing.

    >>> read_class_weights({"no": 1, "yes": 5}, Task("binary", ("ill",), (("no", "yes"),)))
    (1.0, 5.0)
    """
    if asked is None:
        return None
    if task.kind not in ("binary", "multiclass"):
        raise SettingsError(
            f"class weights are for one target of classes; this task is {task.kind}.",
            hint="leave `class_weights` out, or weight the rows: --weights COLUMN",
        )
    if isinstance(asked, str) and asked == "balanced":
        return "balanced"
    if not isinstance(asked, Mapping):
        raise SettingsError(
            f'`class_weights` must be "balanced" or give each class a weight; got {asked!r}.',
            hint='class_weights={"no": 1, "yes": 5}; --class-weights balanced',
        )
    return _by_class(asked, task.classes[0])


def _by_class(asked: Mapping[Any, Any], labels: tuple[Label, ...]) -> tuple[float, ...]:
    weights: dict[int, float] = {}
    for key, weight in asked.items():
        number = next(
            (i for i, label in enumerate(labels) if key == label or str(key) in _names(label)), None
        )
        if number is None:
            hint = did_you_mean(str(key), map(str, labels)) or f"the classes are {listed(labels, 12)}"
            raise SettingsError(f"`class_weights` names an unknown class, `{key}`.", hint=hint)
        if number in weights:
            raise SettingsError(f"class `{key}` is given two weights.", hint="keep one of them")
        weights[number] = _class_weight(key, weight)
    if missing := [label for i, label in enumerate(labels) if i not in weights]:
        raise SettingsError(
            f"`class_weights` says nothing of {listed(missing)}.", hint="give every class a weight, such as 1"
        )
    return tuple(weights[i] for i in range(len(labels)))


def _names(label: Label) -> set[str]:
    return {str(label), *as_text(pl.Series([label])).to_list()}


def _class_weight(key: Any, weight: Any) -> float:
    if isinstance(weight, int | float | np.number) and np.isfinite(weight) and weight > 0:
        return float(weight)
    raise SettingsError(
        f"the weight of class `{key}` must be a number above 0; got {weight!r}.",
        hint="to do without a class, leave its rows out: a weight of 0 for each",
    )


# What follows from it


def training_weights(
    weights: Float[np.ndarray, " rows"],
    targets: Shaped[np.ndarray, "rows ..."],
    train: Bool[np.ndarray, "folds rows"],
    classes: ClassWeights = None,
) -> Float[np.ndarray, "folds rows"] | None:
    """Give what each row counts in the training of each fold: its own weight times that of its class.

    Balanced classes have weights n/(C·n_c), where n and n_c are the weights of all rows and of class c among the
    fold's training rows, and C the classes that are there: a fold learns nothing from rows that it must not see.
    A row that is a mixture of classes has the mean of their weights. None when every weight is 1.

    >>> train = np.array([[True, True, True, False]])
    >>> training_weights(np.ones(4), np.array([0, 0, 1, 1]), train, "balanced")
    array([[0.75, 0.75, 1.5 , 1.5 ]])
    """
    if classes != "balanced":
        of_class = 1.0 if classes is None else _of_rows(np.array(classes), targets)
        own = weights * of_class
        return None if (own == 1).all() else np.broadcast_to(own, train.shape)
    by_fold = np.stack([_of_rows(_balance(weights, targets, rows), targets) for rows in train])
    own = weights * by_fold
    return None if (own[train] == 1).all() else own


def score_weights(
    weights: Float[np.ndarray, " rows"],
    targets: Shaped[np.ndarray, "rows ..."],
    scored: Bool[np.ndarray, " rows"],
    classes: ClassWeights = None,
) -> Float[np.ndarray, " rows"] | None:
    """Give what each row counts in a score: its own weight times that of its class; None when all count alike.

    Classes are balanced over the rows that are scored, which makes accuracy the balanced accuracy.

    >>> score_weights(np.ones(4), np.array([0, 0, 0, 1]), np.ones(4, bool), "balanced").round(2)
    array([0.67, 0.67, 0.67, 2.  ])
    """
    if classes is None:
        own = weights
    elif classes == "balanced":
        own = weights * _of_rows(_balance(weights, targets, scored), targets)
    else:
        own = weights * _of_rows(np.array(classes), targets)
    return None if (own[scored] == 1).all() else own


def _balance(
    weights: Float[np.ndarray, " rows"],
    targets: Shaped[np.ndarray, "rows ..."],
    rows: Bool[np.ndarray, " rows"],
) -> Float[np.ndarray, " classes"]:
    """Weigh classes so that each counts alike among some rows; 0 for a class that is not among them."""
    own, among = weights[rows], targets[rows]
    totals = np.bincount(among, own, minlength=int(targets.max()) + 1) if targets.ndim == 1 else own @ among
    there = totals > 0
    return np.divide(totals.sum(), there.sum() * totals, out=np.zeros_like(totals), where=there)


def _of_rows(
    by_class: Float[np.ndarray, " classes"], targets: Shaped[np.ndarray, "rows ..."]
) -> Float[np.ndarray, " rows"]:
    return by_class[targets] if targets.ndim == 1 else targets @ by_class
