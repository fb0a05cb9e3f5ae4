"""The network ends in a softmax or sigmoid, or the loop applies it, and the loss applies one more.

Evidence: outputs on a batch that sum to 1 in every row, or that stay within the range of a sigmoid or tanh and go
to its ends when the last layer's weights are made 1000 times as large, with either sign; and a loss that is not
near its least at the best such outputs, but is beyond them.

Why it hurts: the loss expects scores without bounds. Probabilities are at most 1 apart, so with C classes no row
can get below log(1 + (C−1)/e), gradients are small, and the network is never as certain as it should be. Training
starts at log C all the same, so that nothing looks wrong.

How sure: sure where rows sum to 1, likely otherwise. Log-softmax applied twice changes nothing, and is not meant.

What to try: leave out the softmax or sigmoid at the end of the network, or between it and the loss: the loss has it.

References: Goodfellow, Bengio & Courville 2016, *Deep learning*, section 6.2.2; PyTorch documentation,
*CrossEntropyLoss* (inputs are unnormalized logits).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, mean_loss, output_gradient
from foldwise.checks.sight import Network, Sight, run
from foldwise.checks.softmax_hidden import are_shares
from foldwise.checks.symptoms import BLOCKED

EXPLAINS = ("saturated-units", "unreachable-targets", *BLOCKED)
FLOOR = 0.03  # a loss that gets lower than this within the bounds has none to speak of
PUSHED = 1000.0
SETTLED = 0.9  # of the outputs are then at an end, if a bounded function is what they go through
NEAR = 0.02


def find(sight: Sight) -> Finding | None:
    """Look for outputs with bounds, given to a loss that wants none."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network)
    outputs = run(network.module, network.inputs)
    if outputs.ndim not in (1, 2) or not torch.isfinite(outputs).all() or outputs.abs().max() > 1:
        return None
    shares = outputs.ndim == 2 and are_shares(outputs)
    bounds = (0.0, 1.0) if shares else _bounds(network)
    if bounds is None:
        return None
    least = _floor(network, outputs, bounds)
    if least is None:
        return None
    what = (
        "what the loss is given sums to 1 in every row, as behind a softmax"
        if shares
        else f"what the loss is given stays between {bounds[0]:.0f} and {bounds[1]:.0f} whatever its weights"
    )
    return Finding(
        "probabilities-as-scores",
        "sure" if shares else "likely",
        f"{what}, but the loss takes scores without bounds: on these rows it cannot get below {least:.2g}",
        trials=sight.about,
        remedies=(Remedy("leave out the softmax or sigmoid before the loss, in the network or in the loop"),),
    )


def _bounds(network: Network) -> tuple[float, float] | None:
    module = copy.deepcopy(network.module)
    layers = forward(module, network.inputs[:8]).weighted
    if not layers:
        return None
    pushed = torch.cat([_pushed(module, layers[-1].layer, network, by) for by in (PUSHED, -1.0)])
    low, high = float(pushed.min()), float(pushed.max())
    for bottom, top in ((0.0, 1.0), (-1.0, 1.0)):
        ends = ((pushed - bottom).abs() < NEAR) | ((pushed - top).abs() < NEAR)
        if bottom <= low < bottom + NEAR and top - NEAR < high <= top and ends.double().mean() > SETTLED:
            return bottom, top
    return None


@torch.no_grad()
def _pushed(module: nn.Module, layer: nn.Module, network: Network, by: float) -> Tensor:
    """Multiply what a layer gives, in place, and run the network."""
    for p in layer.parameters():
        p.mul_(by)
    return run(module, network.inputs)


def _floor(network: Network, outputs: Tensor, bounds: tuple[float, float]) -> float | None:
    """Compute the least loss within the bounds; None where it is next to 0, or not lower beyond them."""
    low, high = bounds
    down = output_gradient(network, outputs) < 0
    best = torch.where(down, high, low).to(outputs)
    middle = (low + high) / 2
    try:
        with torch.no_grad():
            here = float(mean_loss(network, best))
            beyond = float(mean_loss(network, middle + 20 * (best - middle)))
    except (RuntimeError, ValueError):  # a loss of probabilities refuses what is none
        return None
    return here if here > FLOOR and beyond < 0.3 * here else None
