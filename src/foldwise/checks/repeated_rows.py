"""Rows that are there twice, once to learn from and once to be scored on.

Evidence: how many validation rows have a training row of the same fold with the same inputs and the same targets. In
tables of few and coarse columns rows are alike by chance: there, rows that agree in all columns but one often differ
in that one; copies never do.

Why it hurts: the network has seen the answer. A score on such rows praises memory, and the settings chosen by it are
those that memorize best.

How sure: likely, when they are more than a tenth of the validation rows and cannot be chance; fewer are a hint.

What to try: keep copies in one fold. The score becomes honest, often worse. Removing the copies does the same.

References: Barz & Denzler 2020, *Do we train on test data? Purging CIFAR of near-duplicates*; Kapoor & Narayanan 2023,
*Leakage and the reproducibility crisis in machine-learning-based science*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from foldwise.checks.changes import kept_together
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import copies, numbers_of, on_both_sides
from foldwise.checks.sight import Sight
from foldwise.data.folds import Folds
from foldwise.data.table import Table

EXPLAINS: tuple[str, ...] = ("overconfident", "shared-groups")
MANY = 0.1  # of validation rows: with fewer the score can hardly be far off; real tables have a few copies
CHANCE = 0.5  # of pairs that agree in all columns but one, at most so many agree in that one too by chance


def find(sight: Sight) -> Finding | None:
    """Look for validation rows that were learned from as well."""
    table, folds = sight.table, sight.folds
    if table is None or folds is None:
        return None
    groups = copies(table, targets=True)
    share, where = shared(groups, folds.outer)
    if not share or by_chance(table, groups):
        return None
    rows = ", ".join(str(r) for r in table.row[where[:3]])
    change = kept_together(folds.outer, groups)
    remedy = Remedy("keep copies in one fold", folds=change, aim="honest")
    return Finding(
        "repeated-rows",
        "likely" if share > MANY else "hint",
        f"{share:.0%} of the validation rows are in the training rows of their fold too, with the same target "
        f"(rows {rows}{' …' if len(where) > 3 else ''})",
        remedies=(remedy,) if change else (Remedy("remove the copies"),),
    )


def shared(groups: Int[np.ndarray, " rows"], folds: Folds) -> tuple[float, Int[np.ndarray, " rows"]]:
    """Say what share of validation rows have one of their group among the training rows, and which they are."""
    if groups.max(initial=-1) == len(groups) - 1:
        return 0.0, np.zeros(0, dtype=np.int64)
    marked = np.stack(
        [on_both_sides(groups, t, v) for t, v in zip(folds.train, folds.validation, strict=True)]
    )
    return float(marked.sum() / folds.validation.sum()), np.flatnonzero(marked.any(0))


def by_chance(table: Table, groups: Int[np.ndarray, " rows"], *, targets: bool = True) -> bool:
    """Tell whether rows agree by chance: then many that agree in all columns but one differ in that one.

    `targets` says whether rows of a group agree in their targets as well.
    """
    repeats = _repeats(groups)
    cells = np.nan_to_num(table.features, nan=np.pi)
    of_column = np.array([f.column for f in table.columns.features])
    names = list(dict.fromkeys(of_column.tolist()))
    random = np.random.default_rng(0)
    parts = [_codes(cells[:, of_column == name], random) for name in names]
    total = np.sum(parts, axis=0) + (_codes(numbers_of(table), random) if targets else 0)
    return any(repeats <= CHANCE * _repeats(total - part) for part in parts)


def _codes(cells: Float[np.ndarray, "rows features"], random: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """Give each different cell of a column a random integer; sums of them stand for cells of several columns."""
    _, place = np.unique(cells @ random.normal(size=cells.shape[1]), return_inverse=True)
    return random.integers(-(2**50), 2**50, place.max(initial=0) + 1)[place]


def _repeats(values: Int[np.ndarray, " rows"]) -> int:
    return len(values) - len(np.unique(values))
