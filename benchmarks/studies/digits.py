"""What the benchmarks of whole studies share: the rows, the settings, and foldwise without its display."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

import foldwise
from foldwise.terminal import Display

FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
NETWORK: dict[str, Any] = {
    "network": "mlp", "width": 64, "depth": 2, "activation": "relu", "dropout": 0.0, "optimizer": "adam",
    "schedule": "constant", "batch_size": 32, "scaling": "standard", "initialization": "xavier",
}  # fmt: skip
BATCH, HIDDEN = 32, (64, 64)


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Load 1797 handwritten digits, 64 pixels each."""
    X, y = load_digits(return_X_y=True)
    return X, y


def fit(
    search: Any, folds: Any = FOLDS, X: np.ndarray | None = None, y: np.ndarray | None = None
) -> foldwise.Study:
    """Run a study from a table in memory, without display or folder."""
    if X is None or y is None:
        X, y = rows()
    return foldwise.fit(X, y, task="multiclass", search=search, folds=folds, display=Display())


def last_accuracies(study: foldwise.Study, epochs: int, trials: int) -> np.ndarray:
    """Give the last `trials` trials' mean accuracy over the folds after some epochs; the baselines come first."""
    found = study.history.filter(pl.col("epoch") == epochs).group_by("trial").agg(pl.col("score").mean())
    return found.sort("trial")["score"].to_numpy()[-trials:]
