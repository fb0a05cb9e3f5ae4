"""What `foldwise.watch` costs a loop: its time with over that without, at three sizes, in pairs.

`python -m benchmarks.faults.cost` writes `benchmarks/results/cost_of_watch.json`. The time is that of the whole `with`
block, in seconds of the processor: a clock on the wall would also count what else the machine does, and one thread does
all the work. Asking for the findings comes once, after it, and is given apart, in seconds of the wall.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import foldwise
from benchmarks.measure import alternate, machine

RESULTS = Path(__file__).parents[1] / "results" / "cost_of_watch.json"
PAIRS = 25


@dataclass(frozen=True)
class Size:
    """A network with two hidden layers of a width, and a loop over rows in batches."""

    name: str
    features: int
    width: int
    batch: int
    rows: int
    epochs: int


SIZES = (
    Size("10-32-32-2, batch 32", 10, 32, 32, 600, 100),
    Size("64-128-128-10, batch 64", 64, 128, 64, 2000, 50),
    Size("784-512-512-10, batch 128", 784, 512, 128, 6400, 6),
)


def looped(size: Size, *, watched: bool) -> tuple[float, Any]:
    """Train, and give the seconds that it took, and the watch."""
    torch.manual_seed(0)
    outputs = 2 if size.features == 10 else 10
    net = nn.Sequential(
        nn.Linear(size.features, size.width), nn.ReLU(), nn.Linear(size.width, size.width), nn.ReLU(),
        nn.Linear(size.width, outputs),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x, y = torch.randn(size.rows, size.features), torch.randint(0, outputs, (size.rows,))
    watch: Any = foldwise.watch(net, optimizer, F.cross_entropy) if watched else contextlib.nullcontext()

    def train() -> None:
        with watch:
            for _ in range(size.epochs):
                for rows in torch.randperm(size.rows).split(size.batch):
                    loss = F.cross_entropy(net(x[rows]), y[rows])
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()

    start = time.process_time()
    train()
    return time.process_time() - start, watch


def measure() -> dict[str, Any]:
    """Measure all sizes."""
    found: dict[str, Any] = {"machine": machine()}
    for size in SIZES:
        looped(size, watched=True)
        both = alternate(
            lambda size=size: looped(size, watched=True)[0],
            lambda size=size: looped(size, watched=False)[0],
            PAIRS,
        )
        _, watch = looped(size, watched=True)
        began = time.perf_counter()
        findings = watch.findings
        found[size.name] = {
            "ratio": both["ratio"],
            "pairs": both["pairs"],
            "step": both["foldwise"] / (size.epochs * -(-size.rows // size.batch)),
            "findings_seconds": time.perf_counter() - began,
            "alarms": [f.code for f in findings if f.alarm],
        }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
