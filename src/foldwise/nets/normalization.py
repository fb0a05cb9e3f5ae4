"""Normalization of hidden units, by name; it stands between a linear layer and its activation."""

from __future__ import annotations

from torch import nn


def normalization(name: str, width: int, groups: int) -> nn.Module | None:
    """Make the layer that normalizes `[batch, width]`; None for `none`.

    batch: each unit over the batch, with running statistics for evaluation (Ioffe & Szegedy 2015); layer: each row
    over its units (Ba et al. 2016); group: each row over each of `groups` groups of neighboring units (Wu & He 2018).

    >>> normalization("group", 8, 4)
    GroupNorm(4, 8, ...)
    """
    if name == "none":
        return None
    if name == "batch":
        return nn.BatchNorm1d(width)
    return nn.GroupNorm(groups, width) if name == "group" else nn.LayerNorm(width)
