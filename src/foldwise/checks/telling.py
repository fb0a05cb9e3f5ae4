"""Findings in words, the same in the terminal, the report and Python."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from foldwise.checks import SEEMING
from foldwise.checks.finding import Finding, Tried
from foldwise.errors import listed
from foldwise.judge.verdict import decimals

MOST_TYPED = 3  # columns named in one option
SAID = {"sure": "sure", "likely": "likely", "hint": "a hint"}
MOST_HINTS = 5  # that are said; more are counted
GIVEN_AWAY = {
    "overlapping-folds": "folds learn from rows that they are scored on",
    "repeated-rows": "copies of the rows scored were learned from",
    "shared-groups": "rows that belong together are both learned from and scored on",
    "target-leak": "the answer can be read from {where}",
}
"""Alarms by which the score is not what rows of the future will give, and why."""


def heading(finding: Finding) -> str:
    """Name a finding, the trials that it concerns, and how sure it is.

    >>> heading(Finding("dead-units", "likely", "…", trials=(4, 9)))
    'dead-units (trials 4, 9; likely)'
    """
    numbers = ", ".join(map(str, finding.trials))
    trials = f"trial{'s' if len(finding.trials) > 1 else ''} {numbers}; " if numbers else ""
    return f"{finding.code} ({trials}{SAID[finding.sure]})"


def outcome(tried: Tried, known: Tried | None = None) -> str:
    """Say what a remedy did: the score with it and without it, in how many folds it was better, and whether it helps.

    What the score was is left out when `known`, the remedy that was told of before, has said the same.

    >>> clip = Tried("clip norm 1", {}, 0.52, 0.31, 0.03, 0.02, 5, 5, 0.001, True)
    >>> outcome(clip)
    'clip norm 1 → 0.310 ± 0.020 (was 0.520 ± 0.030, better in 5 of 5 folds)'
    >>> outcome(Tried("leaky ReLU", {}, 0.52, 0.51, 0.03, 0.02, 3, 5, 0.4, False), clip)
    'leaky ReLU → 0.510 ± 0.020 (better in 3 of 5 folds: no gain beyond the noise)'
    """
    if not math.isfinite(tried.after):
        return f"{tried.what} → diverged"
    remarks = [] if known is not None and _was(tried) == _was(known) else [_was(tried)]
    remarks += [better(tried)] if better(tried) else []
    said = ", ".join(remarks)
    remark = ": ".join(part for part in (said, _verdict(tried)) if part)
    return f"{tried.what} → {score(tried.after, tried.after_deviation)}{f' ({remark})' if remark else ''}"


def _verdict(tried: Tried) -> str:
    if tried.aim == "honest" or tried.helps:
        return ""
    if tried.worse:
        return "worse than without"
    return "no gain beyond the noise" if tried.folds > 1 else "one fold cannot tell it from chance"


def better(tried: Tried) -> str:
    """Say in how many folds the score was better with a remedy; empty where that is no question."""
    compared = tried.aim == "better" and tried.p is not None
    return f"better in {tried.better_in} of {tried.folds} folds" if compared else ""


def _was(tried: Tried) -> str:
    return (
        f"was {score(tried.before, tried.before_deviation)}"
        if math.isfinite(tried.before)
        else "had diverged"
    )


def score(mean: float, deviation: float) -> str:
    """Write a score with its deviation between folds.

    >>> score(0.9754, 0.0031), score(math.nan, math.nan)
    ('0.9754 ± 0.0031', 'diverged')
    """
    if not math.isfinite(mean):
        return "diverged"
    known = math.isfinite(deviation) and deviation > 0
    digits = decimals(mean, mean - deviation, mean + deviation) if known else decimals(mean, 0, 0)
    return f"{mean:,.{digits}f} ± {deviation:,.{digits}f}" if known else f"{mean:,.{digits}f}"


def advice(finding: Finding) -> str:
    """Say what is suggested: the remedy that helped most; without one, what is left to do by hand."""
    if finding.given_away and (finding.tried or any(r.settings for r in finding.remedies)):
        return f"Nothing is suggested: the score is given away, so see to {finding.given_away} first."
    named = {
        r.what: f"{r.what}{in_parentheses(r.options)}{f' ({r.how})' * bool(r.how)}" for r in finding.remedies
    }
    if (best := finding.suggested) is not None:
        return f"Suggested: {named.get(best.what, best.what)}."
    if (honest := finding.honest) is not None:
        what = named.get(honest.what, honest.what)
        return f"If it is as it looks, believe {score(honest.after, honest.after_deviation)}: {what}."
    done = {t.what for t in finding.tried}
    by_hand = [named[r.what] for r in finding.remedies if r.by_hand and r.what not in done]
    untried = [named[r.what] for r in finding.remedies if not r.by_hand and r.what not in done]
    left = " or ".join([*untried, *by_hand])
    still = [named[r.what] for r in finding.remedies if r.options and r.what in done]
    if (
        finding.tried and still and finding.code not in SEEMING
    ):  # what is wrong is wrong whatever the score does
        return f"To do all the same: {' or '.join(still)}."
    if finding.tried:
        return f"None of them helped{f'; not tried: {left}' if left else ''}."
    return f"To do: {left}." if left else ""


def in_parentheses(options: Mapping[str, Any]) -> str:
    """Write options of `fit` as they are typed in a shell, and in Python; empty when there are none.

    Of many columns the first are named.

    >>> in_parentheses({"drop": ["tax"]})
    ' (--drop tax, drop=["tax"])'
    >>> print(in_parentheses({"missing": {"net income": -999}}))
     (--missing 'net income=-999', missing={"net income": -999})
    >>> in_parentheses({"drop_missing_targets": True})
    ' (--drop-missing-targets, drop_missing_targets=True)'
    >>> print(in_parentheses({"drop": ["a", "b", "c", "d"]}))
     (--drop a --drop b --drop c …, drop=["a", "b", "c", …])
    """
    typed = [word for name, value in options.items() for word in _typed(f"--{name.replace('_', '-')}", value)]
    called = [f"{name}={_called(value)}" for name, value in options.items()]
    return f" ({' '.join(typed)}, {', '.join(called)})" if options else ""


def _called(value: Any) -> str:
    if value is True:
        return "True"
    many = isinstance(value, Mapping | list | tuple) and len(value) > MOST_TYPED
    said = json.dumps(_first(value) if many else value, ensure_ascii=False)
    return f"{said[:-1]}, …{said[-1]}" if many else said


def _first(value: Any) -> Any:
    return dict(list(value.items())[:MOST_TYPED]) if isinstance(value, Mapping) else list(value)[:MOST_TYPED]


def _typed(flag: str, value: Any) -> list[str]:
    if value is True:
        return [flag]
    values = [value]
    if isinstance(value, Mapping):
        values = [f"{name}={one}" for name, one in value.items()]
    elif isinstance(value, list | tuple):
        values = list(value)
    typed = [f"{flag} {shlex.quote(str(one))}" for one in values[:MOST_TYPED]]
    return [*typed, "…"] if len(values) > MOST_TYPED else typed


def sentences(finding: Finding) -> list[str]:
    """Say all that is known of a finding: evidence, what was tried, what is suggested, what it explains."""
    said = [f"{heading(finding)} — {finding.evidence}."]
    if finding.tried:
        said.append(_tried(finding))
    said += [text for text in (advice(finding),) if text]
    if finding.symptoms:
        said.append(f"Also explains: {', '.join(dict.fromkeys(finding.symptoms))}.")
    return said


def _tried(finding: Finding) -> str:
    return f"Tried: {'; '.join(map(outcome, finding.tried, (None, *finding.tried)))}."


def hint_of(finding: Finding) -> str:
    """Say a hint in a sentence or two: evidence, and what was tried, in vain or for an honest score.

    >>> hint_of(Finding("dead-units", "hint", "7 of 9 units are 0"))
    'dead-units (a hint) — 7 of 9 units are 0.'
    """
    told = f"{heading(finding)} — {finding.evidence}."
    if not finding.tried or any(t.helps for t in finding.tried):
        return told
    if all(t.aim == "better" and math.isfinite(t.after) and not t.worse for t in finding.tried):
        return f"{told} Tried: {', '.join(t.what for t in finding.tried)}; no gain beyond the noise."
    return f"{told} {_tried(finding)}"


def said_hints(findings: Sequence[Finding]) -> tuple[list[Finding], str]:
    """Give the first hints, which are said, and a line that counts the others; empty when there are none.

    >>> said_hints([Finding("jitter", "hint", "…")] * 7)[1]
    'and 2 more hints: jitter, jitter'
    """
    hints = [f for f in findings if not f.alarm]
    rest = [f.code for f in hints[MOST_HINTS:]]
    more = f"and {len(rest)} more hint{'s' * (len(rest) > 1)}: {', '.join(rest)}" if rest else ""
    return hints[:MOST_HINTS], more


def doubt(findings: Sequence[Finding], mean: float) -> str:
    """Say why a score must not be believed, and which may be, where alarms say that it is given away; else nothing.

    `mean` is that of the scores by fold. What remedies did to another trial than the one that has it is not said.

    >>> apart = Tried("leave out `id`", {}, 0.66, 0.59, 0.02, 0.03, 0, 5, None, False, "honest")
    >>> print(doubt([Finding("target-leak", "sure", "…", where=("id",), tried=(apart,))], 0.66))  # doctest: +ELLIPSIS
    do not believe this score: the answer can be read from `id` (target-leak, sure); rather believe 0.590 ± 0.030 ...
    >>> doubt([Finding("repeated-rows", "hint", "…")], 0.66)
    ''
    """
    reasons = []
    for finding in findings:
        if finding.alarm and finding.code in GIVEN_AWAY:
            why = GIVEN_AWAY[finding.code].format(where=listed(finding.where))
            said = f"{why} ({finding.code}, {SAID[finding.sure]})"
            honest = finding.honest
            if honest is not None and math.isclose(honest.before, mean, rel_tol=1e-6):
                said += f"; rather believe {score(honest.after, honest.after_deviation)} ({honest.what})"
            reasons.append(said)
    return f"do not believe this score: {'; '.join(reasons)}" if reasons else ""


def summary(findings: Sequence[Finding]) -> str:
    """Say in one line how many alarms and hints there are.

    >>> summary([])
    'checks: nothing found'
    >>> summary([Finding("jitter", "hint", "…")])
    'checks: no alarm, 1 hint; `foldwise explain CODE` says more'
    """
    alarms = sum(f.alarm for f in findings)
    if not findings:
        return "checks: nothing found"
    hints = len(findings) - alarms
    counted = [f"{alarms or 'no'} alarm{'s' * (alarms > 1)}"]
    counted += [f"{hints} hint{'s' * (hints > 1)}"] if hints else []
    return f"checks: {', '.join(counted)}; `foldwise explain CODE` says more"
