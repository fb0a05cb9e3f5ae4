"""A number that stands for a missing cell, such as −999, and is learned from as a number.

Evidence: values of number columns that many cells share, at the far end of the column, and separated from all other
values by more than these differ among themselves. Such a value is a code when it is the only one of its sign, or is
written with nines only.

Why it hurts: the code stretches the scale of the column until all real values look alike, and the network has to learn
that a large number means nothing known. Read as missing, the cell is filled and marked by a flag.

How sure: likely, when a value is set apart and looks like a code; set apart alone it is a hint. So is 99, which may
stand for all that is higher, unless it is further out than three times the range of the other values.

What to try: read these cells as missing.

References: Little & Rubin 2019, *Statistical analysis with missing data*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foldwise.checks.changes import as_missing
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight

EXPLAINS: tuple[str, ...] = ("unscaled-inputs", "underfitting")
LEAST_CELLS = 5  # that share the value
LEAST_SHARE = 0.02  # of the cells
TOP = 99.0  # may be the highest that a form allows as well, and so hold all higher numbers
FAR = 3.0  # ranges of the other values: so far out it is no top of theirs
LEAST_OTHERS = 5  # different values beside it: with fewer it may be one of a few levels


def find(sight: Sight) -> Finding | None:
    """Look for codes in the columns that are numbers."""
    table = sight.table
    if table is None:
        return None
    found: dict[str, tuple[float, int, bool]] = {}
    for place, feature in enumerate(table.columns.features):
        if feature.kind == "number" and table.frame[feature.column].dtype.is_numeric():
            values = table.features[:, place]
            if code := code_of(values[~np.isnan(values)]):
                found[feature.column] = code
    sure = {name: code for name, code in found.items() if code[2]}
    shown = sure or found
    if not shown:
        return None
    codes = {n: int(code) if code.is_integer() else code for n, (code, _, _) in shown.items()}
    says = ", ".join(
        f"`{name}` is {code:g} in {count} rows" for name, (code, count, _) in list(shown.items())[:3]
    )
    return Finding(
        "missing-codes",
        "likely" if sure else "hint",
        f"{says}{' …' if len(shown) > 3 else ''}, far from all other values",
        where=tuple(shown),
        remedies=(
            Remedy(
                "read them as missing",
                table=as_missing(codes),
                options={"missing": codes},
            ),
        ),
    )


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
        enough = count >= max(LEAST_CELLS, LEAST_SHARE * len(values))
        if code == 0 or not enough or len(np.unique(others)) < LEAST_OTHERS:
            continue
        gap = abs(code - (others.min() if least else others.max()))
        alone = bool((np.sign(others) != np.sign(code)).all())
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
