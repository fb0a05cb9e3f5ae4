"""Outputs with bounds that targets lie beyond; silent where targets lie within, or bounds are no more than seeming."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from checks.test_network_loss import plain
from foldwise.checks import unreachable_targets
from foldwise.checks.sight import Network, Sight
from network_sights import numbers, rows, seeded


class Ends(nn.Module):
    """A plain network with an end that is a function."""

    def __init__(self, inputs: int, outputs: int, end: object, scale: bool = False) -> None:
        super().__init__()
        self.net, self.end = plain(inputs, outputs), end
        self.scale = nn.Parameter(torch.ones(outputs)) if scale else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.end(self.net(x))  # type: ignore[operator]


ENDS = {"sigmoid": torch.sigmoid, "relu": F.relu, "relu6": F.relu6, "softplus": F.softplus}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_numbers_beyond_the_bounds(end: object) -> None:
    finding = unreachable_targets.find(numbers(lambda i, o: Ends(i, o, end)))
    assert finding is not None
    assert finding.sure == "likely"


@pytest.mark.parametrize("end", [lambda h: h, F.leaky_relu, lambda h: 3 * torch.tanh(h), torch.sinh])
def test_numbers_within(end: object) -> None:
    assert unreachable_targets.find(numbers(lambda i, o: Ends(i, o, end))) is None


def test_a_factor_behind_the_end_takes_bounds_away() -> None:
    assert unreachable_targets.find(numbers(lambda i, o: Ends(i, o, torch.sigmoid, scale=True))) is None


def of(end: object, targets: Tensor, loss: object, outputs: int = 1) -> bool:
    net = seeded(lambda: Ends(10, outputs, end))
    return unreachable_targets.find(Sight(network=Network(net, rows(), targets, loss))) is not None  # type: ignore[arg-type]


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(-1)


def test_targets_that_the_end_is_for() -> None:
    value = rows()[:, :1]
    assert not of(torch.sigmoid, torch.sigmoid(value), squared)
    assert not of(F.relu, value.abs(), squared)
    assert not of(torch.tanh, value.clamp(-1, 1), squared)
    assert of(torch.tanh, 3 * value, squared)


def test_probabilities_and_scores() -> None:
    label = (rows()[:, :1] > 0).float()
    classes = label[:, 0].long()

    def each(loss: object) -> object:
        return lambda o, t: loss(o, t, reduction="none").reshape(len(o), -1).mean(1)  # type: ignore[operator]

    def softmax(h: Tensor) -> Tensor:
        return h.softmax(-1)

    assert not of(torch.sigmoid, label, each(F.binary_cross_entropy))
    assert not of(softmax, classes, lambda o, t: F.nll_loss(o.log(), t, reduction="none"), 2)
    assert not of(lambda h: h.log_softmax(-1), classes, each(F.nll_loss), 2)
    assert not of(lambda h: h.log_softmax(-1), classes, each(F.cross_entropy), 2)
    assert not of(F.relu, classes, each(F.cross_entropy), 2)
    # no label of 0 has less than log 2
    assert of(F.relu, label, each(F.binary_cross_entropy_with_logits))
