"""Each layer that a chain takes, and what is left to vmap: all equal each network alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foldwise.engine.dropout import key_dropouts
from foldwise.engine.random import key
from foldwise.engine.stacked import forward as ways
from foldwise.engine.stacked.forward import choose_forward, is_chain
from foldwise.nets.build import build
from foldwise.nets.features import Fourier, Polynomial
from foldwise.nets.residual import Residual
from foldwise.settings import Settings

MEMBERS, BATCH, INPUTS, OUTPUTS, WIDTH = 3, 7, 4, 2, 6
TOLERANCE = 1e-12


def settled(module: nn.Module, seed: int) -> nn.Module:
    """Give parameters and statistics values of their own, and dropout layers a key."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand(tensor.shape, generator=generator).sub(0.4 if "var" not in name else -1)
                )
    for number, name in enumerate(key_dropouts(module)):
        module.get_submodule(name).key = key(torch.tensor(seed), "dropout", number)
    return module.double()


def stack(
    make: Callable[[], nn.Module],
) -> tuple[list[nn.Module], dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Make some networks, their tensors one upon another, and a batch for each."""
    modules = [settled(make(), seed) for seed in range(MEMBERS)]
    parameters, buffers = (
        {n: torch.stack([dict(of(m))[n].detach() for m in modules]) for n, _ in of(modules[0])}
        for of in (nn.Module.named_parameters, nn.Module.named_buffers)
    )
    buffers[ways.OWNER] = torch.arange(MEMBERS)
    x = torch.randn(MEMBERS, BATCH, INPUTS, generator=torch.Generator().manual_seed(9)).double()
    return modules, {n: p.requires_grad_() for n, p in parameters.items()}, buffers, x


def compare(make: Callable[[], nn.Module], way: Callable[[nn.Module], ways.Through], *, chain: bool) -> None:
    """Hold a way through a stack to each network alone, in training and then in evaluation."""
    modules, parameters, buffers, x = stack(make)
    skeleton = settled(make(), 0)
    assert is_chain(skeleton) == chain
    through = way(skeleton)
    given = buffers if chain else {n: b for n, b in buffers.items() if n != ways.OWNER}
    for training in (True, True, False):
        skeleton.train(training)
        ways.begin_pass(skeleton)
        outputs = through(parameters, given, x)
        gradients = torch.autograd.grad(outputs.square().sum(), list(parameters.values()))
        for place, module in enumerate(modules):
            module.train(training)
            ways.begin_pass(module)
            alone = module(x[place])
            torch.testing.assert_close(outputs[place], alone, rtol=TOLERANCE, atol=TOLERANCE)
            own = torch.autograd.grad(alone.square().sum(), list(module.parameters()))
            for ours, theirs in zip(gradients, own, strict=True):
                torch.testing.assert_close(ours[place], theirs, rtol=TOLERANCE, atol=TOLERANCE)
            for name, buffer in module.named_buffers():
                torch.testing.assert_close(given[name][place], buffer, rtol=TOLERANCE, atol=TOLERANCE)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(WIDTH),
    "batch without affine": lambda: nn.BatchNorm1d(WIDTH, affine=False),
    "batch, slowly": lambda: nn.BatchNorm1d(WIDTH, momentum=0.01, eps=1e-3),
    "layer": lambda: nn.LayerNorm(WIDTH),
    "layer without affine": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "layer without bias": lambda: nn.LayerNorm(WIDTH, bias=False, eps=1e-3),
    "group": lambda: nn.GroupNorm(3, WIDTH),
    "group without affine": lambda: nn.GroupNorm(2, WIDTH, affine=False),
    "residual": lambda: Residual(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.3)),
    "nested": lambda: nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU())),
    "residual in residual": lambda: Residual(Residual(nn.BatchNorm1d(WIDTH)), nn.GELU()),
    "nothing": Residual,
}
TO_VMAP: dict[str, Callable[[], nn.Module]] = {
    "batch without running statistics": lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.Flatten()
    ),
}
BUILT: dict[str, dict[str, Any]] = {
    **{
        f"mlp {norm}": {"network": "mlp", "normalization": norm}
        for norm in ("none", "batch", "layer", "group")
    },
    **{
        f"residual {n}": {"network": "residual", "normalization": n}
        for n in ("none", "batch", "layer", "group")
    },
    "polynomial": {"network": "linear", "feature_map": "polynomial", "feature_degree": 3},
    "fourier": {"network": "residual", "feature_map": "fourier", "feature_count": 5},
}


def between(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Put a layer between two linear ones."""
    return lambda: nn.Sequential(nn.Linear(INPUTS, WIDTH), layer(), nn.Linear(WIDTH, OUTPUTS))


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_a_chain_equals_each_alone(name: str) -> None:
    compare(between(LAYERS[name]), ways._chained, chain=True)


@pytest.mark.parametrize("name", BUILT)
def test_every_built_network_is_a_chain_and_equals_each_alone(name: str) -> None:
    own = dict(BUILT[name])
    if own["network"] != "linear":
        own |= {"width": WIDTH, "depth": 2, "dropout": 0.3, "activation": "tanh"}
    if own.get("normalization") == "group":
        own["normalization_groups"] = 3
    compare(lambda: build(Settings(**own), INPUTS, OUTPUTS), ways._chained, chain=True)


@pytest.mark.parametrize("name", TO_VMAP)
def test_what_a_chain_does_not_take_goes_through_vmap(name: str) -> None:
    compare(between(TO_VMAP[name]), ways._vmapped, chain=False)


def test_batch_normalization_without_momentum_averages_all_batches() -> None:
    # vmap cannot take it, because the weight of a batch is read from a tensor
    def make() -> nn.Module:
        return between(lambda: nn.BatchNorm1d(WIDTH, momentum=None))()

    _, parameters, buffers, x = stack(make)
    del buffers[ways.OWNER]
    forward = choose_forward(settled(make(), 0), parameters, buffers, x, OUTPUTS)
    assert (forward.chain, forward.how) == (False, "one by one")
    compare(make, ways._one_by_one, chain=False)


def test_layers_that_a_wrapper_or_a_hook_changes_are_no_chain() -> None:
    wrapped = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    hooked = nn.Sequential(Residual(nn.Linear(3, 3)))
    hooked[0].register_forward_hook(lambda module, args, output: -output)
    several_axes = nn.Sequential(nn.LayerNorm((BATCH, INPUTS)))
    assert not any(map(is_chain, (wrapped, hooked, several_axes)))


def test_running_statistics_are_written_where_they_lie() -> None:
    _, parameters, buffers, x = stack(between(LAYERS["batch"]))
    whole = {n: torch.cat([b, b]) for n, b in buffers.items()}
    parts = {n: b[MEMBERS:] for n, b in whole.items()}  # as a chunk of a larger stack
    ways._chained(settled(between(LAYERS["batch"])(), 0))(parameters, parts, x)
    assert whole["1.num_batches_tracked"].tolist() == [0] * MEMBERS + [1] * MEMBERS
    moved = (whole["1.running_mean"] != torch.cat([buffers["1.running_mean"]] * 2)).any(1)
    assert moved.tolist() == [False] * MEMBERS + [True] * MEMBERS


def test_one_row_is_refused_by_a_chain_as_by_the_layer() -> None:
    _, parameters, buffers, x = stack(between(LAYERS["batch"]))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ways._chained(settled(between(LAYERS["batch"])(), 0))(parameters, buffers, x[:, :1])


@pytest.mark.parametrize("name", ["mlp batch", "mlp layer", "residual group", "fourier"])
@pytest.mark.parametrize("number", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_chain_stays_near_each_alone(name: str, number: torch.dtype) -> None:
    own = BUILT[name] | {"width": 12, "depth": 2}
    modules, parameters, buffers, x = stack(lambda: build(Settings(**own), INPUTS, OUTPUTS).float())
    parameters, buffers = (
        {n: t.float() if t.is_floating_point() else t for n, t in named.items()}
        for named in (parameters, buffers)
    )
    skeleton = settled(build(Settings(**own), INPUTS, OUTPUTS), 0).float()
    with torch.autocast("cpu", number, cache_enabled=False):
        outputs = ways._chained(skeleton)(parameters, buffers, x.float())
        alone = torch.stack([m.float()(own_x) for m, own_x in zip(modules, x.float(), strict=True)])
    gradients = torch.autograd.grad(outputs.float().square().sum(), list(parameters.values()))
    assert {g.dtype for g in gradients} == {torch.float32}
    assert (outputs.float() - alone.float()).abs().max() < 0.05 * alone.float().abs().max()


# A small convolutional network of one's own


class Convolutional(nn.Module):
    """Sees its inputs as an image of two channels; the 1×1 convolution mixes channels at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.mix, self.head = nn.Conv2d(4, 3, 1), nn.Linear(12, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Reshape, convolve, normalize, mix, read out."""
        h = torch.relu(self.norm(self.image(x.view(-1, 2, 2, 2))))
        return self.head(self.mix(h).flatten(1))


def test_a_convolutional_network_equals_each_alone() -> None:
    compare(lambda: nn.Sequential(nn.Linear(INPUTS, 8), Convolutional()), ways._vmapped, chain=False)


def test_a_convolutional_network_is_stacked() -> None:
    _, parameters, buffers, x = stack(lambda: nn.Sequential(nn.Linear(INPUTS, 8), Convolutional()))
    del buffers[ways.OWNER]
    skeleton = settled(nn.Sequential(nn.Linear(INPUTS, 8), Convolutional()), 0)
    assert choose_forward(skeleton, parameters, buffers, x, OUTPUTS).why == "through vmap"


def test_a_convolution_of_one_place_is_a_linear_layer_over_channels() -> None:
    convolution, linear = nn.Conv2d(4, 3, 1).double(), nn.Linear(4, 3).double()
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.flatten(1))
        linear.bias.copy_(convolution.bias)
    x = torch.randn(5, 4, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    over_channels = linear(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(convolution(x), over_channels, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("features", [Polynomial(INPUTS, 2), Fourier(INPUTS, 5)])
def test_feature_maps_may_stand_in_networks_of_ones_own(features: nn.Module) -> None:
    def make() -> nn.Module:
        again = Polynomial(INPUTS, 2) if isinstance(features, Polynomial) else Fourier(INPUTS, 5)
        return nn.Sequential(
            nn.Unflatten(1, (1, INPUTS)), nn.Flatten(), again, nn.Linear(again.outputs, OUTPUTS)
        )

    compare(make, ways._vmapped, chain=False)
