"""Is the truth where the study says it is? Simulated studies with a known truth, and intervals on real rows."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.believing.simulate import CASES, LEVEL, REAL, covered, simulated
from benchmarks.defaults.sets import DATA
from benchmarks.measure import CORES
from benchmarks.render import Line, grid, share

METHOD = """Two classes, five normal features; 50 trials (widths, rates, dropouts drawn; 8 epochs) and the baselines,
5 folds. The class is a coin (noise), or follows from three (effect). The true score of a study is that of its
winner, the mean over the fold networks, on 50 000 fresh rows from the same source, as in the leaderboard. Shown
are how often the headline's 95 % interval holds it, the mean optimism of the score as it is (raw) and as the headline
corrects it, and the share of studies that claim to be better than the constant predictor (give no such warning). Real
sets: at most 500 rows are fitted, with 90 % intervals or sets for up to 2000 others, 20 times drawn anew."""
STUDIES, DRAWS = 300, 20
LEAST, MOST, FALSE_CLAIMS = 0.93, 0.97, 0.05
PARTS = Path(__file__).parents[1] / "results" / "parts"


def run(quick: bool) -> dict[str, Any]:
    """Run what is not on record yet; every result is written down at once, so that a run may be stopped."""
    studies, draws = (3, 1) if quick else (STUDIES, DRAWS)
    file = PARTS / f"coverage{'-quick' if quick else ''}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(f.get("case") or f["set"], f["seed"]) for f in found}
    # seeds first, so that what is there after a part of the time is a part of every case
    asked: list[tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]] = []
    asked += [
        (simulated, (case, seed)) for seed in range(studies) for case in CASES if (case, seed) not in done
    ]
    asked += [
        (covered, (name, seed, DATA))
        for seed in range(draws)
        for name in _there()
        if (name, seed) not in done
    ]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool, file.open("a") as kept:
        for future in as_completed([pool.submit(work, *given) for work, given in asked]):
            found.append(future.result())
            kept.write(json.dumps(found[-1]) + "\n")
            kept.flush()
    file.unlink()
    return {
        "simulated": {case: _summed([f for f in found if f.get("case") == case]) for case in CASES},
        "real": {name: _of_set([f for f in found if f.get("set") == name]) for name in _there()},
    }


def _there() -> list[str]:
    from benchmarks.defaults.sets import SETS

    return [name for name in REAL if name not in SETS or (DATA / SETS[name]["data"]).exists()]


def _summed(found: list[dict[str, Any]]) -> dict[str, Any]:
    own = {name: np.array([f[name] for f in found]) for name in ("true", "raw", "value", "low", "high")}
    inside = (own["low"] <= own["true"]) & (own["true"] <= own["high"])
    return {
        "studies": len(found),
        "covered": float(inside.mean()),
        "below": float((own["true"] < own["low"]).mean()),
        "width": float((own["high"] - own["low"]).mean()),
        "optimism_raw": float((own["raw"] - own["true"]).mean()),
        "optimism_corrected": float((own["value"] - own["true"]).mean()),
        "error_corrected": float((own["value"] - own["true"]).std()),
        "claims": float(np.mean([f["claims"] for f in found])),
        "bound": float(np.mean([f["bound"] for f in found])),
    }


def _of_set(found: Iterable[dict[str, Any]]) -> dict[str, float]:
    inside, size = ([f[name] for f in found] for name in ("covered", "size"))
    error = float(np.std(inside, ddof=1)) / math.sqrt(len(inside)) if len(inside) > 1 else math.inf
    return {
        "draws": len(inside),
        "covered": float(np.mean(inside)),
        "error": error,
        "size": float(np.mean(size)),
    }


def table(figures: dict[str, Any]) -> str:
    """Lay out both parts."""
    heads = (
        "case",
        "studies",
        "95 % interval covers",
        "width",
        "optimism, raw",
        "corrected",
        "claims a gain",
    )
    rows = [
        (case, f["studies"], f"{f['covered']:.1%}", f"{f['width']:.3f}", f"{f['optimism_raw']:+.3f}",
         f"{f['optimism_corrected']:+.3f}", f"{f['claims']:.1%}")
        for case, f in figures["simulated"].items()
    ]  # fmt: skip
    sets = [
        (name, f["draws"], f"{f['covered']:.1%} ± {f['error']:.1%}", f"{f['size']:.4g}")
        for name, f in figures["real"].items()
    ]
    heads2 = ("real set", "draws", f"{share(LEVEL)} intervals or sets cover", "width, or classes")
    return f"{grid(heads, rows)}\n\n{grid(heads2, sets)}"


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show the worst of each, with its goal."""
    cases, sets = figures["simulated"].values(), figures["real"].values()
    ends = min(f["covered"] for f in cases), max(f["covered"] for f in cases)
    false = max(f["claims"] for case, f in figures["simulated"].items() if case.startswith("noise"))
    lowest = min((f["covered"] for f in sets), default=math.nan)
    enough = all(f["covered"] + 2 * f["error"] >= LEVEL for f in sets)
    return [
        Line("95 % interval of the winner's score, simulated", "the truth", f"right in {ends[0]:.1%}–{ends[1]:.1%}",
             f"{share(LEAST)}–{share(MOST)}", ends[0] >= LEAST and ends[1] <= MOST),
        Line("claims of a gain where there is none", "the constant", share(false), f"≤ {share(FALSE_CLAIMS)}",
             false <= FALSE_CLAIMS),
        Line(f"{share(LEVEL)} intervals and sets on real sets", "the truth", f"right in {lowest:.1%} or more",
             f"≥ {share(LEVEL)} within noise", enough),
    ]  # fmt: skip
