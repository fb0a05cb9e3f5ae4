"""Same steps or same epochs on all rows? One seed or several? And does a refit reach the ensemble of the folds?

On each real table, several times over: a third of the rows is held out, a study of eight settings and five folds is
made of the others, and its winner's ensemble and refits are scored on the rows held out. Writes refit.json: of each
model the mean score, how much it is above the ensemble's, and the standard error of that.

    python benchmarks/refit.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import Tensor

import foldwise
from foldwise.outcome import combined_outputs, member_outputs, outputs_of
from foldwise.refit import Means, settings_on_all, train_on_all
from foldwise.study import Study

SETS: dict[str, tuple[Callable[..., Any], str, int]] = {
    "breast_cancer": (load_breast_cancer, "log_loss", 8),
    "diabetes": (load_diabetes, "rmse", 8),
    "wine": (load_wine, "log_loss", 8),
    "digits": (load_digits, "log_loss", 4),
}
SEARCH = {"width": [32, 128], "learning_rate": [0.003, 0.01], "dropout": [0.0, 0.2]}
SEEDS = 5


def main() -> None:
    """Measure, print and write."""
    found = {name: measured(*asked) for name, asked in SETS.items()}
    Path(__file__).with_name("refit.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, own in found.items():
        for model, (mean, apart, error) in own.items():
            print(f"{name:14s} {model:20s} {mean:8.4f}  {apart:+.4f} ± {error:.4f}")


def measured(load: Callable[..., Any], metric: str, times: int) -> dict[str, list[float]]:
    """Give each model's mean score, how much it is above the ensemble's, and the standard error of that."""
    X, y = load(return_X_y=True)
    frame = pl.DataFrame({f"x{i}": c for i, c in enumerate(X.T)} | {"y": y})
    each = [scores(frame, metric, n) for n in range(times)]
    table = {name: np.array([own[name] for own in each]) for name in each[0]}
    apart = {name: own - table["ensemble"] for name, own in table.items()}
    return {
        name: [float(own.mean()), float(apart[name].mean()), float(apart[name].std(ddof=1) / times**0.5)]
        for name, own in table.items()
    }


def scores(frame: pl.DataFrame, metric: str, number: int) -> dict[str, float]:
    """Hold a third of the rows out, and score on them what was learned from the others."""
    order = np.random.default_rng(number).permutation(frame.height)
    held, learned = frame[order[: frame.height // 3].tolist()], frame[order[frame.height // 3 :].tolist()]
    kinds = dict.fromkeys(frame.columns[:-1], "number")
    task: dict[str, Any] = {"task": "regression", "log_target": False} if metric == "rmse" else {}
    study = foldwise.fit(
        learned, target="y", metric=metric, search=SEARCH, seed=10 * number, columns=kinds, **task
    )
    said = member_outputs(study, held, None)
    found = {
        "ensemble": score(study, said, held),
        "one fold member": alone(study, said, held),
    }
    winner = study.results[0]
    by_fold = study.folds.train.sum(axis=1).tolist()
    same = {
        "steps": settings_on_all(winner.settings, winner.epoch, by_fold, learned.height),
        "epochs": (winner.settings, winner.epoch),
    }
    assert study.table is not None
    for name, (settings, until) in same.items():
        seeds = range(10 * number, 10 * number + SEEDS)
        refit = train_on_all(study.table, settings, seeds, Means(), until=until)
        said = outputs_of(refit.models, [*range(SEEDS)], refit, study.columns.encode(held), study.task, None)
        found[f"same {name}, 1 seed"] = alone(study, said, held)
        for count in (3, SEEDS):
            found[f"same {name}, {count} seeds"] = score(study, said[:count], held)
    return found


def alone(study: Study, said: Tensor, held: pl.DataFrame) -> float:
    """Average the scores of networks, each by itself."""
    return float(np.mean([score(study, said[i : i + 1], held) for i in range(len(said))]))


def score(study: Study, said: Tensor, held: pl.DataFrame) -> float:
    """Score networks together."""
    targets = torch.tensor(study.task.encode(held))
    losses = study.metric.per_row(combined_outputs(said, study.task), targets, study.task)
    return study.metric.finish(float(losses.double().mean()))


if __name__ == "__main__":
    main()
