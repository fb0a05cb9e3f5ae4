"""Backward passes without a step: gradients are computed and never used.

Evidence: backward passes and steps; gradients that were emptied before any step had used them.

Why it hurts: only `optimizer.step()` changes weights. Without it nothing is learned; where it is called too rarely and
gradients are emptied in between, the work of the other batches is lost.

How sure: it cannot be otherwise when there is no step at all and no weight changed. Likely, when more than a quarter of
the gradients are thrown away. Gradients that add up over several batches before a step are no fault, nor is a step that
a gradient scaler leaves out now and then because of an overflow.

What to try: call `optimizer.step()` after `backward()` and before `zero_grad()`; with a gradient scaler
`scaler.step(optimizer)`.

References: Micikevicius et al. 2018, *Mixed precision training* (steps that are left out).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW

EXPLAINS = SLOW
FEWEST = 5  # backward passes
THROWN = 0.25  # of gradients; a scaler of gradients throws away a handful at the start


def find(sight: Sight) -> Finding | None:
    """Look for gradients that no step uses."""
    loop = sight.loop
    if loop is None or loop.backwards < FEWEST:
        return None
    remedies = (Remedy("call `optimizer.step()` after each `backward()`, before `zero_grad()`"),)
    if not loop.steps and loop.still:
        evidence = f"{loop.passes} passes of the network, backward passes, but no step, and no weight changed"
        return Finding("missing-step", "sure", evidence, step=0, remedies=remedies)
    if loop.steps and loop.thrown > THROWN * loop.backwards:
        evidence = (
            f"{loop.thrown} of {loop.backwards} gradients watched were emptied before any step used them"
        )
        return Finding("missing-step", "likely", evidence, step=0, remedies=remedies)
    return None
