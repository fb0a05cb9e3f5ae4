"""A search as one policy, on curves that are numbers: who starts, who stops, what is spent."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from curves import Score, run
from foldwise.plans.ask import ask
from foldwise.plans.course import Course
from foldwise.plans.plan import Plan
from foldwise.plans.policy import TO_THE_END, Decision, ToTheEnd
from foldwise.plans.ranges import LogRange, Range
from foldwise.plans.retrace import retrace
from foldwise.plans.strategy import Strategy
from foldwise.settings import Settings

RANGES = {"learning_rate": LogRange(1e-4, 1e-1), "dropout": Range(0, 0.5), "epochs": 27}
FOLDS = 3


def searching(search: Any = RANGES, **how: Any) -> tuple[Plan, Strategy]:
    """Plan a search over three folds."""
    plan, policy = ask("binary", 500, search, None, FOLDS, 1, 0, **how)
    assert isinstance(policy, Strategy)
    return plan, policy


def bowl(s: Settings, epoch: int) -> Sequence[float]:
    """Score settings by how far they are from the best ones, less so the longer they train; each fold alike."""
    far = (math.log10(s.learning_rate) + 2.3) ** 2 + (s.dropout - 0.2) ** 2
    return [far + 3 / (epoch + 1) + fold / 10 for fold in range(FOLDS)]


def trained(
    search: Any = RANGES, score: Score = bowl, seconds: float = 0.0, **how: Any
) -> tuple[list[Course], Strategy]:
    """Run a search; check what must hold for every one."""
    plan, policy = searching(search, **how)
    courses, gone, decisions = run(policy, plan.trials, score, seconds)
    assert all(c.ended for c in courses)
    assert [c.ended for c in courses[: policy.baselines]] == ["finished"] * policy.baselines
    assert len({c.settings for c in courses}) == len(courses)
    again, fresh = searching(search, **how)
    assert again == plan
    # as a study does that goes on; it raises an error where anything is decided otherwise
    done = {n: Decision(d.stop, tuple(d.start)) for n, d in enumerate(decisions, start=1)}
    retrace(fresh, courses, {n: d for n, d in done.items() if d != Decision()}, gone, FOLDS)
    assert fresh.source.left == policy.source.left
    return courses, policy


def spent(courses: Sequence[Course]) -> int:
    """Count the epochs that members took, without the baselines."""
    return sum(FOLDS * c.epoch for c in courses[3:])


def test_without_wishes_every_trial_simply_trains() -> None:
    plan, policy = ask("binary", 500, RANGES, None, FOLDS, 1, 0, trials=5)
    assert policy is TO_THE_END
    assert isinstance(policy, ToTheEnd)
    assert len(plan.trials) == 3 + 5


def test_halving_finds_what_all_to_the_end_find() -> None:
    courses, policy = trained(trials=27, halving=3)
    everyone, _ = run(TO_THE_END, [c.settings for c in courses], bowl)[:2]
    best = min(everyone[3:], key=lambda c: c.best)
    assert min(courses[3:], key=lambda c: c.best).settings == best.settings
    ended = Counter(c.ended.rpartition(" of ")[2] for c in courses[3:])
    assert ended == {"27 at epoch 1": 18, "9 at epoch 3": 6, "3 at epoch 9": 2, "finished": 1}
    assert spent(courses) == FOLDS * (18 * 1 + 6 * 3 + 2 * 9 + 27)
    account = policy.account(courses)
    assert (account.tried, account.halved, account.unpaid, account.waiting) == (27, 26, 0, 0)
    assert account.epochs == spent(courses)
    assert (
        account.sentence
        == "26 of 27 trials stopped early by halving; 11 % of the epochs of training all to the end"
    )


def test_the_baselines_are_never_stopped_though_they_are_the_worst() -> None:
    def hopeless(s: Settings, epoch: int) -> Sequence[float]:
        return [100.0] * FOLDS if s.network in ("constant", "linear") else bowl(s, epoch)

    courses, _ = trained(score=hopeless, trials=9, halving=3, budget="100 epochs", places=4)
    assert [c.settings.network for c in courses[:3]] == ["constant", "linear", "linear"]
    assert sum(c.ended.startswith("halving") for c in courses[3:]) > 3


def test_linear_models_that_were_asked_for_are_stopped_like_others() -> None:
    search = {"network": "linear", "learning_rate": LogRange(1e-4, 1e-1), "epochs": 27}
    courses, _ = trained(search, trials=9, halving=3)
    assert sum(c.ended.startswith("halving") for c in courses[3:]) == 8


@pytest.mark.parametrize("halving", [None, 3])
def test_places_that_become_free_are_taken_again(halving: int | None) -> None:
    plan, policy = searching(trials=20, places=4, halving=halving)
    taken: list[tuple[int, int]] = []

    class Watched:
        """Asks the policy, and counts the places that are taken then and the trials there are."""

        scalings = policy.scalings

        def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
            decision = policy.decide(courses, seconds)
            going = [c for c in courses[3:] if not c.ended and c.trial not in decision.stop]
            taken.append((len(going) + len(decision.start), len(courses) + len(decision.start)))
            return decision

    courses, _, _ = run(Watched(), plan.trials, bowl)
    assert len(plan.trials) == 3 + 4
    assert len(courses) == 3 + 20
    assert max(places for places, _ in taken) == 4
    # as long as some wait, no place is empty
    assert all(places == 4 for places, trials in taken if trials < 23)
    assert {c.settings for c in courses} == {*searching(trials=20, places=20)[0].trials}


@pytest.mark.parametrize(
    "how", [{}, {"halving": 3}, {"places": 5}, {"sampler": "tpe"}, {"sampler": "tpe", "halving": 2}]
)
@pytest.mark.parametrize("epochs", [FOLDS, 7, 50, 333, 1000])
def test_a_budget_of_epochs_is_never_exceeded(how: dict[str, Any], epochs: int) -> None:
    courses, policy = trained(trials=20, budget=f"{epochs} epochs", **how)
    assert FOLDS <= spent(courses) <= epochs
    if epochs < 20 * FOLDS * 27 and spent(courses) <= epochs - 2 * FOLDS * 27:
        assert policy.source.left == 0  # nothing is left over but what pays for no trial


def test_trials_end_by_themselves_and_not_because_the_budget_does() -> None:
    courses, policy = trained(trials=20, budget="400 epochs")
    assert [c.ended for c in courses] == ["finished"] * (3 + 4)  # four trials take 3 · 27 epochs each
    assert policy.account(courses).sentence == (
        "4 trials, none stopped early; 16 more not started; 20 % of the epochs of training all to the end"
    )


def test_when_the_budget_does_not_suffice_the_best_go_on() -> None:
    # each trial is as good as the others at the first rung, so that halving keeps more than it reckoned with
    def alike(s: Settings, epoch: int) -> Sequence[float]:
        turn = round(1e6 * s.learning_rate) % 2 * 2 - 1
        return [5 + turn, 5 + s.dropout / 100, 5 - turn]

    courses, _ = trained(score=alike, trials=30, halving=2, budget="300 epochs")
    cut = [c for c in courses if c.ended.startswith("budget spent at epoch ")]
    assert cut
    assert all(c.ended == f"budget spent at epoch {c.epoch}" for c in cut)
    assert 300 - FOLDS < spent(courses) <= 300
    last = max(c.epoch for c in courses[3:])
    kept = [c.best for c in courses[3:] if c.epoch == last]
    assert max(kept) <= min(c.best for c in cut if c.epoch < last)


def test_a_budget_of_members_counts_those_that_start() -> None:
    courses, policy = trained(trials=20, budget=f"{7 * FOLDS + 2} members", places=3)
    assert len(courses) == 3 + 7
    assert policy.account(courses).waiting == 13


def test_a_budget_of_minutes_stops_all_but_the_baselines() -> None:
    courses, policy = trained(trials=9, seconds=7, budget="1 minute")
    assert {c.ended for c in courses[3:]} == {
        "budget spent at epoch 9"
    }  # of 7 seconds each, nine are over 60
    assert policy.account(courses).unpaid == 9


def test_diverged_members_take_no_epochs() -> None:
    def breaking(s: Settings, epoch: int) -> Sequence[float]:
        return [1.0, math.nan if epoch >= 4 else 1.0, 1.0]

    course = Course(0, Settings(epochs=9))
    for epoch in range(7):
        own = breaking(course.settings, epoch)
        if any(map(math.isnan, own)):
            course.lose([1])
        course.note(math.inf, own)
    assert (course.epoch, course.member_epochs, course.next_members) == (6, 6 + 4 + 6, 2)


def test_what_is_expected_is_what_happens() -> None:
    plan, policy = searching(trials=27, halving=3)
    fresh = [Course(n, s) for n, s in enumerate(plan.trials)]
    baselines = FOLDS * sum(s.epochs for s in plan.trials[:3])
    courses, *_ = run(policy, plan.trials, bowl)
    assert policy.ahead(fresh) - baselines == pytest.approx(spent(courses), abs=FOLDS * 9)
    assert policy.ahead(courses) == policy.to_come(courses) == 0
    plan, policy = searching(trials=27, places=2)
    fresh = [Course(n, s) for n, s in enumerate(plan.trials)]
    assert policy.ahead(fresh) - baselines == 27 * 27 * FOLDS
    assert policy.to_come(fresh) == 25


def test_with_a_sampler_that_learns_a_budget_is_instead_of_trials() -> None:
    courses, policy = trained(sampler="tpe", budget="1000 epochs", halving=3)
    assert policy.places == 4
    assert len(courses) > 32 + 3
    plan, policy = searching(sampler="tpe")
    assert policy.source.left + len(plan.trials) - 3 == 32
    assert searching(sampler="tpe", trials=80)[1].places == 10


def test_a_search_that_learns_ends_when_there_is_nothing_else() -> None:
    few = {"learning_rate": [0.001, 0.01, 0.1], "activation": ["relu", "tanh"], "width": 8, "epochs": 3}
    courses, _ = trained(few, sampler="tpe", budget="9999 epochs")
    assert len(courses) == 3 + 6


def test_all_parts_of_a_search_go_together() -> None:
    for sampler, halving, places, budget in itertools.product(
        ("sobol", "tpe"), (None, 3), (None, 3), ("500 epochs, 1 hour", "60 members")
    ):
        courses, policy = trained(
            trials=25, sampler=sampler, halving=halving, places=places, budget=budget, seconds=1
        )
        assert spent(courses) <= policy.budget.epochs
        assert FOLDS * (len(courses) - 3) <= policy.budget.members
