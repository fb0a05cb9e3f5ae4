"""The curve of a loop: losses are heard as they were, epochs are told by validation, and nothing is left behind."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn, overrides
from torch.nn import functional as F

import foldwise
from foldwise.watching import losses
from foldwise.watching.losses import EVERY, FIRST, Losses, epoch_of
from foldwise.watching.watch import Watch

ROWS, BATCH, EPOCHS = 96, 16, 12


def named(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y)


def own(outputs: Tensor, y: Tensor) -> Tensor:
    return (F.one_hot(y, 2) - outputs.softmax(-1)).square().sum(1).mean()


def several(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y) + 0.1 * F.mse_loss(outputs, torch.zeros_like(outputs))


def trained(
    loss: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0, *, validates: bool = True
) -> tuple[Watch, list[float]]:
    """Train under `watch`, and give the losses of all steps as the loop knows them."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, 6)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    known = []
    with foldwise.watch(net, optimizer) as watch:
        for _ in range(EPOCHS):
            for rows in torch.randperm(ROWS).split(BATCH):
                optimizer.zero_grad()
                value = loss(net(x[rows]), y[rows])
                known.append(value.item())
                (value * scale / 4 * torch.tensor(2.0)).backward()
                for p in net.parameters():
                    p.grad /= scale  # type: ignore[operator]
                optimizer.step()
            if validates:
                net.eval()
                with torch.no_grad():
                    net(x)
                net.train()
    return watch, known


@pytest.mark.parametrize("loss", [named, own, several])
@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_losses_are_those_of_the_loop(loss: Callable[[Tensor, Tensor], Tensor], scale: float) -> None:
    watch, known = trained(loss, scale)
    curve = watch.sight().curve
    steps = list(watch.losses.steps)
    assert steps[: FIRST + 1] == list(range(FIRST + 1))
    gaps = np.diff(steps[FIRST:])
    assert (np.diff(gaps) >= 0).all()
    assert gaps.max() <= EVERY
    assert list(watch.losses.values) == pytest.approx([known[step] for step in steps])
    assert curve is not None
    assert curve.start == pytest.approx(known[0])
    assert overrides._len_torch_function_stack() == 0


def test_points_are_epochs_where_validation_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "EVERY", 4)  # epochs of six steps are too short for fewer
    watch, known = trained(named)
    curve, steps = watch.sight().curve, np.array(watch.losses.steps)
    assert curve is not None
    assert (curve.epochs, curve.steps, len(curve.training)) == (True, 6, EPOCHS)
    expected = [np.mean([known[s] for s in steps[steps // 6 == epoch]]) for epoch in range(EPOCHS)]
    assert curve.training == pytest.approx(expected)
    assert curve.rate == pytest.approx([0.1] * EPOCHS)
    assert np.isnan(curve.validation).all()
    assert not curve.diverged
    assert curve.named(3) == "epoch 3"
    assert watch.sight().loop.epoch == 6  # type: ignore[union-attr]


def test_points_are_stretches_of_steps_otherwise() -> None:
    curve = trained(named, validates=False)[0].sight().curve
    assert curve is not None
    assert not curve.epochs
    assert curve.end(len(curve.training)) == EPOCHS * 6
    assert curve.named(2) == f"steps {curve.end(1) + 1} to {curve.end(2)}"


@pytest.mark.parametrize("steps", [180, 187, 199])
def test_points_name_the_steps_that_they_are_of(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "EVERY", 4)  # so that every point has some
    own = Losses()
    for step in range(steps):
        if step >= own.next:
            own.note(step, torch.tensor(float(step)))
    curve = own.curve(steps, [0.1] * steps, [])
    assert curve is not None
    ends = [
        re.fullmatch(r"steps (\d+) to (\d+)", curve.named(n + 1)).groups() for n in range(len(curve.training))
    ]  # type: ignore[union-attr]
    first, last = (np.array(own, dtype=int) for own in zip(*ends, strict=True))
    assert (first[0], last[-1]) == (1, steps)
    assert (first[1:] == last[:-1] + 1).all()
    heard = np.array(own.steps)  # how many steps had been taken before each
    assert curve.training == pytest.approx(
        [heard[(heard + 1 >= a) & (heard < b)].mean() for a, b in zip(first, last, strict=True)]
    )


def test_validation_at_odd_times_tells_no_epochs() -> None:
    assert epoch_of(60, [10, 30, 60]) is None
    assert epoch_of(60, [60]) is None
    assert epoch_of(70, [30, 60]) == 30
    assert epoch_of(100, [30, 60]) is None
    assert epoch_of(0, []) is None


class Doubting(overrides.TorchFunctionMode):
    """A mode of the user's own, which is there for the forward pass only."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return function(*args, **(kwargs or {}))


def test_modes_of_the_user_are_left_alone() -> None:
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with foldwise.watch(net, optimizer) as watch:
        watch.likeness.tries = 99  # which listens by a mode of its own
        for _ in range(5):
            with Doubting():
                out = net(torch.randn(4, 3))
            out.square().mean().backward()
            optimizer.step()
            assert overrides._len_torch_function_stack() == 0
    assert watch.sight().curve is None
