"""Gradients that grow until they, the weights or the outputs are no numbers any more.

Evidence: a member that diverged is trained again and watched: by how much its gradient grew over the last 20 steps, how
far its weights had gone, and the first layer in which something was no number. At the start: the variance of the
gradient at the first activation over that at the last.

Why it hurts: each layer multiplies the gradient; where that makes it larger, the first layers get steps that are too
long, which makes the next gradient larger still. One such member loses its fold, and the trial its score.

How sure: sure where training diverged and the gradient grew tenfold or more just before; likely where it grows a
thousandfold from the last layer to the first.

What to try: a clip norm of 1; a tenth and a hundredth of the rate.

References: Pascanu, Mikolov & Bengio 2013, *On the difficulty of training recurrent neural networks*; Hanin & Rolnick
2018, *How to start training: the effect of initialization and architecture*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import gradient_ratio, is_baseline, slower, steps_of
from foldwise.checks.sight import Breakdown, Sight
from foldwise.checks.symptoms import POOR, UNSURE

EXPLAINS = (
    "few-steps", "non-finite", "dead-units", "saturated-units", "uneven-layers", "jitter", *POOR, *UNSURE,
)  # fmt: skip
GREW = 10.0  # times, over 20 steps: the gradients of batches differ by less in trainings that go on
ACROSS = (
    1e6  # variance of the gradient at the first activation over that at the last; good starts are within 1e2
)


def find(sight: Sight) -> Finding | None:
    """Look for gradients that grew before training broke, or that grow from layer to layer at the start."""
    broke = sight.breakdown
    if broke is not None and broke.growth > GREW:
        return Finding(
            "exploding-gradients",
            "sure",
            f"the gradient of fold {broke.fold} grew {broke.growth:.2g} times within 20 steps, {where(broke, sight)}",
            trials=sight.about,
            where=(broke.where,) if broke.where else (),
            step=broke.step,
            remedies=remedies(sight),
        )
    if sight.start is None or is_baseline(sight):
        return None
    ratio = gradient_ratio(sight.start)
    if not ratio > ACROSS:
        return None
    return Finding(
        "exploding-gradients",
        "likely",
        f"at the start the gradient is {ratio**0.5:.2g} times as large at the first activation as at the last",
        trials=sight.about,
        step=0,
        remedies=remedies(sight),
    )


def where(broke: Breakdown, sight: Sight) -> str:
    """Say what was no number first, and when."""
    if broke.what == "loss":
        return f"and in epoch {broke.epoch} the loss was no number: the squares of outputs are infinite"
    of = f" of {sight.called(broke.where)}" if broke.where else ""
    when = f"after {steps_of(broke.step)} (epoch {broke.epoch})"
    return f"and {when} the {broke.what}{of} were the first to be no numbers"


def remedies(sight: Sight) -> tuple[Remedy, ...]:
    """Offer what keeps steps short."""
    s = sight.settings
    if s is None:
        return (Remedy("clip the gradient's norm"), slower(sight, 10))
    found = [] if s.clip_norm else [Remedy("clip norm 1", {"clip_norm": 1.0})]
    return (*found, slower(sight, 10), slower(sight, 100))
