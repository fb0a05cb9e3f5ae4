"""How many members should advance together: microseconds per member and step by chunk size.

    python benchmarks/chunks.py

One stack of 40 members per network, Adam, dropout 0.1, one epoch at each chunk size, median of 5; the default that
foldwise would take is marked. The choice is a budget of bytes that a chunk may touch in a step.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from foldwise.data.folds import make_folds
from foldwise.data.prepare import learn_preparation
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
    return StackedEngine(
        members, Nursery(placed, {"cross_entropy": outputs}), RowOrders(folds, placed.device),
        LOSSES["cross_entropy"], chunk=chunk,
    )  # fmt: skip


def microseconds(made: StackedEngine, epochs: int = 5) -> float:
    """Time epochs, per member and step."""
    made.advance(1)
    taken = []
    for epoch in range(2, 2 + epochs):
        start = time.perf_counter()
        made.advance(epoch)
        taken.append(time.perf_counter() - start)
    steps = sum(math.ceil(n / made.batch_size) for n in made.lengths)
    return statistics.median(taken) / steps * 1e6


def main() -> None:
    """Measure and write down."""
    found = []
    for shape in SHAPES:
        default = engine(*shape, None)
        times = {chunk: round(microseconds(engine(*shape, chunk)), 1) for chunk in (1, 2, 4, 7, 10, 20, 40)}
        found.append(
            {"shape": shape, "bytes": default.bytes_per_member(), "default": default.chunk, "times": times}
        )
        print(found[-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
