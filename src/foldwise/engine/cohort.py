"""Members of one shape with their state, and all that follows from their settings whatever the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from foldwise.engine import half
from foldwise.engine.dropout import KeyedDropout
from foldwise.engine.group import Group, Shared
from foldwise.engine.links import Link, Now
from foldwise.engine.losses import KNOBS, Loss
from foldwise.engine.members import Nursery, first_moment, units_of
from foldwise.engine.orders import RowOrders
from foldwise.engine.pace import Pace
from foldwise.engine.rows import padded_validation
from foldwise.engine.schedules import PLATEAU, When, factors, lower_on_plateau
from foldwise.engine.shares import refuse_unknown_blocks
from foldwise.engine.state import Layout, State, concatenate, take
from foldwise.engine.step import Step, step_of
from foldwise.errors import NetworkError, SettingsError
from foldwise.plans.plan import Member

Look = Callable[[Sequence[int], Float[Tensor, "places validation_rows outputs"]], None]
"""Is given members, by place, and their outputs on their own validation rows, laid out as in `Cohort.validation`; it
may be called from several threads at once, each with other members."""


class Cohort:
    """Members of one shape: each has a place, at which `members`, `lengths` and every tensor of `state` have it.

    Members may join while others are being trained, and each is at its own epoch. None ever leaves its place: those
    that have stopped are no longer asked for, and cost nothing but memory.

    Args:
        members: the first members; they and those that `add` brings share their shaping settings.
        nursery: makes their networks.
        orders: the order of rows, shared by all cohorts.
        loss: what they minimize.
        links: parts of the step that are the user's own.
    """

    def __init__(
        self,
        members: Sequence[Member],
        nursery: Nursery,
        orders: RowOrders,
        loss: Loss,
        links: Sequence[Link] = (),
    ) -> None:
        self.shared = members[0].settings
        self.nursery, self.rows = nursery, nursery.rows
        self.orders, self.loss, self.links = orders, loss, links
        self.pace = Pace.of(self.shared)
        self.outputs = nursery.outputs[self.shared.loss]
        self.skeleton = nursery.skeleton(members[0])
        self.layout = Layout.of(self.skeleton)
        self.dropouts = [name for name, m in self.skeleton.named_modules() if isinstance(m, KeyedDropout)]
        self.scales = self.shared.precision == "float16"
        self.members: list[Member] = []
        self.lengths: list[int] = []  # training rows
        self.rates: dict[int, list[float]] = {}  # of the dropout layers, by trial
        knobs = {name: value for link in links for name, value in link.knobs.items()}
        self.of = Shared(
            self.rows, self.layout, loss, self.outputs, self.pace, knobs, self.dropouts, self.rates
        )
        self.groups: dict[tuple[tuple[int, ...], tuple[int, ...]], Group] = {}
        self.step: Step
        self.state: State
        self.add(members)

    def __len__(self) -> int:
        return len(self.members)

    def add(self, members: Sequence[Member]) -> None:
        """Let members join at the places after all others, each at the start of its training.

        They may ask for links that nobody had: those who are there remember what such a link starts with, which is
        what it leaves them, since it acts on nobody who does not ask for it.
        """
        firsts = _firsts_of_trials([*self.members, *members])
        new = [m for m in firsts if m.trial not in self.rates]
        rates = {m.trial: self.nursery.dropout_rates(m, self.skeleton) for m in new}
        by_fold = self.rows.folds.train.sum(axis=1)
        lengths = [int(by_fold[m.fold]) for m in members]
        step = step_of([m.settings for m in firsts], self.links)
        self._refuse_unfit(new, lengths)
        remembered = {**step.remembered(), **(half.SCALING if self.scales else {})}
        starts = self.nursery.initial_state(list(members), remembered)
        if self.scales:
            scale = torch.tensor([[m.settings.loss_scale] for m in members], dtype=torch.float64)
            starts.moments["loss_scale"].copy_(scale)
        if self.members:
            starts = concatenate([_remembering(self.state, remembered), starts])
        mixable = len(self.members) < 2 and bool(self.links)
        self.state, self.step = starts, step
        self.members += members
        self.lengths += lengths
        self.rates.update(rates)
        columns = {name: [[float(getattr(m.settings, name))] for m in self.members] for name in KNOBS}
        self.knobs = {
            n: torch.tensor(c, dtype=self.rows.dtype, device=self.rows.device) for n, c in columns.items()
        }
        if mixable and len(self.members) > 1:
            self._refuse_mixing()

    # What does not fit is refused before it trains

    def _refuse_unfit(self, firsts: Sequence[Member], lengths: Sequence[int]) -> None:
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
        if self.pace.batch_size == 1 or min(lengths) == 1:
            raise NetworkError(
                f"{min(lengths)} training rows in batches of {self.pace.batch_size} leave a batch of one row, "
                "over which batch normalization has no variance.",
                hint="another batch_size, such as 32, or layer normalization",
            )

    def _refuse_mixing(self) -> None:
        """Try the step on two members; what the first gets may not depend on the second."""

        def first(of_the_second: float) -> Tensor:
            group, state = self.group([0, 1]), take(self.state, self.index([0, 1]))
            now = self.now(group, state)
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

    # What an engine plans by

    def some_rows(self) -> Float[Tensor, "rows features"]:
        """Give a few rows, by which a network can be tried."""
        few = min(self.pace.batch_size, self.rows.features.shape[0], 8)
        return torch.nan_to_num(self.rows.features[:few]).to(self.rows.dtype)

    @cached_property
    def units(self) -> int:
        """Count the numbers that all layers give for one row."""
        return units_of(self.skeleton, self.some_rows())

    def rows_ahead(self, places: Sequence[int]) -> int:
        """Count the rows that members have yet to learn from, with repetition, if none stops early."""
        epochs = self.state.epoch[self.index(places)].tolist()
        own = zip(places, epochs, strict=True)
        return sum((self.members[p].settings.epochs - e) * self.lengths[p] for p, e in own)

    # Some of the members

    def index(self, places: Sequence[int]) -> Int64[Tensor, " places"]:
        """Give places as a tensor on the device, by which a state is cut."""
        return torch.tensor(places, dtype=torch.int64, device=self.rows.device)

    def folds(self, places: Sequence[int]) -> Int64[Tensor, " places"]:
        """Give the folds of members."""
        return self.index([self.members[p].fold for p in places])

    def leads(self, places: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """Give the fewest epochs that any of these members has done, and how many more each has."""
        epochs = self.state.epoch[self.index(places)].tolist()
        least = min(epochs)
        return least, tuple(e - least for e in epochs)

    def group(self, places: Sequence[int], leads: Sequence[int] | None = None) -> Group:
        """Give what a step needs of members, made once; `leads` matter to what is drawn for them epoch by epoch."""
        wanted = (tuple(places), tuple(leads or [0] * len(places)))
        if wanted not in self.groups:
            members, lengths = [self.members[p] for p in places], [self.lengths[p] for p in places]
            self.groups[wanted] = Group(members, lengths, wanted[1], self.of)
        return self.groups[wanted]

    def forget_groups(self) -> None:
        """Drop what was made for groups of members, because other groups will be asked for from now on."""
        self.groups.clear()

    def when(self, group: Group, state: State) -> When:
        """Tell how far the members of a group are."""
        plateau = state.moments.get("plateau_factor")
        watched = None if plateau is None else plateau.squeeze(1)
        return When(state.step, group.total_steps, state.epoch, group.exact, watched)

    def now(self, group: Group, state: State) -> Now:
        """Give what the links of a step may look at."""
        skipped = state.moments.get("skipped")
        done = state.step.double()
        return Now(
            parameters=state.parameters,
            layout=self.layout,
            settings=group.settings,
            shares=group.shares,
            when=self.when(group, state),
            scheduled=group.schedules,
            updates=done if skipped is None else done - skipped.squeeze(1),
        )

    # What is asked between epochs

    def learning_rates(self, places: Sequence[int]) -> Float[Tensor, " places"]:
        """Give members' learning rates at the last step of the epoch that they did last."""
        group, moments = self.group(places), self.state.moments
        watched = {n: moments[n] for n in ("plateau_factor",) if n in moments}
        # the clocks alone: a copy of all weights and moments would be most of the memory that a study needs
        clocks = replace(self.state, parameters=self.state.parameters[:, :0], buffers={}, moments=watched)
        own = self.when(group, take(clocks, self.index(places)))
        last = replace(own, step=own.step - 1, epoch=own.epoch - 1)
        return group.exact["learning_rate"] * factors(group.schedules, last)

    def counted(self, places: Sequence[int]) -> dict[str, Float[Tensor, " places"]]:
        """Count, since the beginning, the steps that were clipped or skipped; NaN for members whose cannot be."""
        index, moments = self.index(places), self.state.moments
        counts: dict[str, Tensor] = {
            n: moments[n].squeeze(1)[index] for n in ("clipped", "skipped") if n in moments
        }
        if "clipped" in counts:
            clips = self.group(places).exact["clip_norm"] > 0
            counts["clipped"] = counts["clipped"].where(clips, math.nan)
        return counts

    def steps(self, places: Sequence[int]) -> Float[Tensor, " places"]:
        """Count the steps of the epoch that members did last."""
        epochs = self.state.epoch[self.index(places)].tolist()
        counts = [self.pace.count(self.lengths[p], e)[0] for p, e in zip(places, epochs, strict=True)]
        return torch.tensor(counts, dtype=torch.float64, device=self.rows.device)

    def follow_curve(self, curve: Float[Tensor, " places"], places: Sequence[int]) -> None:
        """Note the fold-mean validation loss of members' trials after an epoch, for the schedule `plateau`."""
        if "plateau_factor" not in self.state.moments:
            return
        index = self.index(places)
        remembered = {name: self.state.moments[name][index] for name in PLATEAU}
        lower_on_plateau(remembered, curve, self.group(places).exact)
        for name, values in remembered.items():
            self.state.moments[name][index] = values

    @cached_property
    def validation(self) -> tuple[Int64[Tensor, "folds rows"], Float[Tensor, "folds rows"]]:
        """Lay out the folds' validation rows, and how much each place counts (0: it only fills up)."""
        return padded_validation(self.rows.folds, self.rows.device, self.rows.score_weights)

    def validation_loss(
        self, outputs: Float[Tensor, "places validation_rows outputs"], places: Sequence[int]
    ) -> Float[Tensor, " places"]:
        """Average what training minimizes over members' validation rows, given their outputs there."""
        index, _ = self.validation
        folds, own = self.folds(places), self.index(places)
        targets = self.rows.scaled_targets(index[folds], folds)
        knobs = {name: column[own] for name, column in self.knobs.items()}
        if not any(self.members[p].settings.label_smoothing for p in places):
            del knobs["label_smoothing"]
        return self.mean_over_rows(self.loss.per_row(outputs, targets, knobs), folds)

    def mean_over_rows(
        self, per_row: Float[Tensor, "places validation_rows"], folds: Int64[Tensor, " places"]
    ) -> Float[Tensor, " places"]:
        """Average over the validation rows of folds, in float64, whatever stands at places that only fill up."""
        weight = self.validation[1][folds]
        return torch.where(weight > 0, per_row.double() * weight, 0).sum(1) / weight.sum(1)


def _remembering(state: State, remembered: dict[str, float | None]) -> State:
    """Give a state the moments of links that are new to it, as they start."""
    missing = {n: v for n, v in remembered.items() if n not in state.moments}
    new = {n: first_moment(state.parameters, v) for n, v in missing.items()}
    return replace(state, moments={**state.moments, **new})


def _firsts_of_trials(members: Sequence[Member]) -> list[Member]:
    return list({member.trial: member for member in reversed(members)}.values())
