"""A few columns of which the target is exactly a sum, with weights: what `target-leak` asks beside single columns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from foldwise.checks.sample import Sample

MOST = 3  # columns: a target that follows from more of them is rather a table made by a formula
EXACT = 1e-7  # of the target's deviation are the largest errors: rounding, and nothing else
DISTINCT = 10  # different targets: fewer are met by chance more easily
ROWS_PER_COLUMN = 4  # more rows than so many times the columns, or a fit may be exact by chance


def exact_sum(sample: Sample) -> dict[str, float] | None:
    """Find the columns whose sum, with the weights given, and a constant is a target in all rows; None: there are none.

    Of columns that say the same, one is found. Only numbers that no row misses are asked.
    """
    table = sample.table
    if table.task.kind != "regression":
        return None
    targets = np.exp(table.targets[sample.rows]) if table.task.log else table.targets[sample.rows]
    inputs = table.features[sample.rows].astype(np.float64)
    usable = np.flatnonzero(table.numbers & np.isfinite(inputs).all(0))
    usable = usable[np.ptp(inputs[:, usable], axis=0) > 0]
    for one in targets.astype(np.float64).T:
        if len(usable) and len(np.unique(one)) >= DISTINCT:
            own = nearest_in_line(inputs[:, usable], one)
            kept = fewest(inputs[:, usable[own]], one)
            if kept is not None:
                places = usable[own][kept]
                weights = _weights(inputs[:, places], one)
                return {
                    table.columns.features[p].column: float(w) for p, w in zip(places, weights, strict=True)
                }
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
    inputs: Float[np.ndarray, "rows columns"], target: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, " columns"] | None:
    """Mark columns without any of which the target is no exact sum; None: it is none, or one of more than `MOST`.

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> fewest(x, 2 * x[:, 1] - x[:, 4]).tolist()
    [False, True, False, False, True]
    >>> fewest(x, x.sum(1)) is None
    True
    """
    z, y = _standard(inputs), _standard(target[:, None])[:, 0]
    weights = _fit(z, y)
    if weights is None:
        return None
    kept = np.abs(weights) > EXACT
    # weights of columns that say the same are shared among them: those with the least go first
    for place in np.argsort(np.abs(weights), kind="stable"):
        if kept[place]:
            kept[place] = False
            if _fit(z[:, kept], y) is None:
                kept[place] = True
    return kept if 0 < kept.sum() <= MOST else None


def _fit(z: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, " rows"]) -> np.ndarray | None:
    weights = np.linalg.lstsq(z, y, rcond=None)[0]
    return weights if np.abs(y - z @ weights).max() <= EXACT else None


def _weights(inputs: Float[np.ndarray, "rows columns"], target: Float[np.ndarray, " rows"]) -> np.ndarray:
    centered = inputs - inputs.mean(0)
    return np.asarray(np.linalg.lstsq(centered, target - target.mean(), rcond=None)[0])


def _standard(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    centered = values - values.mean(0)
    return np.asarray(centered / centered.std(0))
