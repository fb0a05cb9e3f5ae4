"""What the page shows, as plain values taken from a study."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from foldwise.judge.importance import Importance, SettingImportance, importance, values_of
from foldwise.judge.verdict import TrialResult, decimals
from foldwise.plans.course import cut_short

if TYPE_CHECKING:
    from foldwise.study import Study


def content_of(study: Study, live: bool = False) -> dict[str, Any]:
    """Collect everything that the page shows; NaN becomes None."""
    headline, metric = study.headline_result, study.metric
    curves = _curves(study.history)
    return {
        "title": " and ".join(study.task.targets),
        "headline": {
            "sentence": headline.sentence,
            "how": headline.how,
            "metric": metric.label,
            "lower_is_better": not metric.higher_is_better,
            **{n: _known(getattr(headline, n)) for n in ("value", "low", "high")},
        },
        "facts": _facts(study),
        "warnings": study.warnings,
        "trials": [_trial(r, curves.get(r.number)) for r in study.results],
        "curve_label": f"training loss ({study.results[0].settings.loss.replace('_', ' ')})",
        "fold_names": [f"fold {f + 1}" for f in range(len(study.folds))],
        # half-trained scores would say more about the order of training than about the settings
        "importance": None if live else importance_of(importance(study.results, metric.higher_is_better)),
        "outcome": study.outcome,
        "worst_rows": study.worst_rows,
        "columns": [
            {n: c[n] for n in ("name", "kind", "role", "dtype", "missing", "distinct", "levels", "use")}
            for c in study.columns.to_dict()["columns"]
        ],
        "environment": study.environment,
        "command": study.command,
        "run": None if study.folder is None else str(study.folder),
        "live": live,
    }


def _facts(study: Study) -> list[list[str]]:
    s = study.plan_summary
    facts = [
        ["task", f"{study.task.kind}{' on the logarithm' if study.task.log else ''}"],
        ["rows", f"{s.rows:,}"],
        ["features", f"{s.features:,}"],
        ["trials", str(len(study.plan.trials))],
        ["validation", study.folds.how],
        ["seeds", str(s.seeds)],
        ["members trained", f"{len(study.plan.members()):,}"],
        ["engine", s.engine],
    ]
    if study.account.sentence:
        facts += [["search", study.account.how], ["stopped", study.account.sentence]]
    if s.sealed:
        facts.append(["sealed test rows", f"{s.sealed:,}, {_opened(study.openings)}"])
    if (final := study.final) is not None:
        facts.append(["final model", final.sentence])
    return facts


def _opened(openings: list[dict[str, Any]]) -> str:
    """Say what the test rows showed when they were first opened, and how often they were."""
    if not openings:
        return "not opened"
    first = openings[0]
    digits = decimals(first["score"], first["low"], first["high"])
    of = " of the refit" if first.get("model") == "refit" else ""
    said = f"{first['metric']}{of} " + " ".join(
        (f"{first['score']:.{digits}f}", f"(95 % {first['low']:.{digits}f}–{first['high']:.{digits}f})")
    )
    return said if len(openings) == 1 else f"{said} at the first of {len(openings)} openings"


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _trial(r: TrialResult, curve: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "number": r.number,
        "name": r.name,
        "network": r.settings.network,
        "settings": values_of(r.settings),
        **{n: _known(getattr(r, n)) for n in ("score", "low", "high", "deviation")},
        "fold_scores": [_known(x) for x in r.fold_scores],
        "epoch": r.epoch,
        "epochs": r.settings.epochs,
        "place": r.place,
        "tied": r.tied,
        "status": r.status,
        "cut": cut_short(r.status),
        "curve": curve,
    }


def importance_of(found: Importance) -> dict[str, Any] | None:
    """Lay out which settings mattered; None when nothing varies between the trials."""
    if not found.settings:
        return None
    return {
        "best": _known(found.best),
        "edge": _known(found.edge),
        "trials": [
            {
                "number": r.number,
                "name": r.name,
                "score": _known(r.score),
                "deviation": _known(r.deviation),
                "place": r.place,
            }
            for r in found.trials
        ],
        "settings": [_setting(s) for s in found.settings],
    }


def _setting(s: SettingImportance) -> dict[str, Any]:
    return {
        **{
            n: getattr(s, n)
            for n in ("name", "numeric", "log", "share", "p_value", "verdict", "beyond_chance")
        },
        "values": list(s.values),
        "groups": [{"low": g.low, "high": g.high, "trials": g.trials, "mean": g.mean} for g in s.groups],
    }


def _curves(history: pl.DataFrame) -> dict[int, dict[str, Any]]:
    """Reduce members' curves to the median, least and most of each trial at each epoch from 1 on."""
    names = {"train": "training_loss", "validation": "validation_loss"}
    reduced = (
        history.filter(pl.col("epoch") > 0)
        .with_columns(pl.when(pl.col(c).is_finite()).then(pl.col(c)).alias(c) for c in names.values())
        .group_by("trial", "epoch")
        .agg(
            *(pl.col(c).median().alias(f"{n} median") for n, c in names.items()),
            *(pl.col(c).min().alias(f"{n} low") for n, c in names.items()),
            *(pl.col(c).max().alias(f"{n} high") for n, c in names.items()),
        )
        .sort("trial", "epoch")
    )
    curves = {}
    for (trial,), part in reduced.group_by("trial", maintain_order=True):
        curves[int(trial)] = {
            "epoch": part["epoch"].to_list(),
            **{n: {k: _rounded(part[f"{n} {k}"]) for k in ("median", "low", "high")} for n in names},
        }
    return curves


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    # five digits are more than a chart shows, and keep the page small
    return [None if v is None else float(f"{v:.5g}") for v in values]
