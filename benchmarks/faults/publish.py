"""The figures of the fault benchmark as a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.render import grid
from foldwise.errors import percent

PAGE = Path(__file__).parents[2] / "docs" / "checks-measured.md"
RESULTS = Path(__file__).parents[1] / "results"
COST = """
## What they cost

Time with checks over time without, medians of pairs in turn, in brackets the middle half of the ratios; the training is
the same to the last bit. Of studies (`python -m benchmarks.faults.cost_of_fit`) it is the time until the findings are
there, without remedies, which are trainings of their own. Of loops (`python -m benchmarks.faults.cost`) it is that of
the processor in the `with` block; findings take a moment when they are asked for.
"""
HEAD = """# How often the checks are right

Written by `make bench-faults` from `benchmarks/results/faults.json`; what is planted is in `benchmarks/faults/`.

Each fault is planted in each task that it makes sense on, with {seeds} seeds. It counts where it hurts: over {hurt}
seeds the score on clean rows falls significantly and by half a deviation (Welch's test, p < 0.05), or what validation
claims is that much further above it; with fewer than three such seeds it is taken to hurt. Found means that an alarm
names a cause that the case accepts, as the first or among the first three; an alarm that has folded such a finding into
itself counts as well. A hint is no alarm, and is not counted. Remedies help when the corrected test over the folds says
so (p < 0.05); where the right remedy makes the score honest instead of better, or can only be done by hand, they are
not counted. Steps are those after which the fault was first seen in training, the median.

Thresholds were chosen on {choose}. The other tasks were looked at in passing while checks were written, and cases of
both halves when checks were mended, with other seeds. All rows here were drawn with seeds that nobody had looked at,
but for one control of the first seed, of which one mend came.

Where a fault is not found there is mostly a hint, or nothing that tells it from a table that is hard: a tenth of wrong
labels, wrong numbers of a regression, and noise on all inputs look like rows that cannot be told apart; few rows are a
matter of fact, and a hint.
"""


def write(figures: Mapping[str, Any], choose: tuple[str, ...]) -> None:
    """Write the page."""
    seeds, hurt = (_between(*figures["seeds"][kind]) for kind in ("run", "hurt"))
    head = HEAD.format(seeds=seeds, hurt=hurt, choose=" and ".join(choose))
    parts = [head, "## In short\n", _halves(figures["halves"]), "\n## Faults\n", _faults(figures["faults"])]
    parts += ["\n## Faults that do not hurt\n", _silent(figures["faults"])]
    parts += ["\n## Healthy controls\n", _controls(figures["controls"]), COST, _cost()]
    PAGE.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _between(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _halves(halves: Mapping[str, Any]) -> str:
    heads = ("tasks", "runs", "found first", "among three", "a remedy helps", "healthy runs", "with an alarm")
    names = {"choose": "on which thresholds were chosen", "report": "the others"}
    rows = [
        (
            names[half], f["runs"], _share(f["first"]), _share(f["recall"]), _share(f["helps"]), f["healthy"],
            "" if f["alarmed"] is None else percent(f['alarmed'], 1),
        )
        for half, f in halves.items()
    ]  # fmt: skip
    return grid(heads, rows)


def _faults(faults: Mapping[str, Any]) -> str:
    heads = ("fault", "hurts", "first", "among three", "steps", "a remedy helps", "alarms")
    rows = [
        (
            name, ", ".join(f["hurts"]), _share(f["first"]), _share(f["three"]),
            "" if f["steps"] is None else f"{f['steps']:.0f}", _share(f["helps"]), _codes(f["alarms"]),
        )
        for name, f in faults.items()
        if f["runs"]
    ]  # fmt: skip
    return grid(heads, rows)


def _silent(faults: Mapping[str, Any]) -> str:
    rows = [(name, ", ".join(f["silent"])) for name, f in faults.items() if f["silent"]]
    return grid(("fault", "on"), rows)


def _controls(controls: Mapping[str, Any]) -> str:
    rows = [(name, f["runs"], f["alarmed"], _codes(f["alarms"])) for name, f in controls.items()]
    return grid(("control", "runs", "with an alarm", "alarms"), rows)


def _cost() -> str:
    rows = [
        (f"a study, {name}", f"{own['foldwise']:.1f} s", _ratio(own))
        for name, own in json.loads((RESULTS / "cost_of_checks.json").read_text()).items()
    ]
    rows += [
        (f"`watch`, {name}", f"{own['step'] * 1e3:.2g} ms a step", _ratio(own))
        for name, own in json.loads((RESULTS / "cost_of_watch.json").read_text()).items()
        if name != "machine"
    ]
    return grid(("what", "without", "ratio"), rows)


def _ratio(own: Mapping[str, Any]) -> str:
    low, middle, high = np.quantile([a / b for a, b in own["pairs"]], [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _codes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {n}" for code, n in [*counts.items()][:4])


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)
