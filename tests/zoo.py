"""Everything that a member can be made of, listed once, and small data to train it on.

Tests run over these lists; `tests/test_zoo.py` fails when the package has something that no list names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foldwise.data.folds import Folds, make_folds
from foldwise.data.prepare import learn_preparation, learn_target_scale
from foldwise.data.target import Task
from foldwise.engine.cohort import Cohort
from foldwise.engine.interface import Engine
from foldwise.engine.links import Link, Now
from foldwise.engine.losses import Loss, OwnLoss, losses_for
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.resident.engine import ResidentEngine
from foldwise.engine.rows import Rows, place_rows
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.nets.build import Net, build
from foldwise.plans.plan import Member
from foldwise.reference import Alone, Own, prepare_fold
from foldwise.settings import Settings, make_settings

torch.set_num_threads(1)  # the test processes share the cores; and how many there are changes the last bits

DEVICE = torch.device(os.environ.get("FOLDWISE_TEST_DEVICE", "cpu"))
"""Where stacks train; the plain loop that they are compared with always stays on the CPU."""

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "scaled_sigmoid", "gelu", "silu")
NORMALIZATIONS = ("none", "batch", "layer", "group")
FEATURE_MAPS = ("none", "polynomial", "fourier")
INITIALIZATIONS = ("xavier", "kaiming", "normal", "orthogonal", "lsuv", "constant", "own")
SCALINGS = ("robust", "standard")
Three = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""What the three trials of a mixed stack have."""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, what a stack of it shares, and what its trials have of their own."""

    name: str
    trials: Three
    shared: dict[str, Any] = field(default_factory=dict)


ADAM: Three = ({}, {"beta1": 0.5, "beta2": 0.9}, {"epsilon": 1e-3, "weight_decay": 0.1})
RMS: Three = ({}, {"alpha": 0.9, "momentum": 0.5}, {"epsilon": 1e-3, "weight_decay": 0.1})
LOOKING: Three = ({"momentum": 0.9}, {"momentum": 0.3}, {"momentum": 0.5, "weight_decay": 0.1})
OPTIMIZERS = {
    "sgd": Optimizer(
        "sgd", ({}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.5, "weight_decay": 0.1})
    ),
    "sgd, nesterov": Optimizer("sgd", LOOKING, {"nesterov": True}),
    "rmsprop": Optimizer("rmsprop", RMS),
    "rmsprop, centered": Optimizer("rmsprop", RMS, {"centered": True}),
    "adagrad": Optimizer(
        "adagrad", ({}, {"rate_decay": 0.3}, {"initial_accumulator": 0.5, "weight_decay": 0.1})
    ),
    "adam": Optimizer("adam", ADAM),
    "adamw": Optimizer("adamw", ADAM),
    "nadam": Optimizer("nadam", ({}, {"beta1": 0.5, "momentum_decay": 0.1}, ADAM[2])),
}


@dataclass(frozen=True)
class Recipe:
    """What else the three trials of a stack do; `FIRST` and `LAST` stand for blocks of the network."""

    trials: Three
    shared: dict[str, Any] = field(default_factory=dict)
    weighted: bool = False
    links: tuple[Link, ...] = ()


def _echo(direction: Tensor, remembered: Mapping[str, Tensor], now: Now) -> Tensor:
    # a part of the entry before is added to each, more so in the first steps
    share = now.settings["echo"] / (1 + remembered["echoes"].to(direction))
    both = direction + share * remembered["before"]
    remembered["echoes"].add_(1)
    remembered["before"].copy_(direction)
    return both


ECHO = Link(_echo, moments=("before",), scalars={"echoes": 0.0}, knobs={"echo": 0.0})
SHRINK = Link(lambda weights, remembered, now: weights * 0.999, stage="weights")
FALLING: Three = (
    {"schedule": "step", "decay_every": 2, "decay_factor": 0.5, "warmup": 0.2},
    {"schedule": "exponential", "decay_per_epoch": 0.8},
    {"schedule": "one_cycle", "peak_at": 0.4, "start_divisor": 10.0, "end_divisor": 100.0},
)
WATCHING: Three = (
    {"schedule": "plateau", "patience": 1, "decay_factor": 0.5, "threshold": 0.05},
    {"schedule": "cosine", "warmup": 0.3},
    {"schedule": "plateau", "patience": 0, "warmup": 0.2},
)
NOISY: Three = (
    {"input_noise": 0.3, "label_noise": 0.3},
    {"mixup": 0.4},
    {"input_noise": 0.1, "label_noise": 0.5, "mixup": 1.0},
)
RECIPES = {
    "plain": Recipe(({}, {}, {})),
    "penalties": Recipe(({"l1": 0.01, "l2": 0.1}, {"l2": 0.3, "regularized": "all"}, {"l1": 0.05})),
    "limits": Recipe(({"weight_limit": 0.5}, {"weight_limit": 2.0, "regularized": "all"}, {})),
    "blocks": Recipe(
        (
            {"FIRST.rate_factor": 0.1, "LAST.weight_decay": 0.2, "l1": 0.01},
            {"FIRST.frozen": True, "LAST.l2": 0.3, "clip_norm": 0.4},
            {"LAST.weight_limit": 0.4, "FIRST.l1": 0.02, "weight_limit": 3.0},
        )
    ),
    "clipping": Recipe(({"clip_norm": 0.1}, {"clip_norm": 0.5}, {})),
    "falling rates": Recipe(FALLING),
    "rates that watch": Recipe(WATCHING),
    "noise": Recipe(NOISY),
    "weights": Recipe(({}, {}, {}), weighted=True),
    "weights, sums, noise": Recipe(
        ({"reduction": "sum"}, {"mixup": 0.4}, {"reduction": "sum", "clip_norm": 1.0}), weighted=True
    ),
    "accumulation": Recipe(
        ({"dropout": 0.0}, {"reduction": "sum"}, {}), {"accumulation": 2, "batch_size": 3}
    ),
    "growing batches": Recipe(
        FALLING, {"batch_growth": 1.5, "batch_growth_every": 2, "batch_size": 4, "accumulation": 2}
    ),
    "links of one's own": Recipe(({"echo": 0.1}, {"echo": 0.3, "clip_norm": 0.5}, {}), links=(ECHO, SHRINK)),
}
SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle", "plateau")


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
        return self.settings["network"] in ("mlp", "residual") or "dropout" in self.settings.get("takes", ())


HIDDEN = {"network": "mlp", "width": 6, "depth": 2, "activation": "tanh"}
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
        *(
            Network(f"mlp, {n} normalization", {**HIDDEN, "normalization": n, **own}, "chain")
            for n, own in (("batch", {}), ("layer", {}), ("group", {"normalization_groups": 2}))
        ),
        Network("residual", {**HIDDEN, "network": "residual"}, "chain"),
        Network("residual, normalized", {**HIDDEN, "network": "residual", "normalization": "batch"}, "chain"),
        Network("polynomial", {"network": "linear", "feature_map": "polynomial"}, "chain"),
        Network("fourier", {**HIDDEN, "feature_map": "fourier", "feature_count": 7}, "chain"),
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
    """What is learnt: a loss, the kind of the task, the network's outputs, and how targets are drawn.

    `knobs` are settings of the loss, for the three trials.
    """

    name: str
    loss: str
    kind: str
    outputs: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    knobs: Three = ({}, {}, {})
    own: OwnLoss | None = None

    @property
    def smooths(self) -> bool:
        """Tell whether labels can be smoothed."""
        return self.loss in ("cross_entropy", "binary_cross_entropy")

    @property
    def record(self) -> Loss:
        """Find the loss itself."""
        classes = ((0, 1, 2)[: max(2, self.outputs)],)
        return losses_for(Task(self.kind, ("y",), classes), self.own)[self.loss]  # type: ignore[arg-type]


def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    """Be a loss of the user's own."""
    return (outputs - targets).cosh().log().mean(-1)


def branching_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Be a loss of the user's own that vmap cannot take."""
    if outputs.max() > 0.1:  # the most of some rows is not changed by rows that are there twice
        return 2 * (outputs.sigmoid() - targets).square().mean(-1)
    return (outputs.sigmoid() - targets).square().mean(-1)


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    """Be a loss of the user's own for classes (Lin et al. 2017)."""
    logs = torch.log_softmax(outputs, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -((1 - logs.exp()) ** 2) * logs


def _numbers(columns: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return random.normal(size=(rows, columns)) * [5.0, 0.1][:columns] + [100.0, -3.0][:columns]


def _classes(count: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return random.permutation(np.arange(rows) % count)


def _shares(random: np.random.Generator, rows: int) -> np.ndarray:
    return random.dirichlet([1.0, 2.0, 3.0], size=rows)


def _labels(columns: int, random: np.random.Generator, rows: int) -> np.ndarray:
    return np.stack([_classes(2, random, rows) for _ in range(columns)], axis=1).astype(float)


def each(name: str, *values: float) -> Three:
    """Give the three trials a setting."""
    first, second, third = ({name: value} for value in values)
    return first, second, third


TARGETS = {
    t.name: t
    for t in (
        Target("one number", "squared_error", "regression", 1, partial(_numbers, 1)),
        Target("two numbers", "half_squared_error", "regression", 2, partial(_numbers, 2)),
        Target("absolute", "absolute_error", "regression", 2, partial(_numbers, 2)),
        Target("huber", "huber", "regression", 2, partial(_numbers, 2), each("huber_delta", 0.3, 1.0, 2.0)),
        Target(
            "quantile", "quantile", "regression", 2, partial(_numbers, 2), each("quantile", 0.1, 0.5, 0.9)
        ),
        Target("own", "custom", "regression", 1, partial(_numbers, 1), own=log_cosh),
        Target("own, binary", "custom", "binary", 1, partial(_labels, 1), own=branching_error),
        Target("own, classes", "custom", "multiclass", 3, partial(_classes, 3), own=focal),
        Target("own, labels", "custom", "multilabel", 2, partial(_labels, 2), own=branching_error),
        Target("hinge", "hinge", "multiclass", 3, partial(_classes, 3), each("margin", 0.5, 1.0, 2.0)),
        Target("hinge, two outputs", "hinge", "binary", 2, partial(_classes, 2)),
        Target(
            "hinge, one output",
            "binary_hinge",
            "binary",
            1,
            partial(_labels, 1),
            each("margin", 0.5, 1.0, 2.0),
        ),
        Target("hinge, labels", "binary_hinge", "multilabel", 2, partial(_labels, 2)),
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
    weights: np.ndarray | None = None
    links: tuple[Link, ...] = ()
    device: torch.device = DEVICE

    @property
    def numbers(self) -> np.ndarray:
        """All features are numbers but the last, which is a flag."""
        return np.arange(FEATURES) < FEATURES - 1

    @property
    def training_weights(self) -> np.ndarray | None:
        """Lay the weights out fold by fold, those of the second half of the folds doubled, as classes might be."""
        if self.weights is None:
            return None
        return self.weights * np.array([1.0, 1.0, 2.0, 2.0])[:, None] ** (np.arange(ROWS) % 2)

    @cached_property
    def rows(self) -> Rows:
        """Place the rows as a study would."""
        train = self.folds.train
        regression = self.target.kind == "regression"
        return place_rows(
            self.features,
            self.targets,
            self.folds,
            {s: learn_preparation(self.features, train, self.numbers, s, self.weights) for s in SCALINGS},
            learn_target_scale(self.targets, train, self.weights) if regression else None,
            device=self.device,
            dtype=self.dtype,
            weights=self.training_weights,
            sample_weights=self.weights,
        )

    @cached_property
    def nursery(self) -> Nursery:
        """Make what makes networks."""
        return Nursery(self.rows, {self.target.loss: self.target.outputs}, self.net)

    @property
    def on_cpu(self) -> World:
        """Give the same world on the CPU."""
        return self if self.device.type == "cpu" else replace(self, device=torch.device("cpu"))

    def engine(self, members: list[Member], chunk: int | None = None) -> StackedEngine:
        """Put members into a stack, at step 0."""
        return StackedEngine(self.cohort(members), chunk)

    def resident(self, members: list[Member]) -> ResidentEngine:
        """Put members on their cores, at step 0."""
        return ResidentEngine(self.on_cpu.cohort(members))

    def cohort(self, members: list[Member]) -> Cohort:
        """Make the members and their state, at step 0."""
        orders = RowOrders(self.folds, self.device)
        return Cohort(members, self.nursery, orders, self.target.record, self.links)

    def alone(self, member: Member) -> tuple[nn.Module, Alone, Own]:
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
            self.weights,
            None if self.training_weights is None else self.training_weights[member.fold],
        )
        own = Own(self.target.record.form, self.target.own, self.links, CURVES[member.trial])
        return self.nursery.start(member).cpu(), data, own

    def with_rows(self, features: np.ndarray, targets: np.ndarray) -> World:
        """Give the same world with other cells."""
        return replace(self, features=features, targets=targets)


@dataclass(frozen=True)
class Weighted(World):
    """A world whose weights count alike in all folds."""

    @property
    def training_weights(self) -> np.ndarray | None:
        """Give every fold the weights of the rows."""
        return None if self.weights is None else np.tile(self.weights, (len(self.folds), 1))


def weights(module: nn.Module) -> Tensor:
    """Put a network's trainable weights into one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


def advance(engine: Engine, places: Sequence[int] | None = None) -> Tensor:
    """Train the next epoch of some members (of all who have not done theirs), and give mean training losses.

    NaN for the others.
    """
    cohort = engine.cohort
    epochs = cohort.state.epoch.tolist()
    if places is None:
        places = [p for p, m in enumerate(cohort.members) if epochs[p] < m.settings.epochs]
    losses = torch.full((len(cohort),), torch.nan, dtype=torch.float64)
    for part, own in engine.advance(engine.parts(places)):
        losses[part] = own.cpu()
    return losses


def outputs(engine: Engine, places: Sequence[int]) -> Tensor:
    """Give outputs on members' own validation rows, `[places, validation_rows, outputs]`."""
    seen: dict[int, Tensor] = {}

    def look(part: Sequence[int], own: Tensor) -> None:
        seen.update(zip(part, own.cpu(), strict=True))

    engine.validate(places, look)
    return torch.stack([seen[place] for place in places])


def everyone(engine: Engine) -> list[int]:
    """Give all places."""
    return list(range(len(engine.cohort)))


CURVES = ([5.0, 4.0, 4.1, 4.2, 3.9, 3.0, 3.1, 3.0, 3.0, 3.0], [1.0] * 10, [3.0, 3.1, 2.0, 2.1, *[2.0] * 6])
"""The fold-mean validation losses that the trials are said to have, by epoch, for the schedule that watches them."""


def world(
    target: Target,
    net: Net | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    recipe: Recipe = RECIPES["plain"],
) -> World:
    """Draw a small world."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(ROWS, FEATURES)) * [1.0, 30.0, 0.01, 2.0, 1.0]
    features[:, -1] = features[:, -1] > 0
    features[random.integers(ROWS, size=4), 1] = np.nan
    numbers = random.permutation(np.repeat(np.arange(len(VALIDATED)), VALIDATED))
    targets, folds = target.draw(random, ROWS), make_folds(ROWS, numbers=numbers)
    weights = random.uniform(0.2, 3, size=ROWS) if recipe.weighted else None
    return World(features, targets, folds, target, net, dtype, weights, recipe.links)


# Members that differ in everything in which members of a stack may differ

PLACES = ((0, 0, 0), (0, 3, 1), (1, 1, 1), (1, 3, 0), (2, 2, 1), (2, 0, 5))  # (trial, fold, seed)
MIXED: tuple[dict[str, Any], ...] = (
    {"learning_rate": 0.01, "epochs": 10, "scaling": "standard", "dropout": 0.0, "initialization": "xavier"},
    {"learning_rate": 0.03, "epochs": 10, "schedule": "cosine", "dropout": 0.5, "initialization": "lsuv"},
    {"learning_rate": 0.02, "epochs": 4, "schedule": "cosine", "dropout": 0.2, "initialization": "normal"},
)


def mixed(
    network: Network,
    target: Target,
    optimizer: str,
    *,
    batch_size: int = BATCH,
    recipe: Recipe = RECIPES["plain"],
) -> list[Member]:
    """Make six members of one stack: three trials, four folds, three seeds."""
    rule = OPTIMIZERS[optimizer]
    trials = [_trial(number, network, target, rule, recipe, batch_size) for number in range(3)]
    return [Member(trial, fold, seed, trials[trial]) for trial, fold, seed in PLACES]


def _trial(
    number: int, network: Network, target: Target, rule: Optimizer, recipe: Recipe, batch_size: int
) -> Settings:
    base = {**MIXED[number], "weight_decay": 0.01 * number, "initial_deviation": 0.3}
    base |= {"optimizer": rule.name, "loss": target.loss, "batch_size": batch_size}
    if target.smooths:
        base["label_smoothing"] = 0.1 * number
    if network.settings.get("feature_map") == "fourier":
        base["fourier_scale"] = 0.5 * (number + 1)
    if not network.drops:
        base["dropout"] = 0.0
    asked = {**rule.trials[number], **rule.shared, **target.knobs[number], **recipe.trials[number]}
    asked = _named_blocks({**asked, **recipe.shared}, network)
    own = {name: asked.pop(name) for link in recipe.links for name in link.knobs if name in asked}
    base["knobs"] = tuple(own.items())
    if network.name == "constant":  # the baseline is not meant to be trained, but it can be
        return make_settings(network.settings, base={**base, **_without_blocks(asked)})
    return make_settings({**asked, **network.settings}, base=base)


def _without_blocks(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if "." not in name}


def _named_blocks(asked: dict[str, Any], network: Network) -> dict[str, Any]:
    """Put the names of the first and last block with parameters where `FIRST` and `LAST` stand."""
    if not any("." in name for name in asked):
        return asked
    module = build(Settings(**network.settings), FEATURES, 2, network.net)
    blocks = [n for n, child in module.named_children() if any(p.requires_grad for p in child.parameters())]
    first, last = (blocks[0], blocks[-1]) if blocks else ("prior", "prior")
    if first == last:
        asked = {name: value for name, value in asked.items() if not name.startswith("FIRST.")}
    return {n.replace("FIRST", first).replace("LAST", last): value for n, value in asked.items()}
