"""A column that gives the answer away: alone it predicts far better than all the others together.

Evidence: for each column alone, what share of the targets' variance is explained by the mean of the rows that stand
beside a row in the order of that column; and what a linear model and the nearest rows explain with all the others.
For classes the variance is that of columns of 0 and 1, and what the borders
between classes leave unexplained in the best of orders is added. And whether the target is exactly a sum of two or
three columns, with weights and a constant, in all rows that are looked at.

Why it hurts: such a column is often made from the target, or is known only after it: a copy, a rank, a number given
in the order of the outcome. On rows of the future it will be missing or say something else, and the network, which
learned nothing but this column, fails.

How sure: likely, when the column leaves almost nothing unexplained, the others, at least four that know something of
the target, leave at least ten times as much, and it looks like an answer: numbers rise or fall with it throughout,
classes are far apart in it, or it numbers the rows. A sum is an alarm where the others, at least four, know something
of the target, as they do in no table that was made by a formula. Otherwise a hint: the column
may be the one cause of the target. It may be as good as that by right in any case: then keep it, and a network is
hardly needed.

What to try: leave the column out, of a sum all its parts. The score becomes worse, and is the one that can be believed.

References: Kaufman, Rosset, Perlich & Stitelman 2012, *Leakage in data mining: formulation, detection, and avoidance*;
Kapoor & Narayanan 2023, *Leakage and the reproducibility crisis in machine-learning-based science*.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from foldwise.checks.changes import without_columns
from foldwise.checks.exact_sum import exact_sum
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import Sample
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR
from foldwise.errors import listed, percent

EXPLAINS = ("shared-groups", "overfitting", *POOR)
ALONE = 0.95  # explained by the column: less may well be an honest strong column
FAR = 0.1  # of what the others leave unexplained, a leak leaves at most so much
CERTAIN = 0.975  # explained by the column, for an alarm: a copy of counts with few values reaches 0.98
SOMETHING, COLUMNS = 0.1, 4  # that the others explain, and how many they are, for an alarm
MONOTONE = 0.98  # rank correlation with a target that is a number
SEPARATE = 0.9  # of the column's variance is between classes; a border across even values leaves 0.75 of it
UNIQUE = 0.9  # of the rows have a number of their own
LEAST_ROWS = 30


def find(sight: Sight) -> Finding | None:
    """Look for columns that explain the targets alone, or give them exactly, when the others do not."""
    sample = sight.sample
    if sample is None or len(sample.rows) < LEAST_ROWS:
        return None
    return _sum(sample) or _alone(sample)


def _sum(sample: Sample) -> Finding | None:
    found = exact_sum(sample)
    if found is None or len(found.columns) < 2:  # of one column it is asked more
        return None
    others = len({f.column for f in sample.table.columns.features}) - len(found.columns)
    alarm = others >= COLUMNS and sample.without(set(found.columns)).by_others() >= SOMETHING
    is_sum = f"a sum of other columns without any error, ≈ {found}," if found.rounded else f"exactly {found}"
    return _finding(
        f"the target is {is_sum} in all {len(sample.rows)} rows that were looked at",
        found.columns,
        alarm=alarm,
    )


def _alone(sample: Sample) -> Finding | None:
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
    others_tell = others >= SOMETHING and len(by_column) - len(leaks) >= COLUMNS
    alarm = others_tell and any(leaks[n] >= CERTAIN and looks_like_an_answer(sample, n) for n in names)
    return _finding(
        f"{listed(names)} alone explains {percent(max(leaks.values()), 1)} of the variance of the target, all other "
        f"columns together explain {percent(max(others, 0))}",
        names,
        alarm=alarm,
    )


def _finding(evidence: str, names: tuple[str, ...], *, alarm: bool) -> Finding:
    return Finding(
        "target-leak",
        "likely" if alarm else "hint",
        evidence,
        where=names,
        remedies=(
            Remedy(
                f"leave out {listed(names)}",
                table=without_columns(set(names)),
                aim="honest",
                options={"drop": [*names]},
            ),
        ),
    )


def looks_like_an_answer(sample: Sample, name: str) -> bool:
    """Tell whether a column is one made from the target or in its order, and not one that the target depends on."""
    named = [f.column == name for f in sample.table.columns.features]
    place = np.flatnonzero(named & sample.table.numbers)
    if not len(place):
        return True  # a category in which the targets hardly differ is a name of them
    values = sample.table.features[sample.rows, place[0]]
    known = ~np.isnan(values)
    values, targets = values[known], sample.targets[known]
    if sample.table.targets.ndim > 1:
        ranks = stats.rankdata(np.column_stack([values, targets]), axis=0)
        return bool(np.abs(np.corrcoef(ranks.T)[0, 1:]).max() >= MONOTONE)
    numbers_rows = np.array_equal(values, np.round(values)) and len(np.unique(values)) >= UNIQUE * len(values)
    sizes, centered = targets.sum(0), values - values.mean()
    between = np.square(targets.T @ centered)[sizes > 0] / sizes[sizes > 0]
    return numbers_rows or bool(between.sum() >= SEPARATE * np.square(centered).sum())
