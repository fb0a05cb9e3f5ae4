"""Tables, folds and sights for tests of checks: no training where none is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from foldwise.checks.sight import Curve, OutOfFold, Sight
from foldwise.data.folds import Folds
from foldwise.data.table import Table, open_table, read_source
from foldwise.fitting import folds_of
from foldwise.judge.metrics import METRICS
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.settings import make_settings

ROWS = 300


def frame(seed: int, rows: int = ROWS, kind: str = "regression") -> pl.DataFrame:
    """Draw a table with numbers, a category, a date and missing cells; `y` follows from some of them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 4))
    shop = random.choice(["north", "south", "east"], rows)
    signal = x[:, 0] + np.sin(2 * x[:, 1]) + 0.5 * (shop == "north") + 0.4 * random.normal(size=rows)
    gone = random.random(rows) < 0.1
    return pl.DataFrame(
        {
            **{f"x{i}": x[:, i] for i in range(3)},
            "gaps": [None if g else v for g, v in zip(gone, x[:, 3], strict=True)],
            "shop": shop,
            "day": pl.Series(random.integers(0, 900, rows)).cast(pl.Int32).cast(pl.Date),
            "y": signal if kind == "regression" else np.where(signal > 0, "yes", "no"),
        }
    )


def opened(given: pl.DataFrame, **opening: Any) -> Table:
    """Open a table whose target is `y`."""
    read, targets, source = read_source(given, None, "y", None, {})
    return open_table(read, targets, source, **opening)


def sight(given: pl.DataFrame | Table, folds: Any = 5, **more: Any) -> Sight:
    """Show a table and its folds."""
    table = given if isinstance(given, Table) else opened(given)
    divided = folds if isinstance(folds, Folds) else folds_of(table, folds, 1, None, 0)
    settings = make_settings({}, base={"loss": LOSSES_OF_TASK[table.task.kind][0]})
    name = "rmse" if table.task.kind == "regression" else "accuracy"
    return replace(
        Sight(table=table, folds=divided, metric=METRICS[name], settings=settings, trial=4), **more
    )


def heard(table: Table, said: np.ndarray) -> OutOfFold:
    """Say something of every row."""
    return OutOfFold(np.arange(len(said)), said, table.targets, np.zeros(len(said)))


def curve(training: float, validation: float) -> Curve:
    """Give a curve that ends at some losses."""
    end, none = np.array([1.0, validation]), np.zeros(2)
    return Curve(np.array([1.0, training]), end, end, end[:, None], 1.0, none, none, none, 10, 2)
