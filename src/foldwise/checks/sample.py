"""Some rows of a table as simple models see them, and what those say of rows left out: no network is trained here.

Everything is measured on at most `MOST` rows, so that a large table costs no more than a small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from foldwise.data.prepare import apply_preparation, learn_preparation
from foldwise.data.table import Table

MOST = 600  # rows
MOST_CELLS = 40_000  # of inputs: with many features fewer rows do
NEAREST = 20  # neighbors that are known of each row
VOTES = 10  # neighbors whose mean predicts
PENALTY = 0.03  # of the linear model, per row
BESIDE = 2  # rows on either side of one in the order of a column, whose mean predicts


@dataclass(frozen=True)
class Sample:
    """Rows of a table: inputs scaled robustly, nothing missing; targets as numbers, of classes one column each.

    `rows` are places in the table, in order. Targets have mean 0 and are divided by one deviation for all of them,
    so that the mean of their squares is the error of the best constant.
    """

    table: Table
    rows: Int[np.ndarray, " rows"]
    inputs: Float[np.ndarray, "rows features"]
    targets: Float[np.ndarray, "rows outputs"]

    @classmethod
    def of(cls, table: Table, random: np.random.Generator) -> Sample:
        """Draw rows of a table."""
        count, features = table.features.shape
        most = min(count, MOST, max(MOST // 2, MOST_CELLS // max(1, features)))
        rows = np.arange(count) if most == count else np.sort(random.choice(count, most, replace=False))
        own = table.features[rows]
        prepared = learn_preparation(own, np.ones((1, most), dtype=bool), table.numbers, "robust")
        return cls(table, rows, apply_preparation(prepared, 0, own), numbers_of(table)[rows])

    @cached_property
    def learned(self) -> Float[np.ndarray, "rows outputs"]:
        """Give the targets with mean 0 and a mean square of 1."""
        return standardized(self.targets)

    @cached_property
    def squares(self) -> Float[np.ndarray, "rows rows"]:
        """Give the squared distances between rows; of a row to itself infinity."""
        return _squares(self.inputs)

    @cached_property
    def nearest(self) -> Int[np.ndarray, "rows neighbors"]:
        """Give each row's nearest others, the nearest first."""
        return nearest(self.squares, min(NEAREST, len(self.rows) - 1))

    def without(self, columns: set[str]) -> Sample:
        """Give the same rows without the inputs that come from some columns."""
        kept = np.array([f.column not in columns for f in self.table.columns.features])
        return Sample(self.table, self.rows, self.inputs[:, kept], self.targets)

    def by_neighbors(self) -> float:
        """Say how much of the targets the mean of the nearest other rows explains."""
        return explained(self.learned[self.nearest[:, :VOTES]].mean(1), self.learned)

    def by_line(self) -> float:
        """Say how much of the targets a linear model explains, for rows left out of it."""
        return explained(left_out(self.inputs, self.learned), self.learned)

    def by_others(self) -> float:
        """Say how much the better of the linear model and the nearest rows explains."""
        return max(self.by_line(), self.by_neighbors()) if self.inputs.shape[1] else 0.0

    def by_column(self) -> dict[str, float]:
        """Say how much each column explains alone: by the mean of the rows that stand beside one in its order."""
        names, values = self._orders()
        return _best(names, beside(values, self.learned))

    @property
    def edges(self) -> float:
        """Say what `by_column` leaves unexplained for classes in a perfect order, because of the borders between them.

        The mean of two rows on either side is wrong by a half next to a border, and by a quarter one row further, in
        two columns: 2·2·(1/4 + 1/16) for each border.
        """
        if self.table.targets.ndim > 1:
            return 0.0
        squares = float(np.square(self.targets - self.targets.mean(0)).sum())
        borders = int((self.targets.sum(0) > 0).sum()) - 1
        return borders * 1.25 / squares if squares > 0 else 0.0

    def _orders(self) -> tuple[list[str], Float[np.ndarray, "rows orders"]]:
        names = [f.column for f in self.table.columns.features]
        flags = ~self.table.numbers
        codes: dict[str, np.ndarray] = {}
        for column in dict.fromkeys(n for n, flag in zip(names, flags, strict=True) if flag):
            own = np.array([n == column for n in names]) & flags
            if own.sum() > 1:
                codes[column] = self.inputs[:, own] @ np.arange(1.0, own.sum() + 1)
        return [*names, *codes], np.column_stack([self.inputs, *codes.values()])


def numbers_of(table: Table) -> Float[np.ndarray, "rows outputs"]:
    """Give targets as numbers: of classes a column of 0 and 1 each; several numbers count alike."""
    if table.targets.ndim == 1:
        return np.eye(len(table.task.classes[0]))[table.targets.astype(np.int64)]
    values = table.targets.astype(np.float64)
    if table.task.kind != "regression":
        return values
    deviation = values.std(0)
    return values / np.where(deviation > 0, deviation, 1.0)


def standardized(values: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, "rows outputs"]:
    """Give values mean 0, and all outputs together a mean square of 1.

    >>> standardized(np.array([[0.0], [2.0]])).tolist()
    [[-1.0], [1.0]]
    """
    centered = values - values.mean(0)
    size = np.sqrt(np.square(centered).mean())
    return centered / size if size > 0 else centered


def explained(said: Float[np.ndarray, "rows outputs"], truth: Float[np.ndarray, "rows outputs"]) -> float:
    """Give the share of the squares of truth, which has mean 0, that a prediction explains: 1 − error/variance.

    >>> explained(np.array([[1.0], [-1.0]]), np.array([[1.0], [-1.0]]))
    1.0
    """
    squares = np.square(truth).sum()
    return float(1 - np.square(said - truth).sum() / squares) if squares > 0 else 0.0


def _squares(inputs: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows rows"]:
    lengths = np.square(inputs).sum(1)
    found = np.maximum(lengths[:, None] + lengths - 2 * inputs @ inputs.T, 0.0)
    np.fill_diagonal(found, np.inf)
    return found


def nearest(squares: Float[np.ndarray, "rows others"], count: int) -> Int[np.ndarray, "rows neighbors"]:
    """Give the places of the least distances of each row, the least first."""
    some = np.argpartition(squares, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(squares, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)


def left_out(
    inputs: Float[np.ndarray, "rows features"], targets: Float[np.ndarray, "rows outputs"]
) -> Float[np.ndarray, "rows outputs"]:
    """Predict each row by ridge regression on all the others, in closed form: (ŷ − hy)/(1 − h).

    h is the row's own entry in the hat matrix (Allen 1974, PRESS). Targets have mean 0, which is left out too.
    """
    hat = hat_matrix(inputs)
    own = np.diag(hat)[:, None]
    return (hat @ targets - own * targets) / np.maximum(1 - own, 1e-6)


def hat_matrix(inputs: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows rows"]:
    """Give the matrix that turns targets into what ridge regression with a free constant says of its own rows."""
    count = len(inputs)
    z = inputs - inputs.mean(0)
    deviation = z.std(0)
    z = z[:, deviation > 0] / deviation[deviation > 0]
    penalty = PENALTY * count
    if z.shape[1] <= count:
        inner = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T)
        return z @ inner + 1 / count
    kernel = z @ z.T
    return np.linalg.solve(kernel + penalty * np.eye(count), kernel) + 1 / count


def beside(
    values: Float[np.ndarray, "rows orders"], targets: Float[np.ndarray, "rows outputs"]
) -> Float[np.ndarray, " orders"]:
    """Say of each order of the rows how much of a row's target the mean of its neighbors in it explains."""
    mixed = np.random.default_rng(0).permutation(len(values))  # rows of equal value in no order of the table
    order = mixed[np.argsort(values[mixed], axis=0, kind="stable")]
    own = targets[order]  # rows orders outputs
    width = 2 * BESIDE
    if len(values) <= width:
        return np.zeros(values.shape[1])
    sums = np.concatenate([np.zeros((1, *own.shape[1:])), np.cumsum(own, axis=0)])
    first = np.clip(np.arange(len(values)) - BESIDE, 0, len(values) - width - 1)
    said = (sums[first + width + 1] - sums[first] - own) / width
    total = np.square(targets).sum()
    return 1 - np.square(said - own).sum((0, 2)) / total if total > 0 else np.zeros(values.shape[1])


def _best(names: list[str], found: Float[np.ndarray, " orders"]) -> dict[str, float]:
    best: dict[str, float] = {}
    for name, value in zip(names, found.tolist(), strict=True):
        best[name] = max(value, best.get(name, value))
    return best


def copies(table: Table, *, targets: bool) -> Int[np.ndarray, " rows"]:
    """Number the rows so that those with the same inputs, and with `targets` the same targets, share a number."""
    cells = np.nan_to_num(table.features, nan=np.pi) + 0.0  # −0 is 0
    if targets:
        cells = np.column_stack([cells, numbers_of(table)])
    weights = np.random.default_rng(0).normal(size=(cells.shape[1], 2))
    scale = np.abs(cells).max(0, initial=1e-300)
    hashed = np.round((cells / np.where(scale > 0, scale, 1)) @ weights, 12)
    keys = np.ascontiguousarray(hashed).view([("a", np.float64), ("b", np.float64)]).reshape(-1)
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def on_both_sides(
    groups: Int[np.ndarray, " rows"], train: Bool[np.ndarray, " rows"], validation: Bool[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Mark the validation rows of whose group there is a training row too."""
    learned = np.zeros(int(groups.max(initial=0)) + 1, dtype=bool)
    learned[groups[train]] = True
    return validation & learned[groups]


def numbered(cells: np.ndarray) -> Int[np.ndarray, " rows"]:
    """Number the different values of cells."""
    return np.unique(cells, return_inverse=True)[1].reshape(-1)
