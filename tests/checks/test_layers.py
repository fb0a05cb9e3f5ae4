"""Layers whose names are bare numbers are called by what they are."""

from __future__ import annotations

import pytest
from torch import nn

import network_sights as sights
from foldwise.checks.layers import called, described
from foldwise.checks.order import check_module
from foldwise.engine.dropout import KeyedDropout


def numbered(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 32), nn.Softmax(1), nn.Linear(32, 16), nn.Dropout(0.97), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Linear(16, outputs),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("dropout-strong", "layer 3 (Dropout) drops 97 % of 16 units"),
        ("dropout-before-normalization", "dropout comes right before layer 4 (BatchNorm1d 16)"),
        ("softmax-hidden", "what layer 2 (Linear 32→16) takes in sums to 1"),
    ],
)
def test_evidence_names_the_layer(code: str, said: str) -> None:
    found = check_module(code).find(sights.numbers(numbered))
    assert said in found.evidence


def test_layers_inside_others_and_those_that_are_not_there() -> None:
    net = nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 2))})
    assert called("body.0", net) == "layer body.0 (Linear 4→2)"
    assert called("body.0.bias", net) == "the bias of layer body.0 (Linear 4→2)"
    assert called("body.7", net) == "layer body.7"
    assert called("body", net) == "body"


def test_dropout_by_keys_is_called_as_that_which_it_stands_for() -> None:
    assert described(KeyedDropout(0.1)) == "Dropout"
