"""Every fault and every control on every task with several seeds: what is found, when, and what remedies do.

python -m benchmarks.faults.run [--quick] [--again] [--only NAME …]
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.faults import publish
from benchmarks.faults.case import Case, Outcome, Task, only_scores, plain, tasks
from foldwise.errors import percent

AREAS = ("data", "network", "training", "loops")
CHOOSE, REPORT = ("abalone", "spambase"), ("california", "phoneme", "digits")
FIRST_SEEDS = {"run": 24, "hurt": 21}  # those before were looked at while checks were written and mended
SEEDS, HURT_SEEDS = 3, 10
RESULTS = Path(__file__).parents[1] / "results"
SIGNIFICANT, LEAST_EFFECT = 0.05, 0.5  # p-value, and Cohen's d, of a fault that hurts


def cases() -> dict[str, tuple[str, bool, Case]]:
    """Collect all cases: by name, the area and whether it is a fault."""
    found: dict[str, tuple[str, bool, Case]] = {}
    for area in AREAS:
        module = importlib.import_module(f"benchmarks.faults.{area}")
        for fault, own in ((True, module.FAULTS), (False, module.CONTROLS)):
            found |= {f"{area}: {case.name}": (area, fault, case) for case in own}
    return found


def examined(name: str, task: str, seed: int) -> dict[str, Any]:
    """Run a case once with all checks, and write down what was found."""
    _, fault, case = cases()[name]
    started = time.perf_counter()
    try:
        outcome = case.run(tasks(seed)[task], seed)
    except Exception:
        return {
            "case": name,
            "task": task,
            "seed": seed,
            "kind": "run",
            "error": traceback.format_exc(limit=-3),
        }
    return {
        "case": name,
        "task": task,
        "seed": seed,
        "kind": "run",
        "seconds": time.perf_counter() - started,
        "score": _number(outcome.score),
        "claimed": _number(outcome.claimed),
        **(_judged(case, outcome) if fault else {}),
        "alarms": [f.code for f in outcome.findings if f.alarm],
        "hints": [f.code for f in outcome.findings if not f.alarm],
    }


def _judged(case: Case, outcome: Outcome) -> dict[str, Any]:
    alarms = [f for f in outcome.findings if f.alarm]
    right = next((n for n, f in enumerate(alarms) if {f.code, *f.symptoms} & {*case.causes}), None)
    first = next((n for n, f in enumerate(alarms) if f.code in case.causes), None)
    place = first if first is not None else right
    finding = None if place is None else alarms[place]
    return {
        "place": place,
        "step": None if finding is None else finding.step,
        # remedies that make a score honest are not meant to help
        "tried": 0 if finding is None else sum(t.aim == "better" for t in finding.tried),
        "helps": finding is not None and any(t.helps for t in finding.tried),
    }


def hurting(name: str, task: str, seed: int) -> dict[str, Any]:
    """Score a case and its healthy twin, without checks."""
    _, _, case = cases()[name]
    given = tasks(seed)[task]
    try:
        with only_scores():
            ill, well = case.run(given, seed), _healthy(case.healthy or plain, given, seed)
    except Exception:
        return {
            "case": name,
            "task": task,
            "seed": seed,
            "kind": "hurt",
            "error": traceback.format_exc(limit=-3),
        }
    return {
        "case": name, "task": task, "seed": seed, "kind": "hurt",
        "ill": [_number(ill.score), _number(ill.claimed)],
        "well": [_number(well.score), _number(well.claimed)],
    }  # fmt: skip


_twins: dict[tuple[Callable[[Task, int], Outcome], str, int], Outcome] = {}


def _healthy(run: Callable[[Task, int], Outcome], task: Task, seed: int) -> Outcome:
    """Run a healthy twin once for all the faults that share it."""
    key = (run, task.name, seed)
    if key not in _twins:
        _twins[key] = run(task, seed)
    return _twins[key]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def hurts(found: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a fault hurts a task: scores on clean rows fall, or what validation claims is further above them.

    As in DeepCrime (Humbatova, Jahangirova & Tonella 2021): a significant difference, of at least half a deviation. A
    run that diverged scores as badly as the worst.
    """
    pairs = [(one["ill"], one["well"]) for one in found if "ill" in one]
    if len(pairs) < 3:
        return True
    score = np.array([[_or_worst(ill[0]), _or_worst(well[0])] for ill, well in pairs])
    if _worse(score[:, 0], score[:, 1]):
        return True
    gap = np.array(
        [[(own[1] or 0) - _or_worst(own[0]) if own[1] is not None else 0.0 for own in pair] for pair in pairs]
    )
    return _worse(-gap[:, 0], -gap[:, 1])


def _or_worst(score: float | None) -> float:
    return -1.0 if score is None else max(score, -1.0)


def _worse(ill: np.ndarray, well: np.ndarray) -> bool:
    spread = math.sqrt((ill.var(ddof=1) + well.var(ddof=1)) / 2)
    if spread == 0:
        return bool(ill.mean() < well.mean())
    p = stats.ttest_ind(ill, well, equal_var=False, alternative="less").pvalue
    return bool(p < SIGNIFICANT and (well.mean() - ill.mean()) / spread >= LEAST_EFFECT)


def run(
    quick: bool, again: bool, only: Sequence[str], seeds: int = SEEDS, hurt_seeds: int = HURT_SEEDS
) -> dict[str, Any]:
    """Run what is not on record yet; every result is written down at once, so that a run may be stopped."""
    file = RESULTS / "parts" / f"faults{'-quick' if quick else ''}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if again:
        file.unlink(missing_ok=True)
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(f["kind"], f["case"], f["task"], f["seed"]) for f in found}
    asked = [one for one in _asked(quick, seeds, hurt_seeds) if one not in done and _wanted(one[1], only)]
    cores = len(os.sched_getaffinity(0))
    work = {"run": examined, "hurt": hurting}
    with (
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _alone) as pool,
        file.open("a") as kept,
    ):
        futures = [pool.submit(work[kind], *given) for kind, *given in asked]
        for future in as_completed(futures):
            found.append(future.result())
            kept.write(json.dumps(found[-1]) + "\n")
            kept.flush()
    return summed(found)


def _alone() -> None:
    import torch

    torch.set_num_threads(1)


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(part in name for part in only)


def _asked(quick: bool, seeds: int, hurt_seeds: int) -> Iterable[tuple[str, str, str, int]]:
    seeds, hurt_seeds = (1, 0) if quick else (seeds, hurt_seeds)
    there = tasks(0)
    every = [name for name in (*REPORT, *CHOOSE) if name in there][: 1 if quick else None]
    for kind, count in (("run", seeds), ("hurt", hurt_seeds)):
        first = FIRST_SEEDS[kind]
        for seed in range(first, first + count):
            for name, (_, fault, case) in cases().items():
                if kind == "run" or fault:
                    yield from ((kind, name, t, seed) for t in [t for t in case.tasks if t in there] or every)


def summed(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up, for the half of the tasks on which thresholds were chosen, and for the other."""
    known = cases()
    faults = {name: _of_fault(name, found) for name, (_, fault, _) in known.items() if fault}
    controls = {name: _of_control(name, found) for name, (_, fault, _) in known.items() if not fault}
    return {
        "seeds": {kind: _seeds(kind, found) for kind in ("run", "hurt")},
        "faults": faults,
        "controls": controls,
        "errors": [f for f in found if "error" in f],
        "halves": {
            half: _totals([f for f in found if f["task"] in own], known)
            for half, own in (("choose", CHOOSE), ("report", REPORT))
        },
    }


def _seeds(kind: str, found: Sequence[dict[str, Any]]) -> list[int]:
    """Give the least and the largest number of seeds with which a case was run on a task."""
    counts: dict[tuple[str, str], int] = {}
    for one in found:
        if one["kind"] == kind:
            counts[one["case"], one["task"]] = counts.get((one["case"], one["task"]), 0) + 1
    return [min(counts.values(), default=0), max(counts.values(), default=0)]


def _runs(name: str, found: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [f for f in found if f["case"] == name and f["kind"] == kind and "error" not in f]


def _hurt_tasks(name: str, found: Sequence[dict[str, Any]]) -> set[str]:
    tasks_of = {f["task"] for f in found if f["case"] == name}
    return {t for t in tasks_of if hurts([f for f in _runs(name, found, "hurt") if f["task"] == t])}


def _of_fault(name: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    hurt = _hurt_tasks(name, found)
    runs = _runs(name, found, "run")
    own = [f for f in runs if f["task"] in hurt]
    steps = [f["step"] for f in own if f.get("step") is not None]
    helped = [f for f in own if f["place"] is not None and f["place"] < 3 and f["tried"]]
    return {
        "hurts": sorted(hurt),
        "silent": sorted({f["task"] for f in runs} - hurt),
        "runs": len(own),
        "first": _share([f["place"] == 0 for f in own]),
        "three": _share([f["place"] is not None and f["place"] < 3 for f in own]),
        "steps": float(np.median(steps)) if steps else None,
        "helps": _share([f["helps"] for f in helped]),
        "alarms": _counted(code for f in own for code in f["alarms"]),
    }


def _of_control(name: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    runs = _runs(name, found, "run")
    return {
        "runs": len(runs),
        "alarmed": sum(bool(f["alarms"]) for f in runs),
        "alarms": _counted(code for f in runs for code in f["alarms"]),
    }


def _totals(found: Sequence[dict[str, Any]], known: dict[str, tuple[str, bool, Case]]) -> dict[str, Any]:
    own, healthy = [], []
    for name, (_, fault, _) in known.items():
        runs = _runs(name, found, "run")
        if fault:
            hurt = _hurt_tasks(name, found)
            own += [f for f in runs if f["task"] in hurt]
        else:
            healthy += runs
    right = [f for f in own if f["place"] is not None and f["place"] < 3]
    return {
        "runs": len(own),
        "recall": _share([f["place"] is not None and f["place"] < 3 for f in own]),
        "first": _share([f["place"] == 0 for f in own]),
        "helps": _share([f["helps"] for f in right if f["tried"]]),
        "healthy": len(healthy),
        "alarmed": _share([bool(f["alarms"]) for f in healthy]),
    }


def _share(of: Sequence[bool]) -> float | None:
    return float(np.mean(of)) if of else None


def _counted(codes: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def main() -> None:
    """Run, write the figures down, and print a short table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task and one seed")
    parser.add_argument("--again", action="store_true", help="forget what is on record")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each case")
    parser.add_argument("--hurt-seeds", type=int, default=HURT_SEEDS, help="to see whether a fault hurts")
    parser.add_argument(
        "--on-record", action="store_true", help="run nothing more, and publish what is on record"
    )
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name holds one of these")
    given = parser.parse_args()
    seeds, hurt_seeds = (0, 0) if given.on_record else (given.seeds, given.hurt_seeds)
    figures = run(given.quick, given.again, given.only, seeds, hurt_seeds)
    whole = given.on_record or (seeds, hurt_seeds) == (SEEDS, HURT_SEEDS)
    if not given.quick and not given.only and whole:
        (RESULTS / "faults.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False))
        publish.write(figures, CHOOSE)
    for name, own in figures["faults"].items():
        if own["runs"]:
            print(
                f"{name:50} {percent(own['first'])} first, {percent(own['three'])} in three, {own['alarms']}"
            )
        elif own["silent"]:
            print(f"{name:50} does not hurt")
    for name, own in figures["controls"].items():
        print(f"{name:50} {own['alarmed']} of {own['runs']} alarmed {own['alarms'] or ''}")
    for one in figures["errors"]:
        print(f"{one['case']} on {one['task']} failed: {one['error'].splitlines()[-1]}")
    print(json.dumps(figures["halves"], indent=1))


if __name__ == "__main__":
    main()
