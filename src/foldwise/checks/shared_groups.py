"""Rows of one group, such as a patient or a device, both learned from and scored on.

Evidence: for columns that name groups, also those set aside as identifiers: what the mean of the nearest rows explains
of the target, when rows of the same group may be among them, when they may not, and when as many rows of a random
grouping may not. The column itself is no part of what is near. For numbers, leaving out the group numbered next must
not do the same harm, which it does where numbers measure something. Without such a column: nearest rows that are far
nearer than the others, more of them than among normal rows of the same covariance and among rows with shuffled columns,
and that agree in their targets as the others do not. Rows on a curve or a surface, of a smooth target, are near and
agree too: so there must be a gap between the near rows and the next, or targets closer than distances lead to expect.

Why it hurts: rows of one group share what no column tells. A network recognizes the group and remembers its answer. For
the groups of the future it knows none, and is worse than its score.

How sure: likely, when most of what is explained comes from rows of the same group. A hint for categories of few levels
that the network learns from: new rows may be of the same ones.

What to try: keep groups together: `groups=` that column. The score becomes honest, often much worse.

References: Saeb, Lonini, Jayaraman, Mohr & Kording 2017, *The need to approximate the use-case in clinical machine
learning*; Roberts et al. 2017, *Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foldwise.checks.changes import kept_together
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.repeated_rows import NUMBERED, shared
from foldwise.checks.sample import VOTES, Sample, explained, nearest, numbered
from foldwise.checks.sight import Sight
from foldwise.data.encode import Column
from foldwise.data.table import Table
from foldwise.errors import percent

EXPLAINS: tuple[str, ...] = ("overconfident",)
LEAST_GROUPS = 5
FEW_LEVELS = 20  # a category of so many may be one of which all levels are known
MOST_SHARE = 0.2  # of the rows in one group
LEAST_SHARED = 0.5  # of the validation rows have training rows of their group
MEETS = 0.3  # of the rows have their nearest row in their own group
LOSES = 0.1  # of the variance explained without the group
TIMES = 4.0  # what leaving out other rows, as many, loses
SHUFFLES = 4
LEAST_ROWS = 30
NEAR = 0.25  # of the distance to the last of the nearest rows: in many dimensions no others are so near
MANY_NEAR = 0.2  # of the rows
MATTERS = 0.3  # the squared difference of targets of rows less near, of which 2 is that of any two rows
AGREE = 0.06  # of that, at most, do rows that are near differ
GAP = 3.0  # times as far is the next row as the last that is near; on curves and surfaces 1.4 to 2
CLOSER = (
    0.5  # times what squared distances lead to expect of a smooth target is what targets of a group differ by
)
ASKED = 200  # rows tell whether groups meet


def find(sight: Sight) -> Finding | None:
    """Look for a column of groups, and then for rows that are nearly alike."""
    table, folds, sample = sight.table, sight.folds, sight.sample
    if table is None or folds is None or sample is None or len(sample.rows) < LEAST_ROWS:
        return None
    return _by_column(sight, table, sample) or _nearly_alike(sight, sample)


def _by_column(sight: Sight, table: Table, sample: Sample) -> Finding | None:
    assert sight.folds is not None
    found = []
    for column in table.columns.columns:
        groups = groups_of(column, table)
        if groups is None or shared(groups, sight.folds.outer)[0] < LEAST_SHARED:
            continue
        if told := group_tells(sample.without({column.name}), groups[sample.rows], _measures(table, column)):
            found.append((*told, column, groups))
    if not found:
        return None
    free, kept, column, groups = max(found, key=lambda f: f[0] - f[1])
    change = kept_together(sight.folds.outer, groups)
    known = column.role == "feature" and column.kind == "category" and column.distinct <= FEW_LEVELS
    return Finding(
        "shared-groups",
        "hint" if known else "likely",
        f"rows of the same `{column.name}` are on both sides of folds, and the nearest rows explain "
        f"{percent(free)} of the "
        f"variance of the target with them, {percent(max(kept, 0))} without",
        where=(column.name,),
        remedies=(
            Remedy(
                f"rows of one `{column.name}` in one fold",
                folds=change,
                aim="honest" if change else "better",
                options={"groups": column.name},
            ),
        ),
    )


def groups_of(column: Column, table: Table) -> Int[np.ndarray, " rows"] | None:
    """Number the values of a column that may name groups; None where it cannot: it measures, or has few or many."""
    if column.role not in ("feature", "set aside") or column.kind == "date":
        return None
    cells = table.frame[column.name]
    if not (cells.dtype.is_integer() or cells.dtype in (pl.String, pl.Categorical, pl.Enum)):
        return None
    least = FEW_LEVELS + 1 if cells.dtype.is_integer() and column.role == "feature" else LEAST_GROUPS
    if not least <= column.distinct <= len(cells) / 2 or cells.null_count():
        return None
    groups = cells.to_physical().rank("dense").to_numpy().astype(np.int64) - 1
    return groups if np.bincount(groups).max() <= MOST_SHARE * len(groups) else None


def _measures(table: Table, column: Column) -> bool:
    return bool(table.frame[column.name].dtype.is_integer())


def group_tells(
    sample: Sample, groups: Int[np.ndarray, " rows"], ordered: bool
) -> tuple[float, float] | None:
    """Say what the nearest rows explain with and without those of the same group; None where the group is no matter."""
    if not sample.inputs.shape[1]:
        return None
    if meets(sample, groups) < MEETS:
        return None
    same = groups[:, None] == groups
    free, kept = sample.by_neighbors(), without_pairs(sample, same)
    random = np.random.default_rng(0)
    others = []
    for _ in range(SHUFFLES):
        mixed = random.permutation(groups)
        others.append(without_pairs(sample, mixed[:, None] == mixed))
    if ordered:
        beside = groups[:, None] + 1 == groups
        others.append(2 * without_pairs(sample, beside) - free)  # it may do half the harm
    lost, by_chance = free - kept, free - min(others)
    return (free, kept) if lost > LOSES and lost > TIMES * by_chance * (0.5 if ordered else 1) else None


def meets(sample: Sample, groups: Int[np.ndarray, " rows"]) -> float:
    """Give the share of some rows whose nearest other row is of their group."""
    x = sample.inputs
    rows = np.linspace(0, len(x) - 1, min(ASKED, len(x))).astype(np.int64)
    squares = np.square(x).sum(1) - 2 * x[rows] @ x.T  # the row's own square is the same for all others
    squares[np.arange(len(rows)), rows] = np.inf
    return float(np.mean(groups[squares.argmin(1)] == groups[rows]))


def without_pairs(sample: Sample, pairs: Bool[np.ndarray, "rows rows"]) -> float:
    """Say what the nearest rows explain when some pairs must not count."""
    squares = np.where(pairs, np.inf, sample.squares)
    return explained(sample.learned[nearest(squares, min(VOTES, len(squares) - 1))].mean(1), sample.learned)


def _nearly_alike(sight: Sight, sample: Sample) -> Finding | None:
    assert sight.table is not None
    assert sight.folds is not None
    near = near_pairs(sample)
    marked = near.any(1)
    if marked.mean() < MANY_NEAR:
        return None
    first, last = sample.nearest[marked, 0], sample.nearest[marked, -1]
    own = sample.learned[marked]
    agree = np.square(own - sample.learned[first]).mean()
    differ = np.square(own - sample.learned[last]).mean()
    expected = set_apart(sample, near)
    if differ < MATTERS or not agree < min(AGREE, expected) * differ:
        return None
    if any(marked.mean() < TIMES * share for share in by_nature(sample)):
        return None
    groups = joined(sample.nearest, near)
    whole = len(sample.rows) == len(sight.table.features)
    if whole and shared(groups, sight.folds.outer)[0] < MANY_NEAR:
        return None
    change = kept_together(sight.folds.outer, groups) if whole else None
    what = "keep rows that are nearly alike in one fold"
    return Finding(
        "shared-groups",
        "likely",
        f"{percent(marked.mean())} of the rows have others far nearer than the rest, whose targets differ by "
        f"{percent(np.sqrt(agree / differ))} of what those of the next rows do: they may be of one group",
        must_cost=True,
        remedies=(
            Remedy(what, folds=change, aim="honest", how=NUMBERED)
            if change
            else Remedy('name the group: --groups COLUMN, groups="COLUMN"'),
        ),
    )


def by_nature(sample: Sample) -> Iterator[float]:
    """Give the share of rows with others far nearer than the rest, among rows of two kinds that have no groups.

    Normal ones of the same covariance, and the same rows with each column shuffled, which are as coarse and as skewed.
    """
    rows, random = len(sample.rows), np.random.default_rng(0)
    mixed = random.normal(size=(rows, rows)) / np.sqrt(rows)
    yield _share_near(replace(sample, inputs=mixed @ (sample.inputs - sample.inputs.mean(0))))
    yield _share_near(replace(sample, inputs=random.permuted(sample.inputs, axis=0)))


def _share_near(sample: Sample) -> float:
    return float(near_pairs(sample).any(1).mean())


def set_apart(sample: Sample, near: Bool[np.ndarray, "rows neighbors"]) -> float:
    """Say below which share of what targets of the next rows differ by those of rows that are near must be.

    1 where most near rows are set apart from the next by a gap. Otherwise they may lie on a curve or a surface, along
    which the square by which a smooth target differs grows as that of the distance does.
    """
    marked = near.any(1)
    found = np.take_along_axis(sample.squares, sample.nearest, 1)[marked]
    rows, count = np.arange(len(found)), near[marked].sum(1)
    if np.mean(found[rows, count] >= GAP**2 * found[rows, count - 1]) > 0.5:
        return 1.0
    return CLOSER * float((found[:, 0] / found[:, -1]).mean())


def near_pairs(sample: Sample) -> Bool[np.ndarray, "rows neighbors"]:
    """Mark the nearest rows of each that are far nearer than the last of them."""
    found = np.take_along_axis(sample.squares, sample.nearest, 1)
    return np.asarray(found < NEAR**2 * found[:, -1:])


def joined(
    neighbors: Int[np.ndarray, "rows neighbors"], near: Bool[np.ndarray, "rows neighbors"]
) -> Int[np.ndarray, " rows"]:
    """Number the sets of rows that hang together by pairs that are near."""
    count = len(neighbors)
    row, place = np.nonzero(near)
    graph = coo_array((np.ones(len(row)), (row, neighbors[row, place])), shape=(count, count))
    return numbered(connected_components(graph, directed=False)[1])
