"""Gradients that are emptied between the backward pass and the step, so that the step finds none.

Evidence: in the steps that were watched closely, whether any parameter had a gradient when the optimizer stepped,
although gradients that were not 0 had come.

Why it hurts: a step without gradients changes nothing, but for weight decay and momentum.

How sure: likely, when it is so in more than a quarter of the steps.

What to try: `optimizer.zero_grad()` before `backward()` or after `step()`, not between them.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW

EXPLAINS = SLOW
FEWEST = 2  # steps watched closely
SHARE = 0.25  # of them


def find(sight: Sight) -> Finding | None:
    """Look for steps that found no gradient although one had come."""
    loop = sight.loop
    if loop is None or loop.felt < FEWEST or loop.cleared <= SHARE * loop.felt:
        return None
    return Finding(
        "cleared-gradients",
        "likely",
        f"in {loop.cleared} of {loop.felt} steps watched closely, the gradients that the backward pass gave were gone "
        "when the optimizer stepped",
        step=0,
        remedies=(Remedy("`optimizer.zero_grad()` after the step, not between `backward()` and it"),),
    )
