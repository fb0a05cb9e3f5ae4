"""Parameters that are to be trained and get no gradient, although the layers they belong to run.

Evidence: the gradient of the mean loss for each parameter that asks for one: none at all, or exactly 0 in every
entry, also after a few steps of Adam on a copy.

Why it hurts: these parameters keep their initial values. Part of the forward pass runs under `torch.no_grad()`,
passes through `.detach()`, `.item()` or numpy, or through a function without a slope, such as rounding or the
largest entry.

How sure: likely; a hint, when what the loss is computed from does not depend on them, as on a head whose outputs no
loss is given. A part that is frozen on purpose says so by `requires_grad_(False)` and is not meant; nor is one
behind a layer that starts with zeros, which gets its gradient after the first step.

What to try: leave out what cuts the graph; let the loss see a head that is to learn; or freeze the part openly.

References: none needed.
"""

from __future__ import annotations

import copy

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.part_without_gradient import acts
from foldwise.checks.probe import fewer, forward, gradients_of, joined, take_steps
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("part-without-gradient", *BLOCKED)
CUT = "leave out no_grad, detach, rounding … in forward; or requires_grad_(False)"
UNUSED = "let the loss see what they give; or requires_grad_(False)"
STEPS = 3  # after which a layer that starts with zeros has let gradients through


def find(sight: Sight) -> Finding | None:
    """Look for parameters of layers that ran, to which no gradient comes."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network)
    ran = {
        id(p) for own in forward(network.module, network.inputs[:8]).layers for p in own.layer.parameters()
    }
    wanted = [name for name, p in network.module.named_parameters() if p.requires_grad and id(p) in ran]
    idle = _without(network)
    moved = {p.name for p in sight.loop.parameters if p.moved} if sight.loop else set()
    cut = [name for name in wanted if name in idle and name not in moved]
    if not cut:
        return None
    module = copy.deepcopy(network.module)
    felt = [name for name in cut if acts(module, network.inputs[:8], name)]
    trained = sum(p.requires_grad for p in network.module.parameters())
    return Finding(
        "no-gradient",
        "likely" if felt else "hint",
        f"{len(cut)} of {trained} parameters get no gradient, though their layers run: {joined(sight.all_called(cut))}"
        + ("" if felt else "; what the loss is computed from does not depend on them"),
        trials=sight.about,
        where=tuple(cut),
        remedies=(Remedy(CUT if felt else UNUSED),),
    )


def _without(network: Network) -> set[str]:
    if all(g is not None and g.any() for g in gradients_of(network.module, network).values()):
        return set()
    module = copy.deepcopy(network.module)
    idle = {name for name, p in module.named_parameters() if p.requires_grad}
    for gradients in take_steps(module, network, STEPS):
        idle -= {name for name, g in gradients.items() if g is not None and g.any()}
    return idle
