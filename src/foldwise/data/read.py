"""Read a table from a file, a frame or an array, or refuse it with the place and the cure."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foldwise.data.delimited import parse_text
from foldwise.data.frames import column_names, from_memory, tidy
from foldwise.errors import DataError, did_you_mean, listed

TEXT_ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".data", ".dat", ".train", ".test")
FRAME_ENDINGS = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
LONGEST_PATH = 1000
NUMBERED = re.compile(r"(column_|x)(\d+)")


def read_table(
    source: Any, *, separator: str | None = None, encoding: str | None = None, header: bool | None = None
) -> pl.DataFrame:
    """Read a table, with one type per column and `null` for every missing cell.

    `source` is a path (.csv, .tsv, .txt, .data and their .gz; .parquet, .arrow, .feather), a pandas, polars
    or Arrow table, an array (columns x0, x1, …), a list of records or a mapping of columns. In text files the
    separator and the header are detected unless given; columns without a header are column_0, column_1, …;
    the cells "", NA, N/A, NaN, nan, null, NULL, None and ? are missing. Nothing in a file is ever executed.

    Raises DataError when there is no such table or it is malformed.

    >>> read_table({"area": [50, 80], "town": ["Bern", None]}).rows()
    [(50, 'Bern'), (80, None)]
    """
    if isinstance(source, str | os.PathLike):
        frame = _read_file(Path(source).expanduser(), separator, encoding, header)
    else:
        _refuse_text_options("a table in memory", separator, encoding, header)
        frame = from_memory(source)
    return tidy(frame)


def from_arrays(X: Any, y: Any) -> tuple[pl.DataFrame, list[str]]:
    """Join features `X` and targets `y` into one frame; return it with the names of the targets.

    An unnamed `y` is called y (y0, y1, … with several columns).

    >>> frame, targets = from_arrays([[1, 2], [3, 4]], [0, 1])
    >>> frame.columns, targets
    (['x0', 'x1', 'y'], ['y'])
    """
    features = read_table(X)
    targets = _target_frame(y, taken=features.columns)
    if features.height != targets.height:
        raise DataError(
            f"X has {features.height} rows and y has {targets.height}.",
            hint="give one target for each row of X",
        )
    if both := [name for name in targets.columns if name in features.columns]:
        raise DataError(
            f"{listed(both)} is in X and is also the name of y.",
            hint='drop it from X, else the network sees the answer; or give the whole table and target="…"',
        )
    return pl.concat([features, targets], how="horizontal"), targets.columns


def find_columns(
    frame: pl.DataFrame, names: Iterable[str | int], *, what: str = "column", typed: str = ""
) -> list[str]:
    """Give the names of columns asked for by name or, where the table has no header, by number.

    Raises DataError with the closest names when one is not there; `typed` is how it was asked for: `--missing {}=…`.

    >>> find_columns(pl.DataFrame({"column_0": [1], "column_1": [2]}), ["1"])
    ['column_1']
    """
    found = [_find_column(frame.columns, name, what, typed) for name in names]
    if twice := [name for name, times in Counter(found).items() if times > 1]:
        raise DataError(f"{what} {listed(twice)} is named twice.", hint="name each column once")
    return found


def fingerprint(frame: pl.DataFrame) -> str:
    """Hash names, types and cells, the same in every process: equal tables have equal fingerprints.

    >>> table = pl.DataFrame({"a": [1, None]})
    >>> fingerprint(table) == fingerprint(table.clone()) != fingerprint(table.reverse())
    True
    """
    digest = hashlib.sha256(f"{frame.height}".encode())
    for column in frame:
        digest.update(repr((column.name, str(column.dtype))).encode())
        for part in _bytes_of(column):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _find_column(columns: Sequence[str], name: str | int, what: str, typed: str) -> str:
    if str(name) in columns:
        return str(name)
    numbered = all(NUMBERED.fullmatch(column) for column in columns)
    if numbered and re.fullmatch(r"-?\d{1,9}", str(name)) and -len(columns) <= int(name) < len(columns):
        return columns[int(name)]
    cure = _near(str(name), columns) or f"the columns are {listed(columns, most=12)}"
    if numbered:
        cure = f"the columns are {columns[0]} … {columns[-1]}; do names stand in the first line? --header"
    asked = f" ({typed.replace('{}', str(name))})" if typed else ""
    raise DataError(f"there is no {what} `{name}`{asked}.", hint=cure)


def _near(name: str, columns: Sequence[str]) -> str:
    same = [column for column in columns if column.strip().lower() == name.strip().lower()]
    return did_you_mean(same[0], same) if same else did_you_mean(name, columns)


def _target_frame(y: Any, taken: Sequence[str]) -> pl.DataFrame:
    targets = tidy(from_memory(y))
    return targets.rename(dict(zip(targets.columns, _target_names(y, targets.width, taken), strict=True)))


def _target_names(y: Any, width: int, taken: Sequence[str]) -> list[str]:
    if isinstance(y, Mapping) or column_names(y):
        return [str(name) for name in y] if isinstance(y, Mapping) else column_names(y)
    if width == 1 and isinstance(name := getattr(y, "name", None), str) and name:
        return [name]
    stem = next(
        name for name in ("y", "target", *(f"y_{i}" for i in range(len(taken) + 1))) if name not in taken
    )
    return [stem] if width == 1 else [f"{stem}{i}" for i in range(width)]


def _bytes_of(column: pl.Series) -> list[bytes]:
    """Cells as bytes that depend on neither the polars version nor how the column is chunked."""
    missing = np.packbits(column.is_null().to_numpy()).tobytes()
    if column.dtype == pl.Null:
        return [missing]
    if column.dtype.is_numeric() or column.dtype.is_temporal() or column.dtype == pl.Boolean:
        values = column.to_physical().fill_null(0 if column.dtype != pl.Boolean else False).to_numpy()
        return [missing, np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()]
    text = (
        column.fill_null("")
        if column.dtype == pl.String
        else pl.Series([repr(cell) for cell in column.to_list()])
    )
    lengths = text.str.len_bytes().to_numpy().astype("<u4").tobytes()
    return [missing, lengths, (text.str.join("").item() or "").encode()]


def _read_file(path: Path, separator: str | None, encoding: str | None, header: bool | None) -> pl.DataFrame:
    _check_path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    ending = suffixes[-2 if zipped else -1] if len(suffixes) > zipped else ""
    if ending in TEXT_ENDINGS:
        return parse_text(_bytes_in(path, zipped), path.name, separator, encoding, header)
    if ending in FRAME_ENDINGS and not zipped:
        _refuse_text_options(f"`{path.name}`", separator, encoding, header)
        return _read_binary(path, ending)
    raise DataError(
        f"`{path.name}` has an ending that foldwise does not read.",
        hint=f"save it as .csv or .parquet; read are {', '.join(TEXT_ENDINGS + FRAME_ENDINGS)}",
    )


def _check_path(path: Path) -> None:
    if len(str(path)) > LONGEST_PATH or "\n" in str(path) or "\0" in str(path):
        raise DataError("this is no path but a long text.", hint="write it to a file and give its path")
    try:
        if path.is_dir():
            raise DataError(f"`{path}` is a directory.", hint=_files_in(path))
        if not path.exists():
            raise DataError(f"there is no file `{path}`.", hint=_neighbor(path))
    except OSError as error:
        raise DataError(
            f"`{path}` cannot be read: {error}.", hint="check the path and who may read it"
        ) from error


def _files_in(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in TEXT_ENDINGS + FRAME_ENDINGS)
    return f"name one file in it: {listed(names)}" if names else "name a file"


def _neighbor(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder `{path.parent}` does not exist"
    return did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) or "check the path"


def _bytes_in(path: Path, zipped: bool) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if zipped else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"`{path}` cannot be read: {error}.", hint="check the file, or make it again"
        ) from error


def _read_binary(path: Path, ending: str) -> pl.DataFrame:
    data = _bytes_in(path, zipped=False)
    readers: list[Callable[[io.BytesIO], Any]] = [pl.read_parquet]
    if ending not in (".parquet", ".pq"):
        readers = [pl.read_ipc, pl.read_ipc_stream]
    for reader in readers:
        try:
            return reader(io.BytesIO(data))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise DataError(
        f"`{path.name}` is damaged or not what its ending says: {problem}.", hint="make the file again"
    )


def _refuse_text_options(what: str, separator: str | None, encoding: str | None, header: bool | None) -> None:
    given = {"separator": separator, "encoding": encoding, "header": header}
    if useless := [name for name, value in given.items() if value is not None]:
        raise DataError(
            f"{listed(useless)} cannot be used with {what}.", hint="leave it out: it is for text files"
        )
