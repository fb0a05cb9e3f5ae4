"""A network that is no better than the linear model, or than a constant, beyond what folds differ by.

Evidence: scores fold by fold beside those of the linear model and of the constant, by the corrected test.

Why it hurts: what the network costs buys nothing; and where the linear model beats the constant and the network does
not, it has not learned what is there.

How sure: likely, when the network is no better than the constant while the linear model is; a hint, when neither is.
Where only the linear model is as good, the headline says it, and no hint is needed: with few rows or a linear task this
is how things are.

What to try: the linear model; more rows; repeated folds, which tell smaller differences from chance.

References: Nadeau & Bengio 2003, *Inference for the generalization error*; Grinsztajn, Oyallon & Varoquaux 2022, *Why
do tree-based models still outperform deep learning on typical tabular data?* (networks beside simple models).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import CHANCE, is_baseline, p_better
from foldwise.checks.sight import Sight

EXPLAINS: tuple[str, ...] = ()


def find(sight: Sight) -> Finding | None:
    """Look for a network that is not better than what is simpler."""
    curve, constant, linear = sight.curve, sight.others.get("constant"), sight.others.get("linear")
    if curve is None or constant is None or linear is None or is_baseline(sight) or curve.diverged:
        return None
    s, metric = sight.settings, sight.metric
    if (
        s is not None
        and metric is not None
        and s.loss == "quantile"
        and not metric.name.startswith("quantile")
    ):
        return None  # it learns something else than what it is scored by
    over_linear, over_constant = p_better(sight, linear, curve), p_better(sight, constant, curve)
    if over_linear < CHANCE and over_constant < CHANCE:
        return None
    missed = over_constant >= CHANCE and p_better(sight, constant, linear) < CHANCE
    # two tests of one kind must not both have been near the border: the linear model is to be better than the network
    missed = missed and p_better(sight, curve, linear) < CHANCE
    which = "the constant" if over_constant >= CHANCE else "the linear model"
    p = over_constant if over_constant >= CHANCE else over_linear
    return Finding(
        "within-noise",
        "likely" if missed else "hint",
        f"the network is no better than {which} beyond what folds differ by (p = {p:.2f}, one-sided corrected test)",
        trials=sight.about,
        slight=over_constant < CHANCE,
        remedies=(
            Remedy("the linear model"),
            Remedy("more rows"),
            Remedy("repeated folds", options={"repeats": 5}),
        ),
    )
