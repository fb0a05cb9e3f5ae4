"""What was typed after `foldwise fit`, read into what `foldwise.fit` takes; and the folder for the run."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from foldwise.errors import DataError, PlanError, SettingsError


def read_folds(text: str) -> int | str:
    """Read the number of folds, or `loo`.

    >>> read_folds("5"), read_folds("loo")
    (5, 'loo')
    """
    if text == "loo":
        return text
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"`--folds` takes a number or loo; got `{text}`.", hint="--folds 5") from None


def read_separator(text: str) -> str:
    r"""Read the character that separates cells: a tab cannot be typed in most shells.

    >>> read_separator(";"), read_separator("tab"), read_separator(r"\t")
    (';', '\t', '\t')
    """
    return "\t" if text in ("tab", r"\t") else text


def read_kinds(pairs: Sequence[str]) -> dict[str, str]:
    """Read column kinds; a name may contain `=`, a kind does not.

    >>> read_kinds(["zip=category", "a=b=number"])
    {'zip': 'category', 'a=b': 'number'}
    """
    kinds: dict[str, str] = {}
    for pair in pairs:
        name, equals, kind = pair.rpartition("=")
        if not (name and equals and kind):
            raise SettingsError(f"`--column` takes NAME=KIND; got `{pair}`.", hint="--column zip=category")
        if kinds.setdefault(name, kind) != kind:
            raise SettingsError(
                f"column `{name}` is given two kinds: {kinds[name]} and {kind}.", hint="keep one of them"
            )
    return kinds


def read_search(path: Path) -> Any:
    """Read the settings to try from JSON or TOML: a mapping from settings to values, or several of them.

    TOML has no list at the top, so several grids are tables called `grid` there.
    """
    readers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}
    if path.suffix.lower() not in readers:
        raise SettingsError(f"`{path}`: a search file is .json or .toml.", hint=SEARCH_HINT)
    try:
        content = readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except ValueError as problem:  # what all three raise: JSON, TOML and decoding
        raise SettingsError(f"`{path}` cannot be read: {problem}.", hint=SEARCH_HINT) from None
    if isinstance(content, dict) and list(content) == ["grid"]:
        content = content["grid"]
    grids = content if isinstance(content, list) else [content]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise SettingsError(f"`{path}` must map settings to lists of values.", hint=SEARCH_HINT)
    return content


SEARCH_HINT: Final = 'for example {"learning_rate": [0.001, 0.01], "width": [32, 64]}'
READ: Final[dict[str, Callable[[Any], Any]]] = {
    "folds": read_folds,
    "separator": read_separator,
    "columns": read_kinds,
    "search": read_search,
}


def one_source(data: Path | None, example: str | None) -> Path:
    """Tell what the study is about: a table or an example, exactly one of them."""
    if data is None and example is None:
        raise DataError(
            "there is nothing to fit.", hint="foldwise fit train.csv --target price, or --example digits"
        )
    if data is not None and example is not None:
        raise DataError(
            f"both a table, `{data}`, and the example `{example}` are given.", hint="leave one out"
        )
    return data or Path(str(example))


def run_name(source: Path) -> str:
    """Name a run after its table, without the ending.

    >>> run_name(Path("data/train.2024.csv.gz"))
    'train.2024'
    """
    return Path(source.name.removesuffix(".gz")).stem


def free_folder(folder: Path) -> Path:
    """Give the first of `folder`, `folder-2`, `folder-3` … that holds nothing."""
    numbered = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(place for place in itertools.chain([folder], numbered) if not _holds_something(place))


def _holds_something(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists()


@contextmanager
def nothing_left_empty(folder: Path) -> Iterator[None]:
    """Take a new folder away again when nothing was written into it."""
    existed = folder.exists()
    try:
        yield
    finally:
        if not existed and folder.is_dir() and not _holds_something(folder):
            folder.rmdir()
