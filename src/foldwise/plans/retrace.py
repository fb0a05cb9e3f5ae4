"""A policy that goes on where another one was: it is asked again what that one was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from foldwise.errors import PlanError
from foldwise.plans.course import Course
from foldwise.plans.policy import Decision, Policy, effective


def retrace(
    policy: Policy,
    courses: Sequence[Course],
    decided: Mapping[int, Decision],
    seconds: Sequence[float],
    folds: int,
) -> None:
    """Bring a fresh policy to where another one was after some rounds.

    `courses` are all trials as they are by now, `decided` what was done after which round (from 1), and `seconds` how
    long training had taken after each of them. A policy whose
    decisions follow from the courses then remembers what that one did, without anything of it having been stored.
    Raises PlanError when it decides otherwise.
    """
    stopped = {trial for decision in decided.values() for trial in decision.stop}
    first = len(courses) - sum(len(decision.start) for decision in decided.values())
    shown = [_looked_at(course, folds, stopped) for course in courses[:first]]
    for number, gone in enumerate(seconds, start=1):
        for course in shown:
            if not course.ended:
                _go_on(course, courses[course.trial], folds, stopped)
        before = decided.get(number, Decision())
        if effective(policy.decide(shown, gone), shown) != before:
            raise PlanError(
                f"after round {number} the search decides otherwise than it did before.",
                hint="train it again: its decisions do not follow from the scores alone",
            )
        for trial in before.stop:
            shown[trial].ended = courses[trial].ended
        joined = courses[len(shown) : len(shown) + len(before.start)]
        shown += [_looked_at(course, folds, stopped) for course in joined]


def _looked_at(whole: Course, folds: int, stopped: set[int]) -> Course:
    """Give a course as it was before its trial learned."""
    course = Course(whole.trial, whole.settings)
    _go_on(course, whole, folds, stopped)
    return course


def _go_on(course: Course, whole: Course, folds: int, stopped: set[int]) -> None:
    """Let a course do the next epoch of the whole one."""
    epoch = course.epoch + 1
    course.curve.append(whole.curve[epoch])
    course.scores.append(whole.scores[epoch])
    course.inside += whole.inside[epoch : epoch + 1]
    # members are ordered by seed, then fold; one without a score diverged, if any of its fold did
    gone = {int(place) % folds for place in np.flatnonzero(np.isnan(whole.scores[epoch]))}
    course.lost = sorted({*course.lost, *gone.intersection(whole.lost)})
    if epoch == whole.epoch and whole.trial not in stopped:
        course.ended = whole.ended
