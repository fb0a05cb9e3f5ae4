"""Two steps for one backward pass: the optimizer uses the same gradients twice.

Evidence: in the steps that were watched closely, whether anything was run or computed between the step and the one
before of the same optimizer.

Why it hurts: the second step goes on in a direction that was right before the first. It acts like a larger learning
rate, and where it stands in a loop by mistake the rate that was tuned is not the one that acts.

How sure: likely, when more than a quarter of the steps are so.

What to try: one `optimizer.step()` for each batch, also where a training function, a gradient scaler or a library steps
as well.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import UNSTEADY

EXPLAINS = ("rate-too-high", *UNSTEADY)
FEWEST = 4  # steps watched closely
SHARE = 0.25  # of them


def find(sight: Sight) -> Finding | None:
    """Look for steps between which nothing happened."""
    loop = sight.loop
    if loop is None or loop.watched < FEWEST or loop.doubled <= SHARE * loop.watched:
        return None
    return Finding(
        "double-step",
        "likely",
        f"{loop.doubled} of {loop.watched} steps watched closely followed the step before without any pass or gradient "
        "between them",
        step=1,
        remedies=(Remedy("one `optimizer.step()` for each `backward()`"),),
    )
