"""What the network says of a row depends on the other rows of the batch.

Evidence: the network in evaluation, on some rows, and once more after one of them was replaced by another: outputs of
rows that stayed as they were have changed. Batch normalization is held to fixed statistics meanwhile.

Why it hurts: a softmax or a mean over the wrong axis, or a reshape that cuts rows in pieces, hands what belongs to one
row to another. The network learns from mixtures, and says something else of the same row in other company.

How sure: likely. A hint where the second axis may be that of the rows, as in sequences of shape (time, rows, features).
Networks that take a fixed number of rows, such as graphs with all their nodes, are not meant, nor is batch
normalization in training.

What to try: look at every `dim=`, `view`, `reshape` and `transpose` in the forward pass; `batch_first=True` for
attention and recurrent layers whose first axis is that of the rows.

References: Karpathy 2019, *A recipe for training neural networks* (use backprop to chart dependencies); PyTorch
documentation, *MultiheadAttention* (`batch_first`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import redrawn
from foldwise.checks.sight import Sight, run

EXPLAINS = (
    "softmax-hidden", "vanishing-signal", "exploding-signal", "initial-scale", "start-loss", "overfit-one-batch",
    "few-steps", "rate-too-low", "plateau", "underfitting", "overfitting", "overconfident", "jitter", "uneven-layers",
    "vanishing-gradients", "within-noise",
)  # fmt: skip
ROWS = 12  # few, so that a mean over them still moves
MOVES = 1e-3  # of what the replaced row moves itself; rounding of half precision stays below
PRECISION = 1e-5  # of the largest output


def find(sight: Sight) -> Finding | None:
    """Look whether a row's outputs move when another row is replaced."""
    network = sight.network
    if network is None or len(network.inputs) < 4:
        return None
    inputs = network.inputs[:ROWS]
    module = steady(network.module)
    touched = _touched(module, inputs, 0)
    if touched is None:  # nothing moves at all, as behind an output layer that begins with zeros
        module = steady(redrawn(network.module))
        touched = _touched(module, inputs, 0)
    if touched is None:
        return None
    others = _of_others(touched)
    if not others.any() or not _takes_fewer(module, inputs):
        return None
    count = int(others.any(1).sum())
    return Finding(
        "mixed-rows",
        "hint" if _other_axis(module, inputs) else "likely",
        f"in evaluation, of {len(inputs)} rows that were replaced one at a time, {count} moved the outputs of other "
        f"rows, of {float(others.sum(1).double().mean()):.2g} on average",
        trials=sight.about,
        remedies=(Remedy("look at every `dim=`, `view` and `reshape`: rows are the first axis"),),
    )


def steady(module: nn.Module) -> nn.Module:
    """Copy a network, and let its batch normalization use statistics of no batch."""
    twin = copy.deepcopy(module)
    for layer in twin.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            units = layer.num_features
            like = next(twin.parameters())
            layer.running_mean, layer.running_var = like.new_zeros(units), like.new_ones(units)
            layer.track_running_stats = True
    return twin


def _touched(module: nn.Module, inputs: Tensor, axis: int) -> Tensor | None:
    """Tell which places along an axis `[replaced, moved]` move when one is replaced by the next; None: none does."""
    before = run(module, inputs)
    count = inputs.shape[axis]
    if before.ndim == 0 or not torch.isfinite(before).all():
        return None
    along = next((a for a in (axis, 0) if before.ndim > a and before.shape[a] == count), None)
    if along is None:
        return None
    found = []
    for place in range(min(count, ROWS)):
        changed = inputs.clone()
        changed.select(axis, place).copy_(inputs.select(axis, (place + 1) % count))
        moved = (run(module, changed) - before).abs().movedim(along, 0).flatten(1).amax(1).double()
        found.append(moved)
    distances = torch.stack(found).cpu()
    largest = distances.amax()
    if not largest > PRECISION * max(float(before.abs().max()), 1e-30):
        return None
    return distances > max(MOVES * float(largest), PRECISION * float(before.abs().max()))


def _takes_fewer(module: nn.Module, inputs: Tensor) -> bool:
    """Tell whether the network takes fewer rows: one with a place for each of its rows is no map of single rows."""
    try:
        return len(run(module, inputs[: len(inputs) // 2])) == len(inputs) // 2
    except Exception:  # whatever a network of the user's own does
        return False


def _other_axis(module: nn.Module, inputs: Tensor) -> bool:
    """Tell whether the second axis is one along which nothing is mixed, as that of the rows should be."""
    if inputs.ndim < 3 or inputs.shape[1] < 2:
        return False
    touched = _touched(module, inputs, 1)
    return touched is not None and not _of_others(touched).any()


def _of_others(touched: Tensor) -> Tensor:
    """Leave out, of places that move, those that were replaced themselves."""
    return touched & ~torch.eye(*touched.shape, dtype=torch.bool)
