"""What several checks of training ask: how much was learned, how late, and whether the linear model learned more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy import special

from foldwise.checks.finding import Remedy, larger, smaller
from foldwise.checks.look import Look
from foldwise.checks.probe import mean_loss
from foldwise.checks.sight import Curve, Network, Sight, run
from foldwise.errors import percent
from foldwise.judge.selection import one_sided_p_value
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.settings import Settings

CHANCE = 0.05  # how often a difference between folds may be taken for one where there is none
LITTLE = 0.3  # the same in a loop of which it is known, too, that little was learned
HARDLY = 0.1  # of its norm at the start has a weight matrix moved that hardly has: in good trainings it is 0.2 and more
LATE = 0.25  # of what was learned came in the second half: a loss that falls evenly has 0.5, good trainings up to 0.15


def p_better(sight: Sight, first: Curve, second: Curve) -> float:
    """Give the one-sided p-value of the corrected test that scores of the second are no better than the first's."""
    if sight.folds is None or sight.metric is None or len(first.fold_scores) < 2:
        return 1.0
    mine, other = np.array(first.fold_scores), np.array(second.fold_scores)
    if len(mine) != len(other) or not np.isfinite(other).all():
        return 1.0
    if not np.isfinite(mine).all():
        return 0.0
    return one_sided_p_value(other, mine, sight.folds, higher_is_better=sight.metric.higher_is_better)


def is_baseline(sight: Sight) -> bool:
    """Tell whether the trial that is examined is one of those that every study has for comparison."""
    return sight.settings is not None and sight.settings.network in ("constant", "linear")


def worse_than_linear(sight: Sight, chance: float = CHANCE) -> bool:
    """Tell whether the network's scores are worse than the linear model's beyond what chance makes of them."""
    linear = sight.others.get("linear")
    if linear is None or sight.curve is None or is_baseline(sight):
        return False
    return p_better(sight, sight.curve, linear) < chance


def alike(sight: Sight) -> bool:
    """Tell whether the training loss of the network is the same quantity as that of the linear model."""
    s, table = sight.settings, sight.table
    if s is None or table is None or "linear" not in sight.others:
        return False
    usual = LOSSES_OF_TASK[table.task.kind][0]
    return s.loss == usual and not s.label_smoothing and not s.label_noise and not s.mixup


def fits_worse_than_linear(sight: Sight) -> bool:
    """Tell whether the training loss ends above that of the linear model, which can do less."""
    if not alike(sight) or sight.curve is None or is_baseline(sight):
        return False
    mine, other = (least(c.training) - floor(sight) for c in (sight.curve, sight.others["linear"]))
    return math.isfinite(other) and not mine <= ALIKE * max(other, 0.0)


ALIKE = 1.01  # times a loss is the same


def floor(sight: Sight) -> float:
    """Give the least training loss that outputs can have: of shares of classes their entropy in nats, otherwise 0."""
    table = sight.table
    if table is None or not table.task.soft:
        return 0.0
    return float(np.average(special.entr(table.targets).sum(1), weights=table.weights))


def least(losses: np.ndarray) -> float:
    """Give the lowest loss; ∞ where none is known."""
    known = losses[np.isfinite(losses)]
    return float(known.min()) if len(known) else math.inf


def lags(sight: Sight) -> bool:
    """Tell whether the network falls behind the linear model, on rows that it learned from and on others."""
    return worse_than_linear(sight) and (fits_worse_than_linear(sight) or not alike(sight))


def moved(sight: Sight) -> float:
    """Give how far the weight matrix that moved most is from its start, over its norm then; NaN: not measured."""
    if not sight.looks:
        return math.nan
    far = [w.moved for w in sight.looks[-1].weights if len(w.shape) >= 2 and math.isfinite(w.moved)]
    return max(far, default=math.nan)


def learned_late(curve: Curve) -> float:
    """Give the share of the fall of the training loss that came in the second half of the epochs; NaN: no fall."""
    losses = curve.training
    if len(losses) < 4 or not np.isfinite(losses).all():
        return math.nan
    edge = max(1, len(losses) // 10)  # means of some epochs, because losses of single ones jump
    half = len(losses) // 2
    first = curve.start if math.isfinite(curve.start) else losses[0]
    middle, last = losses[half - 1 : half - 1 + edge].mean(), losses[-edge:].mean()
    return float((middle - last) / (first - last)) if first > last else math.nan


def fell_late(sight: Sight) -> float:
    """Give `learned_late`; in a loop of the user's own that of one batch, which was looked at again and again."""
    if sight.curve is None:
        return math.nan
    if sight.loop is None:
        return learned_late(sight.curve)
    return fell_between(sight, sight.looks[-1].step / 2, sight.looks[-1].step) if sight.looks else math.nan


def fell_between(sight: Sight, since: float, until: float) -> float:
    """Give the share of the fall of the looked-at batch's loss that came between two steps; NaN: no fall."""
    losses = np.array([look.loss for look in sight.looks])
    if len(losses) < 4 or not np.isfinite(losses).all() or not losses[0] > losses[-1]:
        return math.nan
    before, after = np.interp([since, until], [look.step for look in sight.looks], losses)
    return float((before - after) / (losses[0] - losses[-1]))


def knows_little(sight: Sight) -> bool:
    """Tell whether a loop began knowing no more than a constant, and ends with most of the constant's loss left.

    Measured on the batch that is looked at. So little is no wonder where training began from nothing and went on for
    few steps, or slowly; a network that had been trained before knows more.
    """
    if sight.network is None or not sight.looks:
        return False
    constant = best_constant(sight.network)
    first, last = sight.looks[0].loss, sight.looks[-1].loss
    return constant > 0 and first > BEGINS * constant and last > LEAVES * constant


BEGINS, LEAVES = 0.9, 0.5  # times the loss of the best constant


def best_constant(network: Network) -> float:
    """Give the loss of the best outputs that are the same for all rows; NaN where they cannot be found."""
    if network.loss is None or network.targets is None:
        return math.nan
    targets, outputs = network.targets, run(network.module, network.inputs)
    near = targets if targets.is_floating_point() and targets.shape == outputs.shape else outputs
    same = near.mean(0, keepdim=True).detach().requires_grad_()
    search = torch.optim.LBFGS([same], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> float:
        search.zero_grad()
        value = mean_loss(network, same.expand(outputs.shape))
        value.backward()
        return float(value.detach())

    try:
        with torch.enable_grad():
            search.step(loss)
        with torch.no_grad():
            return float(mean_loss(network, same.expand(outputs.shape)))
    except (RuntimeError, ValueError, IndexError):  # a loss refuses outputs, or has no gradient
        return math.nan


def slow(sight: Sight) -> bool:
    """Tell whether training was not finished: weights hardly moved or much was learned late, and linear learned more.

    A loss that still falls evenly at the end is enough where weights have hardly moved.
    """
    if sight.curve is None:
        return False
    late, far = fell_late(sight), moved(sight)
    if sight.loop is not None:
        return far < LITTLE and late > LATE and knows_little(sight)
    if far < HARDLY and (late > LATE or fits_worse_than_linear(sight)):
        return True
    return lags(sight) and not late <= 0


def jumps(losses: np.ndarray, curve: Curve) -> float:
    """Give how much losses jump from epoch to epoch in the second half, over all that training lowered the loss.

    The mean size of second differences, over √6: for independent noise that is about its deviation. A trend has none.
    """
    late = losses[len(losses) // 2 :]
    highest, lowest = max(curve.start, float(np.nanmax(losses, initial=-np.inf))), least(losses)
    if len(late) < 3 or not np.isfinite(late).all() or not highest > lowest:
        return math.nan
    return float(np.abs(np.diff(late, 2)).mean() / math.sqrt(6) / (highest - lowest))


def thrown(sight: Sight) -> list[tuple[float, int]]:
    """Give how far a weight matrix had moved, over its size, and after how many steps: when first seen, and at the end.

    First seen is the first look after the start; the end is that of a training which broke. A matrix that starts
    smaller than is usual counts as if its entries had deviation 1/√fan-in, norm √fan-out: it has to grow.
    """
    found = []
    later = [look for look in sight.looks if look.step > 0]
    if later and sight.start is not None:
        first = {w.name: w.norm for w in sight.start.weights}
        far = [
            w.moved * first[w.name] / max(first[w.name], math.sqrt(w.shape[0]))
            for w in later[0].weights
            if len(w.shape) >= 2 and math.isfinite(w.moved)
        ]
        found.append((max(far, default=math.nan), later[0].step))
    if sight.breakdown is not None:
        found.append((sight.breakdown.moved, sight.breakdown.step))
    return sorted((own for own in found if math.isfinite(own[0])), key=lambda own: own[1])


def percent_or_times(share: float) -> str:
    """Say a share of something's size.

    >>> percent_or_times(0.31), percent_or_times(25.4)
    ('31 % of', '25 times')
    """
    return f"{percent(share)} of" if share < 1.5 else f"{share:.2g} times"


def steps_of(count: int) -> str:
    """Say how many steps.

    >>> steps_of(1), steps_of(20)
    ('1 step', '20 steps')
    """
    return f"{count} step{'' if count == 1 else 's'}"


def gradient_ratio(look: Look) -> float:
    """Give the variance of the gradient at the first activation over that at the last; NaN: fewer than two of them."""
    known = [own.gradient_variance for own in look.activations if math.isfinite(own.gradient_variance)]
    return known[0] / known[-1] if len(known) > 1 and known[-1] > 0 else math.nan


def faster(sight: Sight, times: int) -> Remedy:
    """Offer a learning rate so many times as high, named by its value; in a loop of the user's own by hand."""
    return _of_rate(sight, times, larger, "×")


def slower(sight: Sight, times: int) -> Remedy:
    """Offer a learning rate so many times as low, named by its value; in a loop of the user's own by hand."""
    return _of_rate(sight, times, smaller, "÷")


def _of_rate(sight: Sight, times: int, change: Callable[[str, float, int], Remedy], sign: str) -> Remedy:
    if sight.settings is not None:
        return change("learning_rate", sight.settings.learning_rate, times)
    known = least(-sight.loop.rates) if sight.loop is not None else math.inf  # that of the highest
    return Remedy(
        change("learning_rate", -known, times).what if known < 0 else f"learning rate {sign} {times}"
    )


def that_change(settings: Settings, remedies: Iterable[Remedy]) -> tuple[Remedy, ...]:
    """Leave out remedies that would set what is set already."""
    return tuple(
        r
        for r in remedies
        if r.by_hand or any(getattr(settings, name) != value for name, value in r.settings.items())
    )
