"""How time and memory grow with members, rows and width."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import plain
from benchmarks.engine.networks import W2
from benchmarks.engine.peer import World
from benchmarks.measure import CORES, alternate, timed
from benchmarks.render import Line, grid, micro, ratio
from benchmarks.subject import Network, build

METHOD = """The network 20-64-64-10 with batch 32, and one of members, rows and width changed at a time (256 training
rows and 100 members where not said). Microseconds per member and step: median over pairs of epochs in turn with a
plain PyTorch loop (fused Adam, one thread, two members, as many steps as foldwise but at most 1000; one member more
takes as long again).
Memory: what the engine says before it trains, and by how much the resident memory of a fresh process grows at its
peak through building and two epochs, with validation and the best of each member kept as in a study."""
BASE = {"members": 100, "training_rows": 256, "width": 64}
AXES = {
    "members": (1, 10, 100, 1_000, 10_000),
    "training_rows": (1_024, 10_240, 102_400, 1_024_000),
    "width": (8, 32, 128, 512, 1_024),
}
SMALLER = {"training_rows": {"members": 10}, "width": {"members": 20}}


def point(axis: str, value: int) -> tuple[Network, dict[str, int]]:
    """Give the network, and what `build` is to be told."""
    asked = {**BASE, **SMALLER.get(axis, {}), axis: value}
    return replace(W2, width=asked.pop("width")), asked


def time_of(network: Network, asked: dict[str, int], pairs: int) -> dict[str, Any]:
    """Measure epochs in pairs with the plain loop."""
    torch.set_num_threads(CORES)
    subject = build(network, **asked)
    loop = plain.Plain(World.of(subject).part(2), 1, fused=True)
    batches = subject.batches(1)[:2, :1_000]

    def theirs() -> float:
        return timed(lambda: loop.epoch(batches), batches.shape[0] * batches.shape[1])

    def ours() -> float:
        torch.set_num_threads(CORES)
        return timed(subject.epoch, subject.members * subject.steps)

    theirs(), ours()
    return alternate(theirs, ours, pairs)


def memory_of(axis: str, value: int) -> dict[str, int]:
    """Measure memory in a process of its own."""
    command = [sys.executable, "-m", __name__, axis, str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def grown(axis: str, value: int) -> dict[str, int]:
    """Tell predicted and measured bytes; the peak is counted from where the process stands after a small stack."""
    build(W2, 2, 256).study(1)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    network, asked = point(axis, value)
    subject = build(network, **asked)
    subject.study(2)
    return {"predicted": subject.bytes, "measured": _resident("VmHWM") - before}


def _resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def run(quick: bool) -> dict[str, Any]:
    """Measure along each axis."""
    found: dict[str, Any] = {}
    for axis, values in AXES.items():
        found[axis] = {}
        for value in values[:2] if quick else values:
            times = time_of(*point(axis, value), pairs=1 if quick else 5)
            found[axis][str(value)] = {**times, **memory_of(axis, value)}
            print(axis, value, flush=True)
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out an axis after the other."""
    heads = ("foldwise, µs", "plain loop, µs", "ratio", "memory said", "memory measured")
    parts = [
        grid((axis.replace("_", " "), *heads), [_cells(value, f) for value, f in values.items()])
        for axis, values in figures.items()
    ]
    return "\n\n".join(parts)


def _cells(value: str, f: dict[str, Any]) -> tuple[str, ...]:
    memory = (_mib(f["predicted"]), _mib(f["measured"]))
    return f"{int(value):,}", micro(f["foldwise"]), micro(f["peer"]), ratio(f), *memory


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show one member, where there is nothing to share, and the most members."""
    by_members = figures["members"]
    ends = (min(by_members, key=int), max(by_members, key=int))
    what = "a training step, 20-64-64-10, members:"
    return [Line(f"{what} {int(n):,}", "plain", f"{ratio(by_members[n])} as fast") for n in ends]


if __name__ == "__main__":
    print(json.dumps(grown(sys.argv[1], int(sys.argv[2]))))
