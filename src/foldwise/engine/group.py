"""Members of one shape that take a step together, with all that the step needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from foldwise.engine.dropout import rescale
from foldwise.engine.losses import Loss
from foldwise.engine.noise import OtherLabels, mix_shares, other_labels
from foldwise.engine.orders import RowOrders
from foldwise.engine.pace import Pace
from foldwise.engine.random import key, threshold
from foldwise.engine.rows import Constants, Rows
from foldwise.engine.shares import Shares, shares_of
from foldwise.engine.state import Layout
from foldwise.plans.plan import Member
from foldwise.settings import FREE

Stream = tuple[int, int, int, int]
"""Seed, fold, place among the preparations, and lead: members that agree in them see the same rows."""
Draw = tuple[int, int, tuple[float, ...], int]
"""Seed, training rows, rates of the dropout layers, and lead: members that agree in them have the same masks."""


@dataclass(frozen=True)
class Shared:
    """What all members of one shape share."""

    rows: Rows
    layout: Layout
    loss: Loss
    outputs: int
    pace: Pace
    knobs: Mapping[str, float]  # of the user's own links, by default value
    dropouts: Sequence[str]  # names of the dropout layers
    rates: Mapping[int, Sequence[float]]  # of the dropout layers, by trial

    @property
    def device(self) -> torch.device:
        """Tell where the rows are."""
        return self.rows.device


class Group:
    """Some members of one shape, their training rows, and how many epochs each is ahead of the one that is last.

    `streams` are the distinct (seed, fold, scaling, lead) among them: members of one stream see the same rows, so
    rows are gathered and prepared once for each stream and then handed to its members by `stream_of`. Leads stay
    while members advance together, so a group serves all their epochs; what depends on the epoch is asked for with
    that of the last, counted from 1.
    """

    def __init__(
        self, members: Sequence[Member], lengths: Sequence[int], leads: Sequence[int], of: Shared
    ) -> None:
        self.members, self.lengths, self.leads, self.of = members, lengths, leads, of
        each = list(zip(members, lengths, leads, strict=True))
        own: list[Stream] = [
            (m.seed, m.fold, of.rows.preparation(m.settings.scaling, m.fold), lead) for m, _, lead in each
        ]
        self.streams = list(dict.fromkeys(own))
        self.stream_of = self._index(numbers_among(own, self.streams))
        self.fold_of_stream = self._index([fold for _, fold, _, _ in self.streams])
        drawn: list[Draw] = [(m.seed, rows, tuple(of.rates[m.trial]), lead) for m, rows, lead in each]
        self.draws = sorted(set(drawn))
        self.owner = self._index(numbers_among(drawn, self.draws))
        self.seeds = self._index([m.seed for m in members])
        # kin have the same seed and as many batches behind them, and so the same noise
        related = [(m.seed, rows, lead) for m, rows, lead in each]
        distinct = sorted(set(related))
        self.kin = self._index(numbers_among(related, distinct))
        self.firsts_of_kin = self._index(numbers_among(distinct, related))
        self.seeds_of_kin = self._index([seed for seed, _, _ in distinct])

    def _index(self, values: Sequence[int]) -> Int64[Tensor, " values"]:
        return torch.tensor(values, dtype=torch.int64, device=self.of.device)

    def handed(self, by_stream: Tensor) -> Tensor:
        """Give each member the rows of its stream."""
        if len(self.streams) == len(self.members):
            return by_stream
        return by_stream.index_select(0, self.stream_of)

    # Settings

    @cached_property
    def exact(self) -> dict[str, Float[Tensor, " members"]]:
        """Give every number among the free settings, and the knobs of the user's links, in float64."""
        first = self.members[0].settings
        names = [name for name in FREE if isinstance(getattr(first, name), int | float)]
        values = {name: [float(getattr(m.settings, name)) for m in self.members] for name in names}
        for name, default in self.of.knobs.items():
            values[name] = [dict(m.settings.knobs).get(name, default) for m in self.members]
        return {n: torch.tensor(v, dtype=torch.float64, device=self.of.device) for n, v in values.items()}

    @cached_property
    def settings(self) -> dict[str, Float[Tensor, "members 1"]]:
        """Give them as columns in the dtype of the rows; label smoothing only where somebody smooths."""
        columns = {name: v.unsqueeze(1).to(self.of.rows.dtype) for name, v in self.exact.items()}
        if not self.asks("label_smoothing"):
            del columns["label_smoothing"]
        return columns

    def asks(self, name: str) -> bool:
        """Tell whether some member has a number other than 0."""
        return any(getattr(m.settings, name) for m in self.members)

    @cached_property
    def noisy(self) -> bool:
        """Tell whether some member has noise on its inputs; asked in every step."""
        return self.asks("input_noise")

    @cached_property
    def schedules(self) -> dict[str, Tensor]:
        """Mark, for each schedule by name, the members that have it."""
        own = [m.settings.schedule for m in self.members]
        return {n: torch.tensor([o == n for o in own], device=self.of.device) for n in sorted(set(own))}

    @cached_property
    def shares(self) -> Shares:
        """Lay out how much each parameter has of rate, decay and penalties."""
        settings = [m.settings for m in self.members]
        return shares_of(settings, self.of.layout, self.of.rows.dtype, self.of.device)

    @cached_property
    def total_steps(self) -> Int64[Tensor, " members"]:
        """Count the steps of each member's whole training."""
        pairs = zip(self.members, self.lengths, strict=True)
        return self._index([self.of.pace.total_steps(rows, m.settings.epochs) for m, rows in pairs])

    @cached_property
    def sums(self) -> Float[Tensor, " members"] | None:
        """Give, per row of a step, the factor from the mean of losses to what is minimized; None: 1 for all.

        Under reduction `sum` it is the mean weight of a fold's training rows, for there weights are not relative.
        """
        own = [m.settings.reduction == "sum" for m in self.members]
        if not any(own):
            return None
        means = self.of.rows.weight_mean
        factors = [1.0 if means is None else float(means[m.fold]) for m in self.members]
        values = [f if o else 0.0 for f, o in zip(factors, own, strict=True)]
        return torch.tensor(values, dtype=torch.float64, device=self.of.device)

    @cached_property
    def constants(self) -> Constants:
        """Give what each stream's fold learnt to prepare its rows."""
        return self.of.rows.constants.of(self._index([p for _, _, p, _ in self.streams]))

    # Chance

    def orders(self, epoch: int, of: RowOrders) -> Int64[Tensor, "streams most"]:
        """Give the order in which each stream's rows are met."""
        return of.padded([(epoch + lead, seed, fold) for seed, fold, _, lead in self.streams])

    def batches_before(self, epoch: int) -> Int64[Tensor, " members"]:
        """Count the batches that each member has seen before its epoch."""
        own = zip(self.lengths, self.leads, strict=True)
        return self._index([self.of.pace.before(rows, epoch + lead)[1] for rows, lead in own])

    def dropout_keys(self, epoch: int, batches: int) -> Int32[Tensor, "batches layers draws 2"]:
        """Give the keys of all masks of an epoch, by seed, layer and the batches that a member has seen."""
        device, layers = self.of.device, len(self.of.dropouts)
        layer = torch.arange(layers, device=device)[None, :, None]
        seeds = self._index([seed for seed, _, _, _ in self.draws])
        # folds differ in length and members in lead, so those of one seed may have seen different numbers of batches
        before = self._index([self.of.pace.before(rows, epoch + lead)[1] for _, rows, _, lead in self.draws])
        seen = before + torch.arange(batches, device=device)[:, None, None]
        return key(seeds.expand(batches, layers, -1), "dropout", layer, seen)

    @cached_property
    def dropout(self) -> dict[str, Tensor]:
        """Give the limit and scale of each dropout layer, by draw."""
        buffers = {}
        for i, name in enumerate(self.of.dropouts):
            rates = [own[i] for _, _, own, _ in self.draws]
            limits, scales = [threshold(r) for r in rates], [rescale(r) for r in rates]
            buffers[f"{name}.limit"] = torch.tensor(limits, dtype=torch.int32, device=self.of.device)
            buffers[f"{name}.scale"] = torch.tensor(scales, dtype=self.of.rows.dtype, device=self.of.device)
        return buffers

    @cached_property
    def other_labels(self) -> tuple[OtherLabels, Int64[Tensor, "members 1"]] | None:
        """Draw label noise for every row and seed, and say where each member's begins; None without noise."""
        if not self.asks("label_noise"):
            return None
        rows, form = self.of.rows, self.of.loss.form
        seeds = sorted({m.seed for m in self.members})
        # the draws look at the form of the targets alone, so they are the same for all versions
        tables = [other_labels(seed, rows.targets_of(0), form, self.of.outputs) for seed in seeds]
        first = [seeds.index(m.seed) * len(rows.features) for m in self.members]
        return OtherLabels.joined(tables), self._index(first).unsqueeze(1)

    def mix_shares(self, epoch: int, batches: int) -> Float[Tensor, "batches members"]:
        """Draw how much of its own a row keeps in each batch of an epoch."""
        seen = self.batches_before(epoch) + torch.arange(batches, device=self.of.device).unsqueeze(1)
        return mix_shares(self.seeds.expand_as(seen), seen, self.exact["mixup"].expand(seen.shape))


def index_among(of: Sequence[Any], among: Sequence[Any], device: torch.device) -> Int64[Tensor, " places"]:
    """Find where some things are among others."""
    return torch.tensor(numbers_among(of, among), dtype=torch.int64, device=device)


def numbers_among(of: Sequence[Any], among: Sequence[Any]) -> list[int]:
    """Find where each thing is first among others; by a table, for there may be thousands.

    >>> numbers_among("ba", "aba")
    [1, 0]
    """
    place: dict[Any, int] = {}
    for number, thing in enumerate(among):
        place.setdefault(thing, number)
    return [place[thing] for thing in of]
