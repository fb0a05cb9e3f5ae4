"""Initial weights: the variance that each scheme promises, and what a seed and a constructor decide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import zoo
from foldwise.engine.initialize import INITIALIZATIONS, LOOKED_AT, fans, initialize, seeded, unit_variance
from foldwise.engine.members import Starts, kept_buffers, looked_at
from foldwise.engine.random import key, normal, uniform
from foldwise.errors import NetworkError
from foldwise.nets.features import Fourier, Polynomial, median_distance
from foldwise.plans.plan import Member
from foldwise.settings import Settings

SHAPE = (300, 200)
COUNT = math.prod(SHAPE)


def settings(scheme: str) -> Settings:
    """Choose a scheme, with values of its own where it takes some."""
    own = {"normal": {"initial_deviation": 0.05}, "constant": {"initial_value": 0.25}}
    return Settings(initialization=scheme, **own.get(scheme, {}))


def drawn(scheme: str, seed: int = 0, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """Initialize one large layer."""
    layer = nn.Linear(shape[1], shape[0]).double()
    initialize(layer, settings(scheme), seed)
    assert not layer.bias.any()
    return layer.weight.detach()


@pytest.mark.parametrize(
    ("scheme", "variance"),
    [("xavier", 2 / (300 + 200)), ("kaiming", 2 / 200), ("normal", 0.05**2), ("orthogonal", 1 / 300)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_variance_is_the_promised_one(scheme: str, variance: float, seed: int) -> None:
    weight = drawn(scheme, seed)
    kurtosis = 1.8 if scheme == "xavier" else 3  # of a uniform and of a normal distribution
    error = math.sqrt((kurtosis - 1) / COUNT)  # of a variance, as a share of it
    assert abs(weight.var().item() / variance - 1) < 4 * error
    assert abs(weight.mean().item()) < 4 * math.sqrt(variance / COUNT)


def test_xavier_is_uniform_and_the_others_are_normal() -> None:
    bound = math.sqrt(6 / 500)
    weight = drawn("xavier").flatten().numpy()
    assert np.abs(weight).max() < bound
    assert stats.kstest(weight, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    assert stats.kstest(drawn("kaiming").flatten().numpy(), "norm", (0, 0.1)).pvalue > 1e-3
    assert stats.kstest(drawn("normal").flatten().numpy(), "norm", (0, 0.05)).pvalue > 1e-3


def test_xavier_is_written_out_by_hand() -> None:
    layer = nn.Linear(2, 1).double()
    initialize(layer, settings("xavier"), 9)
    u = uniform(key(torch.tensor(9), "weights", 0), 2)  # parameter 0: the weight
    assert torch.equal(layer.weight[0].detach(), (2 * u - 1) * math.sqrt(6 / 3))


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (5, 2, 7)])
def test_fans_are_those_of_torch(shape: tuple[int, ...]) -> None:
    assert fans(shape) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_seeds_and_parameters_have_weights_of_their_own() -> None:
    assert not torch.equal(drawn("kaiming", 0), drawn("kaiming", 1))
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    initialize(pair, settings("kaiming"), 0)
    assert not torch.equal(pair[0].weight, pair[1].weight)


@pytest.mark.parametrize("scheme", INITIALIZATIONS)
def test_weights_in_float32_are_those_in_float64_rounded(scheme: str) -> None:
    layer = nn.Linear(SHAPE[1], SHAPE[0])
    initialize(layer, settings(scheme), 3)
    assert torch.equal(layer.weight.detach(), drawn(scheme, 3).float())


def test_biases_become_zero_and_scales_of_normalization_stay() -> None:
    module = zoo.Normalized(3, 2, 6)
    with torch.no_grad():
        module.layers[1].weight.fill_(0.7)
        module.layers[1].bias.fill_(0.7)
    initialize(module, settings("xavier"), 0)
    assert module.layers[1].weight.eq(0.7).all()
    assert not module.layers[1].bias.any()


def test_a_constructor_draws_by_the_seed_alone_and_leaves_the_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = seeded(lambda: nn.Linear(3, 3), 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = seeded(lambda: nn.Linear(3, 3), 1), seeded(lambda: nn.Linear(3, 3), 2)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


# Orthogonal, constant


@pytest.mark.parametrize("shape", [(30, 30), (40, 7), (7, 40), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_or_columns_are_orthonormal(shape: tuple[int, int], seed: int) -> None:
    weight = drawn("orthogonal", seed, shape)
    product = weight @ weight.T if shape[0] < shape[1] else weight.T @ weight
    torch.testing.assert_close(product, torch.eye(min(shape)).double(), rtol=0, atol=1e-13)


def test_kernels_are_flattened_over_all_but_the_first_axis() -> None:
    layer = nn.Conv2d(3, 5, 2).double()
    initialize(layer, settings("orthogonal"), 0)
    flat = layer.weight.detach().flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(5).double(), rtol=0, atol=1e-13)


def test_signs_are_even() -> None:
    # without the correction by R's diagonal, LAPACK gives the first entry the same sign every time
    first = [float(drawn("orthogonal", seed, (6, 6))[0, 0]) for seed in range(60)]
    assert 15 < sum(x > 0 for x in first) < 45
    weight = drawn("orthogonal", 4, (9, 3))
    start = normal(key(torch.tensor(4), "weights", 0), 27).view(9, 3)
    assert (weight.T @ start).diagonal().min() > 0  # that is R, whose diagonal is then positive


def test_the_constant_is_everywhere() -> None:
    assert drawn("constant").eq(0.25).all()


@pytest.mark.parametrize("scheme", INITIALIZATIONS)
def test_weights_that_look_at_nothing_are_left_empty(scheme: str) -> None:
    layer = nn.Linear(1, 3)
    layer.weight = nn.Parameter(torch.zeros(3, 0))
    initialize(layer, settings(scheme), 0)
    assert layer.weight.shape == (3, 0)


# Starts that look at a member's own rows

MAPS = ("polynomial", "fourier")
LSUV: dict[str, dict[str, Any]] = {
    "linear": {"network": "linear"},
    "mlp": {"network": "mlp", "width": 7, "depth": 3, "activation": "tanh", "dropout": 0.5},
    "batch": {"network": "mlp", "width": 7, "depth": 2, "normalization": "batch"},
    "residual": {"network": "residual", "width": 7, "depth": 3, "normalization": "layer"},
    "behind features": {
        "network": "mlp",
        "width": 7,
        "depth": 1,
        "feature_map": "fourier",
        "feature_count": 9,
    },
}


def member(fold: int = 1, seed: int = 3, **own: Any) -> Member:
    """Name a member of the zoo's small world that learns classes."""
    return Member(0, fold, seed, Settings(**{"loss": "cross_entropy", "initialization": "lsuv", **own}))


def variances(module: nn.Module, rows: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Measure the variance of each linear layer's outputs, without dropout."""
    found: dict[str, float] = {}
    layers = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    hooks = [
        layer.register_forward_hook(
            lambda m, args, y, name=name: found.update({name: float(y.var(correction=0))})
        )
        for name, layer in layers.items()
    ]
    for name, child in module.named_modules():
        child.training = not name.rpartition(".")[2].startswith("dropout")
    with torch.no_grad():
        module(rows)
    for hook in hooks:
        hook.remove()
    assert set(found) == set(layers)
    yield from found.items()


@pytest.mark.parametrize("name", LSUV)
def test_lsuv_gives_every_layer_unit_variance_on_the_members_own_rows(name: str) -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    own = member(**LSUV[name])
    module = nursery.start(own).cpu()
    for layer, variance in variances(module, nursery.training_rows(own)[0]):
        assert abs(variance - 1) < 0.01, layer


def test_lsuv_leaves_running_statistics_and_modes() -> None:
    fresh, started = (
        zoo.world(zoo.TARGETS["classes"]).nursery.start(member(**{**LSUV["batch"], "initialization": how}))
        for how in ("orthogonal", "lsuv")
    )
    for name, buffer in started.named_buffers():
        assert torch.equal(buffer, fresh.get_buffer(name))
    assert all(m.training for m in started.modules())
    assert not any(m._forward_hooks for m in started.modules())


def test_lsuv_scales_orthogonal_weights() -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    before, after = (
        nursery.start(member(**{**LSUV["mlp"], "initialization": how})) for how in ("orthogonal", "lsuv")
    )
    for name, parameter in after.state_dict().items():
        was = before.state_dict()[name]
        if parameter.ndim == 2:
            factor = float(parameter.norm() / was.norm())
            torch.testing.assert_close(parameter, was * factor, rtol=1e-12, atol=1e-12)
        else:
            assert not parameter.any()


@pytest.mark.parametrize(
    "own", [LSUV["mlp"], *({"network": "linear", "initialization": "xavier", "feature_map": m} for m in MAPS)]
)
def test_a_start_follows_training_rows_and_no_others(own: dict[str, Any]) -> None:
    world = zoo.world(zoo.TARGETS["classes"])
    fold = 1
    start = {n: t.clone() for n, t in world.nursery.start(member(fold, **own)).state_dict().items()}
    validated, train = (np.flatnonzero(mask[fold]) for mask in (world.folds.validation, world.folds.train))
    for rows, same in ((validated, True), (train, False)):
        features = world.features.copy()
        features[rows, :-1] = features[rows, :-1] ** 2 + 1
        other = world.with_rows(features, world.targets).nursery.start(member(fold, **own)).state_dict()
        assert all(torch.equal(start[name], other[name]) for name in start) == same
    elsewhere = world.nursery.start(member(0, **own)).state_dict()
    assert not all(torch.equal(start[name], elsewhere[name]) for name in start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [LSUV["residual"], LSUV["behind features"]])
def test_starts_that_look_at_rows_do_not_depend_on_companions(
    own: dict[str, Any], dtype: torch.dtype
) -> None:
    nursery = zoo.world(zoo.TARGETS["classes"], dtype=dtype).nursery
    members = [
        member(fold, seed, **own, **extra)
        for fold, seed, extra in (
            (0, 0, {}),
            (0, 0, {"scaling": "standard"}),
            (1, 0, {}),
            (1, 2, {}),
            (0, 0, {}),
        )
    ]
    state = nursery.initial_state(members, {})
    assert state.parameters.dtype == dtype
    for place, each in enumerate(members):
        alone = nursery.initial_state([each], {})
        assert torch.equal(alone.parameters[0], state.parameters[place])
        assert all(torch.equal(b[0], state.buffers[n][place]) for n, b in alone.buffers.items())
    assert len({tuple(p) for p in state.parameters.tolist()}) == 4  # fold, seed and scaling all matter


def test_only_starts_that_look_at_rows_are_made_for_each_fold() -> None:
    starts = Starts(zoo.world(zoo.TARGETS["classes"]).nursery)
    plain = {"network": "linear", "initialization": "kaiming"}
    cases: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        (plain, {"learning_rate": 0.5, "scaling": "standard"}, True),
        (LSUV["linear"], {"learning_rate": 0.5}, True),
        (LSUV["linear"], {"scaling": "standard"}, False),
        ({**plain, "feature_map": "fourier"}, {"fourier_scale": 2.0}, False),
        ({**plain, "initialization": "constant"}, {"initial_value": 2.0}, False),
        ({**plain, "initialization": "normal"}, {"initial_deviation": 2.0}, False),
    ]
    for own, change, same in cases:
        assert (starts.of(member(**own)) is starts.of(member(**own, **change))) == same
        across = starts.of(member(0, **own)) is starts.of(member(1, **own))
        assert across == (looked_at(member(**own)) == ())


def test_what_links_remember_starts_at_its_first_value() -> None:
    members = [member(network="linear"), member(0, network="linear")]
    state = zoo.world(zoo.TARGETS["classes"]).nursery.initial_state(members, {"velocity": None, "scale": 3.0})
    assert torch.equal(state.moments["velocity"], torch.zeros_like(state.parameters))
    assert state.moments["scale"].tolist() == [[3.0], [3.0]]
    assert state.moments["scale"].dtype == torch.float64


# lsuv in networks of one's own


class Odd(nn.Module):
    """Has a convolution, a layer that is used twice, one that never varies and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.twice = nn.Conv2d(1, 3, (2, 1)), nn.Linear(6, 6)
        self.still, self.unused = nn.Linear(6, 6), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.twice(self.twice(self.image(x.view(-1, 1, 2, 2)).flatten(1)))
        return h + self.still(h * 0)


def test_lsuv_meets_odd_layers() -> None:
    module, rows = Odd().double(), torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double()
    initialize(module, settings("lsuv"), 0)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    seen = []
    unit_variance(module, rows, torch.ones(len(rows)))
    module.image.register_forward_hook(lambda m, args, y: seen.append(float(y.detach().var(correction=0))))
    module.twice.register_forward_hook(lambda m, args, y: seen.append(float(y.detach().var(correction=0))))
    module(rows)
    assert seen[:2] == pytest.approx([1, 1], abs=0.01)  # at the first place where a layer stands
    assert torch.equal(module.still.weight, before["still.weight"])
    assert torch.equal(module.unused.weight, before["unused.weight"])
    scaled = module.image.weight.detach().clone()
    unit_variance(module, rows[:1], torch.ones(1))  # a single row has no variance to speak of
    assert torch.equal(module.image.weight, scaled)


def test_lsuv_says_which_network_it_cannot_measure() -> None:
    class Single(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) @ torch.ones(3, 3)

    with pytest.raises(NetworkError, match="`lsuv` cannot measure the network `Single`"):
        unit_variance(Single(3, 3).double(), torch.randn(5, 3).double(), torch.ones(5))


# Feature maps of a member


def test_products_are_standardized_on_the_members_own_rows() -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    own = member(network="linear", initialization="xavier", feature_map="polynomial")
    features = nursery.start(own).cpu().features
    assert isinstance(features, Polynomial)
    y = features(nursery.training_rows(own)[0])
    torch.testing.assert_close(y.mean(0), torch.zeros(20).double(), rtol=0, atol=1e-12)
    assert set(y.std(0, correction=0).round(decimals=9).tolist()) <= {0.0, 1.0}


def test_cosines_are_as_wide_as_the_median_distance_says() -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    kind = {"network": "linear", "initialization": "xavier", "feature_map": "fourier", "feature_count": 4000}
    own = member(**kind)
    distance = median_distance(*nursery.training_rows(own))
    wide, wider = (nursery.start(member(**kind, fourier_scale=w)).cpu().features for w in (1.0, 3.0))
    assert isinstance(wide, Fourier)
    assert float(wide.directions.std()) * distance == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(wide.directions, wider.directions * 3, rtol=1e-12, atol=0)
    assert torch.equal(wide.phases, wider.phases)
    assert stats.kstest(wide.phases.numpy(), "uniform", (0, 2 * math.pi)).pvalue > 1e-3
    other = nursery.start(member(seed=4, **kind)).cpu().features
    assert not torch.equal(wide.phases, other.phases)


def test_only_the_first_rows_are_looked_at_where_not_all_are_needed() -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    rows, weights = nursery.training_rows(member(network="linear"))
    few, fewer = nursery.training_rows(member(network="linear"), 5)
    assert torch.equal(rows[:5], few)
    assert (len(weights), len(fewer)) == (len(rows), 5)
    assert len(rows) < LOOKED_AT


@pytest.mark.parametrize(
    ("feature_map", "names"), [("polynomial", ["mean", "scale"]), ("fourier", ["directions", "phases"])]
)
def test_what_a_map_learnt_is_kept(feature_map: str, names: list[str]) -> None:
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    module = nursery.start(member(network="linear", initialization="own", feature_map=feature_map))
    assert kept_buffers(module) == [f"features.{name}" for name in names]


def test_weighted_rows_are_those_of_training() -> None:
    world = zoo.world(zoo.TARGETS["classes"])
    weights = torch.arange(1.0, 1 + zoo.ROWS, device=zoo.DEVICE).double()
    nursery = replace(world.nursery, rows=replace(world.rows, sample_weights=weights))
    rows, counts = nursery.training_rows(member(network="linear"))
    assert sorted(counts.tolist()) == (1 + np.flatnonzero(world.folds.train[1])).tolist()
    assert torch.equal(rows, world.nursery.training_rows(member(network="linear"))[0])


def test_lsuv_and_cosines_look_at_the_first_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("members", "initialize"):
        monkeypatch.setattr(f"foldwise.engine.{where}.LOOKED_AT", 6)
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    few, weights = nursery.training_rows(member(network="linear"), 6)
    with torch.no_grad():
        outputs = nursery.start(member(network="linear", initialization="lsuv")).cpu()(few)
    assert abs(float(outputs.var(correction=0)) - 1) < 0.01
    own = member(network="linear", initialization="xavier", feature_map="fourier", feature_count=4)
    looked = nursery.start(own).get_buffer("features.directions")
    for where in ("members", "initialize"):
        monkeypatch.setattr(f"foldwise.engine.{where}.LOOKED_AT", 10_000)
    ratio = median_distance(*nursery.training_rows(own)) / median_distance(few, weights)
    everything = nursery.start(own).get_buffer("features.directions")
    torch.testing.assert_close(looked, everything * ratio, rtol=1e-12, atol=0)


def test_products_are_standardized_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    own = member(network="linear", initialization="xavier", feature_map="polynomial")
    nursery = zoo.world(zoo.TARGETS["classes"]).nursery
    monkeypatch.setattr("foldwise.engine.members.LOOKED_AT", 6)
    y = nursery.start(own).cpu().get_submodule("features")(nursery.training_rows(own)[0])
    torch.testing.assert_close(y.mean(0), torch.zeros(20).double(), rtol=0, atol=1e-12)


def test_phases_do_not_follow_directions() -> None:
    own = member(network="linear", initialization="xavier", feature_map="fourier", feature_count=4000)
    module = zoo.world(zoo.TARGETS["classes"]).nursery.start(own)
    lengths = module.get_buffer("features.directions").flatten()[:2000].square()
    both = torch.stack([module.get_buffer("features.phases")[::2], lengths])
    assert abs(torch.corrcoef(both)[0, 1]) < 5 / 2000**0.5
