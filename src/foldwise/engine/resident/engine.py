"""The resident engine: one member per core, which stays in that core's cache for a whole epoch."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.engine.cohort import Cohort, Look
from foldwise.engine.resident import member as core
from foldwise.engine.resident.inputs import Trials, Turn, data_of, part_of, prepared_bytes
from foldwise.engine.resident.losses import LOSSES
from foldwise.engine.resident.member import Chances, Tensors
from foldwise.engine.resident.program import KNOWN, out_of_place, program_of
from foldwise.engine.resident.rules import OPTIMIZERS, REMEMBERED
from foldwise.engine.state import State, put, take
from foldwise.engine.threads import available, held_to_one, hold_worker

CACHE_BYTES = 384 << 10  # of a core, that the values and slopes of a block of rows may fill
SHARE = 2  # the part that a core takes next is one of so many for each core
MOST = 64  # members of a part, which trains on a copy


def lacks(cohort: Cohort) -> str:
    """Name what this engine does not have of what a cohort needs; empty when it has all."""
    missing = [type(m).__name__ for m in cohort.skeleton.modules() if type(m) not in KNOWN]
    if misplaced := out_of_place(cohort.skeleton):
        return f"it has a {misplaced} only at the beginning of a network"
    if cohort.shared.loss not in LOSSES:
        missing.append(cohort.shared.loss)
    if cohort.shared.optimizer not in OPTIMIZERS:
        missing.append(cohort.shared.optimizer)
    return f"it has no {' and no '.join(dict.fromkeys(missing))}" if missing else ""


class ResidentEngine:
    """Advances the members of one cohort, each by itself; `interface.why_not_resident` tells which it can take."""

    how = "resident"
    why = "a chain of known layers on a processor: one member per core, in its cache"

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.chunk: int | None = None  # which matters to the stacked engine alone, as does what follows
        self.compile = "off"
        self.asked: list[int] = []
        self.workers = available()
        self.constants = [name for name, b in cohort.state.buffers.items() if b.is_floating_point()]
        self.data = data_of(cohort.rows, cohort.validation[0])
        self._look()

    def _look_again(self) -> None:
        if self.known != len(self.cohort):  # some have joined
            self._look()

    def _look(self) -> None:
        """Note what follows from the settings of the members."""
        cohort = self.cohort
        self.known = len(cohort)
        self.trials = Trials(cohort)
        shapes = {name: tuple(cohort.state.buffers[name].shape[1:]) for name in self.constants}
        drops = [any(rates) for rates in zip(*cohort.rates.values(), strict=True)]
        features, item = cohort.rows.features.shape[1], cohort.rows.dtype.itemsize
        self.program = program_of(cohort.skeleton, cohort.layout, shapes, features, item, drops)

    # An epoch

    def parts(self, places: Sequence[int]) -> list[list[int]]:
        """Cut members into parts, the first ones large and the last ones of a single member.

        Each takes a share of those that are left (Polychronopoulos & Kuck 1987, *Guided self-scheduling*): few parts,
        and yet no core waits long for the others at the end of an epoch.
        """
        left, parts = list(places), []
        while left:
            size = min(MOST, math.ceil(len(left) / (SHARE * self.workers)))
            parts.append(left[:size])
            left = left[size:]
        return parts

    def advance(
        self, parts: Sequence[Sequence[int]], look: Look | None = None
    ) -> Generator[tuple[list[int], Float[Tensor, " members"]]]:
        """Train the next epoch of the members of each part, and hand each part over as soon as it is finished."""
        if not parts:
            return
        self._look_again()
        asked = [place for part in parts for place in part]
        if asked != self.asked:  # what was made for those who trained together is not needed any more
            self.asked = asked
            self.cohort.forget_groups()
        turn = Turn(self.cohort, asked, self.trials)
        members, chances = turn.members(), turn.chances()
        steps, batches = turn.counts
        ends = np.cumsum([len(part) for part in parts]).tolist()
        owns = [slice(end - len(part), end) for end, part in zip(ends, parts, strict=True)]
        jobs = deque(
            (part, own, self.pool.submit(self._epoch, part, members[own], part_of(chances, own), look))
            for part, own in zip(parts, owns, strict=True)
        )
        try:
            while jobs:
                part, own, job = jobs.popleft()  # nobody holds what is handed over, which is a copy of a part
                state, losses = job.result()
                del job
                state.step.add_(steps[own])
                state.epoch.add_(1)
                for buffer in state.buffers.values():
                    if not buffer.is_floating_point():  # batch normalization counts its batches
                        buffer.add_(batches[own])
                put(self.cohort.state, self.cohort.index(part), state)
                del state
                yield list(part), losses
        finally:
            wait([job for _, _, job in jobs if not job.cancel()])

    def at_work(self) -> AbstractContextManager[None]:
        """Hold torch to one thread: its own would wait for cores that are all at work, and spin when they are not."""
        return held_to_one()

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Start the workers; what is compiled runs without Python's lock."""
        return ThreadPoolExecutor(self.workers, initializer=hold_worker)

    def _epoch(
        self, part: Sequence[int], members: np.ndarray, chances: Chances, look: Look | None
    ) -> tuple[State, Float[Tensor, " members"]]:
        state, losses = self._train(part, members, chances)
        if look is not None:
            look(part, self._outputs(state, members))
        return state, losses

    def _train(
        self, part: Sequence[int], members: np.ndarray, chances: Chances, most: int = sys.maxsize
    ) -> tuple[State, Float[Tensor, " members"]]:
        state = take(self.cohort.state, self.cohort.index(part))
        tensors = self._tensors(state)
        losses = np.empty(len(part))
        rule, loss = OPTIMIZERS.index(self.cohort.shared.optimizer), LOSSES.index(self.cohort.shared.loss)
        space = self._space(int(members["size"].max()))
        core.train(
            members, self.program, self.data, chances, self.trials.lines, tensors, loss, rule, space, most, losses
        )  # fmt: skip
        first = 0
        for name in self.constants:
            buffer = state.buffers[name]
            last = first + buffer[0].numel()
            buffer.copy_(torch.from_numpy(tensors.constants[:, first:last]).view_as(buffer))
            first = last
        return state, torch.from_numpy(losses)

    def _tensors(self, state: State) -> Tensors:
        moments = {name: t.numpy() for name, t in state.moments.items()}
        line, number = state.parameters.new_zeros(0, 0).numpy(), np.zeros((0, 0))
        first, second, third = (moments.get(name, line) for name in REMEMBERED[self.cohort.shared.optimizer])
        return Tensors(
            state.parameters.numpy(),
            first,
            second,
            third,
            self._constants(state),
            moments.get("momentum_product", number),
            moments.get("clipped", number),
        )

    def _constants(self, state: State) -> np.ndarray:
        """Lay all real numbers in buffers one after another, for each member."""
        parts = [state.buffers[name].reshape(len(state), -1) for name in self.constants]
        nothing = state.parameters.new_zeros(len(state), 0)
        return torch.cat([nothing, *parts], dim=1).numpy()

    def _space(self, size: int) -> int:
        """Count the rows of a block: a whole batch, or as many as stay in cache."""
        largest = min(size + 1, max(self.cohort.lengths))
        if self.program.whole:
            return largest
        each = self.cohort.rows.dtype.itemsize * (2 * self.program.values + self.program.kept)
        blocks = math.ceil(size / max(16, CACHE_BYTES // each))
        return min(largest, math.ceil(size / blocks / 8) * 8 + 8)

    # Validation

    def validate(self, places: Sequence[int], look: Look) -> None:
        """Compute outputs on members' own validation rows, and let `look` have them, part by part."""
        self._look_again()
        cohort = self.cohort

        def work(part: Sequence[int]) -> None:
            state, members = take(cohort.state, cohort.index(part)), self.trials.records[list(part)]
            look(part, self._outputs(state, members))

        jobs = [self.pool.submit(work, part) for part in self.parts(places)]
        wait(jobs)
        for job in jobs:
            job.result()

    def _outputs(self, state: State, members: np.ndarray) -> Float[Tensor, "members validation_rows outputs"]:
        """Give outputs on each member's own validation rows, padded to those of the longest fold."""
        shape = (len(state), self.data.validation.shape[1], self.cohort.outputs)
        outputs = torch.empty(shape, dtype=self.cohort.rows.dtype)
        weights, constants = state.parameters.numpy(), self._constants(state)
        core.evaluate(members, self.program, self.data, weights, constants, self._space(256), outputs.numpy())
        return outputs

    # What it takes

    def bytes(self) -> int:
        """Estimate the memory of all members: weights, moments, kept weights, outputs on validation rows."""
        cohort = self.cohort
        item, members = cohort.rows.dtype.itemsize, len(cohort)
        rows = cohort.validation[0].shape[1]
        each = cohort.layout.size * (2 + len(cohort.step.to_direction.moments)) + 3 * rows * cohort.outputs
        largest = self._space(cohort.pace.size(max(1, *(m.settings.epochs for m in cohort.members))))
        room = largest * (2 * self.program.values + self.program.kept) + 3 * cohort.layout.size
        copies = min(members, MOST * (self.workers + 1)) * (each - cohort.layout.size)
        return item * (each * members + copies + room * self.workers) + prepared_bytes(cohort.rows)

    def seconds(self) -> float:
        """Estimate the time to train all members, from a few steps on copies."""
        cohort = self.cohort
        training = [p for p, m in enumerate(cohort.members) if m.settings.epochs]
        if not training:
            return 0.0
        few = training[: self.workers]
        turn = Turn(cohort, few, self.trials)
        members, chances = turn.members(), turn.chances()
        rows = min(32 * int(members["size"].max()), *turn.lengths)
        self.validate(few, lambda part, outputs: None)  # so that this is compiled by now too
        taken = []
        for _ in range(3):  # the first one may compile
            start = time.perf_counter()
            jobs = [
                self.pool.submit(
                    self._train, [p], members[i : i + 1], part_of(chances, slice(i, i + 1)), rows
                )
                for i, p in enumerate(few)
            ]
            wait(jobs)
            taken.append(time.perf_counter() - start)
        return min(taken) / (rows * len(few)) * cohort.rows_ahead(training) * 1.15  # the rest: validation
