"""A number that stands for a missing cell, such as −999, and is learned from as a number.

Evidence: values of number columns that many cells share, at the far end of the column, and separated from all other
values by more than these differ among themselves. Such a value is a code when it is the only one of its sign, or is
written with nines only. Of a target that is a number it is asked that it is written so, and no top of a form: −100 or
−1 may well be a loss. Nearer to the others a negative whole number in a column, such as −9 or −1, is looked at where
all others are 0 or more.

Why it hurts: the code stretches the scale of the column until all real values look alike, and the network has to learn
that a large number means nothing known. Read as missing, the cell is filled and marked by a flag. In the target, the
rows that have it decide over nearly all of the error, and nothing else is learned.

How sure: likely, when a value is set apart and looks like a code; set apart alone it is a hint. So is 99, which may
stand for all that is higher, unless it is further out than three times the range of the other values. −9 and the like
are a hint where they lie further from the others than these do from one another, and an alarm where three columns
share one that is −7 or below. Of −1, which is often meant, three columns that share it are a hint where it is next to
the others.

What to try: read these cells as missing; leave out the rows that have it as target.

References: Little & Rubin 2019, *Statistical analysis with missing data*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

import numpy as np
from jaxtyping import Float

from foldwise.checks.changes import as_missing
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.data.table import Table

Values = Float[np.ndarray, " rows"]
Codes = dict[str, tuple[float, int, bool]]
EXPLAINS: tuple[str, ...] = ("unscaled-inputs", "underfitting")
LEAST_CELLS = 5  # that share the value
LEAST_SHARE = 0.02  # of the cells, unless a value can hardly be anything but a code
PLAIN = -99.0  # and below: what is written with nines only, where nothing else is negative
TOP = 99.0  # may be the highest that a form allows as well, and so hold all higher numbers
FAR = 3.0  # ranges of the other values: so far out it is no top of theirs
APART = 3.0  # times the largest step between others: then a code near them is no value in their line
BELOW = -7.0  # codes of questionnaires are −7, −8 and −9
SHARE = 3  # so many columns do not have the same code by chance
LEAST_OTHERS = 5  # different values beside it: with fewer it may be one of a few levels


def find(sight: Sight) -> Finding | None:
    """Look for codes in the columns that are numbers, and in the target."""
    table = sight.table
    if table is None:
        return None
    columns, targets = _cells(table), _targets(table)
    # those of targets first: they matter most
    wrong = {n: code for n, values in targets.items() if (code := code_of(values)) and _of_target(code)}
    found = wrong | {n: code for n, values in columns.items() if (code := code_of(values))}
    near = _near({name: values for name, values in columns.items() if name not in found})
    sure = {name: code for name, code in {**found, **near}.items() if code[2]}
    shown = sure or {**found, **near}
    if not shown:
        return None
    says = ", ".join(
        f"{'the target ' * (name in wrong)}`{name}` is {code:.12g} in {count} rows"
        for name, (code, count, _) in list(shown.items())[:3]
    )
    end = "apart from all other values" if shown.keys() <= near.keys() else "far from all other values"
    return Finding(
        "missing-codes",
        "likely" if sure else "hint",
        f"{says}{' …' if len(shown) > 3 else ''}, {end}",
        where=tuple(shown),
        remedies=(_remedy(shown, wrong.keys()),),
    )


def _cells(table: Table) -> dict[str, Values]:
    """Give the known values of each column that is a number."""
    found = {}
    for place, feature in enumerate(table.columns.features):
        if feature.kind == "number" and table.frame[feature.column].dtype.is_numeric():
            values = table.features[:, place]
            found[feature.column] = values[~np.isnan(values)]
    return found


def _targets(table: Table) -> dict[str, Values]:
    if table.task.kind != "regression":
        return {}
    values = np.exp(table.targets) if table.task.log else table.targets
    # a logarithm comes back as nearly the number that it was
    return {
        name: np.array([float(f"{v:.12g}") for v in own])
        for name, own in zip(table.task.targets, values.T, strict=True)
    }


def _of_target(code: tuple[float, int, bool]) -> bool:
    """Tell whether a value of a target is a code, and no loss or penalty as it may be.

    >>> _of_target((-999.0, 9, True)), _of_target((-100.0, 9, True)), _of_target((99.0, 9, False))
    (True, False, False)
    """
    value, _, looks = code
    return looks and nines(value)


def _remedy(shown: Codes, targets: Set[str]) -> Remedy:
    codes = {n: int(code) if code.is_integer() else code for n, (code, _, _) in shown.items()}
    if not targets:
        return Remedy("read them as missing", table=as_missing(codes), options={"missing": codes})
    return Remedy(
        "read them as missing, and leave out rows whose target is such a code",
        aim="honest",
        options={"missing": codes, "drop_missing_targets": True},
    )


def _near(columns: Mapping[str, Values]) -> Codes:
    """Find whole numbers below 0 in columns that are otherwise 0 or more, though they are not far away."""
    below = {name: code for name, values in columns.items() if (code := _below(values))}
    sharing = Counter(code for code, _, _ in below.values())
    return {
        name: (code, count, apart and code <= BELOW and sharing[code] >= SHARE)
        for name, (code, count, apart) in below.items()
        if apart or sharing[code] >= SHARE
    }


def _below(values: Values) -> tuple[float, int, bool] | None:
    """Find the one negative value of a column, which is whole: it, its count, whether others lie nearer together.

    >>> _below(np.array([-9.0] * 6 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 40.0]))
    (-9.0, 6, True)
    """
    if len(values) < LEAST_CELLS + LEAST_OTHERS:
        return None
    code = float(values.min())
    others, count = values[values != code], int((values == code).sum())
    different = np.unique(others)
    enough = count >= max(LEAST_CELLS, LEAST_SHARE * len(values))
    if not (
        code < 0 and code.is_integer() and enough and len(different) >= LEAST_OTHERS and different[0] >= 0
    ):
        return None
    # the lowest half of the others, so that a long tail does not count
    steps = np.diff(different[: max(LEAST_OTHERS, len(different) // 2)])
    return code, count, bool(different[0] - code > APART * steps.max())


def code_of(values: Float[np.ndarray, " rows"]) -> tuple[float, int, bool] | None:
    """Find a value set apart at either end: the value, its count, whether it looks like a code.

    >>> code_of(np.array([-999.0] * 6 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    (-999.0, 6, True)
    """
    if len(values) < LEAST_CELLS + LEAST_OTHERS:
        return None
    for least in (True, False):
        code = float(values.min() if least else values.max())
        others = values[values != code]
        count = len(values) - len(others)
        alone = bool((np.sign(others) != np.sign(code)).all())
        plain = alone and code <= PLAIN and nines(code)
        enough = count >= (LEAST_CELLS if plain else max(LEAST_CELLS, LEAST_SHARE * len(values)))
        if code == 0 or not enough or len(np.unique(others)) < LEAST_OTHERS:
            continue
        gap = abs(code - (others.min() if least else others.max()))
        typical = float(np.quantile(others, 0.95) - np.quantile(others, 0.05))
        apart = gap > np.ptp(others)
        looks = nines(code) or (alone and code < 0)
        if code == TOP and not gap > FAR * np.ptp(others):
            looks = False
        if apart or (looks and gap > 0.05 * typical and nines(code) and alone):
            return code, count, looks
    return None


def nines(code: float) -> bool:
    """Tell whether a number is written with nines only, at least two.

    >>> nines(-999.0), nines(9.0), nines(99.5)
    (True, False, False)
    """
    digits = f"{abs(code):.12g}"
    return len(digits) >= 2 and set(digits) == {"9"}
