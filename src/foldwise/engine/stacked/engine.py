"""The stacked engine: all members of a chunk take each step together."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from foldwise.engine.dropout import KeyedDropout, rescale
from foldwise.engine.links import Now
from foldwise.engine.losses import LOSSES
from foldwise.engine.members import Nursery, tensors_of
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.orders import RowOrders
from foldwise.engine.random import key, threshold
from foldwise.engine.rows import Constants, padded_validation
from foldwise.engine.stacked.forward import OWNER, choose_forward
from foldwise.engine.state import Layout, State, put, take
from foldwise.errors import NetworkError
from foldwise.plans.plan import Member
from foldwise.settings import FREE, Settings

CACHE_BYTES = 64 << 20  # what the chunks at work on a CPU may touch in a step; see benchmarks/chunks.py
DEVICE_BYTES = 4 << 30
LEAST_CHUNK = 8  # fewer members than this leave a core busy with starting operations

Draw = tuple[int, int, tuple[float, ...]]
"""Seed, steps per epoch, and rates of the dropout layers: members that agree in them have the same masks."""


@dataclass(frozen=True)
class Group:
    """Members of a stack that take a step on equally many rows, with what that step needs of them.

    `streams` are the distinct (seed, fold, scaling) among them: members of one stream see the same rows, so rows
    are gathered and prepared once for each stream and then handed to its members by `stream_of`.
    """

    place: Tensor | slice
    members: list[Member]
    streams: list[tuple[int, int, int]]
    stream_of: Int64[Tensor, " members"]
    fold_of_stream: Int64[Tensor, " streams"]
    constants: Constants
    settings: dict[str, Tensor]
    schedules: dict[str, Tensor]
    decay: Tensor | None
    total_steps: Int64[Tensor, " members"]
    dropout: dict[str, Tensor]
    draws: list[Draw]
    owner: Int64[Tensor, " members"]  # which of the draws is a member's

    def handed(self, by_stream: Tensor) -> Tensor:
        """Give each member the rows of its stream."""
        if len(self.streams) == len(self.members):
            return by_stream
        return by_stream.index_select(0, self.stream_of)


@dataclass(frozen=True)
class Turn:
    """A step of an epoch: which rows of the orders, who takes it, and where in the chunk they and theirs are."""

    first: int
    size: int
    group: Group
    places: Tensor | slice
    streams: Tensor | slice
    draws: Tensor | slice


class StackedEngine:
    """Advances the members of one stack; their tensors lie in `state`, one slice each."""

    def __init__(
        self, members: list[Member], nursery: Nursery, orders: RowOrders, chunk: int | None = None
    ) -> None:
        shared: Settings = members[0].settings
        self.members, self.rows, self.nursery, self.orders = members, nursery.rows, nursery, orders
        self.batch_size = shared.batch_size
        self.loss = LOSSES[shared.loss]
        self.optimizer = OPTIMIZERS[shared.optimizer]
        self.skeleton = nursery.skeleton(members[0])
        self.dropouts = [name for name, m in self.skeleton.named_modules() if isinstance(m, KeyedDropout)]
        self.rates = {m.trial: nursery.dropout_rates(m, self.skeleton) for m in _firsts_of_trials(members)}
        self.layout = Layout.of(self.skeleton)
        self.state = nursery.initial_state(members)
        self.outputs = nursery.outputs[shared.loss]
        self._refuse_single_rows()
        self._mode(training=True)
        self.forward = choose_forward(self.skeleton, *self._sample(), self.outputs)
        # Only chains may run in several threads: torch's functional_call swaps tensors inside the shared module.
        several = self.rows.device.type == "cpu" and self.forward.chain
        self.workers = torch.get_num_threads() if several else 1
        self.chunk = chunk or self._chunk_that_fits()
        self.groups: dict[tuple[int, ...], Group] = {}
        self.courses: dict[tuple[int, ...], list[Turn]] = {}

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""
        return self.forward.how

    @property
    def why(self) -> str:
        """Say why in this way."""
        return self.forward.why

    def _refuse_single_rows(self) -> None:
        # batch normalization has no variance over one row, and would fail in the middle of the training
        single = [n for n in self.lengths if n % self.batch_size == 1 or self.batch_size == 1]
        if single and any(isinstance(m, _BatchNorm) for m in self.skeleton.modules()):
            raise NetworkError(
                f"{single[0]} training rows in batches of {self.batch_size} leave a batch of one row, "
                "over which batch normalization has no variance.",
                hint=f"another batch_size, such as {self.batch_size + 1 if self.batch_size > 1 else 32}",
            )

    def advance(
        self, epoch: int, done: Callable[[int], None] = lambda rows: None
    ) -> Float[Tensor, " members"]:
        """Train one epoch (counted from 1) and give each member's mean training loss; NaN where it was not its turn.

        `done` is told how many rows were learnt from, chunk by chunk.
        """
        losses = torch.full((len(self.members),), math.nan, dtype=torch.float64, device=self.rows.device)
        self._mode(training=True)
        for chunk, loss in self._for_each(lambda chunk: self._epoch(chunk, epoch), list(self.chunks(epoch))):
            losses[chunk] = loss
            done(sum(self.lengths[m] for m in chunk))
        return losses

    def _for_each(
        self, work: Callable[[list[int]], Tensor], chunks: list[list[int]]
    ) -> Iterator[tuple[list[int], Tensor]]:
        # One chunk per core, each held to one thread, beats two threads that share every small operation: nobody
        # waits at a barrier, and each chunk stays in its core's cache.
        if self.workers == 1:
            yield from ((chunk, work(chunk)) for chunk in chunks)
            return
        try:
            yield from zip(chunks, self.pool.map(work, chunks), strict=True)
        finally:
            torch.set_num_threads(
                self.workers
            )  # what a worker sets for itself becomes the default of new threads

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Start the workers, each held to one thread."""
        return ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,))

    def chunks(self, epoch: int) -> Iterator[list[int]]:
        """Cut the members that train in an epoch (0: all) into chunks; which ones depends on settings alone."""
        for start in range(0, len(self.members), self.chunk):
            stop = min(start + self.chunk, len(self.members))
            running = [m for m in range(start, stop) if self.members[m].settings.epochs >= epoch]
            if running:
                yield running

    @cached_property
    def lengths(self) -> list[int]:
        """Count each member's training rows."""
        by_fold = self.rows.folds.train.sum(axis=1)
        return [int(by_fold[member.fold]) for member in self.members]

    def _epoch(self, chunk: list[int], epoch: int) -> Float[Tensor, " members"]:
        whole = self._group(chunk)
        orders = self.orders.padded(epoch, [(seed, fold) for seed, fold, _ in whole.streams])
        course = self._course(chunk)
        keys = self._dropout_keys(whole, epoch, 1 + course[-1].first // self.batch_size)
        total = torch.zeros(len(chunk), dtype=torch.float64, device=self.rows.device)
        for turn in course:
            state = take(self.state, turn.group.place)
            rows = orders[:, turn.first : turn.first + turn.size][turn.streams]
            loss = self._step(turn.group, state, rows, keys[turn.first // self.batch_size][:, turn.draws])
            if not isinstance(turn.group.place, slice):
                put(self.state, turn.group.place, state)
            total[turn.places] += loss * turn.size
        return total / torch.tensor([self.lengths[m] for m in chunk], device=total.device)

    def _course(self, chunk: list[int]) -> list[Turn]:
        """Plan the steps of an epoch, once: they are the same in every epoch."""
        wanted = tuple(chunk)
        if wanted not in self.courses:
            steps = math.ceil(max(self.lengths[m] for m in chunk) / self.batch_size)
            self.courses[wanted] = [
                self._turn(chunk, k * self.batch_size, size, places)
                for k in range(steps)
                for size, places in self._by_batch_length(chunk, k * self.batch_size).items()
            ]
        return self.courses[wanted]

    def _turn(self, chunk: list[int], first: int, size: int, places: list[int]) -> Turn:
        whole = self._group(chunk)
        if len(places) == len(chunk):
            return Turn(first, size, whole, slice(None), slice(None), slice(None))
        group = self._group([chunk[p] for p in places])

        def index(of: list[Any], among: list[Any]) -> Tensor:
            return torch.tensor([among.index(x) for x in of], device=self.rows.device)

        own = torch.tensor(places, device=self.rows.device)
        return Turn(
            first, size, group, own, index(group.streams, whole.streams), index(group.draws, whole.draws)
        )

    def _by_batch_length(self, chunk: list[int], first: int) -> dict[int, list[int]]:
        # Folds differ in size, so in the last steps of an epoch some members have a shorter batch or none. They
        # take those steps in groups of equal length: no padding ever enters a loss or a running statistic.
        groups: dict[int, list[int]] = defaultdict(list)
        for place, m in enumerate(chunk):
            size = min(self.batch_size, self.lengths[m] - first)
            if size > 0:
                groups[size].append(place)
        return groups

    def _step(self, group: Group, state: State, rows: Int64[Tensor, "streams batch"], keys: Tensor) -> Tensor:
        features = group.constants.apply(self.rows.gathered(rows)).to(self.rows.dtype)
        targets = self.rows.scaled_targets(rows, group.fold_of_stream)
        gradient, loss = self._gradient(group, state, group.handed(features), group.handed(targets), keys)
        now = Now(
            state.parameters, state.step, group.total_steps, group.settings, group.schedules, group.decay
        )
        state.parameters.add_(self.optimizer.apply(gradient, state.moments, now))
        state.step.add_(1)
        return loss

    def _gradient(
        self, group: Group, state: State, features: Tensor, targets: Tensor, keys: Tensor
    ) -> tuple[Float[Tensor, "members parameters"], Float[Tensor, " members"]]:
        leaves = {
            name: part.requires_grad_() for name, part in self.layout.split(state.parameters.data).items()
        }
        outputs = self.forward.through(leaves, {**state.buffers, **self._masks(group, keys)}, features)
        # The mean runs over a member's own rows, and the sum over members gives each exactly its own gradient.
        loss = self.loss(outputs, targets, group.settings).mean(1)
        gradients = torch.autograd.grad(
            loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return self.layout.join(list(gradients)), loss.detach().double()

    def _dropout_keys(self, group: Group, epoch: int, steps: int) -> Int32[Tensor, "steps layers draws 2"]:
        """Give the keys of all masks of an epoch, by seed, layer and the steps that a member has done."""
        device = self.rows.device
        layers = torch.arange(len(self.dropouts), device=device)[None, :, None]
        seeds = torch.tensor([seed for seed, _, _ in group.draws], device=device)
        steps_per_epoch = torch.tensor([each for _, each, _ in group.draws], device=device)
        # folds differ in length, so members of one seed may have done different numbers of steps before this epoch
        done = (epoch - 1) * steps_per_epoch + torch.arange(steps, device=device)[:, None, None]
        return key(seeds.expand(steps, len(self.dropouts), -1), "dropout", layers, done)

    def _masks(self, group: Group, keys: Int32[Tensor, "layers draws 2"]) -> dict[str, Tensor]:
        if not self.dropouts:
            return {}
        masks = {**group.dropout, **{f"{n}.key": keys[i] for i, n in enumerate(self.dropouts)}}
        if self.forward.chain:
            return {**masks, OWNER: group.owner}
        return {name: tensor[group.owner] for name, tensor in masks.items()}

    def validate(self, epoch: int) -> Float[Tensor, "members validation_rows outputs"]:
        """Give outputs on each member's own validation rows (padded to the longest); NaN for members not in turn."""
        index, _ = self.validation
        out = torch.full(
            (len(self.members), index.shape[1], self.outputs),
            math.nan,
            dtype=self.rows.dtype,
            device=index.device,
        )
        self._mode(training=False)

        @torch.no_grad()
        def work(chunk: list[int]) -> Tensor:
            group = self._group(chunk)
            rows = index[group.fold_of_stream]
            return self._evaluate(group, take(self.state, group.place), rows)

        for chunk, outputs in self._for_each(work, list(self.chunks(epoch))):
            out[chunk] = outputs
        return out

    @cached_property
    def validation(self) -> tuple[Int64[Tensor, "folds rows"], Tensor]:
        """Lay out the folds' validation rows, and how much each place counts (0: it only fills up)."""
        return padded_validation(self.rows.folds, self.rows.device)

    def _evaluate(self, group: Group, state: State, rows: Int64[Tensor, "streams rows"]) -> Tensor:
        parameters = self.layout.split(state.parameters)
        still = torch.zeros(len(self.dropouts), len(group.draws), 2, dtype=torch.int32, device=rows.device)
        buffers = {**state.buffers, **self._masks(group, still)}
        parts = []
        for some in rows.split(max(self.batch_size, 4096 // max(1, len(state) // 4)), dim=1):
            x = group.constants.apply(self.rows.gathered(some)).to(self.rows.dtype)
            parts.append(self.forward.through(parameters, buffers, group.handed(x)))
        return torch.cat(parts, dim=1)

    def validation_loss(self, outputs: Tensor) -> Float[Tensor, " members"]:
        """Average what training minimizes over each member's validation rows, given its outputs there."""
        index, weight = self.validation
        folds = torch.tensor([m.fold for m in self.members], device=index.device)
        group = self._group(list(range(len(self.members))))
        per_row = self.loss(outputs, self.rows.scaled_targets(index[folds], folds), group.settings).double()
        own = weight[folds]
        return torch.where(own > 0, per_row * own, 0).sum(1) / own.sum(1)

    def _group(self, members: list[int]) -> Group:
        wanted = tuple(members)
        if wanted not in self.groups:
            self.groups[wanted] = self._make_group(members)
        return self.groups[wanted]

    def _make_group(self, places: list[int]) -> Group:
        device, dtype = self.rows.device, self.rows.dtype
        members = [self.members[p] for p in places]
        of = [(m.seed, m.fold, self.rows.preparation(m.settings.scaling, m.fold)) for m in members]
        streams = list(dict.fromkeys(of))
        steps_per_epoch = [math.ceil(self.lengths[p] / self.batch_size) for p in places]
        drawn: list[Draw] = [
            (m.seed, each, tuple(self.rates[m.trial]))
            for m, each in zip(members, steps_per_epoch, strict=True)
        ]
        draws = sorted(set(drawn))
        consecutive = places == list(range(places[0], places[0] + len(places)))
        settings = {
            name: torch.tensor([[getattr(m.settings, name)] for m in members], dtype=dtype, device=device)
            for name in FREE
            if isinstance(getattr(members[0].settings, name), int | float)
        }
        if not settings["label_smoothing"].any():
            del settings["label_smoothing"]
        decays = bool(settings["weight_decay"].any())
        steps = [m.settings.epochs * each for m, each in zip(members, steps_per_epoch, strict=True)]
        return Group(
            place=slice(places[0], places[-1] + 1) if consecutive else torch.tensor(places, device=device),
            members=members,
            streams=streams,
            stream_of=torch.tensor([streams.index(s) for s in of], device=device),
            fold_of_stream=torch.tensor([fold for _, fold, _ in streams], device=device),
            constants=self.rows.constants.of(torch.tensor([p for _, _, p in streams], device=device)),
            settings=settings,
            schedules={
                name: torch.tensor([m.settings.schedule == name for m in members], device=device)
                for name in sorted({m.settings.schedule for m in members})
            },
            decay=settings["weight_decay"] * self.layout.decayed().to(device, dtype) if decays else None,
            total_steps=torch.tensor(steps, device=device),
            dropout=self._dropout_buffers(draws),
            draws=draws,
            owner=torch.tensor([draws.index(d) for d in drawn], device=device),
        )

    def _dropout_buffers(self, draws: list[Draw]) -> dict[str, Tensor]:
        device, dtype = self.rows.device, self.rows.dtype
        rates = [own for _, _, own in draws]
        buffers = {}
        for i, name in enumerate(self.dropouts):
            limits = [threshold(r[i]) for r in rates]
            buffers[f"{name}.limit"] = torch.tensor(limits, dtype=torch.int32, device=device)
            buffers[f"{name}.scale"] = torch.tensor(
                [rescale(r[i]) for r in rates], dtype=dtype, device=device
            )
        return buffers

    def _mode(self, training: bool) -> None:
        self.skeleton.train(training)
        for i, name in enumerate(self.dropouts):
            used = any(rates[i] > 0 for rates in self.rates.values())
            self.skeleton.get_submodule(name).train(training and used)

    def _sample(self) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        few = min(self.batch_size, self.rows.features.shape[0], 8)
        tensors = tensors_of(self.skeleton)
        twice = {name: torch.stack([t.detach(), t.detach()]) for name, t in tensors.items()}
        named = set(self.layout.names)
        x = torch.nan_to_num(self.rows.features[:few]).to(self.rows.dtype).expand(2, -1, -1)
        parameters = {name: t for name, t in twice.items() if name in named}
        return parameters, {name: t for name, t in twice.items() if name not in named}, x

    def bytes_per_member(self) -> int:
        """Estimate what one member touches in a step: weights, moments, temporaries, and activations of its batch."""
        item = self.rows.dtype.itemsize
        inputs = self.rows.features.shape[1]
        units = inputs + 6 * sum(shape[0] for shape in self.layout.shapes if len(shape) >= 2)
        return item * (8 * self.layout.size + min(self.batch_size, max(self.lengths)) * units)

    def _chunk_that_fits(self) -> int:
        budget = CACHE_BYTES // self.workers if self.rows.device.type == "cpu" else DEVICE_BYTES
        fits = max(4, budget // self.bytes_per_member())
        return min(fits, max(LEAST_CHUNK, math.ceil(len(self.members) / self.workers)))

    def bytes(self) -> int:
        """Estimate the memory of the whole stack: weights, moments, kept weights, outputs on validation rows."""
        item = self.rows.dtype.itemsize
        rows = self.validation[0].shape[1]
        each = self.layout.size * (2 + len(self.optimizer.moments)) + 3 * rows * self.outputs
        return item * each * len(self.members) + self.bytes_per_member() * min(self.chunk, len(self.members))

    def seconds(self) -> float:
        """Estimate the time to train the whole stack, from a few steps on a copy of its first chunk."""
        chunk = next(self.chunks(1), None)
        if chunk is None:
            return 0.0
        _, per_step = next(self._for_each(self._time_of_step, [chunk] * self.workers))
        steps = sum(
            m.settings.epochs * math.ceil(n / self.batch_size)
            for m, n in zip(self.members, self.lengths, strict=True)
        )
        return float(per_step) / len(chunk) / self.workers * steps * 1.15  # the rest: validation each epoch

    def _time_of_step(self, chunk: list[int], tries: int = 4) -> Tensor:
        group = self._group(chunk)
        state = take(self.state, torch.tensor(chunk, device=self.rows.device))
        orders = self.orders.padded(1, [(seed, fold) for seed, fold, _ in group.streams])
        size = min(self.batch_size, *(self.lengths[m] for m in chunk))
        keys = self._dropout_keys(group, 1, 1)[0]
        taken = []
        for _ in range(tries):
            start = time.perf_counter()
            self._step(group, state, orders[:, :size], keys)
            if self.rows.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return torch.tensor(min(taken))


def _firsts_of_trials(members: list[Member]) -> list[Member]:
    return list({member.trial: member for member in reversed(members)}.values())
