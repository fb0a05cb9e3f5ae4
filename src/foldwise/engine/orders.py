"""In which order a member meets its training rows."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.engine.random import key, permutation


def epoch_order(
    rows: int, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> Int64[Tensor, " rows"]:
    """Permute all rows for one seed and epoch; a fold's order is this one without the rows that it must not see.

    One permutation then serves all folds and settings of a seed, and trials are compared on the same batches.
    """
    return permutation(key(torch.tensor(seed, device=device), "order", epoch), rows)


class RowOrders:
    """Row orders of the present epoch, made once and shared by all stacks."""

    def __init__(self, folds: Folds, device: torch.device) -> None:
        self.train = torch.from_numpy(folds.train).to(device)
        self.epoch = -1
        self.all: dict[int, Tensor] = {}
        self.own: dict[tuple[int, int], Tensor] = {}

    def of(self, epoch: int, seed: int, fold: int) -> Int64[Tensor, " fold_rows"]:
        """Give the order in which members of a seed and fold meet their rows in an epoch."""
        if epoch != self.epoch:
            self.epoch, self.all, self.own = epoch, {}, {}
        if seed not in self.all:
            self.all[seed] = epoch_order(self.train.shape[1], seed, epoch, self.train.device)
        if (seed, fold) not in self.own:
            order = self.all[seed]
            self.own[seed, fold] = order[self.train[fold][order]]
        return self.own[seed, fold]

    def padded(self, epoch: int, streams: list[tuple[int, int]]) -> Int64[Tensor, "streams most"]:
        """Lay the orders of several (seed, fold) side by side; short ones end in zeros that no batch reaches."""
        orders = [self.of(epoch, seed, fold) for seed, fold in streams]
        return torch.nn.utils.rnn.pad_sequence(orders, batch_first=True)
