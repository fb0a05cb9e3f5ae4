"""Layers that the network lists but never runs, though they would fit between layers that run.

Evidence: which layers ran in a forward pass; and whether what a layer takes is given by one that runs, and what it
gives is taken by one.

Why it hurts: the network is less deep than it was meant to be; usually a line is missing in `forward`.

How sure: likely when it fits between two layers. A head of its own size that is not used, for another task perhaps,
is mentioned as a hint.

What to try: run the layer in `forward`, or remove it.

References: none needed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.part_without_gradient import acts
from foldwise.checks.probe import Pass, fewer, forward, is_weighted, joined
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("no-gradient", "part-without-gradient", *BLOCKED)


def find(sight: Sight) -> Finding | None:
    """Look for layers with weights that did not run."""
    if sight.network is None:
        return None
    network = fewer(sight.network, 8)
    passed = forward(network.module, network.inputs)
    unused = _unused(network.module, passed, network.inputs)
    if not unused or not passed.weighted:
        return None
    taken = {_takes(own.layer) for own in passed.weighted}
    given = {_gives(own.layer) for own in passed.weighted} | {network.inputs.shape[-1]}
    fits = [name for name, part in unused if _between(part, given, taken)]
    names = fits or [name for name, _ in unused]
    does = "is never run" if len(names) == 1 else "are never run"
    between = ", and would fit between layers that are" if fits else ""
    return Finding(
        "unused-layers",
        "likely" if fits else "hint",
        f"{joined(sight.all_called(names))} {does} by the forward pass{between}",
        trials=sight.about,
        where=tuple(names),
        remedies=(Remedy("run it in forward, or remove it"),),
    )


def _unused(module: nn.Module, passed: Pass, inputs: Tensor) -> list[tuple[str, nn.Module]]:
    """List the largest parts with weights of which no layer ran; what other layers share has run with them."""
    ran = {id(own.layer) for own in passed.layers}
    used = {id(p) for own in passed.layers for p in own.layer.parameters()}
    parts: list[tuple[str, nn.Module]] = []
    for name, part in module.named_modules():
        layers = [m for m in part.modules() if is_weighted(m)]
        idle = layers and not any(id(m) in ran for m in part.modules())
        shared = any(id(p) in used for p in part.parameters())
        apart = not isinstance(part, nn.ModuleList | nn.ModuleDict)  # these never run themselves
        if name and idle and not shared and apart and not _in(name, parts):
            parts.append((name, part))
    # torch's attention hands its weights to functions, and its layers never run themselves
    return [(name, part) for name, part in parts if not _felt(module, inputs, name, part)]


def _felt(module: nn.Module, inputs: Tensor, name: str, part: nn.Module) -> bool:
    """Tell whether the outputs change with the weights of a part."""
    copied = copy.deepcopy(module)
    with torch.no_grad():
        return any(acts(copied, inputs, f"{name}.{own}") for own, _ in part.named_parameters())


def _in(name: str, parts: Iterable[tuple[str, nn.Module]]) -> bool:
    return any(name.startswith(f"{known}.") for known, _ in parts)


def _between(part: nn.Module, given: set[int], taken: set[int]) -> bool:
    layers = [m for m in part.modules() if is_weighted(m)]
    return _takes(layers[0]) in given and _gives(layers[-1]) in taken


def _takes(layer: nn.Module) -> int:
    return int(layer.get_parameter("weight").shape[1])


def _gives(layer: nn.Module) -> int:
    return int(layer.get_parameter("weight").shape[0])
