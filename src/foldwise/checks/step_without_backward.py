"""Steps of the optimizer for which no gradient was computed.

Evidence: in the steps that were watched closely, whether a backward pass reached any parameter between the step and the
one before, given that the network was run.

Why it hurts: the optimizer steps with the gradients of an earlier batch, or with none. With momentum, weights move on
in an old direction.

How sure: likely, when more than a quarter of the steps are so. The step of an optimizer that takes turns with others is
judged by its own steps only.

What to try: in each turn of the loop `loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`, in this order.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW

EXPLAINS = SLOW
FEWEST = 4  # steps watched closely
SHARE = 0.25  # of them


def find(sight: Sight) -> Finding | None:
    """Look for steps that had a pass before them, and no backward pass."""
    loop = sight.loop
    if loop is None or loop.watched < FEWEST or loop.empty <= SHARE * loop.watched:
        return None
    return Finding(
        "step-without-backward",
        "likely",
        f"in {loop.empty} of {loop.watched} steps watched closely the network was run, but no gradient came before the "
        "optimizer stepped",
        step=0,
        remedies=(Remedy("call `loss.backward()` before each `optimizer.step()`"),),
    )
