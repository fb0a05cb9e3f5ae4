"""Turn the cells of one column into inputs of a network, the same way for every fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from foldwise.data import dates
from foldwise.data.cells import PLAIN, cleaned, parse_numbers, rows_named, short
from foldwise.errors import DataError

Kind = Literal["number", "category", "date", "constant", "identifier", "text", "drop"]
OTHER = "(other)"
MISSING = "(missing)"
EXACT_INTEGERS = 2.0**53  # beyond it a float64 skips integers, so a level must not be rewritten as one


@dataclass(frozen=True)
class Column:
    """What a column of the table holds and what is done with it."""

    name: str
    kind: Kind
    dtype: str
    missing: int
    distinct: int
    levels: tuple[str, ...]
    role: str
    use: str
    pooled: int = 0
    """Levels too rare to have a flag of their own."""
    form: str = ""
    """How text is read as dates (a strptime form) or as numbers ("1,234" or "1,5")."""
    parts: tuple[str, ...] = ()
    """Parts of a date that vary."""
    remark: str = ""
    """What should be looked at, in one sentence."""
    codes: tuple[str, ...] = ()
    """Values that are read as missing, because the user says so."""


@dataclass(frozen=True)
class Feature:
    """One input of the network."""

    name: str
    column: str
    kind: Literal["number", "flag"]


def features_of(column: Column) -> tuple[Feature, ...]:
    """List the inputs that a column becomes, in the order of `encode_column`."""
    if column.role != "feature":
        return ()
    if column.kind == "category":
        states = _states(column)
        return tuple(Feature(f"{column.name} = {states[i]}", column.name, "flag") for i in _flagged(column))
    names = [f"{column.name} {name}" for part in column.parts for name in dates.part_names(part)]
    if column.kind == "number":
        names = [column.name] if column.distinct > 1 else []
    inputs = [Feature(name, column.name, "number") for name in names]
    if column.missing:
        inputs.append(Feature(f"{column.name} is missing", column.name, "flag"))
    return tuple(inputs)


def encode_column(column: Column, cells: pl.Series) -> Float[np.ndarray, "rows inputs"]:
    """Turn cells into the inputs of `features_of`; NaN where a number is missing.

    Raises DataError naming rows and values that do not fit what the column held when it was planned.
    """
    if column.kind == "category":
        return _flags(column, as_text(with_gaps(cells)))
    if column.kind == "date":
        when = as_moments(cells, column.form)
        inputs = [dates.encode_part(when, part) for part in column.parts]
        missing = when.is_null().to_numpy()
    else:
        numbers = as_numbers(cells, column.form)
        inputs = [numbers[:, None]] if column.distinct > 1 else []
        missing = np.isnan(numbers)
    if column.missing:
        inputs.append(missing[:, None].astype(np.float64))
    # a column of one value, kept because the user asked for it, becomes no input
    return np.concatenate([np.empty((len(missing), 0)), *inputs], axis=1)


def with_gaps(cells: pl.Series) -> pl.Series:
    """Make every missing cell null, however the table writes it, and trim text."""
    if cells.dtype in (pl.Categorical, pl.Enum):
        cells = cells.cast(pl.String)
    if cells.dtype == pl.String:
        return cleaned(cells)
    return cells.fill_nan(None) if cells.dtype.is_float() else cells


def as_text(cells: pl.Series) -> pl.Series:
    """Write cells as the names of levels: 1 and 1.0 are one level, whichever type the table gives them.

    >>> as_text(pl.Series([1.0, 2.5, None])).to_list(), as_text(pl.Series([True])).to_list()
    (['1', '2.5', None], ['true'])
    """
    if cells.dtype.is_float():
        whole = (cells == cells.floor()) & (cells.abs() < EXACT_INTEGERS)
        integers = cells.set(~whole, None).cast(pl.Int64).cast(pl.String)
        return cells.cast(pl.String).zip_with(~whole.fill_null(False), integers)
    refuse_nested(cells)
    return cells.cast(pl.String)


def as_numbers(cells: pl.Series, form: str = PLAIN) -> Float[np.ndarray, " rows"]:
    """Turn cells into float64, NaN where missing.

    Truth values become 0 and 1, durations seconds, dates days since 1970.

    Raises DataError naming the first rows whose text is no number, or that are infinite.
    """
    refuse_nested(cells)
    values = _text_numbers(cells, form) if cells.dtype == pl.String else _typed_numbers(cells)
    if (infinite := np.isinf(values)).any():
        cure = "leave these cells empty, or leave the column out with --drop (drop=[…])"
        _refuse_cells(cells, infinite, "holds infinite values", cure)
    return values


def as_moments(cells: pl.Series, form: str = "") -> pl.Series:
    """Turn cells into moments; null where missing.

    Raises DataError naming the first rows whose text is no date of the expected form.
    """
    if cells.dtype in (pl.Date, pl.Datetime):
        return dates.moments(cells)
    if cells.dtype == pl.Null:
        return cells.cast(pl.Datetime("us"))
    text = as_text(with_gaps(cells))
    if not form:
        found = dates.find_form(text)
        form = found.form if found else "%Y-%m-%d"
    when = dates.parse(text, form)
    bad = (when.is_null() & text.is_not_null()).to_numpy()
    if bad.any():
        _refuse_cells(
            cells, bad, f"holds cells that are no dates written {dates.in_words(form)}", "correct these cells"
        )
    return when


def refuse_nested(cells: pl.Series) -> None:
    """Refuse a column whose cells are no single values."""
    if cells.dtype.is_nested() or cells.dtype in (pl.Binary, pl.Object):
        what = {pl.Struct: "records", pl.Binary: "raw bytes", pl.Object: "objects"}.get(
            cells.dtype.base_type(), "lists"
        )
        raise DataError(
            f"column `{cells.name}` holds {what} ({cells.dtype}).",
            hint="give each part a column of its own, or leave the column out with --drop (drop=[…])",
        )


def _text_numbers(cells: pl.Series, form: str) -> Float[np.ndarray, " rows"]:
    text = cleaned(cells)
    numbers = parse_numbers(text, form)
    bad = (numbers.is_null() & text.is_not_null()).to_numpy()
    if bad.any():
        cure = "correct these cells or leave them empty"
        _refuse_cells(cells, bad, "holds text where numbers are expected", cure)
    return numbers.fill_null(np.nan).to_numpy()


def _typed_numbers(cells: pl.Series) -> Float[np.ndarray, " rows"]:
    if cells.dtype == pl.Duration:
        return _seconds(cells.dt.total_microseconds(), 1_000_000)
    if cells.dtype == pl.Time:
        return _seconds(cells.to_physical(), 1_000_000_000)
    if cells.dtype in (pl.Date, pl.Datetime):
        return dates.elapsed_days(dates.moments(cells))
    return cells.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _seconds(units: pl.Series, per_second: int) -> Float[np.ndarray, " rows"]:
    return units.cast(pl.Float64).fill_null(np.nan).to_numpy() / per_second


def _refuse_cells(cells: pl.Series, bad: Bool[np.ndarray, " rows"], what: str, cure: str) -> NoReturn:
    rows = np.flatnonzero(bad)
    values = ", ".join(f"`{short(cells[int(row)])}`" for row in rows[:5])
    raise DataError(f"column `{cells.name}` {what}: {values} in {rows_named(rows)}.", hint=cure)


def _states(column: Column) -> list[str]:
    """Every state a cell of a category can be in."""
    return [*column.levels, *([OTHER] if column.pooled else []), *([MISSING] if column.missing else [])]


def _flagged(column: Column) -> list[int]:
    """States that get a flag, by number. Of two states one flag says it all: truth, or the rarer state.

    The rarer, because a level never seen before then reads as the usual one.
    """
    states = _states(column)
    if len(states) != 2 or column.missing:
        return list(range(len(states)))
    return [states.index("true")] if set(states) == {"true", "false"} else [1]


def _flags(column: Column, text: pl.Series) -> Float[np.ndarray, "rows states"]:
    states = _states(column)
    if column.dtype == "Boolean":  # another table may write truth as 1 or True
        text = text.str.to_lowercase().replace({"1": "true", "0": "false"})
    unseen = states.index(OTHER, len(column.levels)) if column.pooled else len(states)
    missing = len(states) - 1 if column.missing else unseen
    known = {level: i for i, level in enumerate(column.levels)}
    codes = (
        text.replace_strict(known, default=unseen, return_dtype=pl.Int64)
        .set(text.is_null(), missing)
        .to_numpy()
    )
    flags = np.zeros((len(text), len(states) + 1))
    flags[np.arange(len(text)), codes] = 1.0
    return flags[:, _flagged(column)]
