"""Trials without training: curves that are numbers, and rounds in which every running one takes its next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foldwise.plans.course import Course
from foldwise.plans.policy import Decision, Policy
from foldwise.settings import Settings

Score = Callable[[Settings, int], Sequence[float]]
"""From settings and an epoch to the score of each member."""


def course(
    trial: int, curve: Sequence[float], *, epochs: int = 27, members: Sequence[float] = (0.0,)
) -> Course:
    """Note a curve, epoch 0 first, with members that lie apart from it by so much."""
    made = Course(trial, Settings(epochs=epochs))
    for mean in curve:
        made.note(mean, [mean + own for own in members])
    return made


def run(
    policy: Policy, trials: Sequence[Settings], score: Score, seconds: float = 0.0
) -> tuple[list[Course], list[float], list[Decision]]:
    """Do as the loop does: look, round, decide; each round takes so many seconds.

    Gives the trials, how long training had taken after each round, and what was decided then.
    """
    courses: list[Course] = []
    gone: list[float] = []
    decisions: list[Decision] = []
    start: Sequence[Settings] = trials
    while start or any(not c.ended for c in courses):
        running = [c for c in courses if not c.ended]
        new = [Course(len(courses) + n, s) for n, s in enumerate(start)]
        courses += new
        _note(new, score)
        _note([c for c in (*running, *new) if not c.ended], score)
        gone.append(seconds * (len(gone) + 1))
        decisions.append(policy.decide(courses, gone[-1]))
        for trial, why in decisions[-1].stop.items():
            assert not courses[trial].ended
            courses[trial].end(why)
        start = decisions[-1].start
    return courses, gone, decisions


def _note(courses: Sequence[Course], score: Score) -> None:
    for c in courses:
        own = score(c.settings, c.epoch + 1)
        c.note(sum(own) / len(own), own)
