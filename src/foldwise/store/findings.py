"""Findings as plain values, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from foldwise.checks.finding import Finding, Findings, Remedy, Tried
from foldwise.store.plain import as_record

MOST = 10_000  # findings, or things named by one
LONGEST, LONGEST_CODE = 20_000, 60  # characters
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
OPTION = re.compile(r"[a-z][a-z_]*")
STEERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def findings_as_plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Write findings down; of remedies their names, settings and options."""
    return [
        {
            **{name: getattr(f, name) for name in ("code", "sure", "evidence", "step", "given_away")},
            **{name: list(getattr(f, name)) for name in ("trials", "where", "symptoms")},
            "remedies": [
                {
                    "what": r.what,
                    "settings": dict(r.settings),
                    "aim": r.aim,
                    "options": dict(r.options),
                    "how": r.how,
                }
                for r in f.remedies
            ],
            "tried": [asdict(t) for t in f.tried],
        }
        for f in findings
    ]


def findings_from_plain(written: Sequence[Mapping[str, Any]], trials: int | None = None) -> Findings:
    """Read what `findings_as_plain` wrote; `trials` is how many the study has, where that is known.

    Somebody else may have written it: ValueError, or what `as_record` raises, for what no check can have found; what
    would steer a terminal is written out. Names of columns may have such characters, so they are no damage.
    """
    if len(written) > MOST:
        raise ValueError(f"it has {len(written):,} findings")
    found = Findings()
    for one in map(_written_out, written):
        remedies = tuple(as_record(Remedy, r) for r in one["remedies"])
        tried = tuple(as_record(Tried, {**t, **_missing_scores(t)}) for t in one["tried"])
        lists = {name: tuple(one[name]) for name in ("trials", "where", "symptoms")}
        finding = as_record(Finding, {**one, **lists, "remedies": remedies, "tried": tried, "explained": ()})
        for problem in _problems(finding, trials):
            raise ValueError(f"finding {len(found) + 1} {problem}")
        found.append(finding)
    return found


def _problems(finding: Finding, trials: int | None) -> Iterator[str]:
    """Say what in a finding cannot be so. A check of another version may be unknown; a code is words and hyphens."""
    codes = (finding.code, *finding.symptoms, *filter(None, [finding.given_away]))
    if not all(len(code) <= LONGEST_CODE and CODE.fullmatch(code) for code in codes):
        yield "has a code that no check has"
    many = (finding.trials, finding.where, finding.symptoms, finding.remedies, finding.tried)
    if any(len(own) > MOST for own in many):
        yield f"names more than {MOST:,} things"
    if any(len(text) > LONGEST for text in _texts(finding)):
        yield f"has a text of more than {LONGEST:,} characters"
    for own in _changes(finding):
        if not all(isinstance(v, str | bool | int | float | None) for v in own.settings.values()):
            yield "has a remedy with settings that are not plain values"
    for remedy in finding.remedies:
        yield from _no_options(remedy.options)
    if any(t < 1 or (trials is not None and t > trials) for t in finding.trials):
        yield "is about a trial that the study does not have"
    if finding.step is not None and finding.step < 0:
        yield "was seen before the first step"
    for tried in finding.tried:
        yield from _impossible(tried)


def _no_options(options: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with options that somebody may type as they are told to: names are not quoted in a shell."""
    if not all(len(name) <= LONGEST_CODE and OPTION.fullmatch(name) for name in options):
        yield "has a remedy with an option that has no such name"
    values = [value for option in options.values() for value in _members(option)]
    if len(values) > MOST or not all(isinstance(v, str | bool | int | float) for v in values):
        yield "has a remedy with options that are not plain values"


def _members(option: Any) -> list[Any]:
    """Give the values of an option, and the names that they are given to."""
    if isinstance(option, Mapping):
        return [*option, *option.values()]
    return [*option] if isinstance(option, list | tuple) else [option]


def _impossible(tried: Tried) -> Iterator[str]:
    if tried.p is not None and not 0 <= tried.p <= 1:
        yield f"has a remedy with p = {tried.p}"
    if not 0 <= tried.better_in <= tried.folds:
        yield f"has a remedy that is better in {tried.better_in} of {tried.folds} folds"
    scores = (tried.before, tried.after, tried.before_deviation, tried.after_deviation)
    if any(map(math.isinf, scores)) or any(deviation < 0 for deviation in scores[2:]):
        yield "has scores that cannot be"
    if tried.helps and (tried.aim != "better" or not math.isfinite(tried.after)):
        yield "has a remedy that cannot have helped"


def _texts(finding: Finding) -> Iterator[str]:
    yield from (finding.evidence, *finding.where)
    for own in _changes(finding):
        yield own.what
        yield from own.settings
        yield from (value for value in own.settings.values() if isinstance(value, str))
    for remedy in finding.remedies:
        yield remedy.how
        yield from (v for own in remedy.options.values() for v in _members(own) if isinstance(v, str))


def _changes(finding: Finding) -> tuple[Remedy | Tried, ...]:
    return (*finding.remedies, *finding.tried)


def _written_out(value: Any) -> Any:
    r"""Write out, in all texts, the characters that steer a terminal, end a line or turn the direction of writing.

    >>> print(_written_out(["\x1b[2J", {"what": "a\u202eb"}]))
    ['\\x1b[2J', {'what': 'a\\u202eb'}]
    """
    if isinstance(value, str):
        return STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    if isinstance(value, Mapping):
        return {_written_out(name): _written_out(own) for name, own in value.items()}
    return [_written_out(own) for own in value] if isinstance(value, list) else value


def _missing_scores(tried: Mapping[str, Any]) -> dict[str, float]:
    """Give the scores that are not there, which JSON has as null, back their NaN."""
    names = ("before", "after", "before_deviation", "after_deviation")
    return {name: math.nan for name in names if tried[name] is None}
