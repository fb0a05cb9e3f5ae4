"""An optimizer that holds tensors which are not the network's: it trains something else.

Evidence: parameters of the network that no optimizer holds, that got gradients and never changed; tensors of the same
shapes that an optimizer holds and the network does not have.

Why it hurts: an optimizer keeps the tensors that it was given. If the network, or a layer of it, is made, copied or
loaded anew afterwards, the optimizer steps on tensors that nobody uses.

How sure: it cannot be otherwise when each of the parameters has its counterpart of the same shape.

What to try: make the optimizer after the network is complete, and again when a layer is replaced.

References: PyTorch documentation, *torch.optim* (constructing an optimizer).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW
from foldwise.errors import listed

EXPLAINS = ("gradients-not-zeroed", "unheld-parameters", "step-without-backward", *SLOW)


def find(sight: Sight) -> Finding | None:
    """Look for parameters that stand still, whose shapes an optimizer holds in tensors that are not the network's."""
    loop = sight.loop
    if loop is None or not loop.steps:
        return None
    lost = [p for p in loop.trainable if not p.held and p.reached and not p.moved]
    foreign, matched = list(loop.foreign), []
    for p in lost:
        if p.shape in foreign:
            foreign.remove(p.shape)
            matched.append(p)
    if not matched or len(matched) < len(lost):
        return None
    names = tuple(p.name for p in matched)
    return Finding(
        "stale-parameters",
        "sure",
        f"the optimizer holds other tensors than {listed(names)}, of the same shapes: they got gradients, and did not "
        f"change in {loop.steps} steps",
        where=names,
        step=0,
        remedies=(Remedy("make the optimizer after the network, from `model.parameters()`"),),
    )
