"""Symptoms that come together, so that a check names what it explains by groups: `EXPLAINS = (*SLOW, "start-loss")`.

A new check that finds a symptom is put into the groups that it belongs to, and is explained by all causes of these. A
check that is in a group itself names what it explains one by one where it must not explain what stands before it.
"""

from __future__ import annotations

POOR = ("plateau", "underfitting")
"""Little was learned, be it slowly, or that more cannot be learned."""

SLOW = (*POOR, "few-steps", "rate-too-low", "uneven-layers")
"""Weights move, and not far enough."""

BLOCKED = (*SLOW, "vanishing-gradients", "dead-units", "overfit-one-batch")
"""Signals or gradients do not come through."""

UNSTEADY = ("exploding-gradients", "non-finite", "half-overflow", "jitter", "saturated-units", "dead-units")
"""Weights are thrown about."""

FITS_TOO_WELL = ("overfitting", "overconfident")
"""More was learned than holds for other rows."""

BREAKS = (
    *UNSTEADY, *POOR, *FITS_TOO_WELL, "rate-too-high", "clipped-always", "start-loss", "overfit-one-batch",
)  # fmt: skip
"""Losses or gradients are too large from the start: whatever follows of that."""

UNSURE = ("overconfident", "within-noise")
"""What scores and probabilities look like when a training did not end well."""
