"""Outputs with bounds that targets lie beyond; silent where targets lie within, or bounds are no more than seeming."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from checks.test_network_loss import plain
from foldwise.checks import unreachable_targets
from foldwise.checks.look import look_at
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


def scored(bias: float, step: int) -> Sight:
    """Show a network that ends in a ReLU, and whose last class begins with a bias, before training or after it."""
    x, classes = rows(), (rows()[:, 0] > 0).long() + (rows()[:, 1] > 0.5)
    net = seeded(lambda: Ends(10, 3, F.relu))
    with torch.no_grad():
        last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
        last.bias.copy_(torch.tensor([3.0, 3.0, bias]))

    def loss(o: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(o, t, reduction="none")

    return Sight(
        network=Network(net, x, classes, loss), looks=(look_at(net, x, classes, loss, step=step),), trial=4
    )


def test_score_that_is_0_for_all_rows() -> None:
    finding = unreachable_targets.find(scored(-9.0, 100))
    assert finding is not None
    assert finding.sure == "likely"
    assert "class 2 (from 0) is 0 in all 128 rows after 100 steps" in finding.evidence
    assert unreachable_targets.find(scored(-9.0, 0)).sure == "hint"  # type: ignore[union-attr]
    assert unreachable_targets.find(scored(3.0, 100)) is None
