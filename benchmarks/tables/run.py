"""Six real tables through the command line with defaults, next to scikit-learn on the same folds.

    python benchmarks/tables/run.py [--sets adult,ames]

Each set is one `foldwise fit` as a user would type it, timed as a whole process. The peers are
HistGradientBoosting (categories as categories) and MLPClassifier / MLPRegressor (one-hot, standardized; logarithm or
standardized target where foldwise uses one), with scikit-learn's defaults, one setting, both cores over the folds.
All scores are pooled over the same folds. Results go to results.json, and the table to README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from joblib import Parallel, delayed
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import foldwise
from foldwise.data.read import read_table

HERE = Path(__file__).parent
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS: dict[str, list[str]] = {
    "adult": ["adult/adult-train.csv", "--target", "column_14"],
    "ames": ["ames/ames.csv", "--target", "price"],
    "california-housing": ["california-housing/housing.csv", "--target", "median_house_value"],
    "penguins": ["penguins/penguins.csv", "--target", "species"],
    "bike-sharing": ["bike-sharing/hour.csv", "--target", "cnt", "--drop", "casual", "--drop", "registered"],
    "letter": ["letter/letter-recognition.data", "--target", "Letter"],
}


def run_ours(name: str, folder: Path) -> tuple[foldwise.Study, float]:
    """Run the command line and load what it left."""
    file, *rest = SETS[name]
    start = time.perf_counter()
    command = [
        str(Path(sys.executable).with_name("foldwise")),
        "fit",
        str(DATA / file),
        *rest,
        "--out",
        str(folder),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return foldwise.load(folder), seconds


def table_for_peers(study: foldwise.Study) -> tuple[pd.DataFrame, np.ndarray]:
    """Give the columns that foldwise used, dates as numbers, and the target as it is."""
    frame = read_table(study.source.path)[study.row.tolist()]
    used = [
        c for c in study.columns.columns if c.role == "feature" and c.kind in ("number", "category", "date")
    ]
    columns: dict[str, Any] = {}
    for column in used:
        cells = frame[column.name]
        if column.kind == "number":
            columns[column.name] = cells.cast(pl.Float64, strict=False).to_numpy()
        elif column.kind == "category":
            text = cells.cast(pl.String).fill_null("missing")
            levels = text.value_counts(sort=True)[column.name].to_list()[:200]
            columns[column.name] = pd.Categorical(text.to_list(), categories=levels)
        else:
            # the date features that foldwise derives, given to the peers as they are
            encoded = study.columns.encode(frame)
            names = [(i, f.name) for i, f in enumerate(study.columns.features) if f.column == column.name]
            columns |= {n: encoded[:, i] for i, n in names}
    return pd.DataFrame(columns), study.task.encode(frame)


def peers(study: foldwise.Study) -> dict[str, Any]:
    """Make the peers; targets are given to both in the units in which foldwise learns (logarithms where it does)."""
    to_onehot = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
            make_column_selector(dtype_include=np.number),
        ),
        (
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            make_column_selector(dtype_include="category"),
        ),
    )
    if study.task.kind == "regression":
        return {
            "HistGradientBoosting": HistGradientBoostingRegressor(
                categorical_features="from_dtype", random_state=0
            ),
            "MLP": make_pipeline(
                to_onehot,
                TransformedTargetRegressor(MLPRegressor(random_state=0), transformer=StandardScaler()),
            ),
        }
    return {
        "HistGradientBoosting": HistGradientBoostingClassifier(
            categorical_features="from_dtype", random_state=0
        ),
        "MLP": make_pipeline(to_onehot, MLPClassifier(random_state=0)),
    }


def one_fold(
    model: Any, X: pd.DataFrame, y: np.ndarray, train: np.ndarray, validation: np.ndarray
) -> np.ndarray:
    """Fit on a fold's training rows and predict its validation rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X[train], y[train]).predict(X[validation])


def score_peer(model: Any, study: foldwise.Study, X: pd.DataFrame, y: np.ndarray) -> tuple[float, float]:
    """Score a peer on the study's folds, pooled; and its time with both cores over the folds."""
    y = y[:, 0] if y.ndim == 2 else y
    start = time.perf_counter()
    parts = Parallel(n_jobs=2)(
        delayed(one_fold)(model, X, y, t, v)
        for t, v in zip(study.folds.train, study.folds.validation, strict=True)
    )
    seconds = time.perf_counter() - start
    predicted, truth = np.concatenate(parts), np.concatenate([y[v] for v in study.folds.validation])
    if study.task.kind != "regression":
        return float((predicted == truth).mean()), seconds
    if study.task.log and study.metric.name != "log_rmse":
        predicted, truth = np.exp(predicted), np.exp(truth)
    return float(np.sqrt(np.mean((predicted - truth) ** 2))), seconds


def measure(name: str) -> dict[str, Any]:
    """Run foldwise and the peers on one set."""
    folder = Path(tempfile.mkdtemp()) / name
    study, seconds = run_ours(name, folder)
    X, y = table_for_peers(study)
    of = {r.settings.network: r.score for r in reversed(study.results)}
    h = study.headline_result
    found: dict[str, Any] = {
        "rows": study.plan_summary.rows,
        "features": study.plan_summary.features,
        "members": study.plan_summary.members,
        "metric": study.metric.label,
        "foldwise": {
            "score": h.value,
            "low": h.low,
            "high": h.high,
            "seconds": seconds,
            "best": study.results[0].name,
        },
        "linear": of["linear"],
        "constant": of["constant"],
    }
    for peer, model in peers(study).items():
        score, took = score_peer(model, study, X, y)
        found[peer] = {"score": score, "seconds": took}
    shutil.rmtree(folder.parent)
    print(name, json.dumps(found), flush=True)
    return found


HEAD = """# Six real tables, defaults, next to scikit-learn

`python benchmarks/tables/run.py` makes this table ({cores} cores, torch {torch}). foldwise: the whole command
`foldwise fit FILE --target …` with the default search (every trial on every fold, a linear and a constant baseline
among them), as a process from start to saved report; its score is corrected for the choice among trials, with a 95 %
interval. The peers are **one** setting each, scikit-learn's defaults, on the same folds, pooled the same way, both
cores over the folds; their scores need no such correction. Accuracy: higher is better; RMSE: lower. Times were taken
while the machine also ran tests, and say no more than an order of magnitude.

| set | rows × features | metric | foldwise (95 %) | linear | constant | HGB | sklearn MLP | members, time | HGB | MLP |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def number(x: float) -> str:
    """Write four significant digits."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def table(results: dict[str, Any]) -> str:
    """Write the page."""
    import torch

    lines = [HEAD.format(cores=os.cpu_count(), torch=torch.__version__)]
    for name, r in results.items():
        f = r["foldwise"]
        hgb, mlp = r["HistGradientBoosting"], r["MLP"]
        lines.append(
            f"| {name} | {r['rows']} × {r['features']} | {r['metric']} | **{number(f['score'])}** "
            f"({number(f['low'])}–{number(f['high'])}) | {number(r['linear'])} | {number(r['constant'])} "
            f"| {number(hgb['score'])} | {number(mlp['score'])} "
            f"| {r['members']}, {f['seconds']:.0f} s | {hgb['seconds']:.0f} s | {mlp['seconds']:.0f} s |\n"
        )
    return "".join(lines)


def main() -> None:
    """Run the sets asked for, keep the others' results, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in parser.parse_args().sets.split(","):
        results[name] = measure(name)
        results = {n: results[n] for n in SETS if n in results}
        path.write_text(json.dumps(results, indent=1))
        (HERE / "README.md").write_text(table(results))


if __name__ == "__main__":
    main()
