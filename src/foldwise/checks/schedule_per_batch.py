"""A schedule meant for epochs is stepped for each batch: its rate is almost 0 early, or comes and goes.

Evidence: the learning rate of every step; from which step on it stays below a hundredth of its highest value, or from
which of the first epoch on at it; whether it goes down and up evenly, one way in as many steps as the loop has epochs;
or whether every batch multiplies it by the same factor.

Why it hurts: from there on nothing is learned any more, however long the loop goes on. A schedule counts calls of
`scheduler.step()`, not epochs: thirty epochs of its decay are over after thirty batches. A cosine goes up again behind
its end, and the loop ends wherever it is by then.

How sure: likely, when the rate is gone before a quarter of the loop, or a way takes as many steps as there are epochs,
which validation tells. So is a factor of at most three digits, such as 0.9, that makes the rate 10,000 times less in
the end, which is below a hundredth for half of the loop; 1,000 times less is a hint. A cosine that ends at 0, steps and
exponential decay over the length of the loop, cycles of some epochs, and warm-up do not do that.

What to try: call `scheduler.step()` once for each epoch, or give the schedule its length in batches.

References: Loshchilov & Hutter 2017, *SGDR: stochastic gradient descent with warm restarts*; PyTorch documentation,
*How to adjust learning rate*.
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.loop import Loop
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW
from foldwise.errors import percent

EXPLAINS = SLOW
GONE = 0.01  # of the highest rate
EARLY = 0.25  # of the loop; of 100 epochs, two falls to a tenth are not earlier than in the second third
WAYS = 3  # down, up and down again, at least
CLOSE = 1e-6  # are numbers that are the same, but for rounding
DIGITS = 3  # of a factor that was typed; one that is computed from the length of the loop has more
HALF_GONE = GONE**2  # reached evenly, the rate is below `GONE` for half of the loop
THIRD_GONE = GONE**1.5
FEWEST = 40  # steps: a shorter loop may be part of a longer one


def find(sight: Sight) -> Finding | None:
    """Look for a learning rate that is gone early, and for good."""
    loop = sight.loop
    if loop is None or len(loop.rates) < FEWEST or not np.isfinite(loop.rates).all():
        return None
    return _gone(loop) or _swings(loop) or _decays(loop)


def _gone(loop: Loop) -> Finding | None:
    highest = float(loop.rates.max())
    if highest <= 0:
        return None
    since = _since(loop, GONE * highest * (1 - CLOSE))
    if since > EARLY * len(loop.rates):
        since = _since(
            loop, GONE * highest * (1 + CLOSE)
        )  # two falls to a tenth, as phases of a training may have
        if not loop.epoch or since > min(loop.epoch, EARLY * len(loop.rates)):
            return None
    return Finding(
        "schedule-per-batch",
        "likely",
        f"the learning rate fell from {highest:.2g} to {loop.rates[since]:.2g} in {since} steps and to "
        f"{loop.rates[-1]:.2g} at the end: {percent(1 - since / len(loop.rates))} of the steps had so low a rate",
        step=since,
        remedies=(Remedy("call `scheduler.step()` once for each epoch, or give its length in batches"),),
    )


def _since(loop: Loop, low: float) -> int:
    alive = np.flatnonzero(loop.rates > low)
    return int(alive[-1]) + 1 if len(alive) else 0


def _swings(loop: Loop) -> Finding | None:
    """Look for a rate that goes down from its highest and up again, each in as many steps as there are epochs.

    Rates that are to swing, as in `CyclicLR`, begin at the low end.
    """
    if not loop.epoch or loop.rates[0] < 0.99 * loop.rates.max():
        return None
    epochs = len(loop.rates) // loop.epoch
    ways = np.sign(np.diff(loop.rates))
    turns = np.flatnonzero(np.diff(ways[ways != 0])) + 1
    # steps between turns, the first of which comes after a way that began with the loop
    between = np.diff(np.concatenate([[0], turns]))
    if len(turns) < WAYS or epochs < 2 or (np.abs(between - epochs) > 1).any():
        return None
    return Finding(
        "schedule-per-batch",
        "likely",
        f"the learning rate goes from {loop.rates.max():.2g} to {loop.rates.min():.2g} and back again and again, each "
        f"way in {round(float(between.mean()))} steps, as many as the loop has epochs; it ends at {loop.rates[-1]:.2g}",
        step=int(turns[0]),
        remedies=(Remedy("call `scheduler.step()` once for each epoch, or give its length in batches"),),
    )


def _decays(loop: Loop) -> Finding | None:
    """Look for a rate that every batch, of several in an epoch, multiplies by the same factor of few digits."""
    if not loop.epoch or loop.epoch < WAYS or len(loop.rates) < 2 * loop.epoch or not loop.rates.all():
        return None
    factors = loop.rates[1:] / loop.rates[:-1]
    factor, falls = float(np.median(factors)), float(loop.rates[-1] / loop.rates[0])
    typed = abs(factor - round(factor, DIGITS)) < CLOSE
    if not typed or not falls < THIRD_GONE or np.abs(factors - factor).max() > CLOSE:
        return None
    return Finding(
        "schedule-per-batch",
        "likely" if falls < HALF_GONE else "hint",
        f"every batch multiplies the learning rate by {factor:.3g}: it fell from {loop.rates[0]:.2g} to "
        f"{loop.rates[-1]:.2g} in {len(loop.rates)} steps; once for each epoch it would end at "
        f"{loop.rates[0] * factor ** (len(loop.rates) // loop.epoch - 1):.2g}",
        remedies=(Remedy("call `scheduler.step()` once for each epoch, or give its length in batches"),),
    )
