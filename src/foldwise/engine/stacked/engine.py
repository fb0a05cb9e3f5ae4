"""The stacked engine: all members of a chunk take each step together."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.engine.cohort import Cohort
from foldwise.engine.members import tensors_of
from foldwise.engine.stacked.forward import Forward, choose_forward
from foldwise.engine.stacked.stepper import Drawn, Stepper
from foldwise.engine.stacked.turns import Turn, turns_of
from foldwise.engine.state import State, put, take

CACHE_BYTES = 64 << 20  # what the chunks at work on a CPU may touch in a step; see benchmarks/chunks.py
DEVICE_BYTES = 4 << 30
LEAST_CHUNK = 8  # fewer members than this leave a core busy with starting operations

Result = TypeVar("Result")
Laid = tuple[tuple[int, ...], tuple[int, ...], int]
"""What decides the turns of an epoch: the chunk, its members' leads, and the size of their batches."""


class StackedEngine:
    """Advances the members of one cohort, chunk by chunk; `chunk` is how many go together (None: it decides)."""

    def __init__(self, cohort: Cohort, chunk: int | None = None) -> None:
        self.cohort, self.chunk = cohort, chunk
        self._mode(training=True)
        self.stepper = Stepper(cohort, self._forward())
        # Only chains may run in several threads: torch's functional_call swaps tensors inside the shared module.
        several = cohort.rows.device.type == "cpu" and self.stepper.forward.chain
        self.workers = torch.get_num_threads() if several else 1
        self.turns: dict[Laid, list[Turn]] = {}

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""
        return self.stepper.forward.how

    @property
    def why(self) -> str:
        """Say why in this way."""
        return self.stepper.forward.why

    def _forward(self) -> Forward:
        tensors = tensors_of(self.cohort.skeleton)
        twice = {name: torch.stack([t.detach(), t.detach()]) for name, t in tensors.items()}
        named = set(self.cohort.layout.names)
        parameters = {name: t for name, t in twice.items() if name in named}
        others = {name: t for name, t in twice.items() if name not in named}
        sample = self.cohort.some_rows().expand(2, -1, -1)
        return choose_forward(self.cohort.skeleton, parameters, others, sample, self.cohort.outputs)

    def _mode(self, training: bool) -> None:
        skeleton, rates = self.cohort.skeleton.train(training), self.cohort.rates.values()
        for i, name in enumerate(self.cohort.dropouts):
            skeleton.get_submodule(name).train(training and any(own[i] > 0 for own in rates))

    # An epoch

    def parts(self, places: Sequence[int]) -> list[list[int]]:
        """Cut members who are about to train their next epoch into chunks of equal batch size, in their order."""
        epochs = self.cohort.state.epoch[self.cohort.index(places)].tolist()
        by_size: dict[int, list[int]] = defaultdict(list)
        for place, epoch in zip(places, epochs, strict=True):
            by_size[self.cohort.pace.size(epoch + 1)].append(place)
        return [chunk for own in by_size.values() for chunk in self._chunks(own)]

    def _chunks(self, places: Sequence[int]) -> list[list[int]]:
        size = self.chunk or self._chunk_that_fits(len(places))
        return [list(places[first : first + size]) for first in range(0, len(places), size)]

    def advance(
        self, parts: Sequence[Sequence[int]]
    ) -> Generator[tuple[list[int], Float[Tensor, " members"]]]:
        """Train one epoch of the members of each part, its next one, and hand the parts over as they are finished.

        Gives the places of a part and its mean training losses, in float64. A part trains on a copy, and becomes
        the state when it is handed over: who stops in between leaves every member at a whole epoch.
        """
        self._mode(training=True)
        self._forget_others(parts)
        with closing(self._for_each(self._epoch, parts)) as finished:
            for part, (state, losses) in finished:
                put(self.cohort.state, self.cohort.index(part), state)
                yield list(part), losses

    def _epoch(self, part: Sequence[int]) -> tuple[State, Float[Tensor, " members"]]:
        cohort = self.cohort
        done, leads = cohort.leads(part)
        turns = self._turns(part, leads, done + 1)
        drawn = Drawn.of(cohort, cohort.group(part, leads), done + 1, turns)
        state = take(cohort.state, cohort.index(part))
        room = torch.empty_like(state.parameters)
        total, rows = torch.zeros(2, len(part), dtype=torch.float64, device=cohort.rows.device)
        for turn in turns:
            own = state if turn.by_all else take(state, turn.places)
            loss, counted = self.stepper.take(turn, own, drawn, room[: len(own)])
            if not turn.by_all:
                put(state, turn.places, own)
            total[turn.places] += loss * turn.size
            rows[turn.places] += counted * turn.size
        state.epoch.add_(1)
        return state, total / rows

    def _turns(self, part: Sequence[int], leads: tuple[int, ...], epoch: int) -> list[Turn]:
        wanted = (tuple(part), leads, self.cohort.pace.size(epoch))
        if wanted not in self.turns:
            self.turns[wanted] = turns_of(self.cohort, part, leads, epoch)
        return self.turns[wanted]

    def _forget_others(self, parts: Sequence[Sequence[int]]) -> None:
        # who stops leaves the chunk; what was laid out for those with it is not needed any more
        leads = [(part, *self.cohort.leads(part)) for part in parts]
        now = {(tuple(part), lead, self.cohort.pace.size(done + 1)) for part, done, lead in leads}
        if self.turns.keys() - now:
            self.turns.clear()
            self.cohort.forget_groups()

    def _for_each(
        self, work: Callable[[Sequence[int]], Result], parts: Sequence[Sequence[int]]
    ) -> Generator[tuple[Sequence[int], Result]]:
        # One chunk per core, each held to one thread, beats two threads that share every small operation: nobody
        # waits at a barrier, and each chunk stays in its core's cache.
        if self.workers == 1:
            yield from ((part, work(part)) for part in parts)
            return
        coming = [self.pool.submit(work, part) for part in parts]
        try:
            for part, future in zip(parts, coming, strict=True):
                yield part, future.result()
        finally:
            wait([future for future in coming if not future.cancel()])  # nobody works on behind our back
            # what a worker sets for itself becomes the default of new threads
            torch.set_num_threads(self.workers)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Start the workers, each held to one thread."""
        return ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,))

    # Validation

    def validate(self, places: Sequence[int]) -> Float[Tensor, "places validation_rows outputs"]:
        """Give outputs on each member's own validation rows, padded to those of the longest fold."""
        cohort = self.cohort
        index, _ = cohort.validation
        self._mode(training=False)

        def work(chunk: Sequence[int]) -> Tensor:
            group = cohort.group(chunk)
            rows = index[group.fold_of_stream]
            return self.stepper.outputs(group, take(cohort.state, cohort.index(chunk)), rows)

        return torch.cat([outputs for _, outputs in self._for_each(work, self._chunks(places))])

    # What it takes

    def bytes_per_member(self) -> int:
        """Estimate what one member touches in a step: weights, moments, temporaries, and activations of its batch."""
        cohort = self.cohort
        item = cohort.rows.dtype.itemsize
        units = cohort.rows.features.shape[1] + 2 * cohort.units
        epochs = max(1, *(m.settings.epochs for m in cohort.members))
        largest = min(cohort.pace.size(epochs), max(cohort.lengths))
        held = sum(b[0].numel() for b in cohort.state.buffers.values())
        return item * (8 * cohort.layout.size + held + largest * units)

    def _chunk_that_fits(self, members: int) -> int:
        budget = CACHE_BYTES // self.workers if self.cohort.rows.device.type == "cpu" else DEVICE_BYTES
        fits = max(4, budget // self.bytes_per_member())
        return min(fits, max(LEAST_CHUNK, math.ceil(members / self.workers)))

    def bytes(self) -> int:
        """Estimate the memory of all members: weights, moments, kept weights, outputs on validation rows."""
        cohort = self.cohort
        item, members = cohort.rows.dtype.itemsize, len(cohort)
        rows = cohort.validation[0].shape[1]
        each = cohort.layout.size * (2 + len(cohort.step.to_direction.moments)) + 3 * rows * cohort.outputs
        chunk = min(self.chunk or self._chunk_that_fits(members), members)
        return item * each * members + self.bytes_per_member() * chunk

    def seconds(self) -> float:
        """Estimate the time to train all members, from a few steps on a copy of the first chunk."""
        training = [p for p, m in enumerate(self.cohort.members) if m.settings.epochs]
        if not training:
            return 0.0
        self._mode(training=True)
        several = [self.parts(training)[0]] * self.workers
        _, per_row = next(self._for_each(self._time_of_a_row, several))
        return (
            per_row / self.workers * self.cohort.rows_ahead(training) * 1.15
        )  # the rest: validation each epoch

    def _time_of_a_row(self, part: Sequence[int], tries: int = 4) -> float:
        cohort = self.cohort
        done, leads = cohort.leads(part)
        turns = self._turns(part, leads, done + 1)
        drawn, turn = Drawn.of(cohort, cohort.group(part, leads), done + 1, turns), turns[0]
        state = take(cohort.state, cohort.index(part)[turn.places])
        taken = []
        for _ in range(tries):
            start = time.perf_counter()
            self.stepper.take(turn, state, drawn)
            if cohort.rows.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return min(taken) / len(state) / turn.size
