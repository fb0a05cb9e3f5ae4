"""A part of the network that outputs depend on, but that no gradient comes back to: it never learns.

Evidence: the network at its start is run with a batch. A parameter to which autograd finds no way from the outputs, but
whose change changes the outputs, is cut off.

Why it hurts: `torch.no_grad()`, `.detach()`, `.data`, `.item()`, `.numpy()` or a rounding within the forward pass cut
the way back. What lies before the cut stays as it was drawn, and what lies behind makes do with it.

How sure: likely; sure, when it is nearly the whole network. A head that is not used on purpose changes no output and is
not meant, nor are parameters that do not ask for a gradient.

What to try: leave out what cuts, or freeze the part on purpose with `requires_grad_(False)`.

References: PyTorch documentation, *Autograd mechanics* (locally disabling gradient computation).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import undisturbed
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW
from foldwise.errors import listed

EXPLAINS = ("unheld-parameters", "vanishing-gradients", *SLOW)
ROWS = 32  # are enough to see whether outputs change


def find(sight: Sight) -> Finding | None:
    """Look for parameters that act on the outputs and that gradients do not reach."""
    if sight.network is None:
        return None
    module, inputs = copy.deepcopy(sight.network.module), sight.network.inputs[:ROWS]
    moved = {p.name for p in sight.loop.parameters if p.moved} if sight.loop else set()
    cut = [name for name in _without_way(module, inputs) if name not in moved and acts(module, inputs, name)]
    if not cut:
        return None
    names = tuple(cut)
    asking = sum(p.requires_grad for p in module.parameters())
    return Finding(
        "part-without-gradient",
        "likely" if len(cut) < asking else "sure",
        f"outputs change with {listed(names)}, but no gradient comes back to {'it' if len(cut) == 1 else 'them'}: "
        f"{len(cut)} of {asking} parameters that ask for one",
        trials=sight.about,
        where=names,
        step=0,
        remedies=(Remedy("leave out `no_grad`, `.detach()` or `.data` in the forward pass"),),
    )


def _without_way(module: nn.Module, inputs: Tensor) -> list[str]:
    asking = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not asking:
        return []
    with undisturbed(module), torch.enable_grad():
        out = module(inputs)
        if not out.requires_grad:
            return [name for name, _ in asking]
        found = torch.autograd.grad(out.sum(), [p for _, p in asking], allow_unused=True)
    return [name for (name, _), gradient in zip(asking, found, strict=True) if gradient is None]


@torch.no_grad()
def acts(module: nn.Module, inputs: Tensor, name: str) -> bool:
    """Tell whether outputs change when a parameter does, everything else and chance being the same."""
    parameter = dict(module.named_parameters())[name]
    before = parameter.detach().clone()
    outputs = []
    for value in (before, before + 1 + before.abs()):
        parameter.copy_(value)
        with undisturbed(module):
            torch.manual_seed(0)
            outputs.append(module(inputs).detach().clone())
    parameter.copy_(before)
    return not torch.equal(outputs[0], outputs[1])
