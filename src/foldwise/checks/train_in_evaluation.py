"""A network that stays in training mode while it is validated, though it has layers for which that matters.

Evidence: passes without gradients in training mode, again and again between steps, and none in evaluation mode; layers
of dropout and batch normalization.

Why it hurts: dropout goes on dropping, and each validation batch is normalized by itself and moves the running
statistics. Scores are too bad, change with the batch size, and validation rows leak into the network.

How sure: likely, when it happened at least twice and the network was never validated in evaluation mode. Once, at the
end, it may be a new estimate of running statistics, which is done on purpose.

What to try: `model.eval()` before each validation, `model.train()` after it.

References: Ioffe & Szegedy 2015, *Batch normalization*; Srivastava et al. 2014, *Dropout*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.errors import listed

EXPLAINS = ()
TIMES = 2


def find(sight: Sight) -> Finding | None:
    """Look for passes without gradients in training mode, where there are none in evaluation mode."""
    loop = sight.loop
    if loop is None or not loop.modes or not loop.dark_training or loop.dark_evaluation:
        return None
    times = "once" if loop.dark_training == 1 else f"{loop.dark_training} times"
    return Finding(
        "train-in-evaluation",
        "likely" if loop.dark_training >= TIMES else "hint",
        f"the network was run {times} without gradients in training mode, and never in evaluation mode; that matters "
        f"for {listed(loop.modes)}",
        where=loop.modes,
        step=1,
        remedies=(Remedy("`model.eval()` before each validation, `model.train()` after it"),),
    )
