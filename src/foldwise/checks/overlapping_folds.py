"""A fold that is scored on rows it learned from.

Evidence: the rows that are marked as training and as validation rows of one fold.

Why it hurts: such a score says how well the network remembers, not how well it predicts. Whatever is chosen by it is
chosen for memory.

How sure: it cannot be otherwise.

What to try: leave the rows that are scored out of training.

References: Stone 1974, *Cross-validatory choice and assessment of statistical predictions*.
"""

from __future__ import annotations

from foldwise.checks.changes import learn_less
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight

EXPLAINS: tuple[str, ...] = ("repeated-rows", "shared-groups", "overconfident")


def find(sight: Sight) -> Finding | None:
    """Look for rows that are on both sides of a fold."""
    if sight.folds is None:
        return None
    folds = sight.folds.outer
    both = folds.train & folds.validation
    if not both.any():
        return None
    worst = int(both.sum(1).argmax())
    change = learn_less(folds)
    what = "leave the rows that are scored out of training"
    return Finding(
        "overlapping-folds",
        "sure",
        f"fold {worst + 1} learns from {both[worst].sum()} of the {folds.validation[worst].sum()} rows that it is "
        "scored on",
        remedies=(Remedy(what, folds=change, aim="honest") if change else Remedy(what),),
    )
