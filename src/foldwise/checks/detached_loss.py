"""A loss from which no way leads back to the network: the backward pass reaches no parameter, and nothing is learned.

Evidence: passes of the network that record gradients, and the parameters that a gradient came to in the steps that were
watched closely.

Why it hurts: the optimizer steps without gradients and leaves every weight as it is. What a loss is made of must stay a
tensor with its history: `.item()`, `.detach()`, `.numpy()`, `torch.tensor(loss)` and `torch.no_grad()` cut it off, and
`requires_grad_()` afterwards only hides that.

How sure: it cannot be otherwise when several steps were watched and no gradient came in any of them.

What to try: compute the loss from what the network gave, without any of these, and use `.item()` only for printing.

References: Paszke et al. 2019, *PyTorch: an imperative style, high-performance deep learning library*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW

EXPLAINS = ("wrong-loss", "step-without-backward", "missing-step", *SLOW)
FEWEST = 3  # steps, or passes where there are no steps


def find(sight: Sight) -> Finding | None:
    """Look for a loop that has passes and steps, but whose backward passes reach nothing."""
    loop = sight.loop
    if loop is None or loop.backwards or not loop.trainable or not loop.still:
        return None
    if loop.heard < FEWEST or loop.steps < FEWEST:
        return None
    return Finding(
        "detached-loss",
        "sure",
        f"no gradient came to any of the {len(loop.trainable)} parameters in {loop.watched} steps watched closely, "
        f"of {loop.steps}, and no weight changed",
        step=0,
        remedies=(Remedy("compute the loss without `.item()`, `.detach()`, `.numpy()` or `no_grad`"),),
    )
