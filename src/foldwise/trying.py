"""Remedies tried before they are offered: the trial once more with each of them, on the same folds and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foldwise import collect
from foldwise.checks import SEEMING
from foldwise.checks.finding import Finding, Findings, Remedy, Tried
from foldwise.checks.order import in_order_again
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.engine.loop import Progress
from foldwise.errors import SettingsError
from foldwise.job import Job
from foldwise.judge.metrics import Metric
from foldwise.judge.selection import one_sided_p_value
from foldwise.judge.verdict import TrialResult
from foldwise.plans.plan import Plan
from foldwise.settings import Settings, make_settings

if TYPE_CHECKING:
    from foldwise.study import Study

MOST = 8  # remedies that are tried at first; in later rounds what is left of them, but at least `EACH`
EACH = 3  # for one finding
HELPS_BELOW = 0.05


@dataclass(frozen=True)
class Trial:
    """A remedy that will be tried: for which finding, on which trial, and what its settings become."""

    finding: int
    remedy: Remedy
    base: TrialResult
    settings: Settings


def trials_for(study: Study, findings: Sequence[Finding], examined: int, most: int = MOST) -> list[Trial]:
    """Choose the remedies to try: those of alarms, the first of each first; `examined` is a trial from 1.

    Findings of which some were tried before, when what explained others turned out to be no alarm, are left out. So are
    those that cannot be judged because another one says that the score is given away.
    """
    results = {r.number: r for r in study.results}
    chosen: list[Trial] = []
    for turn in range(EACH):
        for place, finding in enumerate(findings):
            able = [r for r in finding.remedies if not r.by_hand]
            untold = finding.alarm and not finding.tried and not finding.given_away
            if not untold or turn >= len(able) or len(chosen) >= most:
                continue
            base = results[finding.trials[0] if finding.trials else examined]
            settings = _changed(base.settings, able[turn].settings)
            if settings is not None:
                chosen.append(Trial(place, able[turn], base, settings))
    return chosen


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings | None:
    """Give settings with other values; None where they do not go together, or nothing changes."""
    if not changes:
        return settings
    try:
        found = make_settings(changes, base=settings.model_dump())
    except SettingsError:
        return None
    return None if found == settings else found


def try_remedies(
    job: Job,
    study: Study,
    findings: Sequence[Finding],
    chosen: Sequence[Trial],
    watch: Callable[[Progress], None],
) -> Findings:
    """Train remedies of findings, and say of each what it did to the score, fold by fold.

    Remedies that change settings are one job. One that changes the table or the folds is a job of its own. Scores are
    compared with those of the trial as it was, whose members started from the same weights. Alarms that are taken back
    explain nothing: what was folded into them is found by itself.
    """
    alike = [t for t in chosen if t.remedy.table is None and t.remedy.folds is None]
    done: list[tuple[Trial, Tried]] = []
    constant = next((r.fold_scores for r in study.results if r.settings.network == "constant"), None)
    if alike:
        distinct = list(dict.fromkeys(t.settings for t in alike))
        scores = _scores(job, job.table, job.outer, distinct, watch)
        done += [(t, compared(t, scores[distinct.index(t.settings)], job, constant=constant)) for t in alike]
    for own in chosen:
        if own not in alike:
            table, folds = changed_rows(own.remedy, job.table, job.outer)
            done.append(
                (own, compared(own, _scores(job, table, folds, [own.settings], watch)[0], job, folds))
            )
    tried = [[outcome for trial, outcome in done if trial.finding == place] for place in range(len(findings))]
    told = [
        confirmed(replace(f, tried=hochberg(own)), job.metric) if own else f
        for f, own in zip(findings, tried, strict=True)
    ]
    return in_order_again(told)


def hochberg(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Correct the p-values of the remedies of one finding for their number, and say anew which of them help.

    Hochberg 1988, *A sharper Bonferroni procedure for multiple tests of significance*: the k-th smallest of m is
    multiplied by m − k + 1, and is no larger than those after it. That holds for tests that go together (Sarkar & Chang
    1997), as these do, being compared with the same scores. With more remedies, chance does not find one that helps
    more often. What was not tested stays as it is, and counts for none.
    """
    tested = [i for i, t in enumerate(tried) if t.aim == "better" and t.p is not None]
    found, most = list(tried), 1.0
    for times, i in enumerate(sorted(tested, key=lambda i: -(tried[i].p or 0.0)), 1):
        most = min(most, times * (tried[i].p or 0.0))
        found[i] = replace(tried[i], p=most, helps=tried[i].helps and most < HELPS_BELOW)
    return tuple(found)


def confirmed(finding: Finding, metric: Metric) -> Finding:
    """Make a hint of what a training only looks like, when nothing that was tried against it helped.

    Other faults of data, network, loss or optimizer stay what they are although no remedy here cures them. What must
    cost something to be a fault, as rows that only look as if they were of one group, is a hint as well when the score
    does not suffer from its remedy. A score that is given away says nothing of either.
    """
    if finding.given_away:
        return finding
    useless = finding.tried and all(t.aim == "better" and t.folds > 1 and not t.helps for t in finding.tried)
    if finding.sure == "likely" and useless and finding.code in SEEMING:
        return replace(finding, sure="hint")
    if finding.must_cost and any(_no_worse(t, metric) for t in finding.tried):
        return replace(finding, sure="hint")
    return finding


def _no_worse(tried: Tried, metric: Metric) -> bool:
    return (tried.after >= tried.before) if metric.higher_is_better else (tried.after <= tried.before)


def changed_rows(remedy: Remedy, table: Table, folds: Folds) -> tuple[Table, Folds]:
    """Apply what a remedy does to the table and to the folds."""
    new = table if remedy.table is None else remedy.table(table)
    return new, folds if remedy.folds is None else remedy.folds(new, folds)


def _scores(
    job: Job, table: Table, folds: Folds, trials: Sequence[Settings], watch: Callable[[Progress], None]
) -> list[np.ndarray]:
    """Train trials, and give each one's scores by fold; NaN where a member diverged."""
    own = Job(
        table,
        Plan("remedies", tuple(trials), len(folds), job.plan.seeds),
        folds,
        job.metric,
        job.net,
        job.device,
        job.dtype,
        job.chunk,
        loss=job.loss,
        links=job.links,
        engine=job.engine,
        compile=job.compile,
    )
    if not own.train(watch):
        raise KeyboardInterrupt
    return [_finished(r.fold_losses, job.metric) for r in collect.records(own)]


def _finished(losses: np.ndarray, metric: Metric) -> np.ndarray:
    return np.array([metric.finish(x) if np.isfinite(x) else np.nan for x in losses])


def compared(
    trial: Trial,
    after: np.ndarray,
    job: Job,
    folds: Folds | None = None,
    constant: Sequence[float] | None = None,
) -> Tried:
    """Compare scores by fold with those that a trial had without the remedy.

    The test is one-sided and of each remedy by itself, which `hochberg` corrects; it allows for rows that folds share
    (Nadeau & Bengio 2003). With a single fold there is no test. A remedy that makes the score honest is not said to
    help: it says which score to believe. Nor is one that leaves the trial no better than the constant predictor, whose
    scores by fold are `constant`.
    """
    before, metric, remedy = np.array(trial.base.fold_scores, dtype=np.float64), job.metric, trial.remedy
    paired = folds is None or np.array_equal(folds.validation, job.outer.validation)
    sign = 1.0 if metric.higher_is_better else -1.0
    gain = sign * (after - before) if paired else None
    p = None
    if gain is not None and len(gain) > 1:
        p = p_better(after, before, job, folds)
    ends = np.isfinite(after).all()
    cured = ends and not np.isfinite(before).all()
    beyond = paired and constant is not None and len(after) > 1
    useful = not beyond or (p_better(after, np.array(constant), job, folds) or 0.0) < HELPS_BELOW
    return Tried(
        what=remedy.what,
        settings=dict(remedy.settings),
        before=_mean(before),
        after=_mean(after),
        before_deviation=_deviation(before),
        after_deviation=_deviation(after),
        better_in=len(before) if cured else 0 if gain is None else int((gain > 0).sum()),
        folds=len(after),
        p=p,
        helps=bool(
            remedy.aim == "better" and ends and useful and (cured or (p is not None and p < HELPS_BELOW))
        ),
        aim=remedy.aim,
        worse=p is not None and (p_better(before, after, job, folds) or 1.0) < HELPS_BELOW,
    )


def p_better(after: np.ndarray, before: np.ndarray, job: Job, folds: Folds | None = None) -> float | None:
    """Test whether scores by fold are better than others; one-sided, None where a fold has no score.

    `folds` are those of the remedy. Where these learn from more rows they are what is allowed for: training rows that
    few of many were drawn from are shared by fewer folds, not by more, as the test would have it of small ones.
    Errors, which are sizes, are compared by their logarithms: a run that failed has some that are beyond all measure,
    and differences would drown in how far beyond.
    """
    if not job.metric.higher_is_better and min(after.min(), before.min()) > 0:
        after, before = np.log(after), np.log(before)
    if not np.isfinite(after - before).all():
        return None
    most = max((job.outer, folds or job.outer), key=lambda own: own.train.sum())
    return one_sided_p_value(after, before, most, higher_is_better=job.metric.higher_is_better)


def _mean(scores: np.ndarray) -> float:
    return float(scores.mean()) if np.isfinite(scores).all() else float("nan")


def _deviation(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1)) if len(scores) > 1 and np.isfinite(scores).all() else float("nan")
