"""A network that is in evaluation mode while it trains, though it has layers for which that matters.

Evidence: steps all of whose passes were made in evaluation mode; layers of dropout and batch normalization.

Why it hurts: in evaluation mode dropout does nothing, and batch normalization uses statistics that stay as they were at
the start or at the last validation, so that it normalizes nothing. Most often `model.eval()` was called for a
validation and `model.train()` not again.

How sure: likely, when more than a tenth of the steps are so. It is a hint when some parameters are frozen: then the
mode may be meant. Single layers in evaluation mode within a network in training mode are taken as meant.

What to try: `model.train()` at the beginning of each epoch, after every validation.

References: Ioffe & Szegedy 2015, *Batch normalization*; Srivastava et al. 2014, *Dropout*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.errors import listed

EXPLAINS = ("overfitting", "frozen-statistics")
SHARE = 0.1  # of the steps


def find(sight: Sight) -> Finding | None:
    """Look for steps whose passes were made in evaluation mode."""
    loop = sight.loop
    if loop is None or not loop.modes or loop.evaluating <= SHARE * loop.steps:
        return None
    return Finding(
        "eval-in-training",
        "hint" if len(loop.trainable) < len(loop.parameters) else "likely",
        f"{loop.evaluating} of {loop.steps} steps were taken with the network in evaluation mode, first step "
        f"{loop.evaluating_since}; that matters for {listed(loop.modes)}",
        where=loop.modes,
        step=loop.evaluating_since,
        remedies=(Remedy("`model.train()` after each validation"),),
    )
