"""Columns that have the same value in every row: they say nothing.

Evidence: the number of different values in each column, over all development rows.

Why it hurts: training leaves such a column out and hardly suffers, but a column that should vary and does not was
often read or joined wrongly, and what it was meant to say is missing.

How sure: it cannot be otherwise, but it is no more than a hint: nothing is wrong with the training.

What to try: look where the column comes from, or drop it.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.errors import listed

EXPLAINS: tuple[str, ...] = ()


def find(sight: Sight) -> Finding | None:
    """Look for columns that the column plan set aside because they are constant."""
    if sight.table is None:
        return None
    constant = tuple(column.name for column in sight.table.columns.columns if column.kind == "constant")
    if not constant:
        return None
    have = "has" if len(constant) == 1 else "have"
    return Finding(
        "constant-columns",
        "hint",
        f"{listed(constant)} {have} the same value in all {len(sight.table.features)} rows",
        where=constant,
        remedies=(Remedy("look where they come from"),),
    )
