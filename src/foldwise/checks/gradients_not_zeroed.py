"""Gradients of the step before that are still there: each batch is added to all batches before it.

Evidence: in the steps that were watched closely, whether a backward pass found gradients that were 0, or none, at any
time since the step before.

Why it hurts: PyTorch adds gradients to those that are there. If nothing empties them, a step goes in the direction of
all batches since the start, most of them seen with other weights. It acts like momentum that never fades: weights swing
and run away.

How sure: it cannot be otherwise when it is so in each step that was watched; likely, when in more than half. Gradients
that add up over several batches before a step are no fault.

What to try: `optimizer.zero_grad()` after each step.

References: PyTorch documentation, *Zeroing out gradients in PyTorch*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSTEADY

EXPLAINS = ("rate-too-high", *UNSTEADY, *POOR)
FEWEST = 2  # steps watched closely
SHARE = 0.5  # of them


def find(sight: Sight) -> Finding | None:
    """Look for steps after which gradients stay."""
    loop = sight.loop
    if loop is None or loop.checked < FEWEST or loop.left <= SHARE * loop.checked:
        return None
    return Finding(
        "gradients-not-zeroed",
        "sure" if loop.left == loop.checked else "likely",
        f"in {loop.left} of {loop.checked} steps watched closely, gradients were added to those of the step before",
        step=1,
        remedies=(Remedy("`optimizer.zero_grad()` after each step"),),
    )
