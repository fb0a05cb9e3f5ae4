"""Budgets: what is read, and what is refused."""

from __future__ import annotations

import pytest

from foldwise.errors import PlanError
from foldwise.plans.budget import Budget, read_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2000 epochs", Budget(epochs=2000)),
        ("1 epoch", Budget(epochs=1)),
        ("300 members", Budget(members=300)),
        ("10 minutes", Budget(seconds=600)),
        ("1.5 hours", Budget(seconds=5400)),
        (" 30seconds ", Budget(seconds=30)),
        ("10 minutes, 2000 epochs,5 members", Budget(5, 2000, 600)),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert read_budget(text) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "`` is no number of members, epochs or minutes"),
        ("2000", "`2000` is no number"),
        ("epochs", "`epochs` is no number"),
        ("10 weeks", "`10 weeks` is no number"),
        ("2,000 epochs", "`2` is no number"),
        ("-5 epochs", "`-5 epochs` is no number"),
        ("0 minutes", "the number of minutes must be positive"),
        ("0 members", "the number of members must be a whole number of at least 1; got 0"),
        ("2.5 epochs", "the number of epochs must be a whole number of at least 1; got 2.5"),
        ("1 minute, 2 hours", "limits the seconds twice"),
        (2000, "must be text; got 2000"),
    ],
)
def test_what_is_no_budget_is_refused_with_examples(text: object, says: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_budget(text)
    assert says in caught.value.problem
    assert '"2000 epochs", "300 members", "10 minutes"' in caught.value.hint


def test_a_budget_that_is_too_small_for_one_trial_is_refused() -> None:
    with pytest.raises(
        PlanError, match=r"a budget of 9 epochs is less than one trial takes: it has 10 members"
    ):
        read_budget("9 epochs").refuse_too_little(10)
    with pytest.raises(PlanError, match=r"a budget of 3 members"):
        read_budget("3 members").refuse_too_little(5)
    read_budget("10 epochs, 10 members").refuse_too_little(10)
