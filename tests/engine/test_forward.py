"""Networks of users: what is refused before training, and what is run one by one."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import Tensor, nn

import zoo
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.stacked.forward import choose_forward
from foldwise.errors import NetworkError
from foldwise.plans.plan import Member
from foldwise.settings import Settings


def engine(net: object, *, batch_size: int = zoo.BATCH, target: str = "classes") -> StackedEngine:
    """Put two members of a user's network into a stack."""
    what = zoo.TARGETS[target]
    own = {"network": "custom", "initialization": "own", "takes": ("width",), "width": 4}
    settings = Settings(**own, loss=what.loss, batch_size=batch_size)
    return zoo.world(what, net).engine([Member(0, fold, 0, settings) for fold in range(2)])  # type: ignore[arg-type]


class Returning(nn.Module):
    """Gives whatever it is told to make of the right scores."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> object:
        return self.spoil(self.layer(x))

    def spoil(self, y: Tensor) -> object:
        return y


def returning(spoil: object) -> type[Returning]:
    """Make a network that spoils its scores."""
    return type("Spoilt", (Returning,), {"spoil": staticmethod(spoil)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda y: y[:, :2], "gives (8, 2) for a batch of shape (8, 5); (8, 3) is needed."),
        (lambda y: y.mean(), "gives () for a batch of shape (8, 5); (8, 3) is needed."),
        (lambda y: y[None], "gives (1, 8, 3) for a batch of shape (8, 5); (8, 3) is needed."),
        (lambda y: y.T, "gives (3, 8) for a batch of shape (8, 5); (8, 3) is needed."),
        (lambda y: (y, y), "fails on a batch of shape (8, 5): "),
        (lambda y: y @ y, "fails on a batch of shape (8, 5): mat1 and mat2"),
    ],
)
def test_outputs_of_a_wrong_shape_are_refused(spoil: object, said: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(f"the network `Spoilt` {said}")) as caught:
        engine(returning(spoil))
    assert "[batch, 3]" in caught.value.hint


def test_the_right_shape_is_taken() -> None:
    assert engine(Returning).stepper.forward.how == "stacked"


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (lambda inputs, outputs: 3, "gave a int, not a torch.nn.Module."),
        (lambda inputs, outputs: torch.relu, "not a torch.nn.Module."),
        (
            lambda inputs, outputs, layers: nn.Linear(inputs, outputs),
            "missing 1 required positional argument: 'layers'",
        ),
        (nn.Linear(5, 3), "`Linear` could not be built"),
        (None, "needs a network of your own"),
    ],
)
def test_what_is_no_network_is_refused(net: object, said: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(said)):
        engine(net)


def test_one_module_for_all_members_is_refused() -> None:
    once = nn.Linear(zoo.FEATURES, 3)

    def net(inputs: int, outputs: int) -> nn.Module:
        return once

    with pytest.raises(NetworkError, match="the network `net` gives the same module each time"):
        engine(net)


def test_batch_normalization_over_one_row_is_refused() -> None:
    with pytest.raises(NetworkError, match="leave a batch of one row"):
        engine(zoo.Normalized, batch_size=1)
    assert engine(zoo.Residual, batch_size=1)


@pytest.mark.parametrize("batch_size", [9, 18])
def test_a_last_batch_of_one_row_joins_the_one_before(batch_size: int) -> None:
    # the folds have 20, 19, 18 and 12 training rows
    assert torch.isfinite(zoo.advance(engine(zoo.Normalized, batch_size=batch_size))).all()


def test_one_layer_alone_is_a_chain() -> None:
    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs)

    made = engine(net)
    assert made.stepper.forward.chain
    assert torch.isfinite(zoo.advance(made)).all()


def test_a_module_that_cannot_be_stacked_says_why() -> None:
    forward = engine(zoo.Branching).stepper.forward
    assert forward.how == "one by one"
    assert forward.why.startswith("the network cannot be stacked: ")
    assert "\n" not in forward.why


def test_a_module_that_vmap_takes_slowly_runs_one_by_one() -> None:
    class Slow(Returning):
        """Uses an operation for which vmap falls back to a loop, with a warning."""

        def spoil(self, y: Tensor) -> Tensor:
            return y + torch.histc(y.detach(), 3) * 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine(Slow).stepper.forward.how == "one by one"


def test_trying_a_network_changes_nothing() -> None:
    module = zoo.Normalized(3, 2, 4).double()
    parameters = {n: torch.stack([p.detach()] * 2) for n, p in module.named_parameters()}
    buffers = {n: torch.stack([b] * 2) for n, b in module.named_buffers()}
    before = {n: b.clone() for n, b in buffers.items()}
    module.layers[3].p = module.drop.p = 0.0
    choose_forward(module, parameters, buffers, torch.randn(2, 6, 3).double(), 2)
    assert all(torch.equal(before[n], buffers[n]) for n in buffers)
    assert all(p.grad is None for p in module.parameters())


def test_a_network_is_stacked_in_prediction_too() -> None:
    module = zoo.Residual(3, 2, 4).eval()
    parameters = {n: torch.stack([p.detach()] * 2) for n, p in module.named_parameters()}
    with torch.no_grad():
        assert choose_forward(module, parameters, {}, torch.randn(2, 1, 3), 2).why == "through vmap"


def test_a_constructor_may_look_at_its_own_numbers() -> None:
    class Deciding(Returning):
        """Builds itself from values of tensors."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs)
            self.drops = nn.ModuleList(nn.Dropout(p.item()) for p in torch.linspace(0, 0.5, 3))

    assert engine(Deciding).cohort.rates[0] == [0.0, 0.25, 0.5]


def test_a_rate_of_zero_may_leave_the_layer_out() -> None:
    def net(inputs: int, outputs: int, dropout: float) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, 4), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(4, outputs)
        )

    own = {"network": "custom", "initialization": "own", "takes": ("dropout",)}
    made = [Settings(**own, dropout=rate) for rate in (0, 0.5)]
    assert made[0].shape() != made[1].shape()  # so they are in stacks of their own
    what = zoo.TARGETS["one number"]
    for settings in made:
        assert torch.isfinite(zoo.advance(zoo.world(what, net).engine([Member(0, 0, 0, settings)]))).all()


def test_built_in_networks_of_different_rates_share_a_stack() -> None:
    assert Settings(dropout=0.0).shape() == Settings(dropout=0.5).shape()
