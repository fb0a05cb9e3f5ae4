"""Checks: one fault each, one file each. A file's docstring is what `foldwise explain` prints; `find` looks for it.

`GROUPS` names them in order of causes: what stands earlier explains what stands later, where both are found at the same
time. A check is added by its file, a line here, its place in the groups of `symptoms.py` if causes explain it, and a
patient with a healthy twin in `benchmarks/faults/`.
"""

GROUPS: dict[str, tuple[str, ...]] = {
    "data": (
        "overlapping-folds",
        "conflicting-labels",
        "repeated-rows",
        "shared-groups",
        "target-leak",
        "missing-codes",
        "shifted-validation",
        "shifted-targets",
        "unlearnable-target",
        "wrong-labels",
        "few-rows",
        "unscaled-inputs",
        "unscaled-targets",
        "constant-columns",
    ),
    "network": (
        "unregistered-layers",
        "unused-layers",
        "no-gradient",
        "mixed-rows",
        "no-activation",
        "equal-weights",
        "softmax-hidden",
        "normalization-of-few-rows",
        "dropout-strong",
        "dropout-before-normalization",
        "frozen-statistics",
        "initial-scale",
        "saturating-activation",
        "vanishing-signal",
        "exploding-signal",
    ),
    "loss": (
        "loss-sign",
        "broadcast-loss",
        "wrong-loss",
        "unbounded-loss",
        "probabilities-as-scores",
        "unreachable-targets",
        "loss-sum",
        "start-loss",
        "overfit-one-batch",
    ),
    "optimizer": (
        "schedule-ends-early",
        "clipped-always",
        "epsilon-dominates",
        "decay-dominates",
        "tiny-batches",
        "rate-too-high",
        "half-overflow",
    ),
    "loop": (
        "stale-parameters",
        "detached-loss",
        "part-without-gradient",
        "missing-step",
        "step-without-backward",
        "cleared-gradients",
        "gradients-not-zeroed",
        "double-step",
        "unheld-parameters",
        "schedule-per-batch",
        "eval-in-training",
        "train-in-evaluation",
    ),
    "training": (
        "exploding-gradients",
        "non-finite",
        "saturated-units",
        "vanishing-gradients",
        "dead-units",
        "few-steps",
        "rate-too-low",
        "uneven-layers",
        "jitter",
        "plateau",
        "underfitting",
        "overfitting",
    ),
    "evaluation": (
        "imbalanced-accuracy",
        "overconfident",
        "looked-too-often",
        "within-noise",
    ),
}
CHECKS: tuple[str, ...] = tuple(code for group in GROUPS.values() for code in group)
SEEMING: tuple[str, ...] = (*GROUPS["training"], *GROUPS["evaluation"])
"""What a training only looks like: such an alarm is believed when a cure helps."""
