"""What of a network is not registered, not run, not trained, linear or equal, on patients and healthy twins."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldwise.checks import (
    equal_weights,
    no_activation,
    no_gradient,
    softmax_hidden,
    unregistered_layers,
    unused_layers,
)
from network_sights import classes, labels, numbers

SEEDS = range(3)
STRUCTURE = (equal_weights, no_activation, no_gradient, softmax_hidden, unregistered_layers, unused_layers)


def plain(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, outputs)
    )


class Held(nn.Module):
    """Holds its hidden layers as `hold` says."""

    def __init__(self, hold, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = hold([nn.Linear(inputs, 16), nn.Linear(16, 16)])
        self.output = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = F.relu(layer(x))
        return self.output(x)


@pytest.mark.parametrize("hold", [list, tuple, lambda own: {f"l{i}": m for i, m in enumerate(own)}])
def test_layers_in_python_containers(hold) -> None:
    found = unregistered_layers.find(numbers(lambda i, o: Held(hold, i, o)))
    assert found.sure == "sure"
    assert len(found.where) == 4
    assert all(name.startswith("layers[") for name in found.where)
    assert str(10 * 16 + 16 + 16 * 16 + 16) in found.evidence
    assert unregistered_layers.find(numbers(lambda i, o: Held(nn.ModuleList, i, o))) is None


def test_a_tensor_that_is_no_parameter() -> None:
    class Scaled(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)
            self.scale = torch.ones(outputs, requires_grad=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale

    assert unregistered_layers.find(numbers(Scaled)).where == ("scale",)


def test_a_frozen_teacher_out_of_sight_is_healthy() -> None:
    class Taught(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.teacher = [nn.Linear(inputs, 8).requires_grad_(False)]
            self.output = nn.Linear(8, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(self.teacher[0](x))

    assert unregistered_layers.find(numbers(Taught)) is None


class Skips(nn.Module):
    """Has more layers than it runs."""

    def __init__(self, extra: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 16)
        self.extra = extra
        self.output = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.relu(self.first(x)))


def test_a_layer_that_never_runs() -> None:
    found = unused_layers.find(numbers(lambda i, o: Skips(nn.Linear(16, 16), i, o)))
    assert (found.sure, found.where) == ("likely", ("extra",))
    assert no_gradient.find(numbers(lambda i, o: Skips(nn.Linear(16, 16), i, o))) is None


@pytest.mark.parametrize(
    "head", [nn.Linear(16, 7), nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 7))]
)
def test_an_unused_head_is_a_hint(head: nn.Module) -> None:
    assert unused_layers.find(numbers(lambda i, o: Skips(head, i, o))).sure == "hint"


class Cut(nn.Module):
    """Does something between body and output."""

    def __init__(self, cut, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, 16)
        self.output = nn.Linear(16, outputs)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.cut(torch.tanh(self.body(x))))


@pytest.mark.parametrize(
    "cut", [Tensor.detach, torch.round, torch.sign, lambda h: torch.tensor(h.detach().numpy())]
)
def test_what_cuts_the_graph(cut) -> None:
    found = no_gradient.find(numbers(lambda i, o: Cut(cut, i, o)))
    assert found.where == ("body.weight", "body.bias")


def test_a_part_under_no_grad() -> None:
    class Without(Cut):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.body(x)
            return self.output(h)

    assert no_gradient.find(numbers(lambda i, o: Without(None, i, o))).where == ("body.weight", "body.bias")


def frozen(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64).requires_grad_(False), nn.ReLU(), nn.Linear(64, outputs))


def zero_output(inputs: int, outputs: int) -> nn.Module:
    network = plain(inputs, outputs)
    nn.init.zeros_(network[-1].weight)
    return network


class ZeroBranches(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(inputs, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.output = nn.Linear(16, outputs)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.output(x + self.outer(F.relu(self.inner(x))))


class Tied(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.shared, self.output = (
            nn.Linear(inputs, 16),
            nn.Linear(16, 16),
            nn.Linear(16, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.relu(self.shared(F.relu(self.shared(F.relu(self.first(x)))))))


@pytest.mark.parametrize("healthy", [plain, frozen, zero_output, ZeroBranches, Tied, nn.Linear])
@pytest.mark.parametrize("seed", SEEDS)
def test_healthy_networks_are_left_alone(healthy, seed: int) -> None:
    for sight in (numbers(healthy, seed), classes(healthy, seed=seed), labels(healthy, seed=seed)):
        assert [c.__name__ for c in STRUCTURE if c.find(sight) is not None] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_layers_without_activation(seed: int) -> None:
    linear = numbers(
        lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.Dropout(0.1), nn.Linear(16, 16), nn.Linear(16, o)),
        seed,
    )
    assert no_activation.find(linear).sure == "likely"
    softmax = lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.Linear(16, o), nn.LogSoftmax(-1))  # noqa: E731
    assert no_activation.find(classes(softmax, seed=seed)).sure == "likely"
    normalized = lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.BatchNorm1d(16), nn.Linear(16, o))  # noqa: E731
    assert no_activation.find(numbers(normalized, seed)).sure == "likely"


def test_a_regression_of_low_rank_is_a_hint() -> None:
    low_rank = lambda i, o: nn.Sequential(nn.Linear(i, 2), nn.Linear(2, o))  # noqa: E731
    assert no_activation.find(classes(low_rank, count=6)).sure == "hint"


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.Softplus, nn.LeakyReLU])
def test_a_slight_bend_is_an_activation(activation) -> None:
    def small(inputs: int, outputs: int) -> nn.Module:
        network = nn.Sequential(nn.Linear(inputs, 16), activation(), nn.Linear(16, outputs))
        nn.init.normal_(network[0].weight, std=0.001)
        return network

    assert no_activation.find(numbers(small)) is None


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_units(value: float) -> None:
    def equal(inputs: int, outputs: int) -> nn.Module:
        network = plain(inputs, outputs)
        for p in network.parameters():
            nn.init.constant_(p, value)
        return network

    found = equal_weights.find(
        numbers(equal, network="mlp", width=16, initialization="constant", initial_value=value)
    )
    assert found.sure == "sure"
    assert found.where[0] == "0"
    assert found.remedies[0].settings == {"initialization": "kaiming"}


def test_softmax_between_layers() -> None:
    hidden = lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.Softmax(-1), nn.Linear(16, o))  # noqa: E731
    assert softmax_hidden.find(classes(hidden)).where == ("2",)
    last = lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.ReLU(), nn.Linear(16, o), nn.Softmax(-1))  # noqa: E731
    assert softmax_hidden.find(classes(last)) is None


def test_one_hot_inputs_are_no_softmax() -> None:
    class OneHot(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.layers = plain(inputs, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(F.one_hot(x.argmax(-1), x.shape[-1]).to(x))

    assert softmax_hidden.find(numbers(OneHot)) is None


def test_looking_changes_nothing() -> None:
    def noisy(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs)
        )

    sight = numbers(noisy)
    before = {name: t.clone() for name, t in sight.network.module.state_dict().items()}
    chance = torch.get_rng_state()
    for check in STRUCTURE:
        check.find(sight)
    assert all(torch.equal(t, before[name]) for name, t in sight.network.module.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state())
    assert not any(
        layer._forward_hooks or layer._forward_pre_hooks for layer in sight.network.module.modules()
    )
