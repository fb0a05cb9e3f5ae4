"""All checks over what was seen, and their findings in order: causes first, symptoms under their cause."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType

from foldwise.checks import CHECKS, SEEMING
from foldwise.checks.finding import Finding, Findings
from foldwise.checks.sight import Sight
from foldwise.checks.telling import GIVEN_AWAY


def check_module(code: str) -> ModuleType:
    """Import the file of a check."""
    return importlib.import_module(f"foldwise.checks.{code.replace('-', '_')}")


def findings_of(
    sight: Sight, codes: Sequence[str] = CHECKS, broken: Callable[[str, Exception], None] | None = None
) -> Findings:
    """Run checks, and give what they found, causes first.

    `broken` is told of a check that fails, which then has found nothing; without it the error is raised.
    """
    found = []
    for code in codes:
        try:
            finding = check_module(code).find(sight)
        except Exception as error:
            if broken is None:
                raise
            broken(code, error)
        else:
            found += [finding] if finding is not None else []
    return in_order(found)


def warn_of(code: str, error: Exception) -> None:
    """Warn that a check failed, and has found nothing for that."""
    warnings.warn(f"the check `{code}` failed, which is a fault in foldwise: {error}", stacklevel=3)


def in_order(findings: Iterable[Finding]) -> Findings:
    """Put causes first, and what they explain under them.

    A finding is a symptom of another when that one's check names it in `EXPLAINS`, it was not seen earlier, and both
    are about the same trials or one is about none. An alarm that the score is given away is a symptom of such alarms
    only, or it would be lost under one that leaves the score alone. Alarms come before hints, those seen earlier
    before later ones. Slight hints that no alarm explains are left out.
    """
    rank = {code: number for number, code in enumerate(CHECKS)}
    ordered = sorted(findings, key=lambda f: (not f.alarm, -1 if f.step is None else f.step, rank[f.code]))
    under: dict[int, int] = {}
    for place, symptom in enumerate(ordered):
        for at, cause in enumerate(ordered):
            if at != place and at not in under and _explains(cause, symptom):
                under[place] = at
                break
    gathered: dict[int, list[Finding]] = {}
    for place, at in under.items():
        gathered.setdefault(at, []).append(ordered[place])
    return _doubted(
        replace(f, symptoms=tuple(own.code for own in folded), explained=tuple(folded))
        for place, f in enumerate(ordered)
        if place not in under and (f.alarm or not f.slight)
        for folded in [gathered.get(place, [])]
    )


def in_order_again(findings: Iterable[Finding]) -> Findings:
    """Put findings in order of which some have become hints: what was folded into these comes back.

    What a training only looks like and nothing can be tried against comes back as a hint: losing its cause makes it no
    surer.
    """
    return in_order(own for finding in findings for own in _unfolded(finding))


def _unfolded(finding: Finding) -> Iterator[Finding]:
    yield replace(finding, symptoms=(), explained=())
    for own in finding.explained:
        untried = own.code in SEEMING and all(r.by_hand for r in own.remedies)
        alone = untried and own.sure == "likely" and not finding.alarm
        yield from _unfolded(replace(own, sure="hint") if alone else own)


def _doubted(findings: Iterable[Finding]) -> Findings:
    """Mark findings whose remedies cannot be judged, because another one says that the score is given away."""
    found = list(findings)
    why = next((f.code for f in found if _gives_away(f)), "")
    return Findings(replace(f, given_away="" if f.code in GIVEN_AWAY else why) for f in found)


def _gives_away(finding: Finding) -> bool:
    return finding.alarm and finding.code in GIVEN_AWAY


def _explains(cause: Finding, symptom: Finding) -> bool:
    if symptom.code not in check_module(cause.code).EXPLAINS or not cause.alarm:
        return False
    if _gives_away(symptom) and not _gives_away(cause):
        return False
    if cause.trials and symptom.trials and not set(cause.trials) & set(symptom.trials):
        return False
    return cause.step is None or symptom.step is None or cause.step <= symptom.step
