"""Small studies of one network, for checks to look at: each takes a second, and is trained once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

import foldwise
from foldwise import examine
from foldwise.checks.sight import Sight
from foldwise.terminal import Display

USUAL: dict[str, Any] = {
    "width": 32, "depth": 2, "learning_rate": 0.003, "batch_size": 32, "epochs": 30, "optimizer": "adam",
    "schedule": "constant",
}  # fmt: skip


def table(kind: str = "regression", rows: int = 240, seed: int = 0, unsure: float = 0.0) -> pl.DataFrame:
    """Draw rows whose target depends on five columns, mostly along a line; `unsure` labels are drawn anew."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5))
    signal = x @ [1.5, -1, 0.7, 0.4, 0] + 0.5 * np.abs(x[:, 0]) + 0.3 * random.normal(size=rows)
    found = pl.DataFrame({f"x{i}": x[:, i] for i in range(5)})
    if kind == "regression":
        return found.with_columns(y=pl.Series(signal))
    labels = signal > np.median(signal)
    labels = np.where(random.random(rows) < unsure, random.random(rows) < 0.5, labels)
    return found.with_columns(y=pl.Series(np.where(labels, "yes", "no")))


@cache
def sight_of(kind: str = "regression", rows: int = 240, unsure: float = 0.0, **settings: Any) -> Sight:
    """Train a network with other settings than the usual, and give what checks see of it."""
    seen: list[Sight] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examine, "findings_of", lambda sight, **_: seen.append(sight) or [])
        foldwise.fit(
            table(kind, rows, unsure=unsure), target="y", search={**USUAL, **settings}, folds=3, seed=0,
            remedies=False, display=Display(),
        )  # fmt: skip
    return seen[0]
