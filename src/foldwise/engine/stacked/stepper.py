"""How members of a chunk take a step together, and how they are seen on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from foldwise.engine import half, noise
from foldwise.engine.cohort import Cohort
from foldwise.engine.group import Group
from foldwise.engine.noise import Batch
from foldwise.engine.pace import starts
from foldwise.engine.stacked.forward import OWNER, Forward
from foldwise.engine.stacked.turns import Turn
from foldwise.engine.state import State


@dataclass(frozen=True)
class Drawn:
    """What chance has for an epoch of a chunk, by the number of a batch in the epoch; and the orders of the rows."""

    orders: Int64[Tensor, "streams most"]
    masks: Int32[Tensor, "batches layers draws 2"]
    shares: Float[Tensor, "batches members"] | None  # of mix-up
    seen: Int64[Tensor, " members"]  # batches that each member has seen before

    @classmethod
    def of(cls, cohort: Cohort, whole: Group, epoch: int, turns: list[Turn]) -> Drawn:
        """Draw for an epoch, counted from 1, of the member that is last."""
        batches = max(turn.batch + len(turn.sizes) for turn in turns)
        return cls(
            whole.orders(epoch, cohort.orders),
            whole.dropout_keys(epoch, batches),
            whole.mix_shares(epoch, batches) if whole.asks("mixup") else None,
            whole.batches_before(epoch),
        )


@dataclass(frozen=True)
class Feed:
    """What a batch of a step is made of; cut from `Drawn` before the step, which then is a function of tensors."""

    rows: Int64[Tensor, "streams batch"]
    masks: Int32[Tensor, "layers draws 2"]
    seen: Int64[Tensor, " kin"] | None  # batches seen before, where noise or mix-up asks for it
    share: Float[Tensor, "members 1"] | None  # of mix-up


@dataclass(frozen=True)
class Stepper:
    """Takes steps on states; remembers nothing itself."""

    cohort: Cohort
    forward: Forward

    def take(
        self, turn: Turn, state: State, drawn: Drawn, room: Tensor | None = None
    ) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"] | float]:
        """Take a step, in place; give each member's loss, and whether it counts.

        `room [members, parameters]` takes up the gradient: fresh memory for it in every step would cost page faults.
        """
        return self.step(turn.group, state, self.feeds(turn, drawn), room)

    def feeds(self, turn: Turn, drawn: Drawn) -> list[Feed]:
        """Cut what the batches of a step are made of."""
        group, orders = turn.group, drawn.orders[turn.streams]
        disturbed = group.noisy or drawn.shares is not None
        before = drawn.seen[turn.places][group.firsts_of_kin] if disturbed else None
        return [
            Feed(
                orders[:, first:last],
                drawn.masks[turn.batch + number][:, turn.draws],
                None if before is None else before + turn.batch + number,
                None if drawn.shares is None else drawn.shares[turn.batch + number][turn.places].unsqueeze(1),
            )
            for number, (first, last) in enumerate(starts(turn.sizes, turn.first))
        ]

    def step(
        self, group: Group, state: State, feeds: Sequence[Feed], room: Tensor | None = None
    ) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"] | float]:
        """Take a step of all members of a state, in place; nothing in it waits for the device."""
        gradient, loss = self._gradient(group, state, feeds, room)
        if not self.cohort.scales:
            self._move(group, state, gradient)
            return loss, 1.0
        gradient.div_(state.moments["loss_scale"].to(gradient))
        good = half.finite(gradient)
        before = {name: t.clone() for name, t in _changed_by_a_step(state).items()}
        self._move(group, state, gradient)
        for name, tensor in _changed_by_a_step(state).items():
            tensor.copy_(torch.where(good, tensor, before[name]))
        half.rescale(state.moments, good)
        counts = good.squeeze(1)
        return torch.where(counts, loss, 0), counts.double()

    def _move(self, group: Group, state: State, gradient: Tensor) -> None:
        now, step = self.cohort.now(group, state), self.cohort.step
        state.parameters.add_(step.to_direction.apply(gradient, state.moments, now))
        weights = step.to_weights.apply(state.parameters, state.moments, now)
        if weights is not state.parameters:
            state.parameters.copy_(weights)
        state.step.add_(1)

    def _gradient(
        self, group: Group, state: State, feeds: Sequence[Feed], room: Tensor | None
    ) -> tuple[Float[Tensor, "members parameters"], Float[Tensor, " members"]]:
        """Sum the gradients of a step's batches, so that they are that of the mean over all its rows."""
        rows = sum(feed.rows.shape[1] for feed in feeds)
        gradients, losses = self._gradient_of(group, state, feeds[0], rows)
        total = self.cohort.layout.join(gradients, room)
        for feed in feeds[1:]:
            gradients, loss = self._gradient_of(group, state, feed, rows)
            total.add_(self.cohort.layout.join(gradients))
            losses = losses + loss
        return total, losses

    def _gradient_of(
        self, group: Group, state: State, feed: Feed, rows: int
    ) -> tuple[list[Tensor], Float[Tensor, " members"]]:
        cohort, batch = self.cohort, self._batch(group, feed)
        share = feed.rows.shape[1] / rows
        leaves = {
            name: part.requires_grad_() for name, part in cohort.layout.split(state.parameters.data).items()
        }
        with half.arithmetic(cohort.shared.precision, cohort.rows.device):
            buffers = {**state.buffers, **self._masks(group, feed.masks)}
            outputs = self.forward.through(leaves, buffers, batch.features)
        outputs = outputs.to(cohort.rows.dtype)
        # The mean runs over a member's own rows, and the sum over members gives each exactly its own gradient.
        loss = batch.loss(lambda targets: cohort.loss.per_row(outputs, targets, group.settings))
        minimized = loss * share if share < 1 else loss
        if group.sums is not None:
            minimized = minimized * torch.where(group.sums > 0, group.sums * rows, 1).to(loss)
        if cohort.scales:
            # a copy: the scale changes in place, also while another thread still holds a gradient
            minimized = minimized * state.moments["loss_scale"].squeeze(1).to(loss, copy=True)
        gradients = torch.autograd.grad(
            minimized.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return list(gradients), loss.detach().double() * share

    def _batch(self, group: Group, feed: Feed) -> Batch:
        table, folds, rows = self.cohort.rows, group.fold_of_stream, feed.rows
        features = group.handed(group.constants.apply(table.gathered(rows)).to(table.dtype))
        targets = group.handed(table.scaled_targets(rows, folds))
        weights = table.weights_of(rows, folds)
        if group.other_labels is not None:
            labels, first = group.other_labels
            amount = group.exact["label_noise"].view(-1, *([1] * (targets.ndim - 1)))
            targets = labels.instead(targets, group.handed(rows) + first, amount)
        batch = Batch(features, targets, None if weights is None else group.handed(weights))
        if feed.seen is None:
            return batch
        if group.noisy:
            keys = noise.noise_keys(group.seeds_of_kin, feed.seen)
            noises = noise.input_noise(keys, *features.shape[1:]).to(features)[group.kin]
            batch = replace(batch, features=features + group.settings["input_noise"].unsqueeze(-1) * noises)
        if feed.share is None:
            return batch
        partners = noise.mix_partners(group.seeds_of_kin, feed.seen, rows.shape[1])[group.kin]
        return noise.mixed(batch, feed.share, partners)

    def _masks(self, group: Group, keys: Int32[Tensor, "layers draws 2"]) -> dict[str, Tensor]:
        if not self.cohort.dropouts:
            return {}
        masks = {**group.dropout, **{f"{n}.key": keys[i] for i, n in enumerate(self.cohort.dropouts)}}
        if self.forward.chain:
            return {**masks, OWNER: group.owner}
        return {name: tensor[group.owner] for name, tensor in masks.items()}

    @torch.no_grad()
    def outputs(
        self, group: Group, state: State, rows: Int64[Tensor, "streams rows"]
    ) -> Float[Tensor, "members rows outputs"]:
        """Give what members make of the rows of their streams, prepared and undisturbed."""
        cohort = self.cohort
        parameters = cohort.layout.split(state.parameters)
        still = torch.zeros(len(cohort.dropouts), len(group.draws), 2, dtype=torch.int32, device=rows.device)
        buffers = {**state.buffers, **self._masks(group, still)}
        parts = []
        for some in rows.split(max(cohort.pace.batch_size, 4096 // max(1, len(state) // 4)), dim=1):
            x = group.constants.apply(cohort.rows.gathered(some)).to(cohort.rows.dtype)
            parts.append(self.forward.through(parameters, buffers, group.handed(x)))
        return torch.cat(parts, dim=1)


def _changed_by_a_step(state: State) -> dict[str, Tensor]:
    kept = {name: t for name, t in state.moments.items() if name not in half.SCALING}
    return {**kept, "parameters": state.parameters}
