"""The loss is summed over the batch, and the step grows with it.

Evidence: the setting, or a loss that doubles when every row is there twice; and, for plain gradient descent,
whether the rate times the largest curvature of the summed loss at the start is far beyond 2, from where on steps
overshoot.

Why it hurts: with a sum, the learning rate means another thing for each batch size: 32 rows make the step 32 times
as large as their mean would.

How sure: likely where steps overshoot by far; a hint otherwise, because the rate may have been chosen for it, and
Adam divides such a factor away.

What to try: the mean.

References: Goyal et al. 2017, *Accurate, large minibatch SGD*; Lewkowycz et al. 2020, *The large learning rate
phase of deep learning: the catapult mechanism*.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.look import undisturbed
from foldwise.checks.probe import mean_loss
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import BREAKS

EXPLAINS = BREAKS
STEEP = 10.0  # beyond 2 steps overshoot; up to about 4, and often 8, they find a flatter place by themselves
ROUNDS = 12


def find(sight: Sight) -> Finding | None:
    """Look for a sum in place of a mean."""
    network, s = sight.network, sight.settings
    if network is None or network.loss is None or network.targets is None:
        return None
    if s is None:
        return _steep(sight, network) or _of_a_loop(network)
    if s.reduction != "sum":
        return None
    rate = s.learning_rate / (1 - s.momentum)
    curved = _curvature(network) if s.optimizer == "sgd" else 0.0
    overshoots = s.clip_norm == 0 and rate * s.batch_size * curved > STEEP
    why = f"a step follows the sum over {s.batch_size} rows, {s.batch_size} times their mean"
    if overshoots:
        why += (
            f": the rate times the curvature at the start is {rate * s.batch_size * curved:.2g}, and "
            f"{rate * curved:.2g} "
            "with the mean; beyond 2, steps overshoot"
        )
    return Finding(
        "loss-sum",
        "likely" if overshoots else "hint",
        why,
        trials=sight.about,
        remedies=(
            Remedy("the mean", {"reduction": "mean"}),
            smaller("learning_rate", s.learning_rate, s.batch_size),
        ),
    )


def _steep(sight: Sight, network: Network) -> Finding | None:
    """Look at plain steps of a loop that follow a sum."""
    loop, rows = sight.loop, len(network.inputs)
    if loop is None or loop.reduction != "sum" or not loop.options:
        return None
    o = loop.options[0]
    if "momentum" not in o or "betas" in o or "alpha" in o or not isinstance(o.get("lr"), float):
        return None
    steep = rows * o["lr"] / (1 - o["momentum"]) * _curvature(network)
    if not steep > STEEP:
        return None
    return Finding(
        "loss-sum",
        "likely",
        f"a step follows the sum over {rows} rows: the rate times the curvature at the start is {steep:.2g}, and "
        f"{steep / rows:.2g} with the mean; beyond 2, steps overshoot",
        remedies=(Remedy("the mean"), Remedy("learning rate ÷ batch size")),
    )


def _of_a_loop(network: Network) -> Finding | None:
    assert network.loss is not None
    assert network.targets is not None
    with torch.no_grad():
        outputs = network.module(network.inputs)
        once = network.loss(outputs, network.targets)
        if once.ndim:
            return None
        twice = network.loss(torch.cat([outputs, outputs]), torch.cat([network.targets, network.targets]))
    if not abs(float(twice) - 2 * float(once)) < 1e-3 * abs(float(once)):
        return None
    return Finding(
        "loss-sum",
        "hint",
        f"the loss doubles when every row is there twice: it is a sum over {len(network.inputs)} rows",
        remedies=(Remedy("the mean"),),
    )


def _curvature(network: Network) -> float:
    try:
        return curvature(network)
    except RuntimeError:  # a function of the user's own that has a gradient, and the gradient has none
        return 0.0


def curvature(network: Network) -> float:
    """Estimate the largest eigenvalue of the mean loss's Hessian at the start from below, by power iteration."""
    parameters = [p for p in network.module.parameters() if p.requires_grad]
    chance = torch.Generator().manual_seed(0)
    vector = [torch.randn(p.shape, generator=chance).to(p) for p in parameters]
    value = 0.0
    with undisturbed(network.module), torch.enable_grad():
        loss = mean_loss(network, network.module.eval()(network.inputs))
        gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        for _ in range(ROUNDS):
            size = math.sqrt(sum(float(v.square().sum()) for v in vector))
            if not 0 < size < math.inf:
                return 0.0
            vector = [v / size for v in vector]
            along = sum(
                ((g * v).sum() for g, v in zip(gradient, vector, strict=True) if g is not None),
                start=loss * 0,
            )
            found = torch.autograd.grad(along, parameters, retain_graph=True, allow_unused=True)
            turned: list[Tensor] = [
                torch.zeros_like(p) if h is None else h.detach()
                for p, h in zip(parameters, found, strict=True)
            ]
            value = max(value, sum(float((v * h).sum()) for v, h in zip(vector, turned, strict=True)))
            vector = turned
    return value
