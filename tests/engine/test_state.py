"""The record of members: slices are taken, put back and joined without touching the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from foldwise.data.folds import Folds, make_folds
from foldwise.engine.members import kept_buffers
from foldwise.engine.rows import Constants, padded_validation
from foldwise.engine.state import Layout, State, concatenate, put, take
from foldwise.plans.plan import Member
from foldwise.settings import Settings

KNOWN = ("squared_error", "half_squared_error", "cross_entropy", "binary_cross_entropy")


def state() -> State:
    """Draw a state of four members."""
    members = zoo.mixed(zoo.NETWORKS["Normalized"], zoo.TARGETS["classes"], "adamw")[:4]
    moments = {"first": None, "second": None, "clipped": 0.0}
    return zoo.world(zoo.TARGETS["classes"], zoo.Normalized).nursery.initial_state(members, moments)


def test_a_slice_shares_memory_and_an_index_copies() -> None:
    whole = state()
    take(whole, slice(1, 3)).parameters.fill_(7)
    take(whole, torch.tensor([0], device=zoo.DEVICE)).parameters.fill_(9)
    assert whole.parameters[1:3].eq(7).all()
    assert not whole.parameters[0].eq(9).any()


def test_put_writes_every_tensor_of_some_members() -> None:
    whole, before = state(), state()
    members = torch.tensor([3, 1], device=zoo.DEVICE)
    part = take(whole, members)
    for tensor in (part.parameters, part.epoch, part.step, *part.moments.values(), *part.buffers.values()):
        tensor.fill_(5)
    put(whole, members, part)
    for mine, old in zip(tensors(whole), tensors(before), strict=True):
        assert torch.equal(mine[[0, 2]], old[[0, 2]])
    for tensor in (
        whole.parameters,
        whole.epoch,
        whole.step,
        *whole.moments.values(),
        *whole.buffers.values(),
    ):
        assert tensor[members].eq(5).all()


def test_slices_joined_are_the_whole() -> None:
    whole = state()
    joined = concatenate(
        [
            take(whole, slice(0, 1)),
            take(whole, torch.tensor([1, 2], device=zoo.DEVICE)),
            take(whole, slice(3, 4)),
        ]
    )
    assert all(map(torch.equal, tensors(joined), tensors(whole)))
    assert len(joined) == 4


def tensors(record: State) -> list[torch.Tensor]:
    """List all tensors of a state."""
    return [
        record.parameters, *record.buffers.values(), *record.moments.values(),
        record.epoch, record.step, record.seed, record.status,
    ]  # fmt: skip


def test_a_layout_splits_and_joins_without_loss() -> None:
    module = zoo.Normalized(3, 2, 4)
    layout = Layout.of(module)
    flat = torch.arange(2.0 * layout.size).view(2, -1)
    parts = layout.split(flat)
    assert {name: tuple(p.shape[1:]) for name, p in parts.items()} == {
        n: tuple(p.shape) for n, p in module.named_parameters()
    }
    assert torch.equal(layout.join(list(parts.values())), flat)


def test_only_weights_decay() -> None:
    layout = Layout.of(zoo.Normalized(3, 2, 4))
    decayed = layout.split(layout.decayed()[None])
    assert {name for name, mask in decayed.items() if mask.all()} == {
        n for n in decayed if "weight" in n and n != "layers.1.weight"
    }
    assert not decayed["layers.1.weight"].any()


def test_frozen_parameters_and_running_statistics_are_kept_but_not_trained() -> None:
    assert kept_buffers(zoo.Partly(3, 2, 4)) == ["frozen.weight", "frozen.bias"]
    assert Layout.of(zoo.Partly(3, 2, 4)).names == ("twice.weight", "head.weight", "head.bias")
    assert kept_buffers(zoo.Normalized(3, 2, 4)) == [
        f"layers.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    ]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", [n for n, t in zoo.TARGETS.items() if t.loss in KNOWN])
def test_the_prior_is_the_best_constant(target: str, weighted: bool) -> None:
    what = zoo.TARGETS[target]
    world = zoo.world(what, recipe=zoo.RECIPES["weights" if weighted else "plain"])
    settings = Settings(network="constant", loss=what.loss, epochs=0)  # type: ignore[arg-type]
    for fold, train in enumerate(world.folds.train):
        ours = world.nursery.start(Member(0, fold, 0, settings)).get_parameter("prior").detach().cpu()
        targets = world.targets[train]
        weights = (
            np.ones(len(targets)) if world.training_weights is None else world.training_weights[fold][train]
        )
        if what.kind == "regression":
            expected = np.zeros(what.outputs)
        elif targets.ndim == 1:
            counts = np.bincount(targets, weights, minlength=what.outputs)
            expected = np.log(counts / weights.sum())
        else:
            shares = np.average(targets, axis=0, weights=weights)
            expected = np.log(shares) if what.kind == "multiclass" else np.log(shares / (1 - shares))
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_class_that_a_fold_never_saw_has_a_finite_prior() -> None:
    world = zoo.world(zoo.TARGETS["classes"])
    targets = np.where(world.folds.train[0], world.targets % 2, 2)
    settings = Settings(network="constant", loss="cross_entropy", epochs=0)
    other = world.with_rows(world.features, targets)
    found = other.nursery.start(Member(0, 0, 0, settings)).get_parameter("prior").detach()
    assert torch.isfinite(found).all()
    assert float(found[2]) == pytest.approx(np.log(0.5 / world.folds.train[0].sum()))


def test_unequal_rows_are_padded_with_a_row_of_their_own() -> None:
    folds = make_folds(4, numbers=np.array([0, 1, 0, 0]))
    index, weight = padded_validation(folds, torch.device("cpu"))
    assert index.tolist() == [[0, 2, 3], [1, 1, 1]]
    assert weight.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_row_that_is_validated_often_counts_once() -> None:
    validation = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]], dtype=bool)
    folds = Folds(~validation, validation, "overlapping")
    _, weight = padded_validation(folds, torch.device("cpu"))
    torch.testing.assert_close(
        weight, torch.tensor([[1, 1 / 3], [1 / 3, 0], [1 / 3, 1]], dtype=torch.float64)
    )


@pytest.mark.parametrize("bounded", [True, False])
def test_constants_fill_shift_scale_and_bound(bounded: bool) -> None:
    bound = torch.tensor([[3.0]]) if bounded else torch.tensor([[torch.inf]])
    one = Constants(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[4.0]]), bound, bounded)
    z = one.of(torch.tensor([0])).apply(torch.tensor([[[torch.nan], [5.0]]]))
    expected = torch.tensor([-4.0, 12.0])
    if bounded:
        expected = expected / torch.sqrt(1 + (expected / 3) ** 2)
    torch.testing.assert_close(z.flatten(), expected)


def test_a_frozen_layer_is_left_alone_by_training() -> None:
    engine = zoo.world(zoo.TARGETS["classes"], zoo.Partly).engine(
        zoo.mixed(zoo.NETWORKS["Partly"], zoo.TARGETS["classes"], "adamw")
    )
    before = {name: b.clone() for name, b in engine.cohort.state.buffers.items()}
    zoo.advance(engine)
    assert all(torch.equal(before[name], b) for name, b in engine.cohort.state.buffers.items())
    assert isinstance(engine.cohort.skeleton, nn.Module)
