"""The run folder: a study as JSON, safetensors and Parquet. Nothing in it is ever unpickled."""

from __future__ import annotations

import io
import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load, save
from torch import Tensor

from foldwise.checks.series import Looks
from foldwise.data.columns import ColumnPlan
from foldwise.data.folds import Folds
from foldwise.data.table import Source
from foldwise.data.target import Task
from foldwise.data.weights import Weighting
from foldwise.engine.loop import PlanSummary
from foldwise.engine.predict import MODELS, Models, Refit
from foldwise.engine.rows import Constants
from foldwise.errors import StoreError
from foldwise.judge.calibrate import Calibration
from foldwise.judge.conformal import Sureness
from foldwise.judge.metrics import Metric, metric_called
from foldwise.judge.nested import Nested
from foldwise.judge.variance import Split
from foldwise.judge.verdict import Headline, TrialResult
from foldwise.linear import Linear
from foldwise.plans.plan import Member, Plan
from foldwise.plans.strategy import Account
from foldwise.settings import Settings
from foldwise.store.answers import FOLDER as ANSWERS
from foldwise.store.answers import write_answer
from foldwise.store.check import refuse_unfit
from foldwise.store.files import all_or_nothing, unfinished, write_atomically, write_text
from foldwise.store.findings import findings_as_plain, findings_from_plain
from foldwise.store.plain import DAMAGE, as_record, finite, reason

if TYPE_CHECKING:
    from foldwise.nets.build import Net
    from foldwise.study import Study

FORMAT = 1
TABLES = ("history.parquet", "predictions.parquet", "sealed.parquet")
FILES = ("study.json", "state.safetensors", *TABLES, "findings.json", "report.html", ANSWERS)


def write_study(study: Study, folder: Path) -> None:
    """Write all files or none, with the answers of the study; study.json comes last: a folder with it is complete."""
    with all_or_nothing(folder, FILES, last="study.json") as place:
        write_atomically(place / "state.safetensors", lambda p: p.write_bytes(save(_tensors(study))))
        _write_table(place / "history.parquet", study.history)
        _write_table(place / "predictions.parquet", study.predictions)
        if study.sealed is not None:
            _write_table(place / "sealed.parquet", study.sealed)
        _write_json(place / "findings.json", _found(study))
        for answer in study.answers.values():
            write_answer(answer, place)
        _write_json(place / "study.json", _described(study))


def write_findings(study: Study, folder: Path) -> None:
    """Write what checks found into a folder that has all the rest."""
    with all_or_nothing(folder, ("findings.json", "study.json"), last="study.json") as place:
        _write_json(place / "findings.json", _found(study))
        _recall_openings(study, folder)
        _write_json(place / "study.json", _described(study))


def _found(study: Study) -> dict[str, Any]:
    return {
        "warnings": study.warnings,
        "checked": study.checked,
        "findings": findings_as_plain(study.findings),
        "looks": None if study.looks is None else asdict(study.looks),
        "linear": None if study.linear is None else asdict(study.linear),
    }


def write_refit(study: Study, folder: Path) -> None:
    """Write what a refit changes: study.json, and the weights with those of the refit."""
    with all_or_nothing(folder, ("state.safetensors", "study.json"), last="study.json") as place:
        write_atomically(place / "state.safetensors", lambda p: p.write_bytes(save(_tensors(study))))
        _recall_openings(study, folder)
        _write_json(place / "study.json", _described(study))


def write_description(study: Study, folder: Path) -> None:
    """Write study.json alone: all that changes when the test rows are opened.

    The refit stays that of the folder, where its weights are: the same run, loaded elsewhere, may have got another.
    """
    described = _described(study)
    if (folder / "study.json").exists():
        _recall_openings(study, folder)
        stored = read_description(folder)
        described["openings"] = study.openings
        described |= {name: stored[name] for name in ("refit", "latency") if name in stored}
    _write_json(folder / "study.json", described)


def _recall_openings(study: Study, folder: Path) -> None:
    """Take up openings of the test rows that the same run, loaded elsewhere, has recorded meanwhile."""
    if (folder / "study.json").exists():
        own = {json.dumps(finite(o), sort_keys=True) for o in study.openings}
        known = [o for o in read_openings(folder) if json.dumps(finite(o), sort_keys=True) not in own]
        study.openings = sorted([*known, *study.openings], key=lambda o: o.get("when", ""))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False))


def _write_table(path: Path, table: pl.DataFrame) -> None:
    content = io.BytesIO()  # because polars takes only paths in UTF-8
    table.write_parquet(content)
    write_atomically(path, lambda p: p.write_bytes(content.getbuffer()))


def _read_table(path: Path) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(path.read_bytes()))


def _described(study: Study) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "headline": asdict(study.headline_result),
        "trials": [asdict(r) | {"settings": r.settings.model_dump()} for r in study.results],
        "metric": study.metric.name,
        "task": study.task.to_dict(),
        "columns": study.columns.to_dict(),
        "source": asdict(study.source),
        "plan": {
            "question": study.plan.question,
            "trials": [s.model_dump() for s in study.plan.trials],
            "folds": study.plan.folds,
            "seeds": list(study.plan.seeds),
            "how": study.folds.how,
        },
        "summary": asdict(study.plan_summary),
        "account": asdict(study.account),
        "stacks": [[[m.trial, m.fold, m.seed] for m in models.members] for models in study.models],
        "scalings": list(study.scalings),
        "bounded": study.constants.bounded,
        "nested": None if study.nested is None else asdict(study.nested),
        "outcome": study.outcome,
        "worst_rows": study.worst_rows,
        "warnings": study.warnings,
        "interrupted": study.interrupted,
        "openings": study.openings,
        "sealed": study.sealed is not None,
        "own_net": None if study.net is None else getattr(study.net, "__name__", type(study.net).__name__),
        "own_loss": None
        if study.loss is None
        else getattr(study.loss, "__name__", type(study.loss).__name__),
        "own_links": study.lacks_links or len(study.links) > 0,
        "environment": study.environment,
        "command": study.command,
        "weighting": asdict(study.weighting),
        "sureness": None if study.sureness is None else asdict(study.sureness),
        "variance": None if study.variance is None else asdict(study.variance),
        "calibration": None if study.calibration is None else asdict(study.calibration),
        "refit": None if study.refitted is None else _described_refit(study.refitted),
        "latency": study.latency,
    }


def _described_refit(refit: Refit) -> dict[str, Any]:
    return {
        "trial": refit.trial,
        "epochs": refit.epochs,
        "rows": refit.rows,
        "settings": refit.settings.model_dump(),
        "seeds": [m.seed for m in refit.models.members],
        "scalings": list(refit.scalings),
        "bounded": refit.constants.bounded,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _tensors(study: Study) -> dict[str, Tensor]:
    tensors = {f"prepare.{n}": getattr(study.constants, n) for n in ("fill", "shift", "scale", "bound")}
    tensors |= {
        "folds.train": torch.from_numpy(study.folds.train),
        "folds.validation": torch.from_numpy(study.folds.validation),
        "row": torch.from_numpy(study.row),
    }
    if study.targets is not None:
        tensors["targets"] = torch.tensor(study.targets)  # a copy: it may be read-only
    if study.target_scale is not None:
        tensors |= {"target.shift": study.target_scale[0], "target.scale": study.target_scale[1]}
    if study.weighting.of_rows:
        weights = {"weights": study.weights, "sealed.weights": study.sealed_weights}
        tensors |= {name: torch.from_numpy(own) for name, own in weights.items() if own is not None}
    for number, models in enumerate(study.models):
        tensors[f"stack{number}.parameters"] = models.parameters
        tensors |= {f"stack{number}.buffers.{name}": buffer for name, buffer in models.buffers.items()}
    if study.refitted is not None:
        tensors |= _refit_tensors(study.refitted)
    return {name: t.contiguous() for name, t in tensors.items()}


def _refit_tensors(refit: Refit) -> dict[str, Tensor]:
    tensors = {f"refit.prepare.{n}": getattr(refit.constants, n) for n in ("fill", "shift", "scale", "bound")}
    if refit.target_scale is not None:
        tensors |= {"refit.target.shift": refit.target_scale[0], "refit.target.scale": refit.target_scale[1]}
    tensors["refit.parameters"] = refit.models.parameters
    return tensors | {f"refit.buffers.{name}": buffer for name, buffer in refit.models.buffers.items()}


def read_study(folder: Path, net: Net | None) -> dict[str, Any]:
    """Read the fields of a study from its run folder.

    Raises StoreError when it is none, was written by a newer foldwise, or is damaged.
    """
    described = read_description(folder)
    needed = ["state.safetensors", "history.parquet", "predictions.parquet"]
    needed += ["sealed.parquet"] if described.get("sealed") else []
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise StoreError(f"the run {folder} lacks {' and '.join(missing)}.", hint="train it again")
    try:
        fields = _read_fields(folder, described)
        refuse_unfit(fields)
    except DAMAGE as error:
        raise StoreError(
            f"the run {folder} is damaged: {reason(error)}", hint="restore it from a copy, or train it again"
        ) from None
    # networks, losses and links of the user's own are code, which a run folder does not keep
    return fields | {"net": net, "loss": None, "links": (), "lacks_links": bool(described.get("own_links"))}


def _read_fields(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    tensors = load((folder / "state.safetensors").read_bytes())
    plan = as_record(Plan, described["plan"])
    sealed = _read_table(folder / "sealed.parquet") if described["sealed"] else None
    return {
        "task": as_record(Task, described["task"]),
        "columns": as_record(ColumnPlan, described["columns"]),
        "source": as_record(Source, described["source"]),
        "plan": plan,
        "plan_summary": as_record(PlanSummary, described["summary"]),
        # runs that say nothing of it were made when every trial trained to its end
        "account": as_record(Account, described.get("account", {})),
        "folds": Folds(
            tensors["folds.train"].numpy(),
            tensors["folds.validation"].numpy(),
            as_record(str, described["plan"]["how"]),
        ),
        "metric": _read_metric(described["metric"]),
        "results": [_read_trial(t) for t in described["trials"]],
        "headline_result": _read_headline(described["headline"]),
        "nested": _read_nested(described.get("nested")),
        "history": _read_table(folder / "history.parquet"),
        "predictions": _read_table(folder / "predictions.parquet"),
        "outcome": as_record(dict[str, Any], described["outcome"]),
        "worst_rows": as_record(list[dict[str, Any]], described["worst_rows"]),
        "models": _read_models(described, tensors, plan.trials),
        "constants": _read_constants(described, tensors),
        "scalings": as_record(tuple[str, ...], described["scalings"]),
        "target_scale": (tensors["target.shift"], tensors["target.scale"])
        if "target.shift" in tensors
        else None,
        "row": np.asarray(tensors["row"]),
        # runs without them were made before predictions had intervals
        "targets": tensors["targets"].numpy() if "targets" in tensors else None,
        "sureness": as_record(Sureness | None, described.get("sureness")),
        "variance": as_record(Split | None, described.get("variance")),
        "calibration": as_record(Calibration | None, described.get("calibration")),
        "sealed": sealed,
        "warnings": as_record(list[str], described["warnings"]),
        **_read_findings(folder / "findings.json", len(described["trials"])),
        "interrupted": as_record(bool, described["interrupted"]),
        "environment": as_record(dict[str, str], described["environment"]),
        "command": as_record(str, described["command"]),
        "openings": [_read_opening(o) for o in described["openings"]],
        **_read_weights(described, tensors, sealed),
        # runs that say nothing of it have none
        "refitted": _read_refit(described.get("refit"), tensors),
        "latency": _read_latency(described),
    }


def _read_findings(path: Path, trials: int) -> dict[str, Any]:
    """Read what the checks found and saw; runs that say nothing of it were made before there were any."""
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        "checked": as_record(bool, written.get("checked", False)),
        "findings": findings_from_plain(written.get("findings", []), trials),
        "looks": as_record(Looks | None, written.get("looks")),
        "linear": as_record(Linear | None, written.get("linear")),
    }


def _read_weights(
    described: dict[str, Any], tensors: dict[str, Tensor], sealed: pl.DataFrame | None
) -> dict[str, Any]:
    """Read how rows are weighted; runs that say nothing of it were made before there were weights."""
    weighting = as_record(Weighting, described.get("weighting", {}))

    def of(name: str, rows: int) -> np.ndarray:
        return tensors[name].numpy() if weighting.of_rows else np.ones(rows)

    return {
        "weighting": weighting,
        "weights": of("weights", len(tensors["row"])),
        "sealed_weights": None if sealed is None else of("sealed.weights", sealed.height),
    }


def read_description(folder: Path) -> dict[str, Any]:
    """Read study.json, as far as it must be readable; raises StoreError when there is none or it is damaged."""
    path = folder / "study.json"
    if not path.is_file():
        if unfinished(folder):
            raise StoreError(
                f"the run in {folder} is not finished.",
                hint=f"foldwise resume {shlex.quote(str(folder))} goes on with it",
            )
        near = " It is a file; name the folder that holds it." if folder.is_file() else ""
        raise StoreError(
            f"there is no run in {folder}: study.json is missing.{near}",
            hint="foldwise fit … --out FOLDER makes one",
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        number = described["format"]
        if type(number) is not int or number < 1:
            raise ValueError(f"its format is {number!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged: {error}", hint="restore it from a copy, or train it again"
        ) from None
    if number > FORMAT:
        raise StoreError(
            f"{path} has format {number}; this foldwise reads up to {FORMAT}.",
            hint="install the foldwise that wrote it, or newer",
        )
    return described


def _read_metric(name: str) -> Metric:
    found = metric_called(name)
    if found is None:
        raise ValueError(f"there is no metric {name!r}")
    return found


def _read_headline(stored: dict[str, Any]) -> Headline:
    return as_record(Headline, {**stored, **{n: _number(stored[n]) for n in ("value", "low", "high")}})


def _read_nested(stored: dict[str, Any] | None) -> Nested | None:
    if stored is None:
        return None
    choices = [{**c, **{n: _number(c[n]) for n in ("inner", "outer")}} for c in stored["choices"]]
    return as_record(Nested, {**stored, "choices": choices})


def read_openings(folder: Path) -> list[dict[str, Any]]:
    """Read the openings of the test rows alone; raises StoreError like `read_study`."""
    described = read_description(folder)
    try:
        return [_read_opening(o) for o in described["openings"]]
    except DAMAGE as error:
        raise StoreError(f"the run {folder} is damaged: {reason(error)}") from None


def _read_opening(stored: dict[str, Any]) -> dict[str, Any]:
    numbers = {n: _number(stored[n]) for n in ("score", "low", "high")}
    return {**stored, **numbers, "metric": as_record(str, stored["metric"])}


def _read_trial(stored: dict[str, Any]) -> TrialResult:
    numbers = {n: _number(stored[n]) for n in ("score", "low", "high", "deviation")}
    scores = [_number(x) for x in stored["fold_scores"]]
    return as_record(TrialResult, {**stored, **numbers, "fold_scores": scores})


def _read_constants(described: dict[str, Any], tensors: dict[str, Tensor]) -> Constants:
    return _constants(tensors, "prepare", described["bounded"])


def _constants(tensors: dict[str, Tensor], head: str, bounded: Any) -> Constants:
    fill, shift, scale, bound = (tensors[f"{head}.{n}"] for n in ("fill", "shift", "scale", "bound"))
    return Constants(fill, shift, scale, bound, bounded=bool(bounded))


def _read_refit(stored: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Refit | None:
    if stored is None:
        return None
    settings, seeds = as_record(Settings, stored["settings"]), as_record(list[int], stored["seeds"])
    trial, head = as_record(int, stored["trial"]), "refit.buffers."
    names = ("refit.target.shift", "refit.target.scale")
    return Refit(
        trial=trial,
        epochs=as_record(int, stored["epochs"]),
        rows=as_record(int, stored["rows"]),
        models=Models(
            [Member(trial - 1, 0, seed, settings) for seed in seeds],
            tensors["refit.parameters"],
            {name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)},
        ),
        constants=_constants(tensors, "refit.prepare", stored["bounded"]),
        scalings=as_record(tuple[str, ...], stored["scalings"]),
        target_scale=(tensors[names[0]], tensors[names[1]]) if names[0] in tensors else None,
    )


def _read_latency(described: dict[str, Any]) -> dict[str, tuple[float, float]]:
    latency = as_record(dict[str, tuple[float, float]], described.get("latency", {}))
    if described.get("refit") is not None and (lacking := [m for m in MODELS if m not in latency]):
        raise ValueError(f"it has a refit, and no latency of the {' and the '.join(lacking)}")
    return latency


def _read_models(
    described: dict[str, Any], tensors: dict[str, Tensor], trials: tuple[Settings, ...]
) -> list[Models]:
    models = []
    for number, members in enumerate(as_record(list[list[tuple[int, int, int]]], described["stacks"])):
        head = f"stack{number}.buffers."
        models.append(
            Models(
                [Member(trial, fold, seed, trials[trial]) for trial, fold, seed in members],
                tensors[f"stack{number}.parameters"],
                {name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)},
            )
        )
    return models
