"""What can go wrong, said with the place where it went wrong and a hint what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class FoldwiseError(Exception):
    """Any problem that foldwise finds and can explain.

    `problem` names the column, row, setting or member; `hint` says what to do about it.

    >>> print(FoldwiseError("`folds` must be at least 2; got 1.", hint="use --folds 5"))
    `folds` must be at least 2; got 1.
    hint: use --folds 5
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}\nhint: {hint}" if hint else problem)


class DataError(FoldwiseError):
    """The table, a column, a row or a file of rows cannot be used as it is."""


class InputError(DataError, ValueError):
    """An estimator cannot use what it was given; a ValueError too, as scikit-learn expects."""


class SettingsError(FoldwiseError):
    """A setting or a combination of settings makes no sense."""


class PlanError(FoldwiseError):
    """The folds, seeds or trials asked for cannot be made from these rows."""


class NetworkError(FoldwiseError):
    """A network cannot be built, or does not map rows to outputs as it must."""


class StoreError(FoldwiseError):
    """A run folder cannot be written or read."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known names, as a sentence; empty when none is close.

    >>> did_you_mean("prcie", ["price", "area"])
    'Did you mean `price`?'
    """
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else ""


def percent(share: float, digits: int = 0) -> str:
    """Write a share as a percentage.

    >>> percent(0.824), percent(0.005, 1)
    ('82 %', '0.5 %')
    """
    return f"{100 * share:.{digits}f} %"


def listed(values: Sequence[object], most: int = 5) -> str:
    """Write a few values as `a`, `b`, `c` and 7 more.

    >>> listed(["a", "b", "c"], most=2)
    '`a`, `b` and 1 more'
    """
    shown = ", ".join(f"`{v}`" for v in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
