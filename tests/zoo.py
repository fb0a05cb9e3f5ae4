"""Everything that a member can be made of, listed once, and small data to train it on.

Tests run over these lists; `tests/test_zoo.py` fails when the package has something that no list names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foldwise.data.folds import Folds, make_folds
from foldwise.data.prepare import learn_preparation, learn_target_scale
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.rows import Rows, place_rows
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.nets.build import Net
from foldwise.plans.plan import Member
from foldwise.reference import Alone, prepare_fold
from foldwise.settings import Settings

torch.set_num_threads(1)  # the test processes share the cores; and how many there are changes the last bits

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "scaled_sigmoid", "gelu", "silu")
INITIALIZATIONS = ("xavier", "kaiming", "normal", "own")
SCHEDULES = ("constant", "cosine")
SCALINGS = ("robust", "standard")
OPTIMIZERS: dict[str, tuple[dict[str, Any], ...]] = {
    "sgd": ({}, {"momentum": 0.9}, {"momentum": 0.5, "weight_decay": 0.1}),
    "adamw": ({}, {"beta1": 0.5, "beta2": 0.9}, {"epsilon": 1e-3, "weight_decay": 0.1}),
}


# Networks of users


class Residual(nn.Module):
    """A plain module with a skip connection."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.stem, self.inner = nn.Linear(inputs, width), nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the inner layer makes of the hidden units to them."""
        h = torch.tanh(self.stem(x))
        return self.head(h + torch.nn.functional.silu(self.inner(h)))


class Normalized(nn.Module):
    """Has buffers that training changes, scales that no decay shrinks, and two dropout layers."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, width, bias=False),
            nn.BatchNorm1d(width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        self.drop, self.head = nn.Dropout(dropout / 2), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers one after another."""
        return self.head(self.drop(self.layers(x)))


class Branching(nn.Module):
    """Decides by its data which way to go, so it cannot be vmapped."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Flip the hidden units of a batch whose mean is negative."""
        h = self.drop(torch.tanh(self.hidden(x)))
        return self.head(-h if x.mean() < 0 else h)


class Partly(nn.Module):
    """Has a frozen layer, one without bias, and one that is used twice."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(inputs, width).requires_grad_(False)
        self.twice, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the middle layer two times."""
        return self.head(torch.tanh(self.twice(torch.tanh(self.twice(torch.tanh(self.frozen(x)))))))


def reusing(inputs: int, outputs: int, width: int, dropout: float = 0.25) -> nn.Sequential:
    """Chain layers of which some stand at two places, as users write it."""
    activation, drop, square = nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, width)
    return nn.Sequential(
        nn.Linear(inputs, width),
        activation,
        drop,
        square,
        activation,
        drop,
        square,
        nn.Linear(width, outputs),
    )


@dataclass(frozen=True)
class Network:
    """A network, the settings that make it, and the way in which a stack of it is run."""

    name: str
    settings: dict[str, Any]
    way: str
    net: Net | None = None

    @property
    def drops(self) -> bool:
        """Tell whether the setting `dropout` has an effect."""
        return "dropout" not in self.settings and self.name not in (
            "linear",
            "constant",
            "Residual",
            "Partly",
        )


CUSTOM = {"network": "custom", "width": 6, "initialization": "own", "takes": ("width",)}
DROPPING = {**CUSTOM, "takes": ("width", "dropout")}
NETWORKS = {
    n.name: n
    for n in (
        Network("constant", {"network": "constant"}, "chain"),
        Network("linear", {"network": "linear"}, "chain"),
        *(
            Network(f"mlp {a}", {"network": "mlp", "width": 6, "depth": 2, "activation": a}, "chain")
            for a in ACTIVATIONS
        ),
        Network("Residual", CUSTOM, "vmap", Residual),
        Network("Normalized", DROPPING, "vmap", Normalized),
        Network("Partly", CUSTOM, "vmap", Partly),
        Network("Branching", DROPPING, "one by one", Branching),
        Network("reusing", DROPPING, "chain", reusing),
    )
}


# Targets


@dataclass(frozen=True)
class Target:
    """What is learnt: a loss, the kind of the task, the network's outputs, and how targets are drawn."""

    name: str
    loss: str
    kind: str
    outputs: int
    draw: Callable[[np.random.Generator, int], np.ndarray]

    @property
    def smooths(self) -> bool:
        """Tell whether labels can be smoothed."""
        return self.kind != "regression"


def _numbers(columns: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return random.normal(size=(rows, columns)) * [5.0, 0.1][:columns] + [100.0, -3.0][:columns]


def _classes(count: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return random.permutation(np.arange(rows) % count)


def _shares(random: np.random.Generator, rows: int) -> np.ndarray:
    return random.dirichlet([1.0, 2.0, 3.0], size=rows)


def _labels(columns: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return np.stack([_classes(2, random, rows) for _ in range(columns)], axis=1).astype(float)


TARGETS = {
    t.name: t
    for t in (
        Target("one number", "squared_error", "regression", 1, partial(_numbers, 1)),
        Target("two numbers", "half_squared_error", "regression", 2, partial(_numbers, 2)),
        Target("classes", "cross_entropy", "multiclass", 3, partial(_classes, 3)),
        Target("soft classes", "cross_entropy", "multiclass", 3, _shares),
        Target("two classes", "cross_entropy", "binary", 2, partial(_classes, 2)),
        Target("two classes, one output", "binary_cross_entropy", "binary", 1, partial(_labels, 1)),
        Target("labels", "binary_cross_entropy", "multilabel", 2, partial(_labels, 2)),
    )
}


# A small world to train in

ROWS = 23
VALIDATED = (3, 4, 5, 11)  # rows of each fold: the folds differ in length and in steps per epoch
BATCH = 8
FEATURES = 5


@dataclass(frozen=True)
class World:
    """Rows with missing cells and a flag, folds of unequal size, a target and a network."""

    features: np.ndarray
    targets: np.ndarray
    folds: Folds
    target: Target
    net: Net | None = None
    dtype: torch.dtype = torch.float64

    @property
    def numbers(self) -> np.ndarray:
        """All features are numbers but the last, which is a flag."""
        return np.arange(FEATURES) < FEATURES - 1

    @cached_property
    def rows(self) -> Rows:
        """Place the rows as a study would."""
        train = self.folds.train
        return place_rows(
            self.features,
            self.targets,
            self.folds,
            {s: learn_preparation(self.features, train, self.numbers, s) for s in SCALINGS},
            learn_target_scale(self.targets, train) if self.target.kind == "regression" else None,
            device=torch.device("cpu"),
            dtype=self.dtype,
        )

    @cached_property
    def nursery(self) -> Nursery:
        """Make what makes networks."""
        return Nursery(self.rows, {self.target.loss: self.target.outputs}, self.net)

    def engine(self, members: list[Member], chunk: int | None = None) -> StackedEngine:
        """Put members into a stack, at step 0."""
        return StackedEngine(members, self.nursery, RowOrders(self.folds, torch.device("cpu")), chunk)

    def alone(self, member: Member) -> tuple[nn.Module, Alone]:
        """Prepare what the reference loop needs for one member."""
        data = prepare_fold(
            self.features,
            self.targets,
            self.folds.train[member.fold],
            self.folds.validation[member.fold],
            self.numbers,
            member.settings.scaling,
            self.target.kind == "regression",
            self.dtype,
        )
        return self.nursery.start(member), data

    def with_rows(self, features: np.ndarray, targets: np.ndarray) -> World:
        """Give the same world with other cells."""
        return replace(self, features=features, targets=targets)


def world(
    target: Target, net: Net | None = None, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> World:
    """Draw a small world."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(ROWS, FEATURES)) * [1.0, 30.0, 0.01, 2.0, 1.0]
    features[:, -1] = features[:, -1] > 0
    features[random.integers(ROWS, size=4), 1] = np.nan
    numbers = random.permutation(np.repeat(np.arange(len(VALIDATED)), VALIDATED))
    return World(features, target.draw(random, ROWS), make_folds(ROWS, numbers=numbers), target, net, dtype)


# Members that differ in everything in which members of a stack may differ

PLACES = ((0, 0, 0), (0, 3, 1), (1, 1, 1), (1, 3, 0), (2, 2, 1), (2, 0, 5))  # (trial, fold, seed)
MIXED: tuple[dict[str, Any], ...] = (
    {"learning_rate": 0.01, "epochs": 10, "scaling": "standard", "dropout": 0.0, "initialization": "xavier"},
    {"learning_rate": 0.03, "epochs": 10, "schedule": "cosine", "dropout": 0.5, "initialization": "kaiming"},
    {"learning_rate": 0.02, "epochs": 4, "schedule": "cosine", "dropout": 0.2, "initialization": "normal"},
)


def mixed(network: Network, target: Target, optimizer: str, *, batch_size: int = BATCH) -> list[Member]:
    """Make six members of one stack: three trials, four folds, three seeds."""
    trials = []
    for number, (values, own) in enumerate(zip(MIXED, OPTIMIZERS[optimizer], strict=True)):
        values = {**values, **own, "optimizer": optimizer, "loss": target.loss, "batch_size": batch_size}
        values["weight_decay"] = values.get("weight_decay", 0.01 * number)
        if not network.drops:
            del values["dropout"]
        if target.smooths:
            values["label_smoothing"] = 0.1 * number
        if values["initialization"] == "normal":
            values["initial_deviation"] = 0.3
        if network.name == "constant":
            values = {n: v for n, v in values.items() if not n.startswith("initial")}
        values |= network.settings
        if values.get("initialization") == "own":
            values.pop("initial_deviation", None)
        trials.append(Settings(**values))
    return [Member(trial, fold, seed, trials[trial]) for trial, fold, seed in PLACES]
