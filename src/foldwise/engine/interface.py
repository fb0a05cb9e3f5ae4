"""What an engine is: it advances the members of one cohort, and there may be several kinds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from foldwise.engine.cohort import Cohort
from foldwise.engine.stacked.engine import StackedEngine


class Engine(Protocol):
    """Advances members of a cohort, whose places name them; what it changes is the cohort's state.

    It knows no epoch but the members' own: each trains the one after `state.epoch`. Members that are not asked for
    cost nothing, and may join the cohort between two calls.
    """

    cohort: Cohort

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""

    @property
    def why(self) -> str:
        """Say why in this way."""

    def parts(self, places: Sequence[int]) -> list[list[int]]:
        """Divide members who are about to train their next epoch into parts that are finished together.

        Depends on nothing but the members asked for, in their order, and on their epochs. An epoch that is broken
        off goes on with the parts that are left, and gives the same bits.
        """

    def advance(
        self, parts: Sequence[Sequence[int]]
    ) -> Generator[tuple[list[int], Float[Tensor, " members"]]]:
        """Train the next epoch of the members of each part, and hand each part over as soon as it is finished.

        Gives a part as it was asked for, or in pieces where memory ran out, and its members' mean training losses,
        in float64. What is handed over is whole: its slices of the state are written, its `epoch` counted up, then
        and not before, in no certain order of parts. Whoever closes the iteration leaves those that were not handed
        over as if they had not begun.
        """

    def validate(self, places: Sequence[int]) -> Float[Tensor, "places validation_rows outputs"]:
        """Give outputs on members' own validation rows, laid out as in `cohort.validation`."""

    def seconds(self) -> float:
        """Estimate the time to train all members to their last epoch."""

    def bytes(self) -> int:
        """Estimate the memory that all members need."""


def choose_engine(cohort: Cohort, chunk: int | None, compile: str = "auto") -> Engine:  # noqa: A002
    """Make the engine that suits a cohort's network and device; so far there is one kind."""
    return StackedEngine(cohort, chunk, compile)
