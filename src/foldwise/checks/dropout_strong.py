"""Dropout that leaves hardly a unit: training sees noise.

Evidence: the rate of each dropout layer, how many of its units are left on average, and how much the outputs of a
row change from one mask to the next, against how much they differ between rows.

Why it hurts: with one unit of twenty left, scaled by 20, what a row becomes depends on the masks and not on the
row; the network underfits, however long it is trained.

How sure: likely from a rate of 0.9 on, a hint from 0.8.

What to try: a rate between 0 and 0.5.

References: Srivastava et al. 2014, *Dropout: a simple way to prevent neural networks from overfitting* (figure 9:
the error against the rate).
"""

from __future__ import annotations

import torch

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import undisturbed
from foldwise.checks.probe import fewer, forward, plural, rate_of
from foldwise.checks.sight import Network, Sight
from foldwise.checks.symptoms import BLOCKED
from foldwise.errors import percent

EXPLAINS = ("dropout-before-normalization", "jitter", "rate-too-high", *BLOCKED)
STRONG, MUCH = 0.9, 0.8
MASKS = 4


def find(sight: Sight) -> Finding | None:
    """Look for dropout with a rate near 1."""
    if sight.network is None:
        return None
    network = fewer(sight.network)
    rates = {
        own.name: (rate_of(own.layer), own.after.shape[-1])
        for own in forward(network.module, network.inputs).layers
    }
    strong = {name: found for name, found in rates.items() if found[0] >= MUCH}
    if not strong:
        return None
    name = max(strong, key=lambda n: strong[n][0])
    rate, units = strong[name]
    return Finding(
        "dropout-strong",
        "likely" if rate >= STRONG else "hint",
        f"{plural(sight.all_called(strong), 'drops', 'drop')} {percent(rate)} of {units} units, so that "
        f"{units * (1 - rate):.1f} are left; at the start "
        f"masks change the outputs of a row {_noise(network):.1f} times as much as rows differ",
        trials=sight.about,
        where=tuple(strong),
        remedies=_remedies(sight),
    )


@torch.no_grad()
def _noise(network: Network) -> float:
    rest = network.module
    with undisturbed(rest):
        rest.train()
        several = torch.stack([rest(network.inputs) for _ in range(MASKS)]).double()
        rest.eval()
        between = rest(network.inputs).double().std(0).mean()
    return float(several.std(0).mean() / between) if between > 0 else float("inf")


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None or (s.network == "custom" and "dropout" not in s.takes):
        return (Remedy("dropout of 0.1 to 0.5"),)
    return tuple(Remedy(f"dropout {rate:g}", {"dropout": rate}) for rate in (0.1, 0.0))
