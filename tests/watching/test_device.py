"""A loop on the device under test: a loss is asked on the CPU what it may refuse, and the device works on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldwise
import zoo
from foldwise.watching.watch import Watch

ROWS = 256
DRAWN = torch.randn(ROWS, 10, generator=torch.Generator().manual_seed(0))
SHARES = ((DRAWN[:, :1] > 0).float(), nn.BCELoss())
CLASSES = (DRAWN[:, 0].gt(0).long() + DRAWN[:, 0].gt(1).long(), nn.CrossEntropyLoss())
NUMBERS = (DRAWN @ torch.linspace(-1, 1, 10)[:, None], nn.MSELoss())
HALVES = (torch.float16, torch.bfloat16)


def net(outputs: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, outputs), *last).to(zoo.DEVICE)


def watched(
    module: nn.Module,
    what: tuple[Tensor, nn.Module],
    forward: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> Watch:
    """Train for ten epochs in batches, in the usual way."""
    targets, loss_fn = what[0].to(zoo.DEVICE), what[1]
    rows = DRAWN.to(zoo.DEVICE, next(module.parameters()).dtype)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    with foldwise.watch(module, optimizer, loss_fn) as watch:
        for _ in range(10):
            for batch in torch.randperm(ROWS, device=zoo.DEVICE).split(32):
                optimizer.zero_grad()
                out = module(rows[batch]) if forward is None else forward(module, rows[batch])
                loss_fn(out, targets[batch]).backward()
                optimizer.step()
    return watch


@pytest.mark.filterwarnings("error")
def test_healthy_loops_are_called_healthy_and_the_device_works_on() -> None:
    for module, what in (
        (net(1, nn.Sigmoid()), SHARES),  # whose loss ends the program of a GPU where outputs are no shares
        (net(3), CLASSES),
        (net(1), NUMBERS),
    ):
        assert [f.code for f in watched(module, what).findings if f.alarm] == []
        assert torch.isfinite(module(DRAWN.to(zoo.DEVICE))).all()


@pytest.mark.filterwarnings("error")
def test_faults_of_outputs_and_loss_are_found() -> None:
    assert watched(net(3, nn.Softmax(1)), CLASSES).findings[0].code == "probabilities-as-scores"
    assert watched(net(1, nn.ReLU()), NUMBERS).findings[0].code == "unreachable-targets"


@pytest.mark.parametrize("dtype", HALVES)
def test_a_loss_of_half_precision_is_heard_and_asked_in_full(dtype: torch.dtype) -> None:
    def mixed(module: nn.Module, rows: Tensor) -> Tensor:
        with torch.autocast(zoo.DEVICE.type, dtype=dtype):
            return module(rows)

    watch = watched(net(3), CLASSES, mixed)
    network = watch.sight().network
    assert network is not None
    assert network.loss is not None
    assert network.targets is not None
    outputs = torch.randn(len(network.targets), 3, device=zoo.DEVICE)
    each = network.loss(outputs.to(dtype), network.targets)
    assert (each.device.type, each.dtype) == ("cpu", torch.float32)
    expected = F.cross_entropy(outputs, network.targets, reduction="none").cpu()
    torch.testing.assert_close(each, expected, rtol=3e-2, atol=3e-2)
    assert [f.code for f in watch.findings if f.alarm] == []
