"""What cells say: which are missing, which text is a number, and how rows are named in messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

MISSING_MARKS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
PLAIN, THOUSANDS, DECIMAL_COMMA = "", "1,234", "1,5"  # how numbers are written in text
LEAST_FILLED, FEW_WRONG = 10, 0.05  # cells, and the share of them that may be no number by mistake
NUMBER_PATTERNS = {
    THOUSANDS: r"^[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?$",
    DECIMAL_COMMA: r"^[+-]?(?:\d{1,3}(?:\.\d{3})+|\d*)(?:,\d+)?$",
}


def cleaned(text: pl.Series) -> pl.Series:
    """Trim text cells and make the marks of a missing cell missing.

    >>> cleaned(pl.Series([" a ", "NA", ""])).to_list()
    ['a', None, None]
    """
    trimmed = text.str.strip_chars()
    return trimmed.set(trimmed.is_in(MISSING_MARKS), None)


def number_form(text: pl.Series) -> str | None:
    """Tell how numbers are written in text; None when some cell is no number.

    >>> number_form(pl.Series(["1,234", "12"])), number_form(pl.Series(["1,5", "12"]))
    ('1,234', '1,5')
    """
    filled = cleaned(text).drop_nulls()
    first = filled[0] if len(filled) else ""
    likely = (PLAIN, *(form for form, pattern in NUMBER_PATTERNS.items() if re.match(pattern, first)))
    return next((form for form in likely if parse_numbers(filled, form).null_count() == 0), None)


def nearly_numbers(text: pl.Series) -> pl.Series | None:
    """Tell whether text would be numbers but for some cells, and give those as a mask.

    So it is when at most 5 % of at least 10 cells (or one) are no numbers, or all of these are the same, among 10
    different numbers or more: a typing error, or an unknown mark of a missing cell. None when there are none, or more.

    >>> text = pl.Series([*map(str, range(30)), "1o.5"])
    >>> nearly_numbers(text).arg_true().to_list(), nearly_numbers(pl.Series(["a", "b", "1"]))
    ([30], None)
    """
    filled = cleaned(text)
    read = max((parse_numbers(filled, form) for form in (PLAIN, *NUMBER_PATTERNS)), key=pl.Series.count)
    bad = read.is_null() & filled.is_not_null()
    wrong, all_filled = int(bad.sum()), filled.count()
    few = all_filled >= LEAST_FILLED and wrong <= max(1, FEW_WRONG * all_filled)
    one_mark = filled.filter(bad).n_unique() == 1 and read.drop_nulls().n_unique() >= LEAST_FILLED
    return bad if wrong and (few or one_mark) else None


def parse_numbers(text: pl.Series, form: str = PLAIN) -> pl.Series:
    """Read text as numbers; null where a cell is none.

    >>> parse_numbers(pl.Series(["1.234,5", "x"]), "1,5").to_list()
    [1234.5, None]
    """
    if form != PLAIN:
        text = text.set(~text.str.contains(NUMBER_PATTERNS[form]).fill_null(False), None)
    if form == THOUSANDS:
        text = text.str.replace_all(",", "", literal=True)
    if form == DECIMAL_COMMA:
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def rows_named(rows: Sequence[int] | np.ndarray, most: int = 5) -> str:
    """Name rows as every message does: counted from 0, the header not counted.

    >>> rows_named([3, 17])
    'rows 3, 17 (counted from 0)'
    """
    shown = ", ".join(str(int(row)) for row in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more} (counted from 0)"


def short(value: object) -> str:
    """Write a cell in at most 40 characters."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
