"""Tell dates in text, and turn dates into numbers that a network can use."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

DAY = r"\d{1,2}"
YEAR = r"[12]\d{3}"
MONTH = r"(?:[A-Za-z]{3,9})\.?"
# Order is preference: where month/day and day/month both fit, the first that fits is taken.
DAY_FORMS = {
    "%Y-%m-%d": rf"{YEAR}-{DAY}-{DAY}",
    "%Y/%m/%d": rf"{YEAR}/{DAY}/{DAY}",
    "%Y.%m.%d": rf"{YEAR}\.{DAY}\.{DAY}",
    "%m/%d/%Y": rf"{DAY}/{DAY}/{YEAR}",
    "%d/%m/%Y": rf"{DAY}/{DAY}/{YEAR}",
    "%m/%d/%y": rf"{DAY}/{DAY}/\d\d",
    "%d/%m/%y": rf"{DAY}/{DAY}/\d\d",
    "%m-%d-%Y": rf"{DAY}-{DAY}-{YEAR}",
    "%d-%m-%Y": rf"{DAY}-{DAY}-{YEAR}",
    "%d.%m.%Y": rf"{DAY}\.{DAY}\.{YEAR}",
    "%d.%m.%y": rf"{DAY}\.{DAY}\.\d\d",
    "%d %B %Y": rf"{DAY} {MONTH} {YEAR}",
    "%d-%B-%Y": rf"{DAY}-{MONTH}-{YEAR}",
    "%d-%B-%y": rf"{DAY}-{MONTH}-\d\d",
    "%B %d, %Y": rf"{MONTH} {DAY}, {YEAR}",
}
CLOCK_FORMS = {
    "": "",
    " %H:%M": r" \d{1,2}:\d{2}",
    " %H:%M:%S%.f": r" \d{1,2}:\d{2}:\d{2}(?:\.\d+)?",
    " %I:%M %p": r" \d{1,2}:\d{2} [AaPp][Mm]",
    " %I:%M:%S %p": r" \d{1,2}:\d{2}:\d{2} [AaPp][Mm]",
}
FORMS = {
    day + clock: f"^{day_pattern}{clock_pattern}$"
    for (day, day_pattern), (clock, clock_pattern) in itertools.product(
        DAY_FORMS.items(), CLOCK_FORMS.items()
    )
}
WORDS = {"%Y": "year", "%y": "year", "%m": "month", "%d": "day", "%B": "month"}
MICROSECONDS_PER_DAY = 86_400_000_000
PARTS = ("elapsed days", "year", "month", "day of month", "weekday", "hour")
PERIODS = {"month": 12, "day of month": 31, "weekday": 7, "hour": 24}


class DateForm(NamedTuple):
    """How dates are written: a strptime form, and another that fits every cell too ("" when none does)."""

    form: str
    rival: str


def find_form(cells: pl.Series) -> DateForm | None:
    """Find the form that fits every filled cell; None when there is none.

    >>> find_form(pl.Series(["1/2/2011", "1/13/2011"]))
    DateForm(form='%m/%d/%Y', rival='')
    >>> find_form(pl.Series(["1/2/2011", None])).rival
    '%d/%m/%Y'
    """
    filled = plain(cells.drop_nulls().unique(maintain_order=True))
    if filled.is_empty():
        return None
    likely = [form for form, pattern in FORMS.items() if re.match(pattern, filled[0])]
    fitting = [form for form in likely if parse(filled, form).null_count() == 0]
    return DateForm(fitting[0], fitting[1] if len(fitting) > 1 else "") if fitting else None


def plain(cells: pl.Series) -> pl.Series:
    """Write the T of ISO 8601 as a blank and leave out the time zone: the clock on the wall counts.

    >>> plain(pl.Series(["2011-01-02T03:04:05+01:00"])).item()
    '2011-01-02 03:04:05'
    """
    blank = cells.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})T(\d)", "${1} ${2}")
    return blank.str.replace(r"(:\d{2}(?:\.\d+)?) ?(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)$", "${1}")


def parse(cells: pl.Series, form: str) -> pl.Series:
    """Read text as moments; null where a cell does not have the form (or is no date, as 31 February).

    >>> parse(pl.Series(["31.1.2020", "31.2.2020"]), "%d.%m.%Y").to_list()
    [datetime.datetime(2020, 1, 31, 0, 0), None]
    """
    text = plain(cells)
    text = text.set(~text.str.contains(FORMS[form]).fill_null(False), None)
    if ":" in form:
        return text.str.to_datetime(form, strict=False, time_unit="us", ambiguous="earliest")
    return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))


def in_words(form: str) -> str:
    """Say a form in words.

    >>> in_words("%m/%d/%Y %H:%M")
    'month/day/year'
    """
    words = form.split(" %H")[0].split(" %I")[0]
    for code, word in WORDS.items():
        words = words.replace(code, word)
    return words


def moments(cells: pl.Series) -> pl.Series:
    """Cast dates and times with or without a zone to moments on the wall clock, in microseconds."""
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone:
        cells = cells.dt.replace_time_zone(None)
    return cells.cast(pl.Datetime("us"))


def elapsed_days(when: pl.Series) -> Float[np.ndarray, " rows"]:
    """Days since the beginning of 1970, with fractions; NaN where missing.

    >>> elapsed_days(parse(pl.Series(["2.1.1970 12:00"]), "%d.%m.%Y %H:%M")).tolist()
    [1.5]
    """
    # Divided by numpy: polars multiplies by the reciprocal, so that whole days would not be whole.
    return when.to_physical().cast(pl.Float64).fill_null(np.nan).to_numpy() / MICROSECONDS_PER_DAY


def varying_parts(when: pl.Series) -> tuple[str, ...]:
    """Name the parts of these dates that differ from row to row."""
    filled = when.drop_nulls()
    return tuple(part for part in PARTS if len(np.unique(_part(filled, part))) > 1)


def part_names(part: str) -> tuple[str, ...]:
    """Name the inputs that a part becomes: a cycle is two, so that December is next to January.

    >>> part_names("month")
    ('month sine', 'month cosine')
    """
    return (f"{part} sine", f"{part} cosine") if part in PERIODS else (part,)


def encode_part(when: pl.Series, part: str) -> Float[np.ndarray, "rows inputs"]:
    """Turn one part into numbers: sine and cosine of 2π·value/period for a cycle, else the value.

    NaN where the date is missing.

    >>> encode_part(parse(pl.Series(["1.4.2020"]), "%d.%m.%Y"), "month").round(3).tolist()
    [[1.0, 0.0]]
    """
    values = _part(when, part)
    if part not in PERIODS:
        return values[:, None]
    angle = 2 * np.pi * values / PERIODS[part]
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _part(when: pl.Series, part: str) -> Float[np.ndarray, " rows"]:
    """A part of each date, cycles counted from 0; NaN where missing."""
    match part:
        case "elapsed days":
            return elapsed_days(when)
        case "year":
            return _values(when.dt.year())
        case "month":
            return _values(when.dt.month()) - 1
        case "day of month":
            return _values(when.dt.day()) - 1
        case "weekday":
            return _values(when.dt.weekday()) - 1
        case "hour":
            return elapsed_days(when) % 1 * 24
    raise ValueError(f"a date has no part {part!r}")


def _values(part: pl.Series) -> Float[np.ndarray, " rows"]:
    return part.cast(pl.Float64).fill_null(np.nan).to_numpy()
