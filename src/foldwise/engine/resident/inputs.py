"""What the compiled functions are given: rows, members, shares and draws of a cohort, as arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from foldwise.engine.cohort import Cohort
from foldwise.engine.dropout import rescale
from foldwise.engine.group import Group, numbers_among
from foldwise.engine.noise import OtherLabels, other_labels
from foldwise.engine.random import threshold
from foldwise.engine.resident.member import MEMBER, REAL, Chances, Data, Lines, prepare
from foldwise.engine.rows import Rows
from foldwise.engine.schedules import When, factors
from foldwise.engine.shares import shares_of

PREPARED_BYTES = 256 << 20
"""What tables that are prepared ahead may fill; with more folds than that, rows are prepared when they are needed."""

Thing = TypeVar("Thing", bound=Hashable)


def data_of(rows: Rows, validation: Tensor) -> Data:
    """Give the rows as arrays, which share the tensors' memory."""
    targets = rows.targets.numpy()
    whole = targets.dtype == np.int64
    classes = targets if whole else np.full(len(targets), -1)
    numbers = np.zeros((len(targets), 0)) if whole else targets.astype(np.float64, copy=False)
    constants, nothing = rows.constants, np.zeros((0, numbers.shape[1]))
    weights = np.zeros((0, 0)) if rows.weights is None else rows.weights.numpy()
    return Data(
        features=_plain(rows.features.numpy()),
        prepared=_prepared(rows),
        fill=constants.fill.numpy(),
        shift=constants.shift.numpy(),
        scale=constants.scale.numpy(),
        bound=constants.bound.numpy(),
        bounded=constants.bounded,
        train=_plain(rows.folds.train),
        validation=validation.numpy(),
        classes=_plain(classes),
        numbers=_plain(numbers),
        target_start=_plain(_target_starts(rows)),
        target_shift=nothing if rows.target_shift is None else rows.target_shift.numpy(),
        target_scale=nothing if rows.target_scale is None else rows.target_scale.numpy(),
        # weights that are the same in all folds are one row of memory
        weights=_plain(weights[:1] if weights.strides[0] == 0 else weights),
        weight_mean=np.zeros(0) if rows.weight_mean is None else rows.weight_mean.numpy(),
    )


def _target_starts(rows: Rows) -> np.ndarray:
    return np.zeros(len(rows.folds), np.int64) if rows.target_start is None else rows.target_start.numpy()


def _plain(array: np.ndarray) -> np.ndarray:
    # arrays that lie otherwise, or may not be written, would be other types, for which all is compiled again
    return np.require(array, requirements=["C", "W"])


def prepared_bytes(rows: Rows) -> int:
    """Count what tables prepared ahead take; 0 where rows are prepared one by one."""
    size = len(rows.constants.fill) * rows.features.numel() * rows.dtype.itemsize
    return size if size <= PREPARED_BYTES else 0


def _prepared(rows: Rows) -> np.ndarray:
    if prepared_bytes(rows) == 0:
        return torch.zeros(0, 0, 0, dtype=rows.dtype).numpy()
    if "prepared" not in rows.derived:
        tables = torch.empty(len(rows.constants.fill), *rows.features.shape, dtype=rows.dtype)
        c = rows.constants
        learned = (c.fill.numpy(), c.shift.numpy(), c.scale.numpy(), c.bound.numpy(), c.bounded)
        prepare(tables.numpy(), _plain(rows.features.numpy()), *learned)
        rows.derived["prepared"] = tables
    return rows.derived["prepared"].numpy()


class Trials:
    """What stays as it is while the members of a cohort train.

    `records` is what is known of each, without what depends on its epoch; `lines` how much each parameter has of
    rate, decay and penalties under the distinct settings.
    """

    def __init__(self, cohort: Cohort) -> None:
        # by seed, what label noise puts in the place of labels
        self.other_labels: dict[int, OtherLabels] = {}
        dtype = cohort.rows.dtype
        distinct, line = _numbered(m.settings for m in cohort.members)
        shares = shares_of(distinct, cohort.layout, dtype, torch.device("cpu"))
        records = self.records = np.zeros(len(cohort), MEMBER)
        for name in REAL:
            if hasattr(cohort.shared, name):
                records[name] = np.array([getattr(s, name) for s in distinct], dtype=np.float64)[line]
        for name, share, usual in (
            ("scaled_rate", shares.rate, 1), ("decays", shares.decay, 0), ("l1s", shares.l1, 0),
            ("l2s", shares.l2, 0), ("freezes", shares.trained, 1),
        ):  # fmt: skip
            records[name] = _differing(share, usual, len(distinct))[line]
        records["trial"] = line
        records["fold"] = [m.fold for m in cohort.members]
        records["seed"] = [m.seed for m in cohort.members]
        records["prepared"] = [cohort.rows.preparation(m.settings.scaling, m.fold) for m in cohort.members]
        records["accumulation"] = cohort.pace.accumulation
        records["moves"] = "velocity" in cohort.state.moments
        records["looks_ahead"], records["centers"] = cohort.shared.nesterov, cohort.shared.centered
        rates = [cohort.rates[m.trial] for m in cohort.members]
        layers = max(1, len(cohort.dropouts))
        self.limits = _filled([[threshold(r) for r in each] for each in rates], layers).astype(np.int64)
        self.scales = _filled([[rescale(r) for r in each] for each in rates], layers)
        nothing = torch.zeros(0, 0, dtype=dtype)
        rate, decay, l1, l2, trained = (
            (nothing if line is None else line).numpy()
            for line in (shares.rate, shares.decay, shares.l1, shares.l2, shares.trained)
        )
        limited = [limit.entries.numpy() for limit in shares.limits]
        most = [limit.most.squeeze(1).double().numpy() for limit in shares.limits]
        self.lines = Lines(
            rate, decay, l1, l2, trained,
            np.stack(limited) if limited else np.zeros((0, 0, 0), dtype=bool),
            np.stack(most) if most else np.zeros((0, 0)),
        )  # fmt: skip


def _differing(line: Tensor | None, usual: float, trials: int) -> Bool[np.ndarray, " trials"]:
    return np.zeros(trials, dtype=bool) if line is None else (line != usual).any(1).numpy()


class Turn:
    """Members of a cohort who are about to train their next epochs."""

    def __init__(self, cohort: Cohort, places: Sequence[int], trials: Trials) -> None:
        self.cohort, self.places, self.trials = cohort, places, trials
        self.index = cohort.index(places)
        done, leads = cohort.leads(places)
        self.next = done + 1
        self.group: Group = cohort.group(places, leads)
        self.own = [cohort.members[p] for p in places]
        self.epochs = [self.next + lead for lead in leads]
        self.lengths = [cohort.lengths[p] for p in places]
        # what decides the learning rates of an epoch
        paces = zip([m.trial for m in self.own], self.lengths, self.epochs, strict=True)
        self.paces, self.pace = _numbered(paces)
        self.seeds, self.seed = _numbered(m.seed for m in self.own)

    def members(self) -> np.ndarray:
        """Give what is known of each member, as records of the type `MEMBER`."""
        records = self.trials.records[self.places]
        if self.group.sums is not None:
            records["sums"] = self.group.sums.numpy()
        records["size"] = [self.cohort.pace.size(epoch) for epoch in self.epochs]
        records["seen"] = self.group.batches_before(self.next).numpy()
        records["updates"] = self.cohort.state.step[self.index].numpy()
        records["epoch"], records["factors"], records["labels"] = self.epochs, self.pace, self.seed
        return records

    @cached_property
    def counts(self) -> tuple[Tensor, Tensor]:
        """Count the steps and the batches of each member's epoch."""
        pairs, number = _numbered(zip(self.lengths, self.epochs, strict=True))
        counts = torch.tensor([self.cohort.pace.count(rows, epoch) for rows, epoch in pairs])[number]
        return counts[:, 0], counts[:, 1]

    def chances(self) -> Chances:
        """Give what is drawn for these epochs, and the factors of their learning rates."""
        draws, values = self._labels()
        return Chances(
            self._factors(),
            self.trials.limits[self.places],
            self.trials.scales[self.places],
            self._mix(),
            draws,
            values,
        )

    def _mix(self) -> np.ndarray:
        if not self.group.asks("mixup"):
            return np.zeros((0, 0))
        batches = int(self.counts[1].max())
        return np.ascontiguousarray(self.group.mix_shares(self.next, batches).numpy().T)

    def _labels(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.group.asks("label_noise"):
            return np.zeros((0, 0, 0)), np.zeros((0, 0, 0))
        rows, form, outputs = self.cohort.rows, self.cohort.loss.form, self.cohort.outputs
        count = len(rows.features)
        drawn = self.trials.other_labels
        for seed in set(self.seeds) - set(drawn):  # the same in every epoch
            drawn[seed] = other_labels(seed, rows.targets_of(0), form, outputs)
        tables = [drawn[seed] for seed in self.seeds]
        draws = [
            np.zeros((count, 0)) if t.draw is None else t.draw.numpy().reshape(count, -1) for t in tables
        ]
        return np.stack(draws), np.stack([t.values.double().numpy().reshape(count, -1) for t in tables])

    def _factors(self) -> np.ndarray:
        firsts = torch.tensor(numbers_among(range(len(self.paces)), self.pace))
        state, index = self.cohort.state, self.index[firsts]
        most = int(self.counts[0].max())

        def column(values: Tensor) -> Tensor:
            return values.unsqueeze(1)  # the same in every step

        plateau = state.moments.get("plateau_factor")
        when = When(
            column(state.step[index]) + torch.arange(most),
            column(self.group.total_steps[firsts]),
            column(state.epoch[index]),
            {name: column(values[firsts]) for name, values in self.group.exact.items()},
            None if plateau is None else plateau[index],
        )
        marked = {name: column(owners[firsts]) for name, owners in self.group.schedules.items()}
        return factors(marked, when).numpy()


def part_of(chances: Chances, own: slice) -> Chances:
    """Give the draws of some of the members."""
    mix = chances.mix[own] if len(chances.mix) else chances.mix
    return chances._replace(limits=chances.limits[own], scales=chances.scales[own], mix=mix)


def _numbered(things: Iterable[Thing]) -> tuple[list[Thing], list[int]]:
    """List distinct things in the order in which they come, and say which each is."""
    every = list(things)
    number = {thing: place for place, thing in enumerate(dict.fromkeys(every))}
    return list(number), [number[thing] for thing in every]


def _filled(lines: Sequence[Sequence[float]], width: int) -> np.ndarray:
    out = np.zeros((len(lines), width))
    for line, values in zip(out, lines, strict=True):
        line[: len(values)] = values
    return out
