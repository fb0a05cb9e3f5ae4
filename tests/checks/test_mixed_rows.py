"""Rows that are mixed within a batch: found by changing one of them; silent where they only look mixed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foldwise.checks import mixed_rows
from foldwise.checks.sight import Network, Sight

INPUTS, ROWS, TIME = 6, 32, 5


class Own(nn.Module):
    """A network with something of its own between two layers."""

    def __init__(self, between: Callable[[Tensor], Tensor], *parts: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(INPUTS, 8), nn.Linear(8, 2)
        self.between, self.parts = between, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(F.relu(self.first(x)))
        for part in self.parts:
            h = part(h)
        return self.last(h)


def seen(net: nn.Module, x: Tensor | None = None) -> str | None:
    x = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0)) if x is None else x
    finding = mixed_rows.find(Sight(network=Network(net, x)))
    return None if finding is None else finding.sure


MIXING = {
    "softmax": lambda h: h * h.softmax(0),
    "mean": lambda h: h - h.mean(0),
    "reshape": lambda h: h.T.reshape(h.shape),
    "view": lambda h: h.reshape(2, -1).flip(1).reshape(h.shape),
    "sort": lambda h: h.sort(0).values,
    "cumulative": lambda h: h.cumsum(0),
}
SINGLE = {
    "plain": lambda h: h,
    "softmax": lambda h: h * h.softmax(-1),
    "norm": lambda h: F.normalize(h, dim=-1),
    "dropout that never rests": lambda h: F.dropout(h, 0.5),
}


@pytest.mark.parametrize("between", MIXING.values(), ids=MIXING)
def test_rows_that_are_mixed(between: Callable[[Tensor], Tensor]) -> None:
    assert seen(Own(between)) == "likely"


@pytest.mark.parametrize("between", SINGLE.values(), ids=SINGLE)
def test_rows_that_are_not(between: Callable[[Tensor], Tensor]) -> None:
    assert seen(Own(between)) is None


@pytest.mark.parametrize(
    "part",
    [nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False), nn.LayerNorm(8), nn.Dropout(0.5)],
)
def test_normalization_and_dropout(part: nn.Module) -> None:
    net = Own(lambda h: h, part)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    assert seen(net.train()) is None
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_outputs_that_begin_with_zeros() -> None:
    for between, sure in ((MIXING["softmax"], "likely"), (SINGLE["softmax"], None)):
        net = Own(between)
        nn.init.zeros_(net.last.weight)
        assert seen(net) == sure


class Attending(nn.Module):
    """Attention over tokens; the average over them is the output, or every token is one."""

    def __init__(self, *, batch_first: bool, axis: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(INPUTS, 2, batch_first=batch_first)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x)[0]
        return out if self.axis is None else out.mean(self.axis)


@pytest.mark.parametrize(
    ("batch_first", "axis", "shape", "sure"),
    [
        (True, 1, (ROWS, TIME, INPUTS), None),
        (True, None, (ROWS, TIME, INPUTS), None),
        (False, 1, (ROWS, TIME, INPUTS), "likely"),
        (False, None, (ROWS, TIME, INPUTS), "hint"),  # it may be meant: rows may be the second axis
        (False, 0, (TIME, ROWS, INPUTS), None),
    ],
)
def test_attention(batch_first: bool, axis: int | None, shape: tuple[int, ...], sure: str | None) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert seen(Attending(batch_first=batch_first, axis=axis), x) == sure


def test_a_graph_of_all_its_nodes_is_no_map_of_rows() -> None:
    neighbors = torch.eye(12) + torch.eye(12).roll(1, 0)
    x = torch.randn(12, INPUTS, generator=torch.Generator().manual_seed(0))
    assert seen(Own(lambda h: neighbors @ h), x) is None
    assert seen(Own(lambda h: neighbors[: len(h), : len(h)] @ h), x) == "likely"
