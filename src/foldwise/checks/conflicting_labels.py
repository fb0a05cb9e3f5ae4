"""The same rows with different targets: whatever is said of them, it is wrong for some.

Evidence: the share of rows that have others with the same inputs and a different target. Rows of few and coarse
columns are alike by chance, and then differ in their targets by right; so only rows count that
agree with no further row in half of the columns either.

Why it hurts: no network can be right about both. It learns to be unsure, or one of the two by heart, and the loss has
a floor that no training passes.

How sure: likely, when more than one row in twenty is concerned; fewer are a hint.

What to try: look where tables were joined; leave such rows out of training until it is known which target is right.
That cannot be tried on the same folds: a row would go because of what its copy is scored by.

References: Northcutt, Athalye & Mueller 2021, *Pervasive label errors in test sets destabilize machine learning
benchmarks*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.repeated_rows import unlikely
from foldwise.checks.sample import copies, numbers_of
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR
from foldwise.data.table import Table
from foldwise.errors import listed, percent

EXPLAINS = ("wrong-labels", "repeated-rows", "shared-groups", *POOR)
MANY = 0.05  # of the rows
FEW = 0.01
DIFFER = 0.1  # of a deviation: numbers measured twice are never quite the same


def find(sight: Sight) -> Finding | None:
    """Look for rows that agree in their inputs and not in their targets."""
    table = sight.table
    if table is None:
        return None
    groups = copies(table, targets=False)
    if groups.max(initial=-1) == len(groups) - 1:
        return None
    marked = in_conflict(table, groups)
    if marked.mean() < FEW or (marked := marked & unlikely(table, groups)).mean() < FEW:
        return None
    shown = listed(table.row[np.flatnonzero(marked)[:3]].tolist())
    # Not to learn these rows cannot be tried on these folds: a row would go because of what its copy is scored by.
    remedies = [Remedy("look where tables were joined"), Remedy("do not learn these rows")]
    return Finding(
        "conflicting-labels",
        "likely" if marked.mean() > MANY else "hint",
        f"{percent(marked.mean())} of the rows have others with the same inputs and a different target (rows "
        f"{shown} …)",
        remedies=tuple(remedies),
    )


def in_conflict(table: Table, groups: np.ndarray) -> Bool[np.ndarray, " rows"]:
    """Mark rows of groups whose targets differ."""
    values = numbers_of(table)
    most = np.full((groups.max() + 1, values.shape[1]), -np.inf)
    least = -most
    np.maximum.at(most, groups, values)
    np.minimum.at(least, groups, values)
    return np.asarray(((most - least).max(1) > DIFFER)[groups])
