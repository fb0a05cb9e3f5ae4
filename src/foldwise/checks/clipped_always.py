"""A clip norm so small that every step is clipped, and training crawls.

Evidence: the share of steps that were clipped, from training itself (in a loop of the user's own: steps before which
the gradient has one and the same norm); and whether the network fell behind the linear model, or hardly moved from its
start.

Why it hurts: plain gradient descent then takes steps of one and the same small length, whatever the slope. Rules that
divide by the size of gradients, such as Adam, undo the clipping, and are not hurt by it.

How sure: likely, when nearly all steps were clipped, training is slow, and steps as long as gradients would have taken
it further; otherwise the rate is too low. Clipping often is no fault by itself.

What to try: a clip norm a hundred times as large, 1, or none.

References: Pascanu, Mikolov & Bengio 2013, *On the difficulty of training recurrent neural networks*; Zhang, He, Sra &
Jadbabaie 2020, *Why gradient clipping accelerates training*.
"""

from __future__ import annotations

import math

import numpy as np

from foldwise.checks.epsilon_dominates import DIVIDES
from foldwise.checks.finding import Finding, Remedy, larger
from foldwise.checks.progress import HARDLY, moved, slow
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE
from foldwise.errors import percent

EXPLAINS = (*SLOW, *UNSURE)
ALWAYS = 0.95  # of the steps
SAME = 1e-3  # of a norm: clipping leaves rounding, batches differ by far more
UNDONE = 10.0  # times ε are entries of gradients by which such a rule divides
SEEN = 8  # steps of a loop that were watched closely


def find(sight: Sight) -> Finding | None:
    """Look for steps that were all clipped, in a training that is slow."""
    if sight.curve is None or sight.curve.diverged:
        return None
    if sight.loop is not None:
        return _in_a_loop(sight, sight.loop.norms)
    known = sight.curve.clipped[np.isfinite(sight.curve.clipped)]
    if not len(known) or known.mean() < ALWAYS or not slow(sight):
        return None
    s = sight.settings
    norm = "" if s is None else f" to a norm of {s.clip_norm:.3g}"
    before = _norm(sight)
    if s is not None and _rate_is_too_low(
        sight, s.clip_norm, before, s.epsilon if s.optimizer in DIVIDES else 0.0
    ):
        return None
    return Finding(
        "clipped-always",
        "likely",
        f"{percent(known.mean())} of the steps were clipped{norm}"
        + ("" if before is None else f"; the gradient has a norm of {before:.2g} at the start")
        + ", and training is slow",
        trials=sight.about,
        remedies=(Remedy("a larger clip norm"),)
        if s is None
        else (
            Remedy("no clipping", {"clip_norm": 0.0}),
            Remedy("clip norm 1", {"clip_norm": 1.0}),
            larger("clip_norm", s.clip_norm, 100),
        ),
    )


def _in_a_loop(sight: Sight, norms: np.ndarray) -> Finding | None:
    if len(norms) < SEEN or not np.isfinite(norms).all():
        return None
    clip = float(np.median(norms))
    share = float((np.abs(norms - clip) < SAME * clip).mean())
    if share < ALWAYS or not slow(sight):
        return None
    before = _norm(sight)
    options = {} if sight.loop is None or not sight.loop.options else sight.loop.options[0]
    if _rate_is_too_low(sight, clip, before, float(options.get("eps", 0.0))):
        return None
    return Finding(
        "clipped-always",
        "likely",
        f"before {percent(share)} of {len(norms)} steps watched closely the gradient has a norm of {clip:.3g}, "
        "as clipping "
        "leaves it"
        + ("" if before is None else f"; it is {before:.2g} at the start")
        + ", and training is slow",
        remedies=(Remedy("a larger clip norm"),),
    )


def _rate_is_too_low(sight: Sight, clip: float, norm: float | None, epsilon: float) -> bool:
    """Tell whether weights would hardly have moved without clipping either: then the rate is to blame.

    `norm` is that of the gradient at the start, `epsilon` that of a rule which divides by the size of gradients, and so
    undoes clipping as long as they are above it; 0 for other rules.
    """
    if norm is None or sight.start is None:
        return False
    entries = sum(math.prod(w.shape) for w in sight.start.weights)
    undone = 0 < epsilon * UNDONE * math.sqrt(entries) < clip
    return moved(sight) * (1.0 if undone else max(1.0, norm / clip)) < HARDLY


def _norm(sight: Sight) -> float | None:
    if sight.start is None:
        return None
    return float(np.sqrt(sum((w.gradient_norm or 0.0) ** 2 for w in sight.start.weights)))
