"""Batch normalization whose running statistics do not follow the data: evaluation sees another network than training.

Evidence: the running means and variances before and after a batch in training, how many batches there will be, and
how far the outputs for the same rows are apart in training and in evaluation once that many batches were seen.

Why it hurts: training normalizes by each batch, evaluation by the running statistics. Where these stay at their
start, mean 0 and variance 1, layers behind get what they were never trained on.

How sure: likely. A normalization that is held in evaluation throughout, as in fine-tuning, sees the same in both,
and is not meant.

What to try: a momentum of 0.1, or `momentum=None` for the mean over all batches.

References: Ioffe & Szegedy 2015, *Batch normalization*, algorithm 2.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import undisturbed
from foldwise.checks.probe import plural
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR

EXPLAINS = ("jitter", "start-loss", "rate-too-high", *POOR, *FITS_TOO_WELL)
ARRIVED = 0.5  # of the way from their start to the data is the least that running statistics should go
APART = 0.1  # how far, in units of what arrives, before training and evaluation differ by much


def find(sight: Sight) -> Finding | None:
    """Look for normalization by a batch in training whose running statistics stay behind."""
    if sight.network is None or len(sight.network.inputs) < 2:
        return None
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in sight.network.module.modules()):
        return None
    batches = _batches(sight)
    slow = [
        name
        for name, layer, way in _normalizations(sight)
        if 1 - (1 - _momentum(layer)) ** batches < ARRIVED and way > APART
    ]
    if not slow:
        return None
    return Finding(
        "frozen-statistics",
        "likely",
        f"{plural(sight.all_called(slow), 'normalizes', 'normalize')} by each batch in training; the running "
        f"statistics, by which evaluation normalizes, hardly move in {batches} batches",
        trials=sight.about,
        where=tuple(slow),
        remedies=(Remedy("momentum 0.1"),),
    )


def _batches(sight: Sight) -> int:
    s = sight.settings
    if s is None or sight.folds is None:
        return 1000  # of a loop of the user's own it is not known
    rows = int(sight.folds.train.sum(1).min())
    return max(1, s.epochs * math.ceil(rows / s.batch_size))


def _momentum(layer: nn.modules.batchnorm._BatchNorm) -> float:
    return 0.5 if layer.momentum is None else float(layer.momentum)  # None: the mean over all batches


@torch.no_grad()
def _normalizations(sight: Sight) -> list[tuple[str, nn.modules.batchnorm._BatchNorm, float]]:
    """List the layers that normalize by a batch in training, and how far the batch is from their running statistics.

    In deviations of the batch: the distance of means, or the logarithm of the ratio of deviations.
    """
    assert sight.network is not None
    module, found = copy.deepcopy(sight.network.module), []
    given: dict[str, Tensor] = {}
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    if not layers:
        return []
    handles = [
        m.register_forward_pre_hook(lambda m, x, n=n: given.__setitem__(n, x[0].clone()))
        for n, m in layers.items()
    ]
    with undisturbed(module):
        module.train()
        module(sight.network.inputs)
        by_batch = {n for n, m in layers.items() if m.training and m.running_mean is not None}
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        if name in by_batch and name in given:
            found.append((name, layer, _way(layer, given[name])))
    return found


def _way(layer: nn.modules.batchnorm._BatchNorm, x: Tensor) -> float:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    units = x.double().movedim(1, -1).flatten(0, -2)
    deviation = (units.var(0) + layer.eps).sqrt()
    means = ((units.mean(0) - layer.running_mean.double()) / deviation).abs().mean()
    ratio = (deviation / (layer.running_var.double() + layer.eps).sqrt()).log().abs().mean()
    return float(torch.maximum(means, ratio))
