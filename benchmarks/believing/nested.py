"""Nested cross-validation with a grid of settings on two real tables, against scikit-learn's nested grid search."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import torch
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import foldwise
from benchmarks.measure import CORES, Missing, alternate, timed
from benchmarks.render import Line, grid, ratio
from foldwise.terminal import Display

METHOD = """Nested 5 × 5 cross-validation with 30 settings (3 learning rates × 5 weight decays × 2 widths), one hidden
layer, ReLU, Adam, 30 epochs: credit-g (1000 rows, 20 columns, 13 of them categories, batch 32) and abalone (4177 rows,
8 columns, one a category, batch 64). Numbers are standardized and categories one-hot encoded per fold on both sides;
the outer and inner folds are the same. One process, from the table in memory to the result, all workers warm, imports
not counted.

- *foldwise* is the whole of `foldwise.fit(…, nested=…)`: 30 settings, a constant and two linear models on 30 folds each
  (990 members), of which the outer ones, too, train with every setting; the best epoch of each choice, the leaderboard
  with its intervals.
- *scikit-learn* is `GridSearchCV` of a pipeline with `MLPClassifier` or `MLPRegressor` (`n_jobs=2`), fitted on the
  training rows of each outer fold and scored on its other rows: 750 members and 5 refits, no choice of epochs.

Ratios are medians of pairs in turn, with their range. Equal results: the mean inner score over all settings, after the
last epoch, is within 0.01 (accuracy) or 2 % (RMSE) of scikit-learn's, and the nested scores differ by less than half
the width of foldwise's 95 % interval."""
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RATES, DECAYS, WIDTHS = (1e-3, 3e-3, 1e-2), (0.0, 1e-4, 1e-3, 1e-2, 1e-1), (16, 32)
SETTINGS = tuple(itertools.product(RATES, DECAYS, WIDTHS))
FEW = SETTINGS[:2]
EPOCHS, GOAL = 30, 10.0
ACCURACY_TOLERANCE, RMSE_TOLERANCE = 0.01, 0.02


@dataclass(frozen=True)
class Subject:
    """A table, whose last column is the target, and what the networks are like."""

    file: str
    classes: bool
    batch: int

    def frame(self) -> pl.DataFrame:
        """Read the table, which has no header."""
        if not (path := DATA / self.file).exists():
            raise Missing(f"{path} is not here")
        frame = pl.read_csv(path, has_header=False)
        return frame.rename({frame.columns[-1]: "target"})

    def splitter(self, seed: int) -> Any:
        """Make the folds of both sides."""
        return (StratifiedKFold if self.classes else KFold)(5, shuffle=True, random_state=seed)

    @property
    def loss(self) -> str:
        """Name what both sides minimize."""
        return "binary_cross_entropy" if self.classes else "half_squared_error"


SUBJECTS = {
    "credit-g": Subject("credit-g/german.csv", classes=True, batch=32),
    "abalone": Subject("abalone/abalone.csv", classes=False, batch=64),
}


@dataclass(frozen=True)
class Result:
    """What a side found: `noise` is half the width of the score's interval (0: it has none), `inner` the mean over all
    settings and inner folds after the last epoch, `chosen` how many outer folds chose what."""

    score: float
    noise: float
    inner: float
    chosen: dict[str, int]


def by_foldwise(subject: Subject, epochs: int, settings: Any = SETTINGS) -> Result:
    """Run nested cross-validation with foldwise."""
    torch.set_num_threads(CORES)
    common = {
        "network": "mlp", "depth": 1, "activation": "relu", "dropout": 0.0, "optimizer": "adam", "loss": subject.loss,
        "schedule": "constant", "batch_size": subject.batch, "scaling": "standard", "initialization": "xavier",
        "epochs": epochs,
    }  # fmt: skip
    search = [{**common, "learning_rate": r, "weight_decay": d, "width": w} for r, d, w in settings]
    study = foldwise.fit(
        subject.frame(), target="target", search=search, folds=subject.splitter(0), nested=subject.splitter(1),
        task="binary" if subject.classes else "regression", log_target=None if subject.classes else False,
        metric="accuracy" if subject.classes else "rmse", display=Display(),
    )  # fmt: skip
    assert study.nested is not None
    headline = study.headline_result
    asked = study.history.filter(pl.col("trial") > len(study.plan.trials) - len(settings))
    last = asked.filter((pl.col("epoch") == epochs) & pl.col("inner").is_not_null())["score"].to_numpy()
    inner = last.mean() if subject.classes else math.sqrt(np.square(last).mean())
    chosen = {name: count for _, name, count in study.nested.chosen}
    return Result(headline.value, (headline.high - headline.low) / 2, float(inner), chosen)


def pipeline(subject: Subject, epochs: int) -> Any:
    """Make the peer; its penalty is alpha/2 · |w|² / batch, so alpha is the weight decay times the batch."""
    kind = MLPClassifier if subject.classes else MLPRegressor
    network: Any = kind(
        batch_size=subject.batch, max_iter=epochs, n_iter_no_change=epochs + 1, tol=0, random_state=0
    )
    if not subject.classes:
        network = TransformedTargetRegressor(network, transformer=StandardScaler())
    return make_pipeline(
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include=np.number)),
            (
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                make_column_selector(dtype_exclude=np.number),
            ),
        ),
        network,
    )


def by_sklearn(subject: Subject, epochs: int, settings: Any = SETTINGS) -> Result:
    """Run it with scikit-learn."""
    frame = subject.frame()
    X, y = pd.DataFrame(frame.drop("target").to_dict(as_series=False)), frame["target"].to_numpy()
    head = "mlpclassifier" if subject.classes else "transformedtargetregressor__regressor"
    grids = [
        {
            f"{head}__learning_rate_init": [r],
            f"{head}__alpha": [d * subject.batch],
            f"{head}__hidden_layer_sizes": [(w,)],
        }
        for r, d, w in settings
    ]
    scoring = "accuracy" if subject.classes else "neg_mean_squared_error"
    search = GridSearchCV(
        pipeline(subject, epochs), grids, cv=subject.splitter(1), n_jobs=CORES, scoring=scoring
    )
    scores, inner, chosen = [], [], Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, scored in subject.splitter(0).split(X, y):
            search.fit(X.iloc[train], y[train])
            scores += [search.score(X.iloc[scored], y[scored])] * len(scored)
            inner.append(search.cv_results_["mean_test_score"].mean())
            rate, decay, width = settings[search.best_index_]
            chosen[f"{width}, rate {rate:g}, decay {decay:g}"] += 1
    score, within = float(np.mean(scores)), float(np.mean(inner))
    if not subject.classes:
        score, within = math.sqrt(-score), math.sqrt(-within)
    return Result(score, 0.0, within, dict(chosen))


def refuse_other_results(name: str, subject: Subject, ours: Result, theirs: Result) -> None:
    """Stop when the two sides did not find the same, within noise."""
    apart = abs(ours.inner - theirs.inner)
    if apart > (ACCURACY_TOLERANCE if subject.classes else RMSE_TOLERANCE * theirs.inner):
        raise AssertionError(f"{name}: inner scores differ, {ours.inner:.4f} and {theirs.inner:.4f}")
    if abs(ours.score - theirs.score) > ours.noise:
        raise AssertionError(f"{name}: nested scores differ, {ours.score:.4f} and {theirs.score:.4f}")


def against(name: str, epochs: int, pairs: int, settings: Any = SETTINGS) -> dict[str, Any]:
    """Measure scikit-learn in pairs with foldwise on one table."""
    subject, last = SUBJECTS[name], dict[str, Result]()

    def theirs() -> float:
        return timed(lambda: last.update(peer=by_sklearn(subject, epochs, settings)))

    def ours() -> float:
        return timed(lambda: last.update(ours=by_foldwise(subject, epochs, settings)))

    first = {
        "peer": timed(lambda: by_sklearn(subject, 1, FEW)),
        "foldwise": timed(lambda: by_foldwise(subject, 1, FEW)),
    }
    found = alternate(theirs, ours, pairs)
    if epochs >= EPOCHS:
        refuse_other_results(name, subject, last["ours"], last["peer"])
    return {
        **found,
        "warm_up": first,
        "metric": "accuracy" if subject.classes else "RMSE",
        "results": {side: vars(result) for side, result in last.items()},
    }


def run(quick: bool) -> dict[str, Any]:
    """Measure on both tables."""
    found = {}
    for name in SUBJECTS:
        found[name] = against(name, *((2, 1, SETTINGS[:6]) if quick else (EPOCHS, 3, SETTINGS)))
        print(name, ratio(found[name]), flush=True)
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out seconds, ratios, warm-up and the scores of both."""

    def score(f: dict[str, Any], side: str, what: str) -> str:
        return f"{f['results'][side][what]:.3f}"

    rows = [
        (
            name,
            f"{f['peer']:.1f} s",
            f"{f['foldwise']:.2f} s",
            ratio(f),
            f"{f['warm_up']['peer']:.1f} s, {f['warm_up']['foldwise']:.1f} s",
            f"{f['metric']} {score(f, 'peer', 'score')}",
            f"{score(f, 'ours', 'score')} ± {score(f, 'ours', 'noise')}",
            f"{score(f, 'peer', 'inner')}, {score(f, 'ours', 'inner')}",
        )
        for name, f in figures.items()
    ]
    heads = (
        "table",
        "scikit-learn takes",
        "foldwise takes",
        "ratio",
        "warm-up of both",
        "nested score, scikit-learn",
        "foldwise, with its 95 % interval",
        "mean inner score of both",
    )
    return grid(heads, rows)


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show both tables, with the goal."""
    return [
        Line(
            f"nested 5 × 5 with 30 settings on {name}",
            "scikit-learn",
            f"{ratio(f)} as fast",
            f"≥ {GOAL:g}×",
            f["ratio"] >= GOAL,
        )
        for name, f in figures.items()
    ]
