"""What an engine is: it advances the members of one cohort, and there may be several kinds."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from foldwise.engine.cohort import Cohort, Look
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.stacked.forward import why_no_chain
from foldwise.errors import SettingsError


class Engine(Protocol):
    """Advances members of a cohort, whose places name them; what it changes is the cohort's state.

    It knows no epoch but the members' own: each trains the one after `state.epoch`. Members that are not asked for
    cost nothing, and may join the cohort between two calls.
    """

    cohort: Cohort
    chunk: int | None
    """How many members go together; None as long as that is not decided, or where it does not matter."""
    compile: str
    """Whether steps are compiled: auto as long as that is not decided."""

    @property
    def how(self) -> str:
        """Say how members advance: resident, stacked, or one by one."""

    @property
    def why(self) -> str:
        """Say why in this way."""

    def at_work(self) -> AbstractContextManager[None]:
        """Give torch as many threads as it may use itself, while members advance and are looked at."""

    def parts(self, places: Sequence[int]) -> list[list[int]]:
        """Divide members who are about to train their next epoch into parts that are finished together.

        Depends on nothing but the members asked for, in their order, and on their epochs. An epoch that is broken
        off goes on with the parts that are left, and gives the same bits.
        """

    def advance(
        self, parts: Sequence[Sequence[int]], look: Look | None = None
    ) -> Generator[tuple[list[int], Float[Tensor, " members"]]]:
        """Train the next epoch of the members of each part, and hand each part over as soon as it is finished.

        Gives a part as it was asked for, or in pieces where memory ran out, and its members' mean training losses,
        in float64. What is handed over is whole: its slices of the state are written, its `epoch` counted up, then
        and not before, in no certain order of parts. Whoever closes the iteration leaves those that were not handed
        over as if they had not begun.

        `look` is given what `validate` would give it of these members, by the time that the last part was handed over.
        """

    def validate(self, places: Sequence[int], look: Look) -> None:
        """Compute outputs on members' own validation rows, and let `look` have them, some members at a time."""

    def seconds(self) -> float:
        """Estimate the time to train all members to their last epoch."""

    def bytes(self) -> int:
        """Estimate the memory that all members need."""


def choose_engine(
    cohort: Cohort,
    chunk: int | None = None,
    wanted: str = "auto",
    compile: str = "auto",  # noqa: A002
) -> Engine:
    """Make the engine that suits a cohort's network and device: the resident one where it can, else the stacked one.

    `wanted` names one of them instead. `chunk` is how many members go together in the stacked one, and `compile`
    whether its steps are compiled; a chunk and "on" ask for it. Raises SettingsError when the resident engine is
    wanted and cannot take these members.
    """
    if wanted == "stacked":  # asked first: the other one takes a while to import
        return StackedEngine(cohort, chunk, compile)
    reason = why_not_resident(cohort)
    if wanted == "resident" and reason:
        raise SettingsError(f"the resident engine cannot train this: {reason}.", hint="--engine auto")
    if chunk is not None or compile == "on" or reason:
        return StackedEngine(cohort, chunk, compile)
    return resident().ResidentEngine(cohort)


def resident() -> ModuleType:
    """Import the resident engine only where it is needed, because numba takes a while to start."""
    return importlib.import_module("foldwise.engine.resident.engine")


def why_not_resident(cohort: Cohort) -> str:
    """Say why the resident engine cannot take a cohort; empty when it can."""
    if cohort.rows.device.type != "cpu":
        return "the rows are on another device"
    if cohort.shared.precision != "full":
        return f"it computes in full precision, not in {cohort.shared.precision}"
    if cohort.shared.loss == "custom":
        return "the loss is your own"
    if cohort.links:
        return "the step has links of your own"
    return why_no_chain(cohort.skeleton) or str(resident().lacks(cohort))
