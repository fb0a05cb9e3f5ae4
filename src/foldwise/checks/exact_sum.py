"""A few columns of which the target is exactly a sum, with weights: what `target-leak` asks beside single columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from foldwise.checks.sample import Sample

MOST = 3  # columns: a target that follows from more of them is rather a table made by a formula
EXACT = 1e-7  # of the target's deviation are the largest errors: rounding, and nothing else
SINGLE = 1e-5  # the same, where cells have 32 bits
LARGEST = 1e-3  # the most of it, where such cells are large beside their deviation
DIGITS = 6  # of weights, in print
DISTINCT = 10  # different targets: fewer are met by chance more easily
ROWS_PER_COLUMN = 4  # more rows than so many times the columns, or a fit may be exact by chance


@dataclass(frozen=True)
class Sum:
    """Inputs whose sum, with weights, and a constant is a target; weights by name of the input.

    `columns` are those that the inputs come from. `rounded` tells whether weights are longer than they are printed.
    """

    weights: dict[str, float]
    constant: float
    columns: tuple[str, ...]
    rounded: bool

    def __str__(self) -> str:
        """Write the sum with its weights.

        >>> print(Sum({"a": 1.0, "b": -2.5}, 100.0, ("a", "b"), False))
        `a` − 2.5·`b` + 100
        >>> print(Sum({"a": -1 / 3, "b": 1.0}, 0.0, ("a", "b"), True))
        −0.333333·`a` + `b`
        """
        parts = [(w, f"{f'{abs(w):.{DIGITS}g}·'.removeprefix('1·')}`{n}`") for n, w in self.weights.items()]
        parts += [(self.constant, f"{abs(self.constant):.{DIGITS}g}")] if self.constant else []
        said = "".join(f"{' − ' if sign < 0 else ' + '}{part}" for sign, part in parts)
        return said.removeprefix(" + ") if said.startswith(" + ") else f"−{said.removeprefix(' − ')}"


def exact_sum(sample: Sample) -> Sum | None:
    """Find the inputs whose sum, with weights, and a constant is a target in all rows; None: there are none.

    Of columns that say the same, one is found. Only numbers that no row misses are asked.
    """
    table = sample.table
    if table.task.kind != "regression":
        return None
    targets = np.exp(table.targets[sample.rows]) if table.task.log else table.targets[sample.rows]
    inputs = table.features[sample.rows].astype(np.float64)
    usable = np.flatnonzero(table.numbers & np.isfinite(inputs).all(0))
    usable = usable[np.ptp(inputs[:, usable], axis=0) > 0]
    single = {name for name, dtype in table.frame.schema.items() if dtype == pl.Float32}
    short = not single.isdisjoint(table.columns.features[p].column for p in usable)
    for name, one in zip(table.task.targets, targets.astype(np.float64).T, strict=True):
        if len(usable) and len(np.unique(one)) >= DISTINCT:
            tolerance = _rounding(one) if short or name in single else EXACT
            own = nearest_in_line(inputs[:, usable], one)
            kept = fewest(inputs[:, usable[own]], one, tolerance)
            if kept is not None:
                places = usable[own][kept]
                found = [table.columns.features[p] for p in places]
                weights, constant, rounded = _weights(inputs[:, places], one, tolerance * one.std())
                return Sum(
                    dict(zip([f.name for f in found], weights.tolist(), strict=True)),
                    constant,
                    tuple(dict.fromkeys(f.column for f in found)),
                    rounded,
                )
    return None


def nearest_in_line(
    inputs: Float[np.ndarray, "rows columns"], target: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, " columns"]:
    """Mark the columns that go with the target most, so many as a fit to these rows can tell apart."""
    most = len(target) // ROWS_PER_COLUMN
    alike = np.abs(_standard(inputs).T @ _standard(target[:, None])[:, 0])
    marked = np.zeros(len(alike), dtype=bool)
    marked[np.argsort(-alike, kind="stable")[:most]] = True
    return marked


def fewest(
    inputs: Float[np.ndarray, "rows columns"], target: Float[np.ndarray, " rows"], tolerance: float = EXACT
) -> Bool[np.ndarray, " columns"] | None:
    """Mark columns without any of which the target is no exact sum; None: it is none, or one of more than `MOST`.

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> fewest(x, 2 * x[:, 1] - x[:, 4]).tolist()
    [False, True, False, False, True]
    >>> fewest(x, x.sum(1)) is None
    True
    """
    z, y = _standard(inputs), _standard(target[:, None])[:, 0]
    weights = _fit(z, y, tolerance)
    if weights is None:
        return None
    kept = np.abs(weights) > tolerance
    # weights of columns that say the same are shared among them: those with the least go first
    for place in np.argsort(np.abs(weights), kind="stable"):
        if kept[place]:
            kept[place] = False
            if _fit(z[:, kept], y, tolerance) is None:
                kept[place] = True
    return kept if 0 < kept.sum() <= MOST else None


def _fit(
    z: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, " rows"], tolerance: float
) -> np.ndarray | None:
    weights = np.linalg.lstsq(z, y, rcond=None)[0]
    return weights if np.abs(y - z @ weights).max() <= tolerance else None


def _weights(
    inputs: Float[np.ndarray, "rows columns"], target: Float[np.ndarray, " rows"], error: float
) -> tuple[np.ndarray, float, bool]:
    """Give weights and the constant, rounded as they are printed where errors stay that small, and if they are not."""
    centered = inputs - inputs.mean(0)
    whole = np.asarray(np.linalg.lstsq(centered, target - target.mean(), rcond=None)[0])
    short = np.array([_printed(w) for w in whole])
    constant = _printed(float((target - inputs @ short).mean()), least=error)
    if np.abs(target - inputs @ short - constant).max() <= 2 * error:
        return short, constant, False
    constant = float((target - inputs @ whole).mean())
    return whole, constant if abs(constant) > error else 0.0, True


def _rounding(target: Float[np.ndarray, " rows"]) -> float:
    """Give what numbers of 32 bits may be wrong by, in deviations."""
    last = np.finfo(np.float32).eps * np.abs(target).max() / target.std()
    return min(LARGEST, max(SINGLE, float(last)))


def _printed(value: float, least: float = 0.0) -> float:
    return float(f"{value:.{DIGITS}g}") if abs(value) > least else 0.0


def _standard(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    centered = values - values.mean(0)
    return np.asarray(centered / centered.std(0))
