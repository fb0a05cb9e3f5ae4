"""Successive halving: how good is its best trial, and how much of the work does it do?"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.datasets import make_classification

import foldwise
from benchmarks.measure import CORES, Missing, timed
from benchmarks.render import Line, grid, share
from foldwise.terminal import Display

METHOD = """27 trials (9 learning rates × 3 widths), 5 folds, 27 epochs, on five sets: the full grid, and the same with
`halving=3`. The score is that of the trial that each chose, over all rows out of fold, not corrected for the choice
(which is the same for both); accuracy, or RMSE for diabetes. Work is member-epochs, counted in the studies' histories
without the baselines. Equal results: the chosen trial, where both chose the same, has the same score."""
GOAL = 0.30
SETS = ("digits", "breast_cancer", "wine", "diabetes", "generated")
EPOCHS = 27


def data_of(name: str) -> dict[str, Any]:
    """Say where the rows of a set come from, as `fit` is told."""
    if name != "generated":
        return {"example": name}
    X, y = make_classification(
        2_000, 20, n_informative=8, n_classes=4, flip_y=0.1, class_sep=0.8, random_state=0
    )
    return {"data": X, "y": y, "task": "multiclass"}


def search(quick: bool) -> dict[str, Any]:
    """Make the grid."""
    rates = np.geomspace(1e-4, 3e-2, 3 if quick else 9).tolist()
    return {"learning_rate": rates, "width": [16, 32, 64], "epochs": 9 if quick else EPOCHS, "dropout": 0.0}


def measured(name: str, quick: bool, **how: Any) -> dict[str, Any]:
    """Run one study and count."""
    last: dict[str, foldwise.Study] = {}
    given = {**data_of(name), "search": search(quick), "display": Display(), **how}
    seconds = timed(lambda: last.update(study=foldwise.fit(**given)))
    study = last["study"]
    searched = [n for n, s in enumerate(study.plan.trials, start=1) if s.network == "mlp"]
    best = study.leaderboard.filter(pl.col("trial").is_in(searched)).row(0, named=True)
    trained = study.history.filter((pl.col("epoch") > 0) & pl.col("trial").is_in(searched))
    return {
        "trial": best["trial"],
        "score": best["score"],
        "member_epochs": trained.height,
        "seconds": seconds,
    }


def run(quick: bool) -> dict[str, Any]:
    """Compare on every set."""
    if "halving" not in inspect.signature(foldwise.fit).parameters:
        raise Missing("foldwise.fit() has no `halving` yet")
    torch.set_num_threads(CORES)
    found = {}
    for name in SETS[2:3] if quick else SETS:
        full, halved = measured(name, quick), measured(name, quick, halving=3)
        found[name] = {
            "full": full,
            "halved": halved,
            "work": halved["member_epochs"] / full["member_epochs"],
            "time": halved["seconds"] / full["seconds"],
        }
        print(name, found[name], flush=True)
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out scores, work and time."""
    heads = ("set", "full grid", "halving", "same trial", "member-epochs", "time")
    rows = [
        (
            name,
            f"{f['full']['score']:.4g}",
            f"{f['halved']['score']:.4g}",
            "yes" if f["full"]["trial"] == f["halved"]["trial"] else "no",
            share(f["work"]),
            share(f["time"]),
        )
        for name, f in figures.items()
    ]
    return grid(heads, rows)


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show the largest share of the work, with its goal."""
    most = max(f["work"] for f in figures.values())
    scores = "; ".join(
        f"{n} {f['halved']['score']:.4g} / {f['full']['score']:.4g}" for n, f in figures.items()
    )
    what = f"halving, best score / that of the full grid: {scores}"
    return [
        Line(what, "the full grid", f"{share(most)} of the member-epochs", f"≤ {share(GOAL)}", most <= GOAL)
    ]
