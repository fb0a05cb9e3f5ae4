"""The stacked engine: all members of a chunk take each step together."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.engine.cohort import Cohort, Look
from foldwise.engine.members import tensors_of
from foldwise.engine.stacked import memory
from foldwise.engine.stacked.forward import Forward, choose_forward
from foldwise.engine.stacked.graph import Graphs, Taken, Uncapturable, usable_backend
from foldwise.engine.stacked.stepper import Drawn, Stepper
from foldwise.engine.stacked.tuning import BETTER, TRIES, Pace, best_chunk, may_repay
from foldwise.engine.stacked.turns import Turn, turns_of
from foldwise.engine.state import State, put, take
from foldwise.engine.step import asks
from foldwise.engine.threads import available, hold_worker
from foldwise.errors import FoldwiseError, SettingsError

CACHE_BYTES = 64 << 20  # what the chunks at work on a CPU may touch in a step; see benchmarks/chunks.py
DEVICE_BYTES = 4 << 30
COMPILING = ("auto", "on", "off")
BY_PARAMETER = ("weight_decay", "l1", "l2", "rate_factor", "frozen", "weight_limit")
"""Settings for which a group has a line `[members, parameters]`."""
LEAST_CHUNK = 8  # fewer members than this leave a core busy with starting operations

SPARE = 0.9  # of the memory that is free may be planned with

Work = Callable[[Sequence[int]], tuple[Any, ...]]
Laid = tuple[tuple[int, ...], tuple[int, ...], int]
"""What decides the turns of an epoch: the chunk, its members' leads, and the size of their batches."""


class StackedEngine:
    """Advances the members of one cohort, chunk by chunk.

    `chunk` is the most that go together, and `compile` whether the steps of whole chunks are compiled. What is not
    given (None, "auto") is decided before the first epoch, partly by measuring on copies. Afterwards both attributes
    have what was decided: a new engine that is given them measures nothing and goes on as this one would. Running out
    of memory lowers `chunk`.

    Raises FoldwiseError when not even one member at a time would fit into memory.
    """

    def __init__(self, cohort: Cohort, chunk: int | None = None, compile: str = "auto") -> None:  # noqa: A002
        self.cohort, self.chunk, self.compile = cohort, chunk, compile
        self._mode(training=True)
        self.stepper = Stepper(cohort, self._forward())
        # Only chains may run in several threads: torch's functional_call swaps tensors inside the shared module.
        several = cohort.rows.device.type == "cpu" and self.stepper.forward.chain
        self.workers = available() if several else 1
        self.turns: dict[Laid, list[Turn]] = {}
        self.graphs: Graphs | None = None
        self.said: list[str] = []  # what was decided, and why
        self.pace: Pace | None = None
        self.decided = False
        self._refuse_useless()
        self.most = self._fitting_memory()

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""
        return self.stepper.forward.how

    @property
    def why(self) -> str:
        """Say why in this way, and what was decided by measuring."""
        return "; ".join([self.stepper.forward.why, *self.said])

    def _refuse_useless(self) -> None:
        if self.compile not in COMPILING:
            raise SettingsError(
                f"`compile` is one of {', '.join(COMPILING)}; got {self.compile!r}.", hint='compile="auto"'
            )
        if self.compile == "on" and self.how == "one by one":
            raise SettingsError(
                f"`compile` on has no effect: {self.stepper.forward.why}, and so each step must be looked at.",
                hint='compile="auto"',
            )

    # What is decided before the first epoch

    def _decide(self) -> None:
        """Choose chunk and graph, once; what is measured is measured on copies."""
        if self.decided:
            return
        self.decided = True
        ahead = [p for p, m in enumerate(self.cohort.members) if m.settings.epochs > self._done(p)]
        if self.chunk is None:
            self._choose_chunk(ahead)
        if self.compile == "on":
            self._begin_compiling(ahead, "asked for")
        elif self.compile == "auto":
            self._choose_graph(ahead)
        self.turns.clear()
        self.cohort.forget_groups()  # of chunks that were only tried

    def _done(self, place: int) -> int:
        return int(self.cohort.state.epoch[place])

    def _choose_chunk(self, ahead: Sequence[int]) -> None:
        planned = min(self._fitting_cache(), self.most)
        self.chunk = planned
        if not ahead:
            return
        most = self._balanced(len(ahead), len(ahead))
        now = min(planned, most)
        rows = self.cohort.rows_ahead(ahead)
        best, self.pace, why = best_chunk(
            now, min(most, self.most), rows, partial(self._pace, ahead), self.workers
        )
        # the plan holds for more members than there are now; a measured number is for these
        self.chunk = planned if best == now else best
        self.said.append(why)

    def _choose_graph(self, ahead: Sequence[int]) -> None:
        self.compile = "off"
        cuda = self.cohort.rows.device.type == "cuda"
        if self.how == "one by one" or not ahead:
            return
        if not may_repay(self.seconds(), cuda):
            self.said.append("eager steps: compiling would not repay")
            return
        eager = self._pace(ahead, self._size(len(ahead)), TRIES)
        if not self._begin_compiling(ahead, "for a long training"):
            return
        compiled = self._pace(ahead, self._size(len(ahead)), TRIES)
        times = f"{eager.seconds * 1e3:.1f} ms a step, compiled {compiled.seconds * 1e3:.1f} ms"
        if compiled.seconds > BETTER * eager.seconds:
            self.compile, self.graphs = "off", None
            self.said[-1] = f"eager steps: compiling did not help ({times})"
        else:
            self.pace = compiled
            self.said[-1] += f" ({times})"

    def _begin_compiling(self, ahead: Sequence[int], why: str) -> bool:
        backend = usable_backend(self.cohort.rows.device)
        self.compile = "off"
        if backend is None:
            self.said.append("eager steps: no C++ compiler (g++ or clang++) was found")
            return False
        self.graphs, self.compile = Graphs(self.stepper, backend), "on"
        self.said.append(f"compiled steps, {why}")
        self._prepare_graphs([list(ahead[: self._size(len(ahead))])] if ahead else [])
        return self.graphs is not None

    def _prepare_graphs(self, parts: Sequence[Sequence[int]]) -> None:
        """Make the graphs that whole chunks lack, in the thread that will use them (torch looks at its threads)."""
        for part in parts:
            # only whole chunks: members that stop would make ever new shapes of the last one
            if self.graphs is None or len(part) != self._size(len(self.cohort)):
                continue
            turns, drawn = self._drawn(part)
            if turns[0].by_all and turns[0].group not in self.graphs.ready:
                state, feeds = self._copy(part), self.stepper.feeds(turns[0], drawn)
                prepare = partial(self.graphs.prepare, turns[0], state, feeds)
                try:
                    prepare() if self.workers == 1 else self.pool.submit(prepare).result()
                except Uncapturable as problem:
                    self.graphs, self.compile = None, "off"
                    self.said = [s for s in self.said if not s.startswith("compiled steps")]
                    self.said.append(f"eager steps: they cannot be compiled ({problem})")

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

    def at_work(self) -> AbstractContextManager[None]:
        """Let torch have all its threads: where several chunks are at work, each worker is held to one."""
        return nullcontext()

    def parts(self, places: Sequence[int]) -> list[list[int]]:
        """Cut members who are about to train their next epoch into chunks of equal batch size, in their order."""
        self._decide()
        epochs = self.cohort.state.epoch[self.cohort.index(places)].tolist()
        by_size: dict[int, list[int]] = defaultdict(list)
        for place, epoch in zip(places, epochs, strict=True):
            by_size[self.cohort.pace.size(epoch + 1)].append(place)
        return [chunk for own in by_size.values() for chunk in self._chunks(own)]

    def _chunks(self, places: Sequence[int]) -> list[list[int]]:
        size = self._size(len(places))
        return [list(places[first : first + size]) for first in range(0, len(places), size)]

    def _size(self, members: int) -> int:
        """Give how many of some members go together."""
        return max(1, min(self._balanced(self.chunk or self._fitting_cache(), members), self.most))

    def _balanced(self, chunk: int, members: int) -> int:
        # few members are shared out to all workers, until a chunk would be too small to be worth it
        return max(1, min(chunk, members, max(LEAST_CHUNK, math.ceil(members / self.workers))))

    def advance(
        self, parts: Sequence[Sequence[int]], look: Look | None = None
    ) -> Generator[tuple[list[int], Float[Tensor, " members"]]]:
        """Train one epoch of the members of each part, its next one, and hand the parts over as they are finished.

        Gives the places of a part and its mean training losses, in float64. A part trains on a copy, and becomes
        the state when it is handed over: who stops in between leaves every member at a whole epoch. Where memory
        runs out, a part is handed over in pieces. `look` is given outputs on validation rows after the last part.
        """
        self._decide()
        self._mode(training=True)
        self._forget_others(parts)
        self._forget_graphs_of_fewer()
        self._prepare_graphs(parts)
        with closing(self._for_each(self._epoch, parts)) as finished:
            for part, (state, losses) in finished:
                put(self.cohort.state, self.cohort.index(part), state)
                yield list(part), losses
        if (
            look is not None
        ):  # not part by part: the network is in one mode for all who train at the same time
            self.validate([place for part in parts for place in part], look)

    def _forget_graphs_of_fewer(self) -> None:
        """Go on eagerly when members have joined: they may ask for links and dropout that no graph has."""
        if self.graphs is not None and len(self.cohort) != self.graphs.members:
            self.graphs, self.compile = None, "off"
            self.said = [s for s in self.said if not s.startswith("compiled steps")]
            self.said.append("eager steps: members have joined, and their steps may be other ones")

    def _epoch(self, part: Sequence[int]) -> tuple[State, Float[Tensor, " members"]]:
        turns, drawn = self._drawn(part)
        state = self._copy(part)
        losses = self._steps(turns, state, drawn)
        state.epoch.add_(1)
        return state, losses

    def _steps(self, turns: Sequence[Turn], state: State, drawn: Drawn) -> Float[Tensor, " members"]:
        """Take the steps of an epoch, in place; nothing here waits for the device. Gives mean losses."""
        room = torch.empty_like(state.parameters)
        total, rows = torch.zeros(2, len(state), dtype=torch.float64, device=room.device)
        for turn in turns:
            own = state if turn.by_all else take(state, turn.places)
            loss, counted = self._step(turn, own, drawn, room[: len(own)])
            if not turn.by_all:
                put(state, turn.places, own)
            total[turn.places] += loss * turn.size
            rows[turn.places] += counted * turn.size
        return total / rows

    def _step(self, turn: Turn, state: State, drawn: Drawn, room: Tensor | None) -> Taken:
        feeds = self.stepper.feeds(turn, drawn)
        if self.graphs is None:
            return self.stepper.step(turn.group, state, feeds, room)
        return self.graphs.step(turn, state, feeds, room)

    def _copy(self, part: Sequence[int]) -> State:
        return take(self.cohort.state, self.cohort.index(part))

    def _drawn(self, part: Sequence[int]) -> tuple[list[Turn], Drawn]:
        """Lay out the next epoch of a part, and draw what chance has for it."""
        done, leads = self.cohort.leads(part)
        turns = self._turns(part, leads, done + 1)
        return turns, Drawn.of(self.cohort, self.cohort.group(part, leads), done + 1, turns)

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
        self, work: Work, parts: Sequence[Sequence[int]]
    ) -> Generator[tuple[Sequence[int], tuple[Any, ...]]]:
        """Work on parts, and give each with its result; one for which memory runs out is worked on in halves."""
        waiting = list(parts)
        while waiting:
            now, waiting = waiting, []
            with closing(self._at_once(partial(_unless_memory_runs_out, work), now)) as done:
                for part, result in done:
                    if result is None:
                        waiting += self._halved(part)
                    else:
                        yield part, result

    def _halved(self, part: Sequence[int]) -> list[Sequence[int]]:
        if len(part) == 1:
            raise FoldwiseError(
                "there is not enough memory to train even one member at a time.",
                hint="a smaller network or batch, or fewer trials, folds or seeds at once",
            )
        half = math.ceil(len(part) / 2)
        if half < min(self.most, self.chunk or half + 1):
            self.chunk = self.most = half
            told = f"memory ran out with {len(part)} members at once: {half} from now on"
            self.said.append(told)
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        if self.cohort.rows.device.type == "cuda":
            torch.cuda.empty_cache()
        return [part[:half], part[half:]]

    def _at_once(
        self, work: Callable[[Sequence[int]], Any], parts: Sequence[Sequence[int]]
    ) -> Generator[tuple[Sequence[int], Any]]:
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

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Start the workers, each held to one thread."""
        return ThreadPoolExecutor(self.workers, initializer=hold_worker)

    # Validation

    def validate(self, places: Sequence[int], look: Look) -> None:
        """Compute outputs on members' own validation rows, and let `look` have them, chunk by chunk."""
        cohort = self.cohort
        index, _ = cohort.validation
        self._mode(training=False)

        def work(chunk: Sequence[int]) -> tuple[()]:
            group = cohort.group(chunk)
            look(chunk, self.stepper.outputs(group, self._copy(chunk), index[group.fold_of_stream]))
            return ()

        for _ in self._for_each(work, self._chunks(places)):
            pass

    # What it takes

    def bytes_per_member(self) -> int:
        """Estimate what one member touches in a step: weights, moments, temporaries, and activations of its batch."""
        cohort = self.cohort
        item = cohort.rows.dtype.itemsize
        units = cohort.rows.features.shape[1] + 2 * cohort.units
        return item * (8 * cohort.layout.size + self._held() + self._largest_batch() * units)

    def _held(self) -> int:
        return sum(b[0].numel() for b in self.cohort.state.buffers.values())

    def _largest_batch(self) -> int:
        cohort = self.cohort
        epochs = max(1, *(m.settings.epochs for m in cohort.members))
        return min(cohort.pace.size(epochs), max(cohort.lengths))

    def _fitting_cache(self) -> int:
        budget = CACHE_BYTES // self.workers if self.cohort.rows.device.type == "cpu" else DEVICE_BYTES
        return max(4, budget // self.bytes_per_member())

    def _fitting_memory(self) -> int:
        """Give the most members at once for which there is memory beside what all of them need in any case."""
        everyone = max(1, len(self.cohort))
        free = memory.available(self.cohort.rows.device)
        if free is None:
            return sys.maxsize
        held, each = self._bytes_to_come(), self._bytes_at_work() * self.workers
        fits = int((free * SPARE - held) // each)
        if fits < 1:
            raise FoldwiseError(
                f"{everyone} members need {memory.written(held + each)} of memory beside what is in use, even one "
                f"at a time; {memory.written(free)} are free.",
                hint="fewer trials, folds or seeds at once, a smaller network or batch, or dtype float32",
            )
        if fits < min(everyone, self.chunk or self._fitting_cache()):
            self.said.append(f"no more than {fits} at once, for the memory")
        return fits

    def _bytes_to_come(self) -> int:
        """Estimate what all members together need beside their state: kept weights, outputs on validation rows."""
        cohort = self.cohort
        item, outputs = cohort.rows.dtype.itemsize, cohort.validation[0].shape[1] * cohort.outputs
        trials = {m.trial: m.settings for m in cohort.members}.values()
        lines = sum(any(asks(s, name) for s in trials) for name in BY_PARAMETER)
        kept = (1 + lines) * cohort.layout.size + self._held()
        # outputs: kept, seen, and what is computed from them, partly in double precision
        return len(cohort) * (item * (kept + 2 * outputs) + 16 * outputs)

    def _bytes_at_work(self) -> int:
        """Estimate what a member of a chunk at work needs: a copy of its state, gradients, and its activations.

        Less than what it touches, because much of that is the same memory again and again.
        """
        cohort = self.cohort
        units = cohort.rows.features.shape[1] + cohort.units
        own = 3 * cohort.layout.size + self._largest_batch() * units
        return self._bytes_of_state() + cohort.rows.dtype.itemsize * own

    def _bytes_of_state(self) -> int:
        state = self.cohort.state
        tensors = [state.parameters, *state.moments.values(), *state.buffers.values()]
        return sum(t[0].numel() * t.element_size() for t in tensors)

    def bytes(self) -> int:
        """Estimate the memory of all members at its peak: states, kept weights, outputs, chunks at work."""
        members = len(self.cohort)
        at_work = min(members, self._size(members) * self.workers)
        return self._bytes_of_state() * members + self._bytes_to_come() + self._bytes_at_work() * at_work

    def seconds(self) -> float:
        """Estimate the time to train all members, from a few steps on a copy of the first chunk."""
        self._decide()
        ahead = [p for p, m in enumerate(self.cohort.members) if m.settings.epochs > self._done(p)]
        if not ahead:
            return 0.0
        self.pace = self.pace or self._pace(ahead, self._size(len(ahead)), tries=4)
        rest = 1.15  # validation after each epoch
        return self.pace.per_row / self.workers * self.cohort.rows_ahead(ahead) * rest

    def _pace(self, ahead: Sequence[int], chunk: int, tries: int) -> Pace:
        """Time steps of some members at a time, all workers at once, on copies."""
        self._mode(training=True)
        several = [list(ahead[:chunk])] * self.workers
        results = self._for_each(partial(self._time_steps, tries), several)
        return min((pace for _, (pace,) in results), key=lambda pace: pace.per_row)

    def _time_steps(self, tries: int, part: Sequence[int]) -> tuple[Pace]:
        turns, drawn = self._drawn(part)
        turn, state = turns[0], take(self.cohort.state, self.cohort.index(part)[turns[0].places])
        room, taken = torch.empty_like(state.parameters), []
        for _ in range(tries):
            start = time.perf_counter()
            self._step(turn, state, drawn, room)
            if self.cohort.rows.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return (Pace(min(taken), len(state), turn.size),)


def _unless_memory_runs_out(work: Work, part: Sequence[int]) -> tuple[Any, ...] | None:
    # caught where it was raised, so that nothing that a part had in hand is held by the error's traceback
    try:
        return work(part)
    except Exception as error:
        if not memory.ran_out(error):
            raise
    return None
