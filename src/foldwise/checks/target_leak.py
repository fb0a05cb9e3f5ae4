"""A column that gives the answer away: alone it predicts far better than all the others together.

Evidence: for each column alone, what share of the targets' variance is explained by the mean of the rows that stand
beside a row in the order of that column; and what a linear model and the nearest rows explain with all the others.
For classes the variance is that of columns of 0 and 1, and what the borders
between classes leave unexplained in the best of orders is added.

Why it hurts: such a column is often made from the target, or is known only after it: a copy, a rank, a number given
in the order of the outcome. On rows of the future it will be missing or say something else, and the network, which
learned nothing but this column, fails.

How sure: likely, when the column leaves almost nothing unexplained and the others, at least three that know something
of the target, leave at least ten times as much; a hint where there is hardly another, or the others know nothing. A
column may be as good as that by right: then keep it, and a network is hardly needed.

What to try: leave the column out. The score becomes worse, and is the one that can be believed.

References: Kaufman, Rosset, Perlich & Stitelman 2012, *Leakage in data mining: formulation, detection, and avoidance*;
Kapoor & Narayanan 2023, *Leakage and the reproducibility crisis in machine-learning-based science*.
"""

from __future__ import annotations

from foldwise.checks.changes import without_columns
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.errors import listed

EXPLAINS: tuple[str, ...] = ("shared-groups", "underfitting", "overfitting", "plateau")
ALONE = 0.95  # explained by the column: less may well be an honest strong column
FAR = 0.1  # of what the others leave unexplained, a leak leaves at most so much
SOMETHING, COLUMNS = 0.1, 3  # that the others explain, and how many they are, for an alarm
LEAST_ROWS = 30


def find(sight: Sight) -> Finding | None:
    """Look for columns that explain the targets alone, when the others do not."""
    sample = sight.sample
    if sample is None or len(sample.rows) < LEAST_ROWS:
        return None
    edges = sample.edges
    by_column = {name: min(1.0, share + edges) for name, share in sample.by_column().items()}
    leaks = {name: share for name, share in by_column.items() if share >= ALONE}
    if not leaks or len(leaks) == len(by_column):
        return None
    others = sample.without(set(leaks)).by_others()
    if 1 - max(leaks.values()) > FAR * (1 - others):
        return None
    names = tuple(sorted(leaks, key=lambda name: -leaks[name]))
    # where nothing else is known of the target, or there is hardly anything else, one column may well be its one cause
    alone = others < SOMETHING or len(by_column) - len(leaks) < COLUMNS
    return Finding(
        "target-leak",
        "hint" if alone else "likely",
        f"{listed(names)} alone explains {max(leaks.values()):.1%} of the variance of the target, all other columns "
        f"together explain {max(others, 0):.0%}",
        where=names,
        remedies=(Remedy(f"leave out {listed(names)}", table=without_columns(set(names)), aim="honest"),),
    )
