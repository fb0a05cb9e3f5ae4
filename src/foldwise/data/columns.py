"""Plan what is done with each column, without a look at the target's values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_args

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from foldwise.data import dates, encode
from foldwise.data.cells import nearly_numbers, number_form, rows_named, short
from foldwise.data.encode import Column, Feature, Kind
from foldwise.data.missing import NO_CODES, Codes, emptied
from foldwise.data.read import find_columns
from foldwise.errors import DataError, did_you_mean, listed

__all__ = ["Column", "ColumnPlan", "Feature", "Kind", "plan_columns"]

T = TypeVar("T")
R = TypeVar("R")
KINDS: tuple[str, ...] = get_args(Kind)
SET_ASIDE = ("constant", "identifier", "text", "drop")
LEAST_LEVEL_ROWS = 5
MOST_LEVELS = 50
LEAST_COUNTED_ROWS = 10  # fewer integers in a row prove nothing: 1, 2, 3 may be a measurement
ROLES = {
    "target": "what is learned",
    "group": "rows of one group stay in one fold",
    "time": "folds follow it in time",
    "fold": "says which fold validates a row",
    "weight": "how much a row counts",
}
ID_WORDS = {"id", "ids", "uuid", "guid", "pid", "uid", "rowname", "rownames", "rowid", "identifier"}
MEANT_WORDS = {
    "year",
    "yr",
    "month",
    "day",
    "week",
    "hour",
    "minute",
    "second",
    "time",
    "date",
    "age",
    "t",
    "x",
}


@dataclass(frozen=True)
class ColumnPlan:
    """What is done with every column: made once, kept with the study, applied to every table to come."""

    columns: tuple[Column, ...]

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The inputs of the network, in the order of `encode`."""
        return tuple(feature for column in self.columns for feature in encode.features_of(column))

    def encode(self, frame: pl.DataFrame) -> Float[np.ndarray, "rows features"]:
        """Turn a table into inputs, NaN where a number is missing.

        Extra columns and the order of columns do not matter.

        Raises DataError when columns are missing or hold what they did not hold when planned.
        """
        used = [column for column in self.columns if column.role == "feature"]
        _refuse_missing_columns([column.name for column in used], frame.columns)

        def encoded(column: Column) -> Float[np.ndarray, "rows inputs"]:
            return encode.encode_column(column, emptied(frame[column.name], column.codes))

        return np.concatenate(_all_or_every_problem(encoded, used), axis=1)

    def read(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Empty the cells of a table that hold what is read as missing, also in columns that are no features."""
        named = [column for column in self.columns if column.codes and column.name in frame.columns]
        return frame.with_columns(emptied(frame[column.name], column.codes) for column in named)

    def to_dict(self) -> dict[str, Any]:
        """Write the plan as plain lists, texts and numbers."""
        return {"columns": [dataclasses.asdict(column) for column in self.columns]}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> ColumnPlan:
        """Read what `to_dict` wrote, from JSON too."""
        return cls(tuple(_read_column(column) for column in written["columns"]))


def plan_columns(
    frame: pl.DataFrame,
    *,
    targets: Sequence[str | int],
    roles: Mapping[str, str] = {},
    overrides: Mapping[str, str] = {},
    places: Int[np.ndarray, " rows"] | None = None,
    codes: Codes = NO_CODES,
) -> ColumnPlan:
    """Decide what each column holds and what is done with it.

    `roles` names columns that are no features (group, time, fold, weight); `overrides` gives kinds that win
    over what is found here. Constants, identifiers and free text are set aside and say so in `use`; a column that
    would be numbers but for some cells says so in `remark`. `places` are the rows' numbers, where the frame is a part
    of a table. `codes` were read as missing in it, and will be in other tables.

    Raises DataError for unknown names and kinds, and for cells that cannot be used.

    >>> table = pl.DataFrame({"id": [7, 9, 8], "size": [1.5, 2.0, None], "y": [0, 1, 0]})
    >>> plan = plan_columns(table, targets=["y"])
    >>> [(column.name, column.kind, column.role) for column in plan.columns]
    [('id', 'identifier', 'set aside'), ('size', 'number', 'feature'), ('y', 'number', 'target')]
    >>> plan.encode(table).tolist()
    [[1.5, 0.0], [2.0, 0.0], [nan, 1.0]]
    """
    learned = dict.fromkeys(find_columns(frame, targets, what="target"), "target")
    roles = _named(frame, roles, "column")
    overrides = _named(frame, overrides, "column to override")
    _refuse_useless(learned, roles, overrides)
    roles |= learned

    def plan(name: str) -> Column:
        if name in roles:
            return _describe(frame[name], roles[name])
        column = _plan_column(frame[name], overrides.get(name))
        return column if name in overrides else _remarked(column, frame[name], places)

    def coded(name: str) -> Column:
        column = plan(name)
        own = codes.of.get(name, ())
        return dataclasses.replace(column, use=column.use + codes.note(name), codes=own) if own else column

    planned = ColumnPlan(tuple(_all_or_every_problem(coded, frame.columns)))
    _refuse_nothing(planned)
    return planned


def _named(frame: pl.DataFrame, by_name: Mapping[str, Any], what: str) -> dict[str, Any]:
    return dict(zip(find_columns(frame, by_name, what=what), by_name.values(), strict=True))


def _refuse_useless(
    learned: Mapping[str, str], roles: Mapping[str, str], overrides: Mapping[str, str]
) -> None:
    if both := [name for name in roles if name in learned]:
        raise DataError(
            f"`{both[0]}` is the target; it cannot be the {roles[both[0]]} too.", hint="name another column"
        )
    roles = {**roles, **learned}
    for name, kind in overrides.items():
        if kind not in KINDS:
            raise DataError(
                f"`{kind}` is no kind of column (column `{name}`).",
                hint=did_you_mean(kind, KINDS) or f"use {listed(KINDS, 9)}",
            )
        if name in roles:
            raise DataError(
                f"`{name}` is the {roles[name]}; it cannot be overridden as {kind}.",
                hint="leave the override out",
            )


def _refuse_nothing(plan: ColumnPlan) -> None:
    if not plan.features:
        why = (
            "; ".join(f"`{c.name}` {c.use}" for c in plan.columns if c.role == "set aside")
            or "there is only the target"
        )
        raise DataError(
            f"no column is left to learn from: {why}.",
            hint='say what a column holds: --column NAME=number (columns={"NAME": "number"})',
        )


def _refuse_missing_columns(needed: Sequence[str], given: Sequence[str]) -> None:
    if absent := [name for name in needed if name not in given]:
        near = [
            hint for name in absent[:3] if (hint := did_you_mean(name, [g for g in given if g not in needed]))
        ]
        raise DataError(
            f"the table lacks {listed(absent, most=10)}.",
            hint=" ".join(near) or "give every column that was learned from; empty cells are allowed",
        )


def _all_or_every_problem(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do the work on each item; when several fail, report all of them at once."""
    done, failed = [], []
    for item in items:
        try:
            done.append(work(item))
        except DataError as error:
            failed.append(error)
    if failed:
        hints = dict.fromkeys(error.hint for error in failed if error.hint)
        raise DataError("\n".join(error.problem for error in failed), hint="; ".join(hints))
    return done


def _describe(cells: pl.Series, role: str) -> Column:
    """A column that is no feature, by its type alone."""
    kind: Kind = "category"
    if cells.dtype.is_temporal():
        kind = "date"
    elif cells.dtype.is_numeric():
        kind = "number"
    return _column(cells, kind, role=role, use=ROLES.get(role, role))


def _column(cells: pl.Series, kind: Kind, **rest: Any) -> Column:
    nested = cells.dtype.is_nested() or cells.dtype == pl.Object
    distinct = 0 if nested else cells.drop_nulls().n_unique()
    facts: dict[str, Any] = {
        "levels": (),
        "role": "feature",
        "missing": cells.null_count(),
        "distinct": distinct,
    }
    return Column(**{"name": cells.name, "kind": kind, "dtype": str(cells.dtype)} | facts | rest)


def _aside(cells: pl.Series, kind: Kind, why: str, **rest: Any) -> Column:
    return _column(cells, kind, role="set aside", use=f"set aside: {why}", **rest)


def _plan_column(cells: pl.Series, override: Any) -> Column:
    if override in SET_ASIDE:
        return _aside(cells, override, "as you asked")
    encode.refuse_nested(cells)
    dtype = str(cells.dtype)
    cells = encode.with_gaps(cells)
    kind = override or _kind(cells)
    column = None if override else _idle(cells, kind)
    if column is None:
        column = {"number": _number, "date": _date, "category": _category}[kind](cells)
    return dataclasses.replace(column, dtype=dtype)


def _remarked(column: Column, cells: pl.Series, places: Int[np.ndarray, " rows"] | None) -> Column:
    """Say of text that is read as words, or set aside, that it would be numbers but for some cells."""
    if cells.dtype != pl.String or column.kind in ("number", "date", "constant"):
        return column
    wrong = nearly_numbers(cells)
    if wrong is None:
        return column
    at = np.flatnonzero(wrong.to_numpy())
    rows = at if places is None else places[at]
    example, more = repr(short(cells[int(at[0])].strip())), f"{len(at):,} cells, such as "
    read = "read as a category" if column.role == "feature" else column.use
    mend = "correct or empty it" if len(at) == 1 else "correct or empty them"
    remark = (
        f"column `{column.name}` looks like numbers but for {more if len(at) > 1 else ''}{example} in "
        f"{rows_named(rows[:1])}, and is {read}; {mend} to have it read as numbers"
    )
    note = f"looks like numbers but for {example}"
    return dataclasses.replace(column, use=f"{column.use}; {note}", remark=remark)


def _kind(cells: pl.Series) -> Kind:
    if cells.dtype == pl.Boolean:
        return "category"
    if cells.dtype in (pl.Date, pl.Datetime):
        return "date"
    if cells.dtype != pl.String or number_form(cells) is not None:
        return "number"
    return "date" if dates.find_form(cells) else "category"


def _idle(cells: pl.Series, kind: Kind) -> Column | None:
    """A column from which nothing can be learned that holds for other rows."""
    filled = cells.drop_nulls()
    if filled.is_empty():
        return _aside(cells, "constant", "no cell is filled")
    if filled.n_unique() == 1 and not cells.null_count():
        return _aside(cells, "constant", f"every cell is {short(filled[0])}")
    if cells.dtype.is_integer():
        why = _counts_rows(filled, cells.name)
        return _aside(cells, "identifier", why) if why else None
    if cells.dtype == pl.String and kind == "category":
        return _idle_text(cells, filled)
    return None


def _counts_rows(filled: pl.Series, name: str) -> str:
    """Say why integers only number the rows; empty when they may mean something."""
    if filled.n_unique() < len(filled) or len(filled) < 2:
        return ""
    words = _words(name)
    if words & ID_WORDS or name.lower() == "index":
        return "an identifier by its name, different in every row"
    counts = len(filled) >= LEAST_COUNTED_ROWS and not words & MEANT_WORDS and _rises_evenly(filled)
    return "it numbers the rows" if counts else ""


def _rises_evenly(filled: pl.Series) -> bool:
    """Tell whether integers rise by one step from row to row; half of the rows may have been taken out.

    >>> _rises_evenly(pl.Series([10, 20, 40, 50])), _rises_evenly(pl.Series([1, 2, 9]))
    (True, False)
    """
    steps = filled.cast(pl.Int64, strict=False).diff().drop_nulls().to_numpy()
    step = steps.min() if len(steps) else 0
    return bool(step > 0 and (steps % step == 0).all() and steps.sum() / step < 2 * len(filled))


def _words(name: str) -> set[str]:
    """Cut a column name into its words.

    >>> sorted(_words("customerID")), sorted(_words("row_id")), _words("paid")
    (['customer', 'id'], ['id', 'row'], {'paid'})
    """
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def _idle_text(cells: pl.Series, filled: pl.Series) -> Column | None:
    distinct = filled.n_unique()
    blanks = filled.str.count_matches(" ").mean()
    if 2 * distinct > len(filled) and isinstance(blanks, float) and blanks >= 3:
        return _aside(cells, "text", f"free text, {distinct} different cells")
    if distinct == len(filled):
        return _aside(cells, "identifier", "every cell is different")
    return None


def _number(cells: pl.Series) -> Column:
    form = number_form(cells) or "" if cells.dtype == pl.String else ""
    encode.as_numbers(cells, form)
    use = f"a number, written like {form}" if form else "a number, as it is"
    if cells.drop_nulls().n_unique() < 2:
        use = "one value only"
    return _column(
        cells, "number", form=form, use=use + _missing_note(cells, "a flag says where it is missing")
    )


def _date(cells: pl.Series) -> Column:
    found = dates.find_form(encode.as_text(cells)) if cells.dtype == pl.String else None
    form, rival = found or ("", "")
    when = encode.as_moments(cells, form)
    parts = dates.varying_parts(when)
    use = f"read as {dates.in_words(form)}" if form else "a date"
    use += f" ({dates.in_words(rival)} fits too)" if rival else ""
    use += f"; gives {', '.join(parts)}" if parts else "; one date only"
    use += _missing_note(cells, "a flag says where it is missing")
    return _column(cells, "date", form=form, parts=parts, use=use)


def _category(cells: pl.Series) -> Column:
    text = encode.as_text(cells)
    counts = (
        text.drop_nulls().alias("level").value_counts().sort(["count", "level"], descending=[True, False])
    )
    kept = counts.filter(pl.col("count") >= LEAST_LEVEL_ROWS).head(MOST_LEVELS)["level"]
    pooled = counts.height - len(kept)
    facts: dict[str, Any] = {
        "levels": tuple(kept),
        "pooled": pooled,
        "missing": text.null_count(),
        "distinct": counts.height,
    }
    if kept.is_empty() and not text.null_count():
        why = f"none of its {counts.height} levels has {LEAST_LEVEL_ROWS} rows"
        return _aside(cells, "category", why, **facts)
    column = _column(cells, "category", use="", **facts)
    flags = len(encode.features_of(column))
    use = f"{counts.height} level{'s' if counts.height > 1 else ''}, {flags} flag{'s' if flags > 1 else ''}"
    use += f"; {pooled} rare level{'s' if pooled > 1 else ''} pooled in {encode.OTHER}" if pooled else ""
    return dataclasses.replace(column, use=use + _missing_note(text, "missing is a level"))


def _missing_note(cells: pl.Series, what: str) -> str:
    missing = cells.null_count()
    return f"; {what} ({missing} cell{'s' if missing > 1 else ''})" if missing else ""


def _read_column(written: Mapping[str, Any]) -> Column:
    tuples = {name: tuple(written.get(name, ())) for name in ("levels", "parts", "codes")}
    return Column(**{**written, **tuples})
