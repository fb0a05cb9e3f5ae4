"""Measure many settings of the perceptron on the real sets, and choose the dozen that serves them best together.

    python benchmarks/defaults/choose.py [--rows 1500] [--sets adult,ames]
    python benchmarks/defaults/choose.py --again      # choose from the scores that defaults.json holds

Every set is cut to at most `--rows` random rows and cross-validated with 3 folds over the whole grid. A setting's
score on a set is rescaled so that the linear model is 0 and the best setting 1 (clipped below at 0). The dozen is
chosen greedily: at each step the setting that raises the mean over sets of the best score so far the most. To see
how well such a choice carries over, it is also made on all sets but one and scored on that one, for each set.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sets import SETS, options

import foldwise
from foldwise.data.read import read_table

GRID: dict[str, list[Any]] = {
    "width": [64, 128],
    "learning_rate": [1e-3, 3e-3, 1e-2],
    "dropout": [0.0, 0.1, 0.3],
    "weight_decay": [0.0, 0.03],
    "scaling": ["robust", "standard"],
}
VARIANTS: list[dict[str, Any]] = [
    {"activation": "silu"},
    {"depth": 1},
    {"depth": 3},
    {"batch_size": 32},
    {"batch_size": 256},
    {"schedule": "constant"},
    {"label_smoothing": 0.1},
    {"epochs": 80},
]
BASE = {"batch_size": 64, "epochs": 40, "schedule": "cosine"}
CENTER = {"width": 128, "learning_rate": 3e-3, "dropout": 0.1, "weight_decay": 0.03}
HERE = Path(__file__).parent


def grids() -> list[dict[str, Any]]:
    """List the whole grid, and single changes around its center."""
    whole = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    return whole + [{**CENTER, **variant} for variant in VARIANTS]


def sampled(name: str, rows: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read a set and draw rows from it."""
    given = options(name)
    frame = read_table(given.pop("data"), separator=given.pop("separator", None))
    return frame.sample(min(rows, len(frame)), seed=0, shuffle=True), given


def measure(name: str, rows: int) -> dict[str, Any]:
    """Cross-validate the grid on one set."""
    frame, given = sampled(name, rows)
    smoothing = given.get("task") == "regression" or name in ("california-housing", "ames", "diamonds")
    tried = [{**BASE, **g} for g in grids() if not (smoothing and "label_smoothing" in g)]
    study = foldwise.fit(frame, **given, search=tried, folds=3)
    losses = {r.number: r.score * (-1 if study.metric.higher_is_better else 1) for r in study.results}
    scores = {json.dumps(t, sort_keys=True): losses[i] for i, t in enumerate(tried, start=3)}
    print(
        f"{name}: {study.headline}; best {study.results[0].name}, epoch {study.results[0].epoch}", flush=True
    )
    return {"constant": losses[1], "linear": losses[2], "scores": scores, "best": study.results[0].name}


def rescaled(measured: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Rescale scores to 0 for the linear model and 1 for the best, settings × sets."""
    tried = {json.dumps({**BASE, **g}, sort_keys=True) for g in grids()}
    common = sorted(tried.intersection(*(m["scores"] for m in measured.values())))
    columns = []
    for m in measured.values():
        losses = np.array([m["scores"][s] if m["scores"][s] is not None else np.inf for s in common])
        gain = m["linear"] - losses
        columns.append(np.clip(gain / max(gain.max(), 1e-12), 0, 1))
    return common, np.stack(columns, axis=1)


def portfolio(scores: np.ndarray, size: int = 12) -> list[int]:
    """Choose settings greedily by the mean over sets of the best score so far; the mean of all breaks ties."""
    chosen: list[int] = []
    best = np.zeros(scores.shape[1])
    for _ in range(size):
        gain = np.maximum(scores, best).mean(axis=1) + 1e-3 * scores.mean(axis=1)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        best = np.maximum(best, scores[chosen[-1]])
    return chosen


def main() -> None:
    """Measure, choose, and write both down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    if given.again:
        measured = json.loads((HERE / "defaults.json").read_text())["measured"]
    else:
        measured = {name: measure(name, given.rows) for name in given.sets.split(",")}
    common, scores = rescaled(measured)
    chosen = portfolio(scores)
    left_out = {
        name: float(scores[portfolio(np.delete(scores, i, axis=1)), i].max())
        for i, name in enumerate(measured)
    }
    found = {
        "rows": given.rows,
        "chosen": [json.loads(common[i]) for i in chosen],
        "mean_best": float(scores[chosen].max(axis=0).mean()),
        "left_out": left_out,
        "ranked": [
            [float(scores[i].mean()), json.loads(common[i])] for i in np.argsort(-scores.mean(axis=1))[:30]
        ],
        "measured": measured,
    }
    (HERE / "defaults.json").write_text(json.dumps(found, indent=1))
    print(json.dumps({k: found[k] for k in ("chosen", "mean_best", "left_out")}, indent=1))


if __name__ == "__main__":
    main()
