"""Parameters that get gradients and are held by no optimizer: they never change.

Evidence: parameters that ask for a gradient, got one, are in no optimizer that stepped, and are the same at the end as
at the start.

Why it hurts: that part of the network stays as it was drawn. What follows has to make do with its outputs.

How sure: likely. It is no more than a hint when the part is the beginning of the network and no longer looks as PyTorch
draws weights: then it was trained before, and only the head is trained on purpose. Parameters that do not ask for a
gradient are frozen on purpose and never named.

What to try: give the optimizer `model.parameters()`, also those of layers added later; freeze on purpose with
`requires_grad_(False)`, which saves their gradients too.

References: none needed.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.loop import Loop, Parameter
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW
from foldwise.errors import listed

EXPLAINS = ("gradients-not-zeroed", *SLOW)


def find(sight: Sight) -> Finding | None:
    """Look for parameters that get gradients, and stand still because no optimizer holds them."""
    loop = sight.loop
    if loop is None or not loop.steps:
        return None
    lost = [p for p in loop.trainable if not p.held and p.reached and not p.moved]
    if not lost:
        return None
    names = tuple(p.name for p in lost)
    return Finding(
        "unheld-parameters",
        "hint" if _trained_before(loop, lost) else "likely",
        f"no optimizer holds {listed(names)}, {len(lost)} of {len(loop.trainable)} parameters that ask for a gradient: "
        f"they got gradients, and did not change in {loop.steps} steps",
        where=names,
        step=0,
        remedies=(Remedy("give the optimizer all of `model.parameters()`"),),
    )


def _trained_before(loop: Loop, lost: list[Parameter]) -> bool:
    """Tell whether they are the first of the network, and matrices among them do not look freshly drawn."""
    first = loop.trainable[: len(lost)]
    return first == lost and not any(p.fresh for p in lost)
