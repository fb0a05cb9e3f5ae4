"""Rows that are there twice, once to learn from and once to be scored on.

Evidence: how many validation rows have a training row of the same fold with the same inputs and the same targets. In
tables of few and coarse columns rows are alike by chance: there, more rows agree in half of the columns than in all
of them; copies agree with no further row.

Why it hurts: the network has seen the answer. A score on such rows praises memory, and the settings chosen by it are
those that memorize best.

How sure: likely, when they are more than a tenth of the validation rows and cannot be chance; fewer are a hint, and
fewer than a twentieth not worth one.

What to try: keep copies in one fold: number them in a column that copies share, and name it, `--groups COLUMN`,
`groups="COLUMN"`. The score becomes honest, often worse. Removing the copies does the same.

References: Barz & Denzler 2020, *Do we train on test data? Purging CIFAR of near-duplicates*; Kapoor & Narayanan 2023,
*Leakage and the reproducibility crisis in machine-learning-based science*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from foldwise.checks.changes import kept_together
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import copies, numbered, on_both_sides
from foldwise.checks.sight import Sight
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.errors import percent

EXPLAINS: tuple[str, ...] = ("overconfident", "shared-groups")
MANY = 0.1  # of validation rows: with fewer the score can hardly be far off; real tables have a few copies
NUMBERED = 'number them in a column, and name it: --groups COLUMN, groups="COLUMN"'
FEW = 0.05  # no hint: less than folds differ by
COARSE = 5  # rows that agree with a row on average: so many do where inputs are too coarse to tell rows apart
CERTAIN = 0.5  # of the rows that agree with others; where fewer are beyond chance, these may be chance too


def find(sight: Sight) -> Finding | None:
    """Look for validation rows that were learned from as well."""
    table, folds = sight.table, sight.folds
    if table is None or folds is None:
        return None
    groups = copies(table, targets=True)
    share, where = shared(groups, folds.outer)
    if not share:
        return None
    groups = np.where(unlikely(table, groups), groups, groups.max() + 1 + np.arange(len(groups)))
    share, where = shared(numbered(groups), folds.outer)
    if not share:
        return None
    groups = numbered(groups)
    rows = ", ".join(str(r) for r in table.row[where[:3]])
    change = kept_together(folds.outer, groups)
    remedy = Remedy("keep copies in one fold", folds=change, aim="honest", how=NUMBERED)
    return Finding(
        "repeated-rows",
        "likely" if share > MANY else "hint",
        f"{percent(share)} of the validation rows are in the training rows of their fold too, with the same target "
        f"(rows {rows}{' …' if len(where) > 3 else ''})",
        remedies=(remedy,) if change else (Remedy("remove the copies"),),
        slight=share < FEW,
    )


def shared(groups: Int[np.ndarray, " rows"], folds: Folds) -> tuple[float, Int[np.ndarray, " rows"]]:
    """Say what share of validation rows have one of their group among the training rows, and which they are."""
    if groups.max(initial=-1) == len(groups) - 1:
        return 0.0, np.zeros(0, dtype=np.int64)
    marked = np.stack(
        [on_both_sides(groups, t, v) for t, v in zip(folds.train, folds.validation, strict=True)]
    )
    return float(marked.sum() / folds.validation.sum()), np.flatnonzero(marked.any(0))


def unlikely(table: Table, groups: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Mark rows that agree with others as chance does not let them; none where most rows that agree may do so by it.

    Columns are dealt to two halves, once such that those with many values are in both, and once in their order, so that
    columns that say the same, as one-hot columns do of one another, come to the same half. Copies agree with each
    other in a half and with no further row; where rows agree by chance, more of them agree in half of the columns than
    in all.

    >>> from foldwise.data.table import open_table, read_source
    >>> import polars as pl
    >>> frame = pl.DataFrame({"a": [0.1, 0.7, 0.1], "b": [3.3, 2.1, 3.3], "y": [1.0, 2.0, 1.5]})
    >>> table = open_table(*read_source(frame, None, "y", None, {}), task="regression")
    >>> unlikely(table, np.array([0, 1, 0])).tolist()
    [True, False, True]
    """
    size = np.bincount(groups)[groups]
    if size.mean() > COARSE:
        return np.zeros(len(groups), dtype=bool)
    cells = np.nan_to_num(table.features, nan=np.pi)
    of_column = np.array([f.column for f in table.columns.features])
    random = np.random.default_rng(0)
    parts = [_codes(cells[:, of_column == name], random) for name in dict.fromkeys(of_column.tolist())]
    ranked, middle = sorted(parts, key=lambda part: -len(np.unique(part))), -(-len(parts) // 2)
    whole = np.maximum(size, _sizes(np.sum(parts, axis=0)))
    alone = np.ones(len(groups), dtype=bool)
    for halves in ((ranked[::2], ranked[1::2]), (parts[:middle], parts[middle:])):
        alone &= np.any([_sizes(np.sum(half, axis=0)) <= whole for half in halves if half], axis=0)
    several = size > 1
    if np.sum(alone & several) < CERTAIN * several.sum():
        return np.zeros(len(groups), dtype=bool)
    return np.asarray(alone & several)


def _sizes(keys: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[place])


def _codes(
    cells: Float[np.ndarray, "rows features"], random: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Give each different cell of a column a random integer; sums of them stand for cells of several columns."""
    _, place = np.unique(cells @ random.normal(size=cells.shape[1]), return_inverse=True)
    return random.integers(-(2**50), 2**50, place.max(initial=0) + 1)[place]
