"""Findings as plain values, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from foldwise.checks.finding import Finding, Findings, Remedy, Tried
from foldwise.store.plain import as_record


def findings_as_plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Write findings down; of remedies their names, settings and options."""
    return [
        {
            **{name: getattr(f, name) for name in ("code", "sure", "evidence", "step")},
            **{name: list(getattr(f, name)) for name in ("trials", "where", "symptoms")},
            "remedies": [
                {"what": r.what, "settings": dict(r.settings), "aim": r.aim, "options": dict(r.options)}
                for r in f.remedies
            ],
            "tried": [asdict(t) for t in f.tried],
        }
        for f in findings
    ]


def findings_from_plain(written: Sequence[Mapping[str, Any]]) -> Findings:
    """Read what `findings_as_plain` wrote; raises what `as_record` raises for what is damaged."""
    found = Findings()
    for one in written:
        remedies = tuple(as_record(Remedy, r) for r in one["remedies"])
        tried = tuple(as_record(Tried, {**t, **_missing_scores(t)}) for t in one["tried"])
        lists = {name: tuple(one[name]) for name in ("trials", "where", "symptoms")}
        found.append(as_record(Finding, {**one, **lists, "remedies": remedies, "tried": tried}))
    return found


def _missing_scores(tried: Mapping[str, Any]) -> dict[str, float]:
    """Give the scores that are not there, which JSON has as null, back their NaN."""
    names = ("before", "after", "before_deviation", "after_deviation")
    return {name: math.nan for name in names if tried[name] is None}
