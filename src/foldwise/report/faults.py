"""What the page says of findings: a card each, with what was tried and what the check is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foldwise.checks import CHECKS
from foldwise.checks.explain import explain
from foldwise.checks.finding import Finding, Tried
from foldwise.checks.layers import called
from foldwise.checks.telling import SAID, advice, score, summary
from foldwise.report.numbers import significant

if TYPE_CHECKING:
    from foldwise.study import Study

MOST_PLACES = 8  # columns or layers named in a card


def findings_of(study: Study) -> dict[str, Any] | None:
    """Lay out what the checks found; None when none looked."""
    if not study.checked:
        return None
    return {
        "summary": summary(study.findings),
        "found": [_card(f) for f in study.findings],
    }


def _card(f: Finding) -> dict[str, Any]:
    named = [called(place) for place in f.where]
    where = [place for place in named if not _says(f.evidence, place)]
    told = explain(f.code) if f.code in CHECKS else None  # a run of another version may know others
    return {
        "code": f.code,
        "alarm": f.alarm,
        "sure": SAID[f.sure],
        "trials": list(f.trials),
        "evidence": f"{f.evidence[:1].upper()}{f.evidence[1:]}.",
        "where": where[:MOST_PLACES],
        "more": max(0, len(where) - MOST_PLACES),
        "step": f.step,
        "was": score(f.tried[0].before, f.tried[0].before_deviation) if f.tried else None,
        "tried": [_tried(t) for t in f.tried],
        "suggested": None if f.suggested is None else f.suggested.what,
        "advice": advice(f),
        "symptoms": list(dict.fromkeys(f.symptoms)),
        "what": None if told is None else told.what,
        "sections": [] if told is None else [[name, text] for name, text in told.sections.items()],
    }


def _says(text: str, name: str) -> bool:
    """Tell whether a text has a name as a whole, and not only within another one.

    >>> _says("of layer 10", "layer 1"), _says("of layer 1 (ReLU)", "layer 1"), _says("layer 1.weight", "layer 1")
    (False, True, False)
    """
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\.?\w)", text) is not None


def _tried(t: Tried) -> dict[str, Any]:
    paired = t.aim == "better" and t.p is not None
    return {
        "what": t.what,
        "after": score(t.after, t.after_deviation),
        "better": f"{t.better_in} of {t.folds}" if paired else None,
        "p": significant(t.p) if paired else None,
        "helps": "to believe"
        if t.aim == "honest"
        else "helps"
        if t.helps
        else "worse"
        if t.worse
        else "no gain",
        "good": t.helps,
    }


def known_findings(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Keep what a page can show of findings: those that have a code, alarms apart from hints."""
    if not given:
        return None
    found = [f for f in given.get("found") or [] if f.get("code")]
    return {
        "summary": given.get("summary"),
        "alarms": [f for f in found if f.get("alarm")],
        "paired": any(t.get("better") for f in found for t in f.get("tried") or []),
        "hints": [f for f in found if not f.get("alarm")],
    }
