"""What checks cost a study: with them against without, in pairs, at three sizes and in both engines.

python -m benchmarks.faults.cost_of_fit
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import foldwise
from benchmarks.measure import alternate, timed
from foldwise.terminal import Display

RESULTS = Path(__file__).parents[1] / "results" / "cost_of_checks.json"
PAIRS = {"small": 15, "medium": 9, "large": 5}
# rows, features, trials, epochs
SIZES: dict[str, tuple[int, int, int, int]] = {
    "small": (1000, 10, 4, 20),
    "medium": (4000, 30, 16, 30),
    "large": (20000, 50, 24, 30),
}


def drawn(rows: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a healthy table: a smooth function of some features, with noise."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, features))
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.5 * x[:, 3] + 0.3 * random.normal(size=rows)
    return x, y


def study_of(size: str, engine: str, checks: bool) -> foldwise.Study:
    """Train a study; remedies are left out, because they are trainings of their own."""
    rows, features, trials, epochs = SIZES[size]
    search = {
        "width": 32,
        "depth": 2,
        "epochs": epochs,
        "learning_rate": np.geomspace(5e-4, 5e-3, trials).tolist(),
    }
    x, y = drawn(rows, features)
    return foldwise.fit(
        x, y, search=search, engine=engine, folds=5, checks=checks, remedies=False, display=Display()
    )


def run() -> dict[str, Any]:
    """Measure, and refuse studies that differ."""
    found: dict[str, Any] = {}
    for engine in ("resident", "stacked"):
        for size in SIZES if engine == "resident" else ("small", "medium"):
            last: dict[bool, foldwise.Study] = {}

            def once(checks: bool, size: str = size, engine: str = engine, last: Any = last) -> float:
                return timed(lambda: last.__setitem__(checks, study_of(size, engine, checks)))

            once(True)
            found[f"{engine}, {size}"] = alternate(lambda: once(True), lambda: once(False), PAIRS[size])
            if not last[True].history.equals(last[False].history):
                raise AssertionError("checks changed the training")
            alarms = [f.code for f in last[True].findings if f.alarm]
            print(f"{engine}, {size}: {found[f'{engine}, {size}']['ratio']:.3f} {alarms}", flush=True)
    return found


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(run(), indent=1) + "\n")
