"""The residual network: its parts by name, what a block computes by hand, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foldwise.errors import SettingsError
from foldwise.nets.build import build
from foldwise.nets.residual import Residual, residual
from foldwise.settings import Settings, make_settings


def parts(**own: object) -> list[str]:
    """Name the parameters of a residual network of depth 2."""
    net = build(Settings(network="residual", width=8, depth=2, **own), 4, 3)
    return [name.removesuffix(".weight") for name, _ in net.named_parameters() if name.endswith("weight")]


def test_parts_have_names_that_a_search_can_use() -> None:
    blocks = ["block1.inner", "block1.outer", "block2.inner", "block2.outer"]
    assert parts() == ["stem", *blocks, "output"]


@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_normalization_comes_first_in_a_block_and_before_the_output(name: str) -> None:
    kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "group": nn.GroupNorm}
    net = build(Settings(network="residual", width=8, depth=2, normalization=name), 4, 3)
    children = ["normalization", "inner", "activation", "dropout", "outer"]
    assert [n for n, _ in net.block2.named_children()] == children
    assert [n for n, _ in net.named_children()] == [
        *("stem", "block1", "block2", "normalization", "activation", "output")
    ]
    assert sum(isinstance(m, kinds[name]) for m in net.modules()) == 3


def test_a_block_adds_to_its_input() -> None:
    net = residual(1, 1, width=1, depth=1)
    with torch.no_grad():
        for name, value in {"stem": 2.0, "block1.inner": 3.0, "block1.outer": -0.5, "output": 10.0}.items():
            net.get_submodule(name).weight.fill_(value)
            net.get_submodule(name).bias.zero_()
    # h = 2x; h − ½·relu(3h); 10·relu(h)
    assert net(torch.tensor([[1.0], [-1.0]])).flatten().tolist() == [0, 0]
    with torch.no_grad():
        net.block1.outer.weight.fill_(0.5)
    assert net(torch.tensor([[1.0], [-1.0]])).flatten().tolist() == [50, 0]


def test_without_layers_a_block_doubles() -> None:
    assert Residual()(torch.tensor([3.0])).item() == 6


def test_a_block_of_zero_weights_passes_its_input_on() -> None:
    net = residual(4, 3, width=8, depth=3, activation="tanh", normalize="layer")
    with torch.no_grad():
        for i in (1, 2, 3):
            net.get_submodule(f"block{i}.outer").weight.zero_()
            net.get_submodule(f"block{i}.outer").bias.zero_()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x), net.output(torch.tanh(net.normalization(net.stem(x)))))


def test_dropout_is_inside_the_blocks_alone() -> None:
    net = build(Settings(network="residual", width=8, depth=2, dropout=0.25), 4, 3)
    dropped = {name: m.p for name, m in net.named_modules() if isinstance(m, nn.Dropout)}
    assert dropped == {"block1.dropout": 0.25, "block2.dropout": 0.25}


@pytest.mark.parametrize(
    "own", [{"normalization": "group", "normalization_groups": 8}, {"normalization": "layer"}]
)
@pytest.mark.parametrize("network", ["mlp", "residual"])
def test_groups_of_one_unit_are_refused(own: dict[str, object], network: str) -> None:
    width = 8 if "normalization_groups" in own else 1
    with pytest.raises(SettingsError, match=r"turns? (every|the only) unit"):
        make_settings({"network": network, "width": width, "depth": 1, **own})
