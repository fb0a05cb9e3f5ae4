"""Read delimited text: find the separator and the header, cut lines into cells, give each column a type."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from foldwise.data.cells import MISSING_MARKS, cleaned, number_form
from foldwise.errors import DataError, listed

SEPARATORS = (",", ";", "\t", "|")
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
SAMPLE_LINES = 200  # enough to tell separators and headers apart, few enough to cost nothing


def parse_text(
    data: bytes, name: str, separator: str | None, encoding: str | None, header: bool | None
) -> pl.DataFrame:
    """Read a whole text file; what is None is found out.

    Raises DataError that names the file, the line and the cure.

    >>> parse_text(b"a;b\\n1;x\\n2;?", "t.csv", separator=None, encoding=None, header=None).rows()
    [(1, 'x'), (2, None)]
    """
    text = _decode(data, name, encoding).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError(f"`{name}` is empty.", hint="give a file with a header line and rows")
    separator = _choose_separator(text, separator, name)
    cells = _split(text, separator, name)
    if header is None:
        header = _has_header(cells)
    names = _header_names(cells.row(0), name) if header else [f"column_{i}" for i in range(cells.width)]
    cells.columns = names
    body = cells.slice(1) if header else cells
    if not body.height:
        raise DataError(
            f"`{name}` has a header and no rows.",
            hint="give rows below it; if it is a row: --no-header (header=False)",
        )
    _refuse_single_column(cells, separator, name)
    return body.select([typed(column) for column in body])


def _decode(data: bytes, name: str, encoding: str | None) -> str:
    try:
        text = data.decode(encoding or "utf-8")
    except LookupError as error:
        raise DataError(
            f"there is no text encoding `{encoding}`.", hint="try utf-8, latin-1, cp1252 or utf-16"
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        cure = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise DataError(
            f"`{name}` is not {encoding or 'UTF-8'} text: byte {error.start}, in line {line}.",
            hint=f"give its encoding, for instance `--encoding {cure}`",
        ) from error
    except (UnicodeError, ValueError, TypeError) as error:
        raise DataError(
            f"`{name}` cannot be decoded as {encoding}: {error}.", hint="try `--encoding utf-8`"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"`{name}` has a zero byte in line {line}: it is not plain text.", hint="save it as CSV in UTF-8"
        )
    return text.removeprefix("\ufeff")


def _choose_separator(text: str, separator: str | None, name: str) -> str:
    if separator is None:
        return _detect_separator(_records(text, SAMPLE_LINES), prefer="\t" if ".tsv" in name.lower() else ",")
    separator = {"\\t": "\t", "tab": "\t"}.get(separator, separator)
    if len(separator) != 1 or separator in '"\n\r':
        raise DataError(
            f"the separator {separator!r} is not one character.", hint="for instance `--separator ';'`"
        )
    return separator


def _records(text: str, most: int) -> list[str]:
    """The first lines that hold anything, joined where a quoted cell spans several."""
    records: list[list[str]] = []
    open_quote = False
    for line in itertools.islice(io.StringIO(text), 10 * most):
        if open_quote:
            records[-1].append(line)
        elif line.strip():
            records.append([line])
        open_quote ^= line.count('"') % 2 == 1
    return ["".join(lines) for lines in records[:most]]


def _detect_separator(lines: Sequence[str], prefer: str) -> str:
    """Choose the character that cuts the first line, and most lines into as many cells as the first.

    >>> _detect_separator(["a;b;c", "1,5;2,5;3", "1;2;3"], prefer=",")
    ';'
    """
    best, best_share = " " if _is_aligned(lines) else prefer, 0.0
    for candidate in sorted(SEPARATORS, key=lambda mark: mark != prefer):
        widths = [_width(line, candidate) for line in lines]
        share = sum(width == widths[0] for width in widths) / len(widths)
        if widths[0] > 1 and share > best_share:
            best, best_share = candidate, share
    return best


def _is_aligned(lines: Sequence[str]) -> bool:
    """Tell whether blanks cut every line into as many cells, most of them numbers.

    >>> _is_aligned(["18.0  8  307.0", "15.0  8  350.0"]), _is_aligned(["a title", "two words"])
    (True, False)
    """
    cells = [line.split() for line in lines]
    numbers = sum(_is_number(cell) for cell in cells[-1])
    return len({len(row) for row in cells}) == 1 < len(cells[0]) and 2 * numbers > len(cells[0])


def _width(line: str, separator: str) -> int:
    """Count the cells of a line; separators in quotes do not count.

    >>> _width('a,"b,c",d', ",")
    3
    """
    return re.sub(r'"[^"]*"', "", line).count(separator) + 1


def _split(text: str, separator: str, name: str) -> pl.DataFrame:
    """Cut text into cells, all of them still text; blank lines are no rows."""
    if "\n " in text:
        text = re.sub(r"(?m)^ +$", "", text)
    if separator == " ":
        text = re.sub(r"[ \t]+", " ", re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text))
    plain = '"' not in text and separator.isascii()
    return _split_plain(text, separator, name) if plain else _split_quoted(text, separator, name)


def _split_plain(text: str, separator: str, name: str) -> pl.DataFrame:
    data = text.encode()
    lines, widths = _line_widths(np.frombuffer(data + b"\n", np.uint8), ord(separator))
    _refuse_ragged(lines, widths, separator, name)
    squeezed = re.sub(rb"\n{2,}", b"\n", data.strip(b"\n"))
    schema = {str(i): pl.String for i in range(widths[0])}
    return pl.read_csv(
        io.BytesIO(squeezed),
        separator=separator,
        has_header=False,
        schema=schema,
        quote_char=None,
        glob=False,
    )


def _line_widths(data: np.ndarray, separator: int) -> tuple[np.ndarray, np.ndarray]:
    """Number (from 1) and cell count of each line that is not blank, without a Python loop over lines."""
    ends = np.flatnonzero(data == ord("\n"))
    cuts = np.searchsorted(np.flatnonzero(data == separator), ends)
    widths = np.diff(cuts, prepend=0) + 1
    filled = np.diff(ends, prepend=-1) > 1
    return np.flatnonzero(filled) + 1, widths[filled]


def _split_quoted(text: str, separator: str, name: str) -> pl.DataFrame:
    """Cut with Python's reader: unlike polars, it takes a stray quote in a cell (12" vinyl) as it is."""
    rows, lines, start = [], [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"`{name}`, line {start}: {error}.", hint="look for a quote that is never closed"
        ) from error
    _refuse_ragged(np.array(lines), np.array([len(row) for row in rows]), separator, name)
    return pl.DataFrame(
        [pl.Series(str(i), column, dtype=pl.String) for i, column in enumerate(zip(*rows, strict=True))]
    )


def _refuse_ragged(lines: np.ndarray, widths: np.ndarray, separator: str, name: str) -> None:
    expected = widths[0]
    bad = np.flatnonzero(widths != expected)
    if not len(bad):
        return
    where = ", ".join(f"line {lines[i]} has {widths[i]}" for i in bad[:5])
    more = f", and {len(bad) - 5} more lines" if len(bad) > 5 else ""
    cure = f"correct these lines; cells that hold the separator {separator!r} must be in quotes"
    if len(bad) == len(widths) - 1 and (widths[bad] == expected + 1).all():
        cure = "the header lacks one name (of the row names?): add it to line 1"
    elif expected == 1:
        cure = "is the separator another one? Give it, for instance `--separator ';'`"
    raise DataError(f"`{name}` is ragged: line {lines[0]} has {expected} cells, {where}{more}.", hint=cure)


def _refuse_single_column(cells: pl.DataFrame, separator: str, name: str) -> None:
    """One column whose cells all hold another separator was cut with the wrong one."""
    if cells.width > 1:
        return
    sample = cells.to_series().head(SAMPLE_LINES).drop_nulls()
    for other in SEPARATORS:
        if other != separator and sample.str.contains(other, literal=True).all():
            raise DataError(
                f"`{name}` has one column when it is cut at {separator!r}, and its cells hold {other!r}.",
                hint=f"is {other!r} the separator? Give `--separator '{other}'`",
            )


def _has_header(cells: pl.DataFrame) -> bool:
    """Tell whether the first line holds names or is a row like the others.

    Every column votes. Over numbers, a number says row and a word says name; over text, a word that comes
    back below says row, but only where no column has numbers. Without a vote the line is a header; so is a
    line that counts (columns named 1, 2, 3, … or by years) when the next line does not.
    """
    first = [(cell or "").strip() for cell in cells.row(0)]
    below = cells.slice(1, SAMPLE_LINES * 5)
    if below.is_empty():
        return not any(_is_number(cell) for cell in first)
    if _counts_up(first) and not _counts_up([(cell or "").strip() for cell in below.row(0)]):
        return True
    votes = [_vote(cell, cleaned(column)) for cell, column in zip(first, below, strict=True)]
    rows, names, recurring = votes.count("row"), votes.count("name"), votes.count("recurs")
    if rows or names:
        return names >= rows
    return not (2 * recurring >= len(votes) or (recurring and len(set(first)) < len(first)))


def _vote(cell: str, below: pl.Series) -> str:
    """Say what the first cell of a column is, seen from the cells below it: "row", "name", "recurs" or ""."""
    filled = below.drop_nulls()
    if filled.is_empty() or not cell:
        return ""
    if number_form(filled) is not None:
        return "row" if _is_number(cell) or cell in MISSING_MARKS else "name"
    return "recurs" if (filled == cell).any() else ""


def _counts_up(cells: Sequence[str]) -> bool:
    """Tell whether the whole numbers of a line rise by one step: four of them, or nothing but 0, 1, 2.

    >>> _counts_up(["letter", "1", "2", "3", "4"]), _counts_up(["5", "6", "7"])
    (True, False)
    """
    numbers = [int(cell) for cell in cells if re.fullmatch(r"\d{1,9}", cell)]
    steps = {right - left for left, right in itertools.pairwise(numbers)}
    enough = len(numbers) >= 4 or (numbers[:3] == [0, 1, 2] and len(numbers) >= len(cells) - 1)
    return enough and len(steps) == 1 and min(steps) > 0


def _is_number(cell: str) -> bool:
    return bool(cell) and number_form(pl.Series([cell])) is not None and cell not in MISSING_MARKS


def _header_names(first: Sequence[str | None], name: str) -> list[str]:
    names = [(cell or "").strip() or f"column_{i}" for i, cell in enumerate(first)]
    refuse_repeated(names, f" in `{name}`")
    return names


def refuse_repeated(names: Sequence[str], where: str = "") -> None:
    """Raise DataError when two columns have one name."""
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        cure = "give every column a name of its own"
        if where:
            cure += "; if the first line is a row, not names: --no-header (header=False)"
        raise DataError(f"column name {listed(repeated)} is there more than once{where}.", hint=cure)


def typed(column: pl.Series) -> pl.Series:
    """Give text cells the narrowest type that holds all of them: integer, float, truth value, text."""
    cells = cleaned(column)
    missing = cells.null_count()
    if missing == len(cells):
        return cells
    for dtype in (pl.Int64, pl.Float64):
        numbers = cells.cast(dtype, strict=False)
        if numbers.null_count() == missing:
            return numbers
    if cells.drop_nulls().is_in(list(TRUTHS)).all():
        return cells.replace_strict(TRUTHS, return_dtype=pl.Boolean)
    return cells
