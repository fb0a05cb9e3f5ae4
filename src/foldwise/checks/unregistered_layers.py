"""Layers or weights that the network uses but does not know of: they are not trained.

Evidence: weights that the outputs depend on, found by following the recorded operations back from the outputs, and
that are not among the parameters of the network.

Why it hurts: the optimizer is given the parameters that the network lists. What it does not list keeps its initial
values, is not saved with the network and not moved to another device.

How sure: it cannot be otherwise: these weights ask for gradients and take part in the outputs. A frozen part that
is kept out of the list on purpose asks for no gradient, and is not meant.

What to try: hold layers in `nn.ModuleList`, `nn.ModuleDict` or as attributes, and single tensors as `nn.Parameter`.

References: PyTorch documentation, *Modules*: submodules and parameters are registered by assignment to attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, joined
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("unused-layers", "no-gradient", "unheld-parameters", *BLOCKED)


def find(sight: Sight) -> Finding | None:
    """Look for weights behind the outputs that the network does not list."""
    if sight.network is None:
        return None
    network = fewer(sight.network, 8)
    known = {id(p) for p in network.module.parameters()} | {id(network.inputs)}
    outputs = forward(network.module, network.inputs).outputs
    hidden = [leaf for leaf in leaves(outputs) if id(leaf) not in known]
    if not hidden:
        return None
    named = names_of(network.module)
    where = [named[id(leaf)] for leaf in hidden if id(leaf) in named]
    numbers = sum(leaf.numel() for leaf in hidden)
    at = f" ({joined(where)})" if where else ""
    return Finding(
        "unregistered-layers",
        "sure",
        f"the outputs depend on {numbers} weights{at} that are not among the network's parameters: "
        "nothing trains them",
        trials=sight.about,
        where=tuple(where),
        remedies=(Remedy("layers in an nn.ModuleList or nn.ModuleDict, single tensors as nn.Parameter"),),
    )


def leaves(outputs: Tensor) -> list[Tensor]:
    """List the tensors with gradients of their own that outputs were computed from."""
    found, seen, todo = [], set(), [outputs.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo.extend(before for before, _ in node.next_functions)
    return found


def names_of(module: nn.Module) -> dict[int, str]:
    """Name the tensors and layers that attributes of a network hold without its knowing, by id."""
    named: dict[int, str] = {}
    for prefix, child in module.named_modules():
        for attribute, value in vars(child).items():
            if not attribute.startswith("_"):
                for path, tensor in _inside(value):
                    named.setdefault(id(tensor), f"{prefix}.{attribute}{path}".lstrip("."))
    return named


def _inside(value: Any, deep: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield "", value
    elif isinstance(value, nn.Module):
        yield from ((f".{name}", p) for name, p in value.named_parameters())
    elif isinstance(value, list | tuple | dict) and deep < 3:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from ((f"[{key!r}]{path}", t) for path, t in _inside(item, deep + 1))
