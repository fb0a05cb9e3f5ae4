"""Batch normalization over so few rows that means and deviations are noise.

Evidence: how many values the mean of a unit is taken over in a training batch: its rows, times its positions in a
convolution.

Why it hurts: over two rows every unit is −1 or 1, whatever it was; over a few, what a row becomes depends on which
others it is with. Evaluation, with running statistics, sees another network than training. One row has no deviation
at all.

How sure: likely below 5 values, a hint below 9.

What to try: larger batches; layer or group normalization, which look at one row at a time.

References: Ioffe & Szegedy 2015, *Batch normalization*; Wu & He 2018, *Group normalization* (figure 1: errors with
2 to 32 images per batch).
"""

from __future__ import annotations

from torch import nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import Ran, fewer, forward, plural
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR

EXPLAINS = ("tiny-batches", "frozen-statistics", "jitter", "overfit-one-batch", *POOR, *FITS_TOO_WELL)
LEAST, ENOUGH = 5, 9


def find(sight: Sight) -> Finding | None:
    """Look for normalization over few values."""
    if sight.network is None:
        return None
    rows = len(sight.network.inputs) if sight.settings is None else sight.settings.batch_size
    network = fewer(sight.network, 8)
    over = {
        own.name: rows * _positions(own)
        for own in forward(network.module, network.inputs).layers
        if _over_rows(own)
    }
    few = {name: values for name, values in over.items() if values < ENOUGH}
    if not few:
        return None
    values = min(few.values())
    return Finding(
        "normalization-of-few-rows",
        "likely" if values < LEAST else "hint",
        f"{plural(sight.all_called(few), 'takes', 'take')} means and deviations over {values} "
        f"value{'s' * (values > 1)} of a unit in each batch",
        trials=sight.about,
        where=tuple(few),
        remedies=_remedies(sight),
    )


def _over_rows(own: Ran) -> bool:
    norm = nn.modules.batchnorm._BatchNorm  # no public name covers all of them
    return isinstance(own.layer, norm) and not isinstance(own.layer, nn.modules.instancenorm._InstanceNorm)


def _positions(own: Ran) -> int:
    return max(1, own.before.numel() // (own.before.shape[0] * own.before.shape[1]))


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (Remedy("larger batches"), Remedy("layer or group normalization"))
    found = [Remedy("batches of 32 rows", {"batch_size": 32})]
    if s.network != "custom":
        found.append(Remedy("layer normalization", {"normalization": "layer"}))
    return tuple(found)
