"""The network cannot learn one batch by heart.

Evidence: 200 steps of Adam on a copy of the network and 32 rows, without dropout, at two rates; the loss that is
left, against that of outputs which are the same for all rows. A perceptron of 64 units learns the same batch in as
many steps.

Why it hurts: what cannot fit 32 rows cannot fit a table. Something on the way from inputs to the loss, or back, is
broken.

How sure: a hint by itself; what is broken is found by other checks, or to be looked for. Networks with fewer
weights than the batch has targets, such as linear ones, need not be able to, and are not tried.

What to try: look at each layer's outputs and gradients on that batch; take parts away until it learns.

References: Karpathy 2019, *A recipe for training neural networks* (overfit one batch).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, mean_loss, rate_of
from foldwise.checks.sight import Network, Sight
from foldwise.checks.start_loss import expected_loss
from foldwise.checks.symptoms import POOR

EXPLAINS = POOR
ROWS, STEPS = 32, 200
RATES = (0.01, 0.001)
WEIGHTS = 4  # trained weights for each number to learn, at least
LARGE, DEEP = 200_000, 20  # weights and layers, beyond which so many steps take long
LEARNED, STUCK = 0.2, 0.5  # of the expected loss at the start


def find(sight: Sight) -> Finding | None:
    """Look, before training, whether the network learns a batch."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    if (
        sight.curve is not None or sight.trial is None
    ):  # before training; afterwards there are curves to judge by
        return None
    network = fewer(network, ROWS)
    trained = sum(p.numel() for p in network.module.parameters() if p.requires_grad)
    expected = expected_loss(network).value
    outputs = network.module(network.inputs[:2]).shape[-1]
    able = trained >= WEIGHTS * len(network.inputs) * outputs
    layers = len(forward(network.module, network.inputs[:2]).layers)
    if not able or trained > LARGE or layers > DEEP or not 0 < expected < math.inf:
        return None
    left = min(_left(copy.deepcopy(network.module), network, rate, expected) for rate in RATES)
    if left < STUCK * expected:
        return None
    flat = network.inputs[0].numel()
    other = nn.Sequential(nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, outputs)).to(
        network.inputs
    )
    if _left(other, network, RATES[0], expected) > LEARNED * expected:
        return None
    return Finding(
        "overfit-one-batch",
        "hint",
        f"after {STEPS} steps on {len(network.inputs)} rows alone the loss is still {left:.2g}; outputs "
        "that are the same for "
        f"all rows give {expected:.2g}, and a perceptron of 64 units learns these rows",
        trials=sight.about,
        step=0,
        remedies=(Remedy("look at outputs and gradients of each layer on one batch"),),
    )


def _left(module: nn.Module, network: Network, rate: float, expected: float) -> float:
    module.train()
    for layer in module.modules():
        if rate_of(layer):
            layer.eval()
    weights = [p for p in module.parameters() if p.requires_grad]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in weights]
    left = math.inf
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for step in range(1, STEPS + 1):
            loss = mean_loss(network, module(network.inputs))
            left = float(loss.detach())
            if not loss.requires_grad or not math.isfinite(left) or left < LEARNED * expected:
                break
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for weight, moment, gradient in zip(weights, moments, gradients, strict=True):
                if gradient is not None:
                    _adam(weight, *moment, gradient, step, rate)
    return left if math.isfinite(left) else math.inf


@torch.no_grad()
def _adam(weight: Tensor, first: Tensor, second: Tensor, gradient: Tensor, step: int, rate: float) -> None:
    """Take a step of Adam (Kingma & Ba 2015, algorithm 1).

    By hand, because the first optimizer of torch imports its compiler, which takes longer than all other checks.
    """
    b1, b2 = 0.9, 0.999
    first.lerp_(gradient, 1 - b1)
    second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
    size = (second / (1 - b2**step)).sqrt() + 1e-8
    weight -= rate / (1 - b1**step) * first / size
