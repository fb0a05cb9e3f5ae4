"""The loss at the start is far higher than that of a network which knows nothing.

Evidence: the loss before the first step; the loss of outputs that are the same for all rows (the bias of the last
layer, or 0), which is log C for C equal scores and (C − 1)·margin for the hinge, whatever weights or smoothing the
classes have; and the loss of twins of the network with usual initial weights.

Why it hurts: outputs that differ by far more than targets do are confident and wrong. The first steps undo them,
and a network with many weights may fit the rows through what it was drawn as, instead of through what it learned.

How sure: likely; the loss is as much above that of usual initial weights as chance does not make it. A hint where the
network and its initial weights are those of this library. A lower loss is no fault: the network may have been trained.

What to try: smaller initial weights, most of all in the last layer.

References: Karpathy 2019, *A recipe for training neural networks* (verify loss at init).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, mean_loss, redrawn
from foldwise.checks.sight import Network, Sight, run
from foldwise.checks.signals import dimensions

EXPLAINS = (
    "exploding-gradients", "clipped-always", "jitter",
)  # fmt: skip
TWINS = 3
FAR = 4.0  # times as far above the expected loss as the highest of the twins; 10 times the scale makes it 10 to 100
CHANCE = (
    0.5  # of the expected loss may be what usual initial weights add, whatever the twins had the luck to add
)
ROWS = 256


@dataclass(frozen=True)
class Expected:
    """The loss of outputs that are the same for all rows, and how far chance takes one from it.

    `tolerance` is what outputs unrelated to targets add on average, which grows with their variance, and three standard
    errors of the mean over rows, as many as are independent.
    """

    value: float
    tolerance: float


def find(sight: Sight) -> Finding | None:
    """Look whether the loss starts far above what is expected."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network, ROWS)
    start = float(mean_loss(network, run(network.module, network.inputs)))
    expected = expected_loss(network)
    above = start - expected.value
    if math.isfinite(start) and not above > FAR * CHANCE * abs(expected.value):
        return None
    twins = [_of_twin(network, seed) - expected.value for seed in range(TWINS)]
    unit = max([*twins, CHANCE * abs(expected.value)])
    if math.isfinite(start) and not above > FAR * unit:
        return None
    return Finding(
        "start-loss",
        "hint" if _usual(sight) else "likely",
        f"the loss starts at {start:.3g}; outputs that are the same for all rows give "
        f"{expected.value:.3g}, and usual initial "
        f"weights {expected.value + sum(twins) / len(twins):.3g}",
        trials=sight.about,
        step=0,
        remedies=_remedies(sight),
    )


def _usual(sight: Sight) -> bool:
    """Tell whether the network and its initial weights are those of the library, which differ by chance only."""
    s = sight.settings
    usual = ("xavier", "kaiming", "orthogonal", "lsuv")
    return s is not None and s.network != "custom" and s.initialization in usual


def expected_loss(network: Network) -> Expected:
    """Compute the loss at the start of a network that knows nothing, and how far chance takes one from it.

    >>> classes = torch.arange(4).repeat(16)
    >>> per_row = lambda scores, right: nn.functional.cross_entropy(scores, right, reduction="none")
    >>> expected = expected_loss(Network(nn.Linear(2, 4), torch.randn(64, 2), classes, per_row))
    >>> expected.value < 2 * math.log(4)
    True
    """
    outputs = run(network.module, network.inputs)
    same = _constant(network, outputs)
    assert network.loss is not None
    assert network.targets is not None
    value = float(mean_loss(network, same))
    order = torch.randperm(len(outputs), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        unrelated = float(mean_loss(network, outputs[order]))
        change = (network.loss(outputs, network.targets) - network.loss(same, network.targets)).double()
    return Expected(
        value, abs(unrelated - value) + 3 * float(change.square().mean().sqrt() / _independent(network))
    )


def _independent(network: Network) -> float:
    """Give √n for n rows that are as independent as a network's outputs: it gives similar rows similar outputs."""
    inputs = network.inputs.double().flatten(1)
    return math.sqrt(max(1.0, min(len(inputs), dimensions(inputs))))


def _constant(network: Network, outputs: Tensor) -> Tensor:
    """Give outputs that are the same for all rows: the bias of the layer that gives them, or 0.

    A bias that a function without a layer stands behind, a sigmoid for instance, is no output.
    """
    passed = forward(network.module, network.inputs[:2])
    last = passed.layers[-1] if passed.layers else None
    bias = last.layer._parameters.get("bias") if last is not None else None
    if (
        last is None
        or bias is None
        or not isinstance(last.layer, nn.Linear)
        or bias.shape != outputs.shape[1:]
        or not torch.equal(last.after, passed.outputs)
    ):
        return torch.zeros_like(outputs)
    return bias.detach().expand_as(outputs)


def _of_twin(network: Network, seed: int) -> float:
    return float(mean_loss(network, run(redrawn(network.module, seed), network.inputs)))


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    if sight.settings is None:
        return (Remedy("smaller initial weights, most of all in the last layer"),)
    return tuple(Remedy(f"initialization {name}", {"initialization": name}) for name in ("lsuv", "xavier"))
