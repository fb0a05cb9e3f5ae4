"""`foldwise explain` and `foldwise check`: what checks look for, and what they find before anything is trained."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from foldwise.checks import CHECKS, GROUPS
from foldwise.checks.explain import TITLES, Explanation, explain

WIDTH: Final = 100


def listing(width: int | None = None) -> str:
    """List all checks by group with what each looks for: a line each, or as many as it takes in a terminal so wide."""
    groups = (f"{TITLES[name]}\n{''.join(map(partial(_line, width), GROUPS[name]))}" for name in GROUPS)
    return "\n".join(groups)


def _line(width: int | None, code: str) -> str:
    widest = max(map(len, CHECKS))
    line = f"  {code:{widest}}  {explain(code).what}"
    if width is None or width < 2 * widest:
        return f"{line}\n"
    return textwrap.fill(line, width, subsequent_indent=" " * (widest + 4), break_on_hyphens=False) + "\n"


def _width() -> int:
    """Give the width of text: that of the terminal, but not so much that lines are hard to read."""
    return min(WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH


def told(code: str) -> str:
    """Write what a check is. Raises SettingsError when there is none of that code."""
    return explained(explain(code))


def explained(told: Explanation) -> str:
    """Write what a check is as text of limited width.

    >>> explained(Explanation("x", "What.", {"Evidence": "counted."}))
    'x\\nWhat.\\n\\nEvidence: counted.\\n'
    """
    parts = [told.what, *(f"{name}: {text}" for name, text in told.sections.items())]
    first, *rest = (textwrap.fill(part, _width()) for part in parts)
    return "\n".join([told.code, first, *(f"\n{part}" for part in rest)]) + "\n"


OPTIONS: Final = (
    "target", "example", "columns", "drop", "missing", "drop_missing_targets", "separator", "encoding", "header",
    "folds", "repeats", "holdout", "groups", "time", "fold_column", "weights", "class_weights", "metric", "task",
    "log_target", "search", "loss", "seed",
)  # fmt: skip
"""Options of `fit` that say what would be trained."""


def take_options(check: Callable[..., None], of: Callable[..., None]) -> None:
    """Give `check` the options that it shares with `fit`, and the network and the table in its own way."""
    theirs = inspect.signature(of, eval_str=True).parameters
    net, data = (
        typer.Argument(metavar="[FILE.py:NAME]", help="A network of your own: a class or a function."),
        typer.Option("--data", metavar="FILE", help="The table: .csv, .tsv, .parquet, .arrow …"),
    )
    only = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        inspect.Parameter("net", only, default=None, annotation=Annotated[str | None, net]),
        inspect.Parameter("data", only, default=None, annotation=Annotated[Path | None, data]),
        *(theirs[name].replace(kind=only) for name in OPTIONS),
    ]
    check.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    check.__annotations__ = {p.name: p.annotation for p in parameters}
