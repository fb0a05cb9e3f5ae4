"""What a check finds: a fault with its evidence, and what can be tried against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from foldwise.data.folds import Folds
from foldwise.data.table import Table

Sure = Literal["sure", "likely", "hint"]
"""How sure a finding is. `sure`: it cannot be otherwise (a column that is constant). `likely`: an alarm, right in at
least nine of ten cases on the benchmark. `hint`: worth knowing, and no alarm."""

Aim = Literal["better", "honest"]
"""What a remedy is for: a better score, or a score that can be believed, which may well be worse."""


@dataclass(frozen=True)
class Remedy:
    """A change that may cure a fault: of settings, of the table, of the folds; none of them: to be done by hand.

    `what` names it in a few words: `clip norm 1`. `options` are arguments of `fit` that do the same in the next
    study: `{"drop": ["tax"]}`; where more is needed, `how` says what. A change of the table may leave rows out, or
    columns; then `folds` must fit the new rows: it is given the new table and the old folds.
    """

    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    table: Callable[[Table], Table] | None = None
    folds: Callable[[Table, Folds], Folds] | None = None
    aim: Aim = "better"
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = ""

    @property
    def by_hand(self) -> bool:
        """Tell whether nothing of it can be tried here."""
        return not self.settings and self.table is None and self.folds is None


def larger(name: str, value: float, times: int) -> Remedy:
    """Offer a setting times a number, named by the value that it gets.

    >>> larger("learning_rate", 0.0003, 100).what, larger("batch_size", 32, 4).what
    ('learning rate 0.03 (× 100)', 'batch size 128 (× 4)')
    """
    return Remedy(f"{_worth(name, value * times)} (× {times})", {name: value * times})


def smaller(name: str, value: float, times: int) -> Remedy:
    """Offer a setting divided by a number, named by the value that it gets; by how much only where that is exact.

    >>> smaller("learning_rate", 3.0, 10).what
    'learning rate 0.3 (÷ 10)'
    >>> smaller("batch_size", 3, 4).what, smaller("width", 24, 2).what
    ('batch size 1', 'width 12 (÷ 2)')
    """
    less = max(1, value // times) if isinstance(value, int) else value / times
    exact = not isinstance(value, int) or less * times == value
    return Remedy(f"{_worth(name, less)}{f' (÷ {times})' * exact}", {name: less})


def _worth(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value if isinstance(value, int) else format(value, '.3g')}"


@dataclass(frozen=True)
class Tried:
    """What a remedy did: scores of the trial without and with it, mean and deviation over folds.

    `better_in` counts the folds in which it was better; `p` is that of the corrected test whether it is no better, by
    Hochberg's method multiplied for the number of remedies of the finding; None where folds differ and make no pairs.
    `worse` says that the same test finds the trial better without the remedy.
    """

    what: str
    settings: dict[str, Any]
    before: float
    after: float
    before_deviation: float
    after_deviation: float
    better_in: int
    folds: int
    p: float | None
    helps: bool
    aim: Aim = "better"
    worse: bool = False


@dataclass(frozen=True)
class Finding:
    """One fault: which, how sure, the evidence as a sentence, and where it is.

    Args:
        code: the check that found it, as in `foldwise explain dead-units`.
        sure: see `Sure`; only `sure` and `likely` are alarms.
        evidence: what was measured, with numbers, as one sentence that begins in lower case.
        trials: which it concerns, numbered from 1; empty when it is in the data or in a loop of the user's own.
        where: names of columns, layers or parameters.
        step: how many steps had been taken when it was first seen; None when it does not depend on training.
        remedies: what may cure it, the most promising first.
        tried: what they did, in the same order, for those that could be tried.
        symptoms: codes of findings that this one explains.
        explained: these findings, which come back when this one turns out to be no alarm; they are not stored.
        slight: a hint that is not worth a line of its own: it is kept only under an alarm that explains it.
        must_cost: it is no alarm unless the score suffers from the remedies, which make it honest.
        given_away: code of an alarm by which the score is given away, so that no remedy can be judged by it.
    """

    code: str
    sure: Sure
    evidence: str
    trials: tuple[int, ...] = ()
    where: tuple[str, ...] = ()
    step: int | None = None
    remedies: tuple[Remedy, ...] = ()
    tried: tuple[Tried, ...] = ()
    symptoms: tuple[str, ...] = ()
    explained: tuple[Finding, ...] = ()
    slight: bool = False
    must_cost: bool = False
    given_away: str = ""

    @property
    def alarm(self) -> bool:
        """Tell whether it claims that something is wrong."""
        return self.sure != "hint"

    @property
    def suggested(self) -> Tried | None:
        """Give the remedy that moved the score furthest among those that helped; None when none did.

        None as well when the score is given away: a network that reads the answer reads it faster with a higher rate.
        """
        helped = [] if self.given_away else [t for t in self.tried if t.helps]
        moved = [t for t in helped if math.isfinite(t.before)]
        return max(moved, key=lambda t: abs(t.after - t.before)) if moved else next(iter(helped), None)

    @property
    def honest(self) -> Tried | None:
        """Give the remedy with which the score can be believed, if there is one that could be tried."""
        return next((t for t in self.tried if t.aim == "honest" and math.isfinite(t.after)), None)

    def __str__(self) -> str:
        from foldwise.checks.telling import sentences  # which writes findings, and so knows them

        return " ".join(sentences(self))


def without_functions(finding: Finding) -> Finding:
    """Give a finding whose remedies are in words and settings only, as it is stored: functions need its table."""
    plain = (Remedy(r.what, r.settings, aim=r.aim, options=r.options, how=r.how) for r in finding.remedies)
    return replace(finding, remedies=tuple(plain), explained=())


class Findings(list[Finding]):
    """What checks found, causes first: a list that prints as sentences, one finding a line.

    >>> print(Findings([Finding("constant-columns", "hint", "`id` has the same value in all 9 rows")]))
    constant-columns (a hint) — `id` has the same value in all 9 rows.
    """

    @property
    def alarms(self) -> list[Finding]:
        """Give those that claim that something is wrong."""
        return [f for f in self if f.alarm]

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "no findings"

    __str__ = __repr__
