"""What was typed after `foldwise fit`, read into what `foldwise.fit` takes; and the folder for the run."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from foldwise.errors import DataError, PlanError, SettingsError, did_you_mean, listed


def read_folds(text: str) -> Any:
    """Read the number of folds, `loo`, or a splitter named by `FILE.py:NAME`.

    >>> read_folds("5"), read_folds("loo")
    (5, 'loo')
    """
    if text == "loo":
        return text
    return _number_or_splitter("--folds", text, "a number, loo or FILE.py:NAME")


def _number_or_splitter(option: str, text: str, takes: str) -> Any:
    if ".py:" in text:
        return read_own(text)
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"`{option}` takes {takes}; got `{text}`.", hint=f"{option} 5") from None


def read_nested(text: str) -> Any:
    """Read the number of folds inside each fold, or a splitter; `true` when it is left to foldwise.

    >>> read_nested("3"), read_nested("true")
    (3, True)
    """
    if text == "true":
        return True
    return _number_or_splitter("--nested", text, "a number of folds or FILE.py:NAME")


def with_values(typed: Sequence[str]) -> list[str]:
    """Give `--nested` a value where it stands alone: what follows it is its own only if it is a number or FILE.py:NAME.

    >>> with_values(["fit", "--nested", "rows.csv"]), with_values(["fit", "--nested", "3"])
    (['fit', '--nested=true', 'rows.csv'], ['fit', '--nested', '3'])
    """
    followed = itertools.pairwise([*typed, ""])
    return [
        "--nested=true"
        if word == "--nested" and not (after.lstrip("-").isdigit() or ".py:" in after)
        else word
        for word, after in followed
    ]


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


def read_missing(given: Sequence[str]) -> list[Any]:
    """Read values that stand for missing cells: of every column, or of one; a column may contain `=`, a value does not.

    >>> read_missing(["unknown", "income=-999", "income=-9"])
    ['unknown', {'income': ['-999', '-9']}]
    """
    everywhere: list[Any] = []
    named: dict[str, list[str]] = {}
    for typed in given:
        column, equals, value = typed.rpartition("=")
        if not value.strip() or (equals and not column):
            raise SettingsError(
                f"`--missing` takes VALUE or COLUMN=VALUE; got `{typed}`.",
                hint="--missing -999, or --missing income=-999; empty cells are missing as they are",
            )
        if equals:
            named.setdefault(column, []).append(value)
        else:
            everywhere.append(value)
    return [*everywhere, named] if named else everywhere


def read_class_weights(given: Sequence[str]) -> str | dict[str, float]:
    """Read class weights: `balanced`, or a weight for each class; a class may contain `=`, a weight does not.

    >>> read_class_weights(["balanced"]), read_class_weights(["no=1", "a=b=2.5"])
    ('balanced', {'no': 1.0, 'a=b': 2.5})
    """
    if list(given) == ["balanced"]:
        return "balanced"
    weights: dict[str, float] = {}
    for pair in given:
        label, equals, weight = pair.rpartition("=")
        try:
            number = float(weight if equals else "")
        except ValueError:
            raise SettingsError(
                f"`--class-weights` takes balanced or CLASS=WEIGHT; got `{pair}`.",
                hint="--class-weights balanced, or --class-weights no=1 --class-weights yes=5",
            ) from None
        if weights.setdefault(label, number) != number:
            raise SettingsError(
                f"class `{label}` is given two weights: {weights[label]:g} and {number:g}.",
                hint="keep one of them",
            )
    return dict(weights)


def read_search(path: Path) -> Any:
    """Read the settings to try from JSON or TOML: a mapping from settings to values or ranges, or several of them.

    TOML has no list at the top, so several grids are tables called `grid` there.
    """
    readers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}
    if path.suffix.lower() not in readers:
        raise SettingsError(f"`{path}`: a search file is .json or .toml.", hint=SEARCH_HINT)
    try:
        content = readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except ValueError as problem:  # what all three raise: JSON, TOML and decoding
        hint = TOML_HINT if path.suffix.lower() == ".toml" else SEARCH_HINT
        raise SettingsError(f"`{path}` cannot be read: {problem}.", hint=hint) from None
    if isinstance(content, dict) and list(content) == ["grid"]:
        content = content["grid"]
    grids = content if isinstance(content, list) else [content]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise SettingsError(f"`{path}` must map settings to values, lists or ranges.", hint=SEARCH_HINT)
    return content


def read_own(text: str) -> Any:
    """Import what `FILE.py:NAME` names from a file of the user's own.

    Its folder is where it finds other files, as with `python FILE.py`. Raises SettingsError when the file is not
    there or cannot be imported, or has nothing of that name.
    """
    place, colon, name = text.rpartition(":")
    if not (place.endswith(".py") and colon and name):
        raise SettingsError(f"`{text}` does not say what to take from which file.", hint="FILE.py:NAME")
    found = vars(import_file(Path(place).expanduser().absolute()))
    if name not in found:
        own = [n for n, value in found.items() if n[0] != "_" and not isinstance(value, ModuleType)]
        hint = did_you_mean(name, own) or (f"it has {listed(own)}" if own else "it has nothing")
        raise SettingsError(f"`{place}` has no `{name}`.", hint=hint)
    return found[name]


def read_callable(text: str) -> Callable[..., Any]:
    """Import a function or class of the user's own."""
    found = read_own(text)
    if not callable(found):
        raise SettingsError(
            f"`{text}` is {found!r}, which cannot be called.", hint="name a function or a class"
        )
    return cast(Callable[..., Any], found)


def read_loss(text: str) -> str | Callable[..., Any]:
    """Read the name of a loss, or import a function of the user's own.

    >>> read_loss("huber")
    'huber'
    """
    return read_callable(text) if ":" in text else text


def read_links(texts: Sequence[str]) -> list[Any]:
    """Import links of the user's own."""
    return [read_own(text) for text in texts]


@cache
def import_file(path: Path) -> ModuleType:
    """Import a file once, however many names are taken from it."""
    if not path.is_file():
        raise SettingsError(f"there is no file `{path}`.", hint="check the path")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # under its own name, so that other files which import it get the same module; not in the place of another one
    name = path.stem if path.stem not in sys.modules else f"{path.stem} of {path.parent}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a file that ends with .py has a loader"
    assert spec.loader is not None, "a file that ends with .py has a loader"
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise SettingsError(
            f"`{path}` cannot be imported: {_line_of(problem, path)}{type(problem).__name__}: {problem}",
            hint="python FILE.py says more",
        ) from problem
    return module


def _line_of(problem: BaseException, path: Path) -> str:
    """Say in which line of a file something went wrong."""
    if isinstance(problem, SyntaxError) and problem.filename == str(path):
        return f"line {problem.lineno}, `{(problem.text or '').strip()}`: "
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if f.filename == str(path)]
    return f"line {frames[-1].lineno}, `{frames[-1].line}`: " if frames else ""


TOML_HINT: Final = (
    'for example learning_rate = {log_range = [0.0001, 0.1]}; text in quotes: optimizer = "adam"'
)
SEARCH_HINT: Final = 'for example {"learning_rate": {"log_range": [0.0001, 0.1]}, "width": [32, 64]}'


def read_on_off(typed: str) -> bool:
    """Read a switch.

    >>> read_on_off("off")
    False
    """
    if typed not in ("on", "off"):
        raise SettingsError(
            f"`--checks` and `--remedies` are on or off; got `{typed}`.", hint="--remedies off"
        )
    return typed == "on"


def refuse_idle_remedies(given: Mapping[str, Any]) -> None:
    """Refuse to be told of remedies where no checks look."""
    if given.get("checks") == "off" and "remedies" in given:
        raise SettingsError("`--remedies` has no effect with `--checks off`.", hint="leave one of them out")


READ: Final[dict[str, Callable[[Any], Any]]] = {
    "folds": read_folds,
    "nested": read_nested,
    "separator": read_separator,
    "columns": read_kinds,
    "missing": read_missing,
    "class_weights": read_class_weights,
    "search": read_search,
    "checks": read_on_off,
    "remedies": read_on_off,
}
"""How what was typed is read, by parameter of `foldwise.fit`."""
OWN: Final[dict[str, Callable[[Any], Any]]] = {
    "net": read_callable,
    "loss": read_loss,
    "links": read_links,
}
"""The same for what comes from files of the user's own; reading them takes as long as their imports."""
LOADED: Final = {**OWN, "loss": read_callable}
"""The same for `foldwise.load`, where a loss with a name is known."""


def read_given(given: Mapping[str, Any], how: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Read those of the arguments that are given."""
    return {name: read(given[name]) for name, read in how.items() if name in given}


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
