"""How everything is measured: alternating pairs, the fastest of several variants, and what the machine was."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Seconds = Callable[[], float]
"""Does some work and gives the seconds that one unit of it took."""

CORES = os.cpu_count() or 1
PACKAGES = (
    "foldwise", "torch", "numba", "numpy", "scipy", "scikit-learn", "jax", "skorch", "lightning", "pytabkit",
)  # fmt: skip


class Missing(Exception):
    """What a benchmark needs is not here: a device, a package, or a part of foldwise that is still to come."""


def timed(work: Callable[[], object], units: float = 1) -> float:
    """Give the seconds per unit of a piece of work."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / units


def alternate(peer: Seconds, ours: Seconds, pairs: int) -> dict[str, Any]:
    """Measure peer, foldwise, peer, foldwise …: whatever slows the machine for a while slows both of a pair."""
    gc.collect()
    both = [(peer(), ours()) for _ in range(pairs)]
    ratios = [theirs / own for theirs, own in both]
    return {
        "peer": statistics.median(theirs for theirs, _ in both),
        "foldwise": statistics.median(own for _, own in both),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "pairs": both,
    }


def fastest(variants: Iterable[tuple[str, Seconds]], times: int = 2) -> tuple[str, dict[str, float]]:
    """Name the fastest variant, by the best of some runs after one to warm up; and give the times of all."""
    found: dict[str, float] = {}
    for name, seconds in variants:
        seconds()
        found[name] = min(seconds() for _ in range(times))
    return min(found, key=found.__getitem__), found


def machine() -> dict[str, Any]:
    """Describe what this runs on."""
    import threadpoolctl

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": CORES,
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "blas": sorted({
            f"{pool['internal_api']} {pool.get('version')} {pool.get('architecture', '')}".strip()
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"
        }),
        "load_before": os.getloadavg()[0],
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """List the versions of foldwise and its peers that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
