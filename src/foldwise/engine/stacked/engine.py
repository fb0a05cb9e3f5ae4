"""The stacked engine: all members of a chunk take each step together."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from foldwise.engine import half, noise
from foldwise.engine.dropout import KeyedDropout
from foldwise.engine.links import Link, Now
from foldwise.engine.losses import Loss
from foldwise.engine.members import Nursery, tensors_of
from foldwise.engine.noise import Batch
from foldwise.engine.orders import RowOrders
from foldwise.engine.pace import Pace, starts
from foldwise.engine.rows import padded_validation
from foldwise.engine.schedules import PLATEAU, When, factors, lower_on_plateau
from foldwise.engine.shares import refuse_unknown_blocks
from foldwise.engine.stacked.forward import OWNER, choose_forward, units_of
from foldwise.engine.stacked.group import Group, Stacked, index_among
from foldwise.engine.state import Layout, State, put, take
from foldwise.engine.step import step_of
from foldwise.errors import NetworkError, SettingsError
from foldwise.plans.plan import Member
from foldwise.settings import Settings

CACHE_BYTES = 64 << 20  # what the chunks at work on a CPU may touch in a step; see benchmarks/chunks.py
DEVICE_BYTES = 4 << 30
LEAST_CHUNK = 8  # fewer members than this leave a core busy with starting operations


@dataclass(frozen=True)
class Turn:
    """A step of an epoch: which rows of the orders, who takes it, and where in the chunk they and theirs are."""

    first: int
    sizes: tuple[int, ...]  # of the batches that make the step
    batch: int  # number of the first of them in the epoch
    group: Group
    places: Tensor | slice
    streams: Tensor | slice
    draws: Tensor | slice

    @property
    def size(self) -> int:
        """Count the rows."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Chances:
    """What an epoch of a chunk draws, by the number of a batch in the epoch."""

    masks: Int32[Tensor, "batches layers draws 2"]
    shares: Float[Tensor, "batches members"] | None  # of mix-up
    seen: Int64[Tensor, " members"]  # batches that each member has seen before


class StackedEngine:
    """Advances the members of one stack; their tensors lie in `state`, one slice each."""

    def __init__(
        self,
        members: list[Member],
        nursery: Nursery,
        orders: RowOrders,
        loss: Loss,
        links: Sequence[Link] = (),
        chunk: int | None = None,
    ) -> None:
        self.shared: Settings = members[0].settings
        self.members, self.rows, self.nursery, self.orders = members, nursery.rows, nursery, orders
        self.pace = Pace.of(self.shared)
        self.loss = loss.per_row
        firsts = _firsts_of_trials(members)
        self.step = step_of([m.settings for m in firsts], links)
        self.skeleton = nursery.skeleton(members[0])
        self.dropouts = [name for name, m in self.skeleton.named_modules() if isinstance(m, KeyedDropout)]
        self.rates = {m.trial: nursery.dropout_rates(m, self.skeleton) for m in firsts}
        self.layout = Layout.of(self.skeleton)
        self.scales = self.shared.precision == "float16"
        self.state = nursery.initial_state(
            members, {**self.step.remembered(), **(half.SCALING if self.scales else {})}
        )
        self.outputs = nursery.outputs[self.shared.loss]
        knobs = {name: value for link in links for name, value in link.knobs.items()}
        self.stacked = Stacked(
            self.rows, self.layout, loss, self.outputs, self.pace, knobs, self.dropouts, self.rates
        )
        self._refuse_unfit(firsts)
        self._mode(training=True)
        self.forward = choose_forward(self.skeleton, *self._sample(), self.outputs)
        # Only chains may run in several threads: torch's functional_call swaps tensors inside the shared module.
        several = self.rows.device.type == "cpu" and self.forward.chain
        self.workers = torch.get_num_threads() if several else 1
        self.chunk = chunk or self._chunk_that_fits()
        self.groups: dict[tuple[int, ...], Group] = {}
        self.courses: dict[tuple[tuple[int, ...], int], list[Turn]] = {}
        if self.scales:
            self.state.moments["loss_scale"].copy_(self._whole.exact["loss_scale"].unsqueeze(1))
        if links and len(members) > 1:
            self._refuse_mixing()

    @property
    def how(self) -> str:
        """Say how members advance: stacked, or one by one."""
        return self.forward.how

    @property
    def why(self) -> str:
        """Say why in this way."""
        return self.forward.why

    def _refuse_unfit(self, firsts: Sequence[Member]) -> None:
        for member in firsts:
            refuse_unknown_blocks(member.settings, self.layout, f"trial {member.trial + 1}")
        if self.shared.precision != "full" and self.rows.dtype == torch.float64:
            raise SettingsError(
                f"`precision` {self.shared.precision} has no effect with dtype float64.",
                hint="dtype float32 (--dtype float32), or precision full",
            )
        # batch normalization has no variance over one row, and would fail in the middle of the training
        if not any(isinstance(m, _BatchNorm) for m in self.skeleton.modules()):
            return
        if self.pace.batch_size == 1 or min(self.lengths) == 1:
            raise NetworkError(
                f"{min(self.lengths)} training rows in batches of {self.pace.batch_size} leave a batch of one row, "
                "over which batch normalization has no variance.",
                hint="another batch_size, such as 32, or layer normalization",
            )

    def _refuse_mixing(self) -> None:
        """Try the step on two members; what the first gets may not depend on the second."""

        def first(of_the_second: float) -> Tensor:
            group, state = (
                self._group([0, 1]),
                take(self.state, torch.tensor([0, 1], device=self.rows.device)),
            )
            now = self._now(group, state, epoch=1)
            gradient = state.parameters + 1
            gradient[1] *= of_the_second
            state.parameters.add_(self.step.to_direction.apply(gradient, state.moments, now))
            state.parameters[1] *= of_the_second
            return self.step.to_weights.apply(state.parameters, state.moments, now)[0].clone()

        if not torch.equal(first(1.0), first(-3.0)):
            raise SettingsError(
                "a link of your own mixes members: what one gets depends on another.",
                hint="no mean, norm or decision over the first axis: keepdim=True along the second, for each member",
            )

    def advance(
        self, epoch: int, done: Callable[[int], None] = lambda rows: None
    ) -> Float[Tensor, " members"]:
        """Train one epoch (counted from 1) and give each member's mean training loss; NaN where it was not its turn.

        `done` is told how many rows were learnt from, chunk by chunk.
        """
        losses = torch.full((len(self.members),), math.nan, dtype=torch.float64, device=self.rows.device)
        self._mode(training=True)
        self._forget_others(epoch)
        for chunk, loss in self._for_each(lambda chunk: self._epoch(chunk, epoch), list(self.chunks(epoch))):
            losses[chunk] = loss
            done(sum(self.lengths[m] for m in chunk))
        return losses

    def _forget_others(self, epoch: int) -> None:
        # members that are through leave their chunk; what was laid out for those with them is not needed any more
        now = {(tuple(chunk), self.pace.size(epoch)) for chunk in self.chunks(epoch)}
        if self.courses.keys() - now:
            self.courses.clear()
            self.groups.clear()

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
        course = self._course(chunk, epoch)
        chances = self._chances(whole, epoch, course)
        total, rows = torch.zeros(2, len(chunk), dtype=torch.float64, device=self.rows.device)
        for turn in course:
            state = take(self.state, turn.group.place)
            loss, counted = self._step(turn, state, orders[turn.streams], chances, epoch)
            if not isinstance(turn.group.place, slice):
                put(self.state, turn.group.place, state)
            total[turn.places] += loss * turn.size
            rows[turn.places] += counted * turn.size
        return total / rows

    def _chances(self, whole: Group, epoch: int, course: list[Turn]) -> Chances:
        batches = max(turn.batch + len(turn.sizes) for turn in course)
        return Chances(
            whole.dropout_keys(epoch, batches),
            whole.mix_shares(epoch, batches) if whole.asks("mixup") else None,
            whole.batches_before(epoch),
        )

    def _course(self, chunk: list[int], epoch: int) -> list[Turn]:
        """Plan the steps of an epoch, once: they are the same in every epoch of one batch size."""
        wanted = (tuple(chunk), self.pace.size(epoch))
        if wanted not in self.courses:
            steps = {n: self.pace.steps(n, epoch) for n in {self.lengths[m] for m in chunk}}
            most = max(map(len, steps.values()))
            self.courses[wanted] = [
                self._turn(chunk, k * self.pace.accumulation, epoch, sizes, places)
                for k in range(most)
                for sizes, places in self._by_step(chunk, steps, k).items()
            ]
        return self.courses[wanted]

    def _by_step(
        self, chunk: list[int], steps: dict[int, list[tuple[int, ...]]], k: int
    ) -> dict[tuple[int, ...], list[int]]:
        # Folds differ in size, so in the last steps of an epoch some members have shorter batches or none. They
        # take those steps in groups of equal length: no padding ever enters a loss or a running statistic.
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, m in enumerate(chunk):
            own = steps[self.lengths[m]]
            if k < len(own):
                groups[own[k]].append(place)
        return groups

    def _turn(
        self, chunk: list[int], batch: int, epoch: int, sizes: tuple[int, ...], places: list[int]
    ) -> Turn:
        whole, first = self._group(chunk), batch * self.pace.size(epoch)
        if len(places) == len(chunk):
            return Turn(first, sizes, batch, whole, slice(None), slice(None), slice(None))
        group = self._group([chunk[p] for p in places])
        device = self.rows.device
        streams = index_among(group.streams, whole.streams, device)
        draws = index_among(group.draws, whole.draws, device)
        return Turn(first, sizes, batch, group, torch.tensor(places, device=device), streams, draws)

    def _step(
        self, turn: Turn, state: State, orders: Int64[Tensor, "streams rows"], chances: Chances, epoch: int
    ) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"] | float]:
        """Take a step, in place; give each member's loss, and whether it counts."""
        group = turn.group
        gradient, loss = self._gradient(turn, state, orders, chances)
        if not self.scales:
            self._move(group, state, gradient, epoch)
            return loss, 1.0
        gradient.div_(state.moments["loss_scale"].to(gradient))
        good, before = (
            half.finite(gradient),
            {name: t.clone() for name, t in _changed_by_a_step(state).items()},
        )
        self._move(group, state, gradient, epoch)
        for name, tensor in _changed_by_a_step(state).items():
            tensor.copy_(torch.where(good, tensor, before[name]))
        half.rescale(state.moments, good)
        counts = good.squeeze(1)
        return torch.where(counts, loss, 0), counts.double()

    def _move(self, group: Group, state: State, gradient: Tensor, epoch: int) -> None:
        now = self._now(group, state, epoch)
        state.parameters.add_(self.step.to_direction.apply(gradient, state.moments, now))
        weights = self.step.to_weights.apply(state.parameters, state.moments, now)
        if weights is not state.parameters:
            state.parameters.copy_(weights)
        state.step.add_(1)

    def _now(self, group: Group, state: State, epoch: int) -> Now:
        skipped = state.moments.get("skipped")
        done = state.step.double()
        return Now(
            parameters=state.parameters,
            layout=self.layout,
            settings=group.settings,
            shares=group.shares,
            when=self._when(group, state, epoch),
            scheduled=group.schedules,
            updates=done if skipped is None else done - skipped.squeeze(1),
        )

    def _when(self, group: Group, state: State, epoch: int) -> When:
        plateau = state.moments.get("plateau_factor")
        watched = None if plateau is None else plateau.squeeze(1)
        return When(state.step, group.total_steps, epoch - 1, group.exact, watched)

    def _gradient(
        self, turn: Turn, state: State, orders: Int64[Tensor, "streams rows"], chances: Chances
    ) -> tuple[Float[Tensor, "members parameters"], Float[Tensor, " members"]]:
        """Sum the gradients of a step's batches, so that they are that of the mean over all its rows."""
        gradients, losses = [], []
        for number, (first, last) in enumerate(starts(turn.sizes, turn.first)):
            batch = self._batch(turn, orders[:, first:last], chances, turn.batch + number)
            masks = chances.masks[turn.batch + number][:, turn.draws]
            share = (last - first) / turn.size
            gradient, loss = self._gradient_of(turn, state, batch, masks, share)
            gradients.append(gradient)
            losses.append(loss * share)
        return sum(gradients[1:], gradients[0]), sum(losses[1:], losses[0])

    def _gradient_of(
        self, turn: Turn, state: State, batch: Batch, masks: Tensor, share: float
    ) -> tuple[Float[Tensor, "members parameters"], Float[Tensor, " members"]]:
        group = turn.group
        leaves = {
            name: part.requires_grad_() for name, part in self.layout.split(state.parameters.data).items()
        }
        with half.arithmetic(self.shared.precision, self.rows.device):
            buffers = {**state.buffers, **self._masks(group, masks)}
            outputs = self.forward.through(leaves, buffers, batch.features)
        outputs = outputs.to(self.rows.dtype)
        # The mean runs over a member's own rows, and the sum over members gives each exactly its own gradient.
        loss = batch.loss(lambda targets: self.loss(outputs, targets, group.settings))
        minimized = loss * share if len(turn.sizes) > 1 else loss
        if group.sums is not None:
            minimized = minimized * torch.where(group.sums > 0, group.sums * turn.size, 1).to(loss)
        if self.scales:
            # a copy: the scale changes in place, also while another thread still holds a gradient
            minimized = minimized * state.moments["loss_scale"].squeeze(1).to(loss, copy=True)
        gradients = torch.autograd.grad(
            minimized.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return self.layout.join(list(gradients)), loss.detach().double()

    def _batch(
        self, turn: Turn, rows: Int64[Tensor, "streams batch"], chances: Chances, number: int
    ) -> Batch:
        group, folds = turn.group, turn.group.fold_of_stream
        features = group.handed(group.constants.apply(self.rows.gathered(rows)).to(self.rows.dtype))
        targets = group.handed(self.rows.scaled_targets(rows, folds))
        weights = self.rows.weights_of(rows, folds)
        if group.other_labels is not None:
            labels, first = group.other_labels
            amount = group.exact["label_noise"].view(-1, *([1] * (targets.ndim - 1)))
            targets = labels.instead(targets, group.handed(rows) + first, amount)
        batch = Batch(features, targets, None if weights is None else group.handed(weights))
        if not group.noisy and chances.shares is None:
            return batch
        seen = chances.seen[turn.places][group.firsts_of_kin] + number
        if group.noisy:
            keys = noise.noise_keys(group.seeds_of_kin, seen)
            drawn = noise.input_noise(keys, *features.shape[1:]).to(features)[group.kin]
            batch = replace(batch, features=features + group.settings["input_noise"].unsqueeze(-1) * drawn)
        if chances.shares is None:
            return batch
        partners = noise.mix_partners(group.seeds_of_kin, seen, rows.shape[1])[group.kin]
        return noise.mixed(batch, chances.shares[number][turn.places].unsqueeze(1), partners)

    def _masks(self, group: Group, keys: Int32[Tensor, "layers draws 2"]) -> dict[str, Tensor]:
        if not self.dropouts:
            return {}
        masks = {**group.dropout, **{f"{n}.key": keys[i] for i, n in enumerate(self.dropouts)}}
        if self.forward.chain:
            return {**masks, OWNER: group.owner}
        return {name: tensor[group.owner] for name, tensor in masks.items()}

    # What the loop asks for between epochs

    def follow_curve(self, curve: Float[Tensor, " members"]) -> None:
        """Note the fold-mean validation loss of each member's trial after an epoch, for the schedule `plateau`."""
        if "plateau_factor" in self.state.moments:
            remembered = {name: self.state.moments[name] for name in PLATEAU}
            lower_on_plateau(remembered, curve, self._whole.exact)

    def learning_rates(self, epoch: int) -> Float[Tensor, " members"]:
        """Give each member's learning rate at the last step of the epoch that is over."""
        whole = self._whole
        last = replace(self._when(whole, self.state, epoch), step=self.state.step - 1)
        return whole.exact["learning_rate"] * factors(whole.schedules, last)

    def counted(self) -> dict[str, Float[Tensor, " members"]]:
        """Count, since the beginning, the steps that were clipped or skipped; NaN for members whose steps cannot be."""
        counts = {
            n: t.squeeze(1).clone() for n, t in self.state.moments.items() if n in ("clipped", "skipped")
        }
        if "clipped" in counts:
            clips = self._whole.exact["clip_norm"] > 0
            counts["clipped"] = counts["clipped"].where(clips, math.nan)
        return counts

    def steps(self, epoch: int) -> Float[Tensor, " members"]:
        """Count each member's steps in an epoch."""
        counts = [self.pace.count(rows, epoch)[0] for rows in self.lengths]
        return torch.tensor(counts, dtype=torch.float64, device=self.rows.device)

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
        return padded_validation(self.rows.folds, self.rows.device, self.rows.score_weights)

    def _evaluate(self, group: Group, state: State, rows: Int64[Tensor, "streams rows"]) -> Tensor:
        parameters = self.layout.split(state.parameters)
        still = torch.zeros(len(self.dropouts), len(group.draws), 2, dtype=torch.int32, device=rows.device)
        buffers = {**state.buffers, **self._masks(group, still)}
        parts = []
        for some in rows.split(max(self.pace.batch_size, 4096 // max(1, len(state) // 4)), dim=1):
            x = group.constants.apply(self.rows.gathered(some)).to(self.rows.dtype)
            parts.append(self.forward.through(parameters, buffers, group.handed(x)))
        return torch.cat(parts, dim=1)

    def validation_loss(self, outputs: Tensor) -> Float[Tensor, " members"]:
        """Average what training minimizes over each member's validation rows, given its outputs there."""
        index, weight = self.validation
        folds = torch.tensor([m.fold for m in self.members], device=index.device)
        targets = self.rows.scaled_targets(index[folds], folds)
        per_row = self.loss(outputs, targets, self._whole.settings).double()
        own = weight[folds]
        return torch.where(own > 0, per_row * own, 0).sum(1) / own.sum(1)

    def _group(self, places: list[int]) -> Group:
        wanted = tuple(places)
        if wanted not in self.groups:
            members, lengths = [self.members[p] for p in places], [self.lengths[p] for p in places]
            self.groups[wanted] = Group(places, members, lengths, self.stacked)
        return self.groups[wanted]

    @property
    def _whole(self) -> Group:
        return self._group(list(range(len(self.members))))

    def _mode(self, training: bool) -> None:
        self.skeleton.train(training)
        for i, name in enumerate(self.dropouts):
            used = any(rates[i] > 0 for rates in self.rates.values())
            self.skeleton.get_submodule(name).train(training and used)

    def _sample(self) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        few = min(self.pace.batch_size, self.rows.features.shape[0], 8)
        tensors = tensors_of(self.skeleton)
        twice = {name: torch.stack([t.detach(), t.detach()]) for name, t in tensors.items()}
        named = set(self.layout.names)
        x = torch.nan_to_num(self.rows.features[:few]).to(self.rows.dtype).expand(2, -1, -1)
        parameters = {name: t for name, t in twice.items() if name in named}
        return parameters, {name: t for name, t in twice.items() if name not in named}, x

    @cached_property
    def units(self) -> int:
        """Count the numbers that all layers give for one row."""
        return units_of(self.skeleton, self._sample()[2][0])

    def bytes_per_member(self) -> int:
        """Estimate what one member touches in a step: weights, moments, temporaries, and activations of its batch."""
        item = self.rows.dtype.itemsize
        units = self.rows.features.shape[1] + 2 * self.units
        largest = min(self.pace.size(max(1, *(m.settings.epochs for m in self.members))), max(self.lengths))
        held = sum(b[0].numel() for b in self.state.buffers.values())
        return item * (8 * self.layout.size + held + largest * units)

    def _chunk_that_fits(self) -> int:
        budget = CACHE_BYTES // self.workers if self.rows.device.type == "cpu" else DEVICE_BYTES
        fits = max(4, budget // self.bytes_per_member())
        return min(fits, max(LEAST_CHUNK, math.ceil(len(self.members) / self.workers)))

    def bytes(self) -> int:
        """Estimate the memory of the whole stack: weights, moments, kept weights, outputs on validation rows."""
        item = self.rows.dtype.itemsize
        rows = self.validation[0].shape[1]
        each = self.layout.size * (2 + len(self.step.to_direction.moments)) + 3 * rows * self.outputs
        return item * each * len(self.members) + self.bytes_per_member() * min(self.chunk, len(self.members))

    def seconds(self) -> float:
        """Estimate the time to train the whole stack, from a few steps on a copy of its first chunk."""
        chunk = next(self.chunks(1), None)
        if chunk is None:
            return 0.0
        _, per_row = next(self._for_each(self._time_of_a_row, [chunk] * self.workers))
        rows = sum(m.settings.epochs * n for m, n in zip(self.members, self.lengths, strict=True))
        return float(per_row) / self.workers * rows * 1.15  # the rest: validation each epoch

    def _time_of_a_row(self, chunk: list[int], tries: int = 4) -> Tensor:
        whole, course = self._group(chunk), self._course(chunk, 1)
        orders = self.orders.padded(1, [(seed, fold) for seed, fold, _ in whole.streams])
        chances, turn = self._chances(whole, 1, course), course[0]
        state = take(self.state, torch.tensor(chunk, device=self.rows.device)[turn.places])
        taken = []
        for _ in range(tries):
            start = time.perf_counter()
            self._step(turn, state, orders[turn.streams], chances, 1)
            if self.rows.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return torch.tensor(min(taken) / len(state) / turn.size)


def _changed_by_a_step(state: State) -> dict[str, Tensor]:
    kept = {name: t for name, t in state.moments.items() if name not in half.SCALING}
    return {**kept, "parameters": state.parameters}


def _firsts_of_trials(members: list[Member]) -> list[Member]:
    return list({member.trial: member for member in reversed(members)}.values())
