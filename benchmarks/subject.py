"""The one place where the benchmarks touch the inside of foldwise: a stack of members, ready to advance by epochs.

Everything else of foldwise is used through `foldwise.fit` and the command line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from foldwise.data.folds import Folds, make_folds
from foldwise.data.prepare import learn_preparation
from foldwise.engine.cohort import Cohort
from foldwise.engine.interface import Engine, choose_engine
from foldwise.engine.losses import LOSSES
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.rows import Rows, place_rows
from foldwise.engine.stack import Stack
from foldwise.plans.course import Course
from foldwise.plans.plan import Member
from foldwise.settings import Settings

FOLDS = 5
ENDLESS = 1_000_000  # epochs: a benchmark ends when it has measured enough


@dataclass(frozen=True)
class Network:
    """A perceptron of ReLU layers under cross-entropy, and the batch that it is trained with."""

    name: str
    inputs: int
    width: int
    depth: int
    outputs: int
    batch: int

    @property
    def shape(self) -> str:
        """Name the layers, as in 10-32-32-2."""
        return "-".join(map(str, [self.inputs, *[self.width] * self.depth, self.outputs]))

    @property
    def layers(self) -> list[tuple[int, int]]:
        """List inputs and outputs of each linear layer."""
        sizes = [self.inputs, *[self.width] * self.depth, self.outputs]
        return list(itertools.pairwise(sizes))


class Subject:
    """Members of foldwise that train, and all that a peer needs to train the same."""

    def __init__(self, network: Network, engine: Engine, orders: RowOrders) -> None:
        self.network, self.engine, self.orders = network, engine, orders
        self.cohort = engine.cohort
        self.everyone = list(range(len(self.cohort)))

    @property
    def how(self) -> str:
        """Say which engine it is."""
        return f"{type(self.engine).__name__}, {self.engine.how}"

    def epoch(self) -> None:
        """Train every member for one more epoch."""
        with self.engine.at_work():
            for _ in self.engine.advance(self.engine.parts(self.everyone)):
                pass

    def study(self, epochs: int) -> None:
        """Train as a study does, with validation after each epoch and the best of each member kept."""
        stack = Stack(self.engine, [Course(0, self.cohort.members[0].settings)])

        def measure(outputs: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(folds), dtype=torch.float64, device=folds.device)

        for _ in range(epochs):
            stack.advance(measure, lambda rows: None)

    @property
    def members(self) -> int:
        """Count the members."""
        return len(self.cohort.members)

    @property
    def steps(self) -> int:
        """Count the steps of an epoch; the same for every member."""
        return self.cohort.lengths[0] // self.network.batch

    @property
    def bytes(self) -> int:
        """Give the memory that the engine says it needs, with the rows."""
        return self.engine.bytes() + self.cohort.rows.features.nbytes

    def weights(self) -> list[np.ndarray]:
        """Copy the weights and biases, layer by layer, `[members, …]`."""
        split = self.cohort.layout.split(self.cohort.state.parameters.detach())
        return [part.cpu().numpy().copy() for part in split.values()]

    @cached_property
    def tables(self) -> np.ndarray:
        """Give the rows as each fold prepares them, `[folds, rows, features]`: peers need not do it in each batch."""
        rows = self.cohort.rows
        everything = torch.arange(len(rows.features), device=rows.device).expand(len(rows.folds), -1)
        prepared = rows.constants.of(everything[:, 0] * 0 + torch.arange(len(rows.folds), device=rows.device))
        return prepared.apply(rows.gathered(everything)).float().cpu().numpy()

    @property
    def targets(self) -> np.ndarray:
        """Give the class of each row."""
        return self.cohort.rows.targets.cpu().numpy()

    @property
    def folds(self) -> np.ndarray:
        """Give the fold of each member."""
        return np.array([m.fold for m in self.cohort.members])

    def batches(self, epoch: int) -> np.ndarray:
        """Give the rows that each member meets in an epoch (counted from 1), `[members, steps, batch]`."""
        orders = [self.orders.of(epoch, m.seed, m.fold).cpu().numpy() for m in self.cohort.members]
        used = self.steps * self.network.batch
        return np.stack(orders)[:, :used].reshape(self.members, self.steps, self.network.batch)


def build(network: Network, members: int = 100, training_rows: int = 1536, device: str = "cpu") -> Subject:
    """Put members on random rows: five folds (one member: one), each with as many seeds as are needed.

    `training_rows` is what each fold trains on, and a multiple of the batch: each member then takes the same steps.
    """
    folds = _folds(training_rows)
    random = np.random.default_rng(0)
    rows = folds.train.shape[1]
    X, y = random.normal(size=(rows, network.inputs)), random.integers(0, network.outputs, rows)
    placed = _placed(X, y, folds, torch.device(device))
    settings = Settings(
        loss="cross_entropy", optimizer="adam", learning_rate=1e-3, weight_decay=0.0, dropout=0.0,
        network="mlp", width=network.width, depth=network.depth, activation="relu", scaling="standard",
        schedule="constant", batch_size=network.batch, epochs=ENDLESS,
    )  # fmt: skip
    all_of_them = [Member(0, place % FOLDS, place // FOLDS, settings) for place in range(members)]
    orders = RowOrders(folds, placed.device)
    nursery = Nursery(placed, {"cross_entropy": network.outputs})
    cohort = Cohort(all_of_them, nursery, orders, LOSSES["cross_entropy"])
    return Subject(network, choose_engine(cohort), orders)


def _folds(training_rows: int) -> Folds:
    if training_rows % (FOLDS - 1):
        raise ValueError(f"training_rows must be a multiple of {FOLDS - 1}; got {training_rows}.")
    return make_folds(training_rows * FOLDS // (FOLDS - 1), FOLDS)


def _placed(X: np.ndarray, y: np.ndarray, folds: Folds, device: torch.device) -> Rows:
    numbers = np.ones(X.shape[1], dtype=bool)
    preparation = {"standard": learn_preparation(X, folds.train, numbers, "standard")}
    return place_rows(X, y, folds, preparation, None, device=device, dtype=torch.float32)
