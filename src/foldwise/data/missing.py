"""Values that stand for missing cells because the user says so: -999, unknown."""

from __future__ import annotations

import datetime
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from foldwise.data import dates
from foldwise.data.cells import MISSING_MARKS, cleaned, parse_numbers, short
from foldwise.data.delimited import typed
from foldwise.data.read import find_columns
from foldwise.errors import DataError, did_you_mean, listed

TAKES = 'missing=-999, missing=[-9, "unknown"] or missing={"income": -999} (--missing income=-999)'
EXACT_INTEGERS = 2.0**53  # beyond it a float64 skips integers
MOST_NAMED = 200  # values among which one that was meant is looked for


@dataclass(frozen=True)
class Codes:
    """The values of each column that are read as missing, as texts, and those of them that cells held."""

    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    held: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def emptied(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Empty the cells of a table that hold them."""
        return frame.with_columns(emptied(frame[name], codes) for name, codes in self.of.items())

    def note(self, name: str) -> str:
        """Say what was read as missing in a column; empty when nothing was."""
        held = self.held.get(name, ())
        return f"; {', '.join(held)} read as missing" if held else ""


NO_CODES = Codes()


def read_codes(frame: pl.DataFrame, given: Any, *, aside: Sequence[str] = (), lenient: bool = False) -> Codes:
    """Read which values are missing cells: of every column, or by name those of single ones, or a list of both.

    Raises DataError for a column that is not there or set aside by the user, for what is no value, and for a value that
    no cell holds, because it may be mistyped. Where that may well be, as in a part of a table, `lenient` warns of it.

    >>> table = pl.DataFrame({"age": [30, -9, 50], "town": ["Bern", "unknown", None]})
    >>> codes = read_codes(table, [{"age": -9}, "unknown"])
    >>> codes.of
    {'age': ('-9', 'unknown'), 'town': ('unknown',)}
    >>> codes.emptied(table).rows()
    [(30, 'Bern'), (None, None), (50, None)]
    """
    everywhere, named = _sorted_out(frame, given)
    if useless := [name for name in named if name in aside]:
        raise DataError(
            f"{listed(useless)} is set aside; which of its values are missing has no effect.",
            hint="leave it out of `missing` (--missing), or of what is dropped",
        )
    of = {name: (*named.get(name, ()), *everywhere) for name in frame.columns}
    of = {name: tuple(dict.fromkeys(codes)) for name, codes in of.items() if codes}
    held = {name: tuple(c for c in codes if holds(frame[name], c).any()) for name, codes in of.items()}
    problems = [
        _absent(frame[name], code) for name, own in named.items() for code in own if code not in held[name]
    ]
    problems += [
        (f"no cell of the table is {code}, which is to be read as missing.", "leave it out, or correct it")
        for code in everywhere
        if not any(code in own for own in held.values())
    ]
    if problems and lenient:
        warnings.warn(" ".join(problem for problem, _ in problems), UserWarning, stacklevel=2)
    elif problems:
        raise DataError(
            "\n".join(problem for problem, _ in problems),
            hint="; ".join(dict.fromkeys(hint for _, hint in problems)),
        )
    return Codes(of, held)


def emptied(cells: pl.Series, codes: Iterable[str]) -> pl.Series:
    """Empty the cells that hold one of these values.

    Text that is numbers or truth values without them becomes what a text file would have made of it.

    >>> emptied(pl.Series(["1", "unknown", "3"]), ["unknown"]).to_list()
    [1, None, 3]
    """
    gone = pl.repeat(False, len(cells), eager=True)
    for code in codes:
        gone |= holds(cells, code)
    if not gone.any():
        return cells
    left = cells.to_frame().select(pl.when(~gone).then(pl.col(cells.name)).alias(cells.name)).to_series()
    return typed(left) if left.dtype == pl.String else left


def holds(cells: pl.Series, code: str) -> pl.Series:
    """Tell which cells hold a value: numbers by size, however it is written, dates by their moment, all else as text.

    >>> holds(pl.Series([-9.0, 9.0, None]), "-9.00").to_list(), holds(pl.Series(["-9", "x"]), "-9.0").to_list()
    ([True, False, False], [True, False])
    """
    if cells.dtype in (pl.Categorical, pl.Enum):
        cells = cells.cast(pl.String)
    kind, number = cells.dtype, parse_numbers(pl.Series([code])).item()
    found = pl.repeat(False, len(cells), eager=True)
    if kind == pl.String:
        text = cleaned(cells)
        found = text == code
        if number is not None:
            found |= (parse_numbers(text) == number).fill_null(False)
    elif kind.is_integer() and (number is None or abs(number) >= EXACT_INTEGERS):
        found = cells.cast(pl.String) == code
    elif kind.is_numeric() and number is not None:
        own = pl.Float32 if kind == pl.Float32 else pl.Float64
        found = cells.cast(own) == pl.Series([number]).cast(own)
    elif kind == pl.Boolean:
        found = cells.cast(pl.String) == code.lower()
    elif kind in (pl.Date, pl.Datetime) and (form := dates.find_form(pl.Series([code]))) is not None:
        found = dates.moments(cells) == dates.parse(pl.Series([code]), form.form)
    return found.fill_null(False)


def written(value: Any) -> str:
    """Write a value as a text; numbers as short as they can be.

    Raises DataError for what is no value, or is a missing cell as it is.

    >>> written(-999.0), written(" unknown "), written(0.5)
    ('-999', 'unknown', '0.5')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{value} is a missing cell as it is.", hint=f"leave it out of `missing`: {TAKES}")
    if not isinstance(value, str | int | float | datetime.date):  # a moment is a date too
        raise DataError(f"{value!r} is no value of a cell.", hint=TAKES)
    if isinstance(value, bool) or (
        isinstance(value, float) and value.is_integer() and abs(value) < EXACT_INTEGERS
    ):
        value = str(value).lower() if isinstance(value, bool) else int(value)
    text = str(value).strip()
    if text in MISSING_MARKS:
        raise DataError(f"`{text}` is a missing cell as it is.", hint="leave it out of `missing` (--missing)")
    return text


def _sorted_out(frame: pl.DataFrame, given: Any) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Part what is said of every column from what is said of single ones."""
    everywhere: list[str] = []
    named: dict[str, list[str]] = {}
    for one in () if given is None else _several(given):
        if not isinstance(one, Mapping):
            everywhere.append(written(one))
            continue
        names = find_columns(frame, one, typed="--missing {}=…")
        for name, values in zip(names, one.values(), strict=True):
            named.setdefault(name, []).extend(map(written, _several(values)))
    return tuple(dict.fromkeys(everywhere)), {name: tuple(dict.fromkeys(v)) for name, v in named.items()}


def _several(given: Any) -> list[Any]:
    """Give a list of values, also of one; of an array its elements."""
    if isinstance(given, np.ndarray):
        given = given.tolist()
    return list(given) if isinstance(given, list | tuple | set | frozenset | pl.Series) else [given]


def _absent(cells: pl.Series, code: str) -> tuple[str, str]:
    """Say that no cell of a column holds a value, and what was perhaps meant."""
    problem = f"no cell of column `{cells.name}` is {code}, which is to be read as missing."
    filled = cells.drop_nulls()
    if not len(filled):
        return problem, "leave it out: the column is empty"
    if filled.dtype.is_numeric():
        ends = " to ".join(written(end) for end in (filled.min(), filled.max()))
        return problem, f"leave it out, or correct it: cells of `{cells.name}` go from {ends}"
    if filled.dtype != pl.String:
        return problem, "leave it out, or correct it"
    common = cleaned(filled).drop_nulls().value_counts(sort=True).head(MOST_NAMED)[cells.name].to_list()
    return problem, did_you_mean(
        code, common
    ) or f"leave it out; the most frequent cell is {short(common[0])}"
