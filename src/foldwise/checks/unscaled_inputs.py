"""Inputs of very different or very large size: the largest column drowns the others.

Evidence: the deviation of each column of a batch as the network gets it, against the median over the columns that
vary; and the size of all of them. A network that begins with a normalization is spared.

Why it hurts: initial weights and learning rates suit inputs with a deviation near 1. A column a hundred times as large
decides what every unit of the first layer answers to, and its steps are a hundred times too large or all others' too
small.

How sure: likely. What a table gives is always scaled; it is seen where inputs come from a loop of the user's own.

What to try: subtract the mean of each column and divide by its deviation, both from training rows.

References: LeCun, Bottou, Orr & Müller 1998, *Efficient BackProp*.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import POOR, UNSTEADY

EXPLAINS = (
    "vanishing-gradients", "rate-too-high", "start-loss", "exploding-signal", "uneven-layers", *UNSTEADY,
    *POOR,
)  # fmt: skip
TIMES = (
    100.0  # the median deviation; columns of 0 and 1 with one row in a thousand are 20 times less than most
)
FAR = 100.0  # from deviation 1 for all of them
LEAST_ROWS = 8


def find(sight: Sight) -> Finding | None:
    """Look at the columns of the network's inputs."""
    net = sight.network
    if net is None or not net.inputs.is_floating_point() or len(net.inputs) < LEAST_ROWS or normalizes(net):
        return None
    columns = net.inputs.detach().double()
    columns = columns.movedim(1, -1).reshape(-1, columns.shape[1]) if columns.ndim > 1 else columns[:, None]
    said = _one_too_large(columns) or _all_of_wrong_size(columns)
    if said is None:
        return None
    evidence, where = said
    names = () if sight.table is None else tuple(f.name for f in sight.table.columns.features)
    shown = tuple(names[w] if w < len(names) else f"input {w}" for w in where)
    return Finding(
        "unscaled-inputs",
        "likely",
        evidence,
        trials=sight.about,
        where=shown,
        step=0,
        remedies=_remedies(sight),
    )


def _one_too_large(columns: Tensor) -> tuple[str, tuple[int, ...]] | None:
    deviation = columns.std(0, correction=0)
    varying = deviation[deviation > 0]
    if len(varying) < 2:
        return None
    typical = float(varying.median())
    large = torch.nonzero(deviation > TIMES * typical).flatten().tolist()
    if not large:
        return None
    worst = max(large, key=lambda place: float(deviation[place]))
    says = (
        f"input {worst} (from 0) has a deviation of {float(deviation[worst]):.3g}, the median of all "
        f"{len(deviation)} inputs is {typical:.3g}"
    )
    return says, tuple(large[:5])


def _all_of_wrong_size(columns: Tensor) -> tuple[str, tuple[int, ...]] | None:
    size = columns.square().mean(0).sqrt()
    varying = size[columns.std(0, correction=0) > 0]
    if not len(varying) or 1 / FAR <= (typical := float(varying.median())) <= FAR:
        return None
    return f"the median size of the {len(size)} inputs is {typical:.3g}, where initial weights expect 1", ()


def normalizes(net: Network) -> bool:
    """Tell whether the first layer of a network that has anything to learn or to keep is a normalization."""
    for layer in net.module.modules():
        if any(layer.children()):
            continue
        if "Norm" in type(layer).__name__:
            return True
        if any(True for _ in layer.parameters()):
            return isinstance(layer, nn.Embedding | nn.EmbeddingBag)
    return False


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    if sight.settings is not None and sight.settings.scaling != "standard":
        return (Remedy("standard scaling", {"scaling": "standard"}),)
    return (Remedy("scale each input to mean 0 and deviation 1"),)
