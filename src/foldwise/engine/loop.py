"""The loop: round by round every running trial takes its next epoch, and others stop or start."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foldwise.engine.field import Field
from foldwise.plans.policy import Policy


@dataclass(frozen=True)
class PlanSummary:
    """What is about to be trained, and what it will take."""

    rows: int
    features: int
    sealed: int
    trials: int
    folds: int
    seeds: int
    members: int
    epochs: int
    engine: str
    stacks: int
    seconds: float
    bytes: int
    parameters: tuple[int, int]
    notes: tuple[str, ...] = ()
    search: str = ""  # how trials are drawn, start and stop; empty when all simply train
    bound: str = ""  # "at most" or "at first", where the trials are not all those that will be
    nested: int = 0  # folds inside others, all together


@dataclass(frozen=True)
class Standing:
    """The best trial so far: its mean score and the deviation over its members."""

    trial: str
    metric: str
    mean: float
    spread: float


@dataclass(frozen=True)
class Progress:
    """How far the study is; `rows_done` and `rows_total` count rows learnt from, with repetition."""

    members: int
    members_done: int
    epoch: int
    epochs: int
    rows_done: int
    rows_total: int
    seconds: float
    best: Standing | None


def train(
    field: Field,
    policy: Policy,
    standing: Callable[[], Standing | None],
    watch: Callable[[Progress], None],
    each_part: Callable[[], None] = lambda: None,
) -> bool:
    """Train all trials to their ends, and those that the policy starts; False when the user interrupted it.

    After an interrupt every trial still has the best of the epochs that it finished; called again, it goes on from
    there. `each_part` is called whenever some members have done an epoch, when the field is whole and can be stored.
    """
    with Interrupt() as interrupt:
        clock = Clock(field, watch, interrupt, each_part)
        field.look()
        clock.finished(standing())
        try:
            going = True
            while going:
                field.round(clock.learnt)
                seconds = clock.seconds
                decision = policy.decide(field.courses, seconds)
                field.follow(decision, seconds)
                field.look()
                clock.finished(standing())
                going = bool(field.running or decision.start)
        except Interrupted:
            return False
        finally:
            field.seconds = clock.seconds
    return True


class Interrupted(Exception):
    """The user wants the training to end."""


class Interrupt:
    """Turns Ctrl-C into a flag that is looked at between chunks, so that no record is left half written.

    So it does with SIGTERM, by which a cluster asks a program to end. A second one ends the program as usual. Outside
    the main thread signals cannot be caught, and are not.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            if handler is not None:  # one that is not Python's cannot be put back
                signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        self.__exit__()


class Clock:
    """Counts what is done and tells the watcher, which can only look."""

    def __init__(
        self,
        field: Field,
        watch: Callable[[Progress], None],
        interrupt: Interrupt,
        each_part: Callable[[], None],
    ) -> None:
        self.started = time.perf_counter() - field.seconds
        self.field, self.watch, self.interrupt, self.each_part = field, watch, interrupt, each_part
        self.best: Standing | None = None

    @property
    def seconds(self) -> float:
        """Say how long training took up to now, with what it took before it was interrupted."""
        return time.perf_counter() - self.started

    def learnt(self, rows: int) -> None:
        """Count rows learnt from, and report."""
        self.rows_done += rows
        self.report()
        if self.interrupt.asked:
            raise Interrupted
        self.each_part()

    def finished(self, best: Standing | None) -> None:
        """Note a whole round, in which trials may have ended or joined, and report."""
        field = self.field
        self.best = best
        self.members, self.running = field.members(), field.members_running()
        self.rows_done = field.rows_done()
        self.rows_total = self.rows_done + field.rows_ahead()
        self.epoch = max(course.epoch for course in field.running or field.courses)
        self.epochs = max(course.settings.epochs for course in field.courses)
        self.report()

    def report(self) -> None:
        """Tell the watcher how far it is."""
        self.field.seconds = time.perf_counter() - self.started
        self.watch(
            Progress(
                members=self.members,
                members_done=self.members - self.running,
                epoch=self.epoch,
                epochs=self.epochs,
                rows_done=self.rows_done,
                rows_total=self.rows_total,
                seconds=self.seconds,
                best=self.best,
            )
        )
