"""Take a table that is in memory already: a frame of any library, an array, records or columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import polars as pl

from foldwise.data.delimited import refuse_repeated
from foldwise.errors import DataError


def from_memory(source: Any) -> pl.DataFrame:
    """Take a pandas, polars or Arrow table or column, an array, a list of records or a mapping of columns.

    >>> from_memory([{"a": 1}, {"a": 2, "b": "x"}]).rows()
    [(1, None), (2, 'x')]
    """
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, Mapping):
        return _from_columns(source)
    if isinstance(source, list | tuple) and source and all(isinstance(record, Mapping) for record in source):
        names = dict.fromkeys(name for record in source for name in record)
        return _from_columns({name: [record.get(name) for record in source] for name in names})
    refuse_repeated(column_names(source))
    table = nw.from_native(source, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(table, nw.DataFrame):
        return _from_columns({name: table.get_column(name) for name in table.columns})
    if isinstance(table, nw.Series):
        return _from_columns({"x0" if table.name in (None, "") else table.name: table})
    return _from_array(source)


def column_names(table: Any) -> list[str]:
    """Names that a table brings along; none for arrays, lists and single columns."""
    names = getattr(table, "column_names", getattr(table, "columns", None))
    return [str(name) for name in names] if isinstance(names, Iterable) else []


def _from_columns(columns: Mapping[Any, Any]) -> pl.DataFrame:
    refuse_repeated([str(name) for name in columns])
    made = [_series(str(name), cells) for name, cells in columns.items()]
    if len({len(column) for column in made}) > 1:
        raise DataError(
            f"the columns differ in length: {', '.join(f'`{c.name}` {len(c)}' for c in made[:5])}.",
            hint="give every column the same number of cells",
        )
    return pl.DataFrame(made)


def _series(name: str, cells: Any) -> pl.Series:
    if isinstance(cells, str) or not hasattr(cells, "__len__"):
        raise DataError(
            f"column `{name}` is one value, {cells!r}.", hint="give a list of cells, one for each row"
        )
    try:
        return cells.to_polars().alias(name) if isinstance(cells, nw.Series) else pl.Series(name, cells)
    except Exception:  # polars, pyarrow and numpy each raise their own for mixed types or a missing converter
        return _from_list(name, cells.to_list() if hasattr(cells, "to_list") else list(cells))


def _from_list(name: str, cells: Sequence[Any]) -> pl.Series:
    """Take cells of mixed types as text, as a text file would hold them."""
    cells = [None if _is_gap(cell) else cell for cell in cells]
    if any(isinstance(cell, list | tuple | dict | set | np.ndarray) for cell in cells):
        raise DataError(
            f"column `{name}` holds lists.", hint="give each part a column of its own, or drop it"
        )
    try:
        return pl.Series(name, cells)
    except (TypeError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String)


def _is_gap(cell: Any) -> bool:
    """Tell None, NaN, and the NA and NaT of pandas, which equal not even themselves."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float) and cell != cell)
    )


def _from_array(source: Any) -> pl.DataFrame:
    if hasattr(source, "toarray"):
        raise DataError("the table is a sparse matrix.", hint="give X.toarray(), if that fits in memory")
    try:
        array = np.asarray(source)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"this is no table: {error}.", hint="give rows of equal length") from error
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufOUSMm":
        raise DataError(
            f"`{type(source).__name__}` of shape {array.shape} and type {array.dtype} is not a table.",
            hint="give a path, a data frame, a mapping of columns, or an array of rows × features",
        )
    columns = array.T if array.ndim == 2 else array[None]
    return _from_columns({f"x{i}": _cells(column) for i, column in enumerate(columns)})


def _cells(column: np.ndarray) -> Any:
    return column.tolist() if column.dtype == object else np.ascontiguousarray(column)


def tidy(frame: pl.DataFrame) -> pl.DataFrame:
    """Give every source the same types: text for categories, floats for decimals, null for NaN."""
    if not frame.width or not frame.height:
        raise DataError(
            f"the table has {frame.height} rows and {frame.width} columns.",
            hint="give a table with rows in it",
        )
    return frame.select([_tidy_column(column) for column in frame])


def _tidy_column(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Object:
        return _from_list(column.name, column.to_list())
    if column.dtype.is_float() or column.dtype.is_decimal():
        return column.cast(pl.Float64).fill_nan(None) if column.dtype.is_decimal() else column.fill_nan(None)
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column
