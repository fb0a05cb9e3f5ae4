"""What the page shows, as plain values taken from a study."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from foldwise.judge.importance import Importance, SettingImportance, importance, values_of
from foldwise.judge.nested import Nested
from foldwise.judge.verdict import TrialResult, decimals
from foldwise.plans.course import cut_short
from foldwise.report.faults import findings_of

if TYPE_CHECKING:
    from foldwise.store.answers import Answer
    from foldwise.study import Study


def content_of(study: Study, live: bool = False) -> dict[str, Any]:
    """Collect everything that the page shows; NaN becomes None."""
    headline, metric = study.headline_result, study.metric
    curves = _curves(study.outer_history)
    return {
        "title": " and ".join(study.task.targets),
        "headline": {
            "sentence": headline.sentence,
            "doubt": None if live else study.doubt or None,
            "how": headline.how,
            "metric": metric.label,
            "lower_is_better": not metric.higher_is_better,
            **{n: _known(getattr(headline, n)) for n in ("value", "low", "high")},
        },
        "facts": _facts(study),
        "warnings": study.warnings,
        "findings": None if live else findings_of(study),
        "looks": None if study.looks is None else asdict(study.looks),
        "linear": None if study.linear is None else asdict(study.linear),
        "trials": [_trial(r, curves.get(r.number)) for r in study.results],
        "curve_label": f"training loss ({study.results[0].settings.loss.replace('_', ' ')})",
        "fold_names": [f"fold {f + 1}" for f in range(len(study.folds))],
        # half-trained scores would say more about the order of training than about the settings
        "importance": None if live else importance_of(importance(study.results, metric.higher_is_better)),
        "belief": None if live else belief_of(study),
        "nested": _nested(study.nested, study.results),
        "outcome": study.outcome,
        "answers": [_answer(answer) for answer in study.answers.values()],
        "worst_rows": study.worst_rows,
        "worst_on_log": study.task.log,
        "columns": [
            {n: c[n] for n in ("name", "kind", "role", "dtype", "missing", "distinct", "levels", "use")}
            for c in study.columns.to_dict()["columns"]
        ],
        "environment": study.environment,
        "command": study.command,
        "run": None if study.folder is None else str(study.folder),
        "live": live,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "name": answer.question.replace("_", " "),
        "sentence": answer.sentence,
        "how": answer.how,
        "look": answer.look,
        "picture": asdict(answer.picture),
    }


def _facts(study: Study) -> list[list[str]]:
    s = study.plan_summary
    facts = [
        ["task", f"{study.task.kind}{' on the logarithm' if study.task.log else ''}"],
        ["rows", f"{s.rows:,}"],
        ["features", f"{s.features:,}"],
        ["trials", str(len(study.plan.trials))],
        ["validation", study.folds.how + (f"; {s.nested} folds inside them" if s.nested else "")],
        ["seeds", str(s.seeds)],
        ["members trained", f"{len(study.plan.trials) * len(study.plan.seeds) * (s.folds + s.nested):,}"],
        ["engine", s.engine],
    ]
    if study.account.sentence:
        facts += [["search", study.account.how], ["stopped", study.account.sentence]]
    if s.sealed:
        facts.append(["sealed test rows", f"{s.sealed:,}, {_opened(study.openings)}"])
    if (final := study.final) is not None:
        facts.append(["final model", final.sentence])
    return facts


def _nested(nested: Nested | None, results: Iterable[TrialResult]) -> dict[str, Any] | None:
    """Lay out what was chosen inside each outer fold, and its scores."""
    if nested is None:
        return None
    place = {r.number: r.place for r in results}
    return {
        "sentence": nested.sentence,
        "choices": [
            {
                **{n: getattr(c, n) for n in ("fold", "trial", "name", "epoch")},
                **{n: _known(getattr(c, n)) for n in ("inner", "outer")},
                "place": place[c.trial],
            }
            for c in nested.choices
        ],
    }


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
        "recommended": r.recommended,
        "status": r.status,
        "cut": cut_short(r.status),
        "curve": curve,
    }


PARTS = {"setting": "settings", "fold": "folds", "seed": "seeds", "rest": "settings × folds"}


def belief_of(study: Study) -> dict[str, Any]:
    """Lay out how far the headline and predictions can be believed: luck, variance, calibration, intervals."""
    luck, headline, split, found = study.luck, study.headline_result, study.variance, study.calibration
    constant = next((r.score for r in study.results if r.settings.network == "constant"), math.nan)
    parts = PARTS if split is None or split.seed is not None else PARTS | {"rest": "seed and rest"}
    return {
        "luck": luck
        and {
            "sentence": study.luck_sentence,
            **{n: _known(v) for n, v in (("raw", luck.raw), ("value", luck.value), ("constant", constant))},
            **{n: _known(getattr(headline, n)) for n in ("low", "high")},
        },
        "variance": split
        and study.variance_sentence
        and {
            "sentence": study.variance_sentence,
            "parts": [[parts[name], _known(share)] for name, share in split.shares.items()],
        },
        "calibration": found
        and {
            "sentence": found.sentence,
            "corrected": found.method != "none",
            **{
                n: [[b.said, b.true, b.low, b.high, b.rows] for b in getattr(found, n)]
                for n in ("before", "after")
            },
        },
        "sureness": study.sureness and asdict(study.sureness),
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
