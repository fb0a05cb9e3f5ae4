"""Studies of which the truth is known: drawn rows, and scores on fresh ones from the same source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import foldwise
from benchmarks.defaults.sets import SETS
from foldwise.data.examples import load_example
from foldwise.data.read import read_table
from foldwise.outcome import member_outputs
from foldwise.terminal import Display

CASES = {
    "noise, 100 rows": (False, 100),
    "noise, 1000 rows": (False, 1000),
    "effect, 100 rows": (True, 100),
    "effect, 1000 rows": (True, 1000),
}
TRIALS, EPOCHS, FEATURES, FOLDS = 50, 8, 5, 5
FRESH = 50_000
REAL = ("diabetes", "abalone", "california-housing", "breast_cancer", "penguins", "credit-g", "digits")
LEVEL, MOST_ROWS = 0.9, 500


def drawn(random: np.random.Generator, rows: int, effect: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw five normal features, and a class that follows from three of them or from a coin."""
    X = random.normal(size=(rows, FEATURES))
    logit = 1.5 * X[:, 0] + 1.5 * X[:, 1] * X[:, 2] if effect else np.zeros(rows)
    return X, (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)


def simulated(case: str, seed: int) -> dict[str, Any]:
    """Run a study of one case; the true score of its winner is the mean over its members on fresh rows."""
    torch.set_num_threads(1)
    effect, rows = CASES[case]
    random = np.random.default_rng([seed, rows, effect])
    X, y = drawn(random, rows, effect)
    study = foldwise.fit(
        X, y, trials=TRIALS, folds=FOLDS, seed=seed, display=Display(),
        search={
            "width": [4, 8, 16], "learning_rate": foldwise.LogRange(1e-3, 1e-1),
            "dropout": foldwise.Range(0, 0.5), "epochs": EPOCHS, "batch_size": 32,
        },
    )  # fmt: skip
    fresh, truth = drawn(random, FRESH, effect)
    names = [column.name for column in study.columns.columns if column.role == "feature"]
    outputs = member_outputs(study, pl.DataFrame(fresh, schema=names), None)
    wrong = study.metric.per_row(outputs, torch.tensor(truth).expand(len(outputs), -1), study.task)
    headline = study.headline_result
    assert headline.luck is not None
    return {
        "case": case,
        "seed": seed,
        "true": study.metric.finish(float(wrong.mean())),
        "raw": headline.luck.raw,
        "value": headline.value,
        "low": headline.low,
        "high": headline.high,
        "claims": not any("constant predictor" in warning for warning in study.warnings),
        "bound": headline.luck.bound,
    }


def frame_of(name: str, data: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read a real set and the arguments of `fit` beside it; FileNotFoundError when it is not there."""
    if name not in SETS:
        frame, target = load_example(name)
        return frame, {"target": target}
    given = dict(SETS[name])
    if not (path := data / given.pop("data")).exists():
        raise FileNotFoundError(path)
    return read_table(path), given


def covered(name: str, seed: int, data: Path) -> dict[str, Any]:
    """Fit at most 500 rows drawn from a real set, and count how many others their intervals or sets hold."""
    torch.set_num_threads(1)
    frame, given = frame_of(name, data)
    order = np.random.default_rng(seed).permutation(len(frame))
    rows = min(MOST_ROWS, len(frame) * 2 // 3)
    known, others = frame[np.sort(order[:rows])], frame[np.sort(order[rows : rows + 2000])]
    search = {"width": [8, 32], "epochs": 15}
    study = foldwise.fit(known, **given, search=search, seed=seed, display=Display())
    target = study.task.targets[0]
    others = others.drop_nulls(target)
    shown = study.predict(others, interval=LEVEL)
    truth = others[target]
    if study.task.kind == "regression":
        inside = ((shown["low"] <= truth) & (truth <= shown["high"])).mean()
        return {
            "set": name,
            "seed": seed,
            "covered": inside,
            "size": float((shown["high"] - shown["low"]).median()),
        }
    pairs = zip(truth.to_list(), shown["set"].to_list(), strict=True)
    inside = np.mean([true in chosen for true, chosen in pairs])
    return {
        "set": name,
        "seed": seed,
        "covered": float(inside),
        "size": float(shown["set"].list.len().mean()),
    }
