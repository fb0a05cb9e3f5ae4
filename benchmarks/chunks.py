"""How many members should advance together: microseconds per member and step by chunk size.

    python benchmarks/chunks.py

One stack of 40 members per network, Adam, dropout 0.1; processor time of an epoch at each chunk size, median of 5,
sizes taking turns. `planned` is what the budget of bytes that a chunk may touch in a step (`CACHE_BYTES`) gives, which
short jobs take; `chosen` is what the engine takes after measuring, as before a long job.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foldwise.data.folds import make_folds
from foldwise.data.prepare import learn_preparation
from foldwise.engine.cohort import Cohort
from foldwise.engine.losses import LOSSES
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.rows import place_rows
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.plans.plan import Member
from foldwise.settings import Settings

SHAPES = [
    (10, 32, 2, 32),
    (64, 64, 10, 64),
    (64, 128, 10, 64),
    (100, 64, 2, 128),
    (100, 128, 2, 128),
    (100, 256, 2, 256),
]


CHUNKS = (1, 2, 4, 7, 10, 20, 40)


def engine(inputs: int, width: int, outputs: int, batch: int, chunk: int | None) -> StackedEngine:
    """Make a stack of 40 members on random rows."""
    random = np.random.default_rng(0)
    rows = batch * 20
    X, y = random.normal(size=(rows, inputs)), random.integers(0, outputs, rows)
    folds = make_folds(rows, 5)
    preparation = {"robust": learn_preparation(X, folds.train, np.ones(inputs, dtype=bool), "robust")}
    placed = place_rows(X, y, folds, preparation, None, device=torch.device("cpu"), dtype=torch.float32)
    settings = Settings(loss="cross_entropy", width=width, dropout=0.1, batch_size=batch, epochs=99)
    members = [Member(trial, fold, 0, settings) for trial in range(8) for fold in range(5)]
    cohort = Cohort(
        members, Nursery(placed, {"cross_entropy": outputs}), RowOrders(folds, placed.device),
        LOSSES["cross_entropy"],
    )  # fmt: skip
    return StackedEngine(cohort, chunk, compile="off")


def microseconds(made: StackedEngine) -> float:
    """Train an epoch; give the processor time per member and step."""
    places = list(range(len(made.cohort)))
    start = time.process_time()
    for _ in made.advance(made.parts(places)):
        pass
    taken = time.process_time() - start
    return taken / float(made.cohort.steps(places).sum()) * 1e6


def measured(shape: tuple[int, int, int, int], epochs: int = 5) -> dict[str, Any]:
    """Time every chunk size of a network."""
    engines = {chunk: engine(*shape, chunk) for chunk in CHUNKS}
    taken: dict[int, list[float]] = {chunk: [] for chunk in CHUNKS}
    for _ in range(1 + epochs):
        for chunk, made in engines.items():
            taken[chunk].append(microseconds(made))
    planned = engine(*shape, None)
    return {
        "shape": shape,
        "bytes": planned.bytes_per_member(),
        "planned": min(len(planned.cohort), planned._fitting_cache()),
        "chosen": len(planned.parts(range(len(planned.cohort)))[0]),
        "times": {chunk: round(statistics.median(times[1:]), 1) for chunk, times in taken.items()},
    }


def main() -> None:
    """Measure and write down."""
    torch.set_num_threads(1)
    found = []
    for shape in SHAPES:
        found.append(measured(shape))
        print(found[-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
