"""Members that stop early must not cost what they no longer do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.measure import CORES, alternate, timed
from benchmarks.render import Line, grid, share
from benchmarks.studies.digits import NETWORK, fit, last_accuracies

METHOD = """The search on digits with 5 folds × 20 settings, once with 150 epochs for all, once with 30 epochs (20 %)
for 18 of the 20 settings (90 % of the members): 28 % of the work. Whole `foldwise.fit` calls in turn, after a first
one to warm up; the share is the median of pairs. Equal results: the two settings that train to the end have the
same accuracy in both, within 0.005 (their companions, and so the rounding of their float32 sums, may differ)."""
GOAL = 0.35
TRIALS, LONG = 20, 2
TOLERANCE = 0.005


def search(epochs: int, stopped: int) -> list[dict[str, Any]]:
    """Make trials; the last ones train to the end, the others to `stopped`."""
    rates = np.geomspace(1e-4, 3e-3, TRIALS).tolist()
    return [
        {**NETWORK, "learning_rate": rate, "epochs": epochs if place >= TRIALS - LONG else stopped}
        for place, rate in enumerate(rates)
    ]


def run(quick: bool) -> dict[str, Any]:
    """Measure full and stopped runs in turn."""
    torch.set_num_threads(CORES)
    epochs, stopped = (5, 1) if quick else (150, 30)
    last: dict[str, Any] = {}

    def full() -> float:
        return timed(lambda: last.update(full=fit(search(epochs, epochs))))

    def early() -> float:
        return timed(lambda: last.update(early=fit(search(epochs, stopped))))

    fit(search(1, 1))
    found = alternate(full, early, 1 if quick else 5)
    scores = [last_accuracies(last[name], epochs, LONG) for name in ("full", "early")]
    differs = float(np.abs(scores[0] - scores[1]).max())
    if differs > TOLERANCE:
        raise AssertionError(f"members that train to the end differ by {differs:.4f} in accuracy")
    work = (LONG * epochs + (TRIALS - LONG) * stopped) / (TRIALS * epochs)
    return {**found, "share": 1 / found["ratio"], "work": work, "accuracy_differs": differs}


def table(figures: dict[str, Any]) -> str:
    """Lay out seconds and shares."""
    f = figures
    spread = f"{share(f['share'])} ({share(1 / f['high'])}–{share(1 / f['low'])})"
    cells = (
        f"{f['peer']:.2f} s",
        f"{f['foldwise']:.2f} s",
        spread,
        share(f["work"]),
        f"{f['accuracy_differs']:.4f}",
    )
    return grid(
        ("all to the end", "90 % stop", "share of the time", "share of the work", "accuracy differs by"),
        [cells],
    )


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show the share, with its goal."""
    what, met = "a search of which 90 % stop at 20 % of the epochs", figures["share"] <= GOAL
    return [Line(what, "the full search", f"{share(figures['share'])} of the time", f"≤ {share(GOAL)}", met)]
