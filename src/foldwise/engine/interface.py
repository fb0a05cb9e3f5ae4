"""What an engine is: it advances the members of one stack, and there may be several kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from jaxtyping import Float, Int64
from torch import Tensor

from foldwise.engine.links import Link
from foldwise.engine.losses import Loss
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.rows import Rows
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.state import Layout, State
from foldwise.plans.plan import Member


class Engine(Protocol):
    """Advances members; their tensors lie in `state`, one slice each, in the order of `members`."""

    members: list[Member]
    rows: Rows
    layout: Layout
    state: State

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""

    @property
    def why(self) -> str:
        """Say why in this way."""

    @property
    def lengths(self) -> list[int]:
        """Count each member's training rows."""

    @property
    def validation(self) -> tuple[Int64[Tensor, "folds rows"], Float[Tensor, "folds rows"]]:
        """Lay out the folds' validation rows, and how much each place counts."""

    def advance(self, epoch: int, done: Callable[[int], None] = ...) -> Float[Tensor, " members"]:
        """Train one epoch and give mean training losses; tell `done` how many rows were learnt from."""

    def validate(self, epoch: int) -> Float[Tensor, "members validation_rows outputs"]:
        """Give outputs on each member's own validation rows."""

    def validation_loss(self, outputs: Tensor) -> Float[Tensor, " members"]:
        """Average what training minimizes over each member's validation rows."""

    def follow_curve(self, curve: Float[Tensor, " members"]) -> None:
        """Note the fold-mean validation loss of each member's trial after an epoch."""

    def learning_rates(self, epoch: int) -> Float[Tensor, " members"]:
        """Give each member's learning rate at the last step of the epoch that is over."""

    def counted(self) -> dict[str, Float[Tensor, " members"]]:
        """Count, since the beginning, the steps that were clipped or skipped; NaN for members whose cannot be."""

    def steps(self, epoch: int) -> Float[Tensor, " members"]:
        """Count each member's steps in an epoch."""

    def seconds(self) -> float:
        """Estimate the time to train all members."""

    def bytes(self) -> int:
        """Estimate the memory that all members need."""


def choose_engine(
    members: list[Member],
    nursery: Nursery,
    orders: RowOrders,
    loss: Loss,
    links: Sequence[Link],
    chunk: int | None,
) -> Engine:
    """Make the engine that suits a stack's network and device; so far there is one kind."""
    return StackedEngine(members, nursery, orders, loss, links, chunk)
