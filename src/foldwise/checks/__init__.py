"""Checks: one fault each, one file each. A file's docstring is what `foldwise explain` prints; `find` looks for it.

`CHECKS` names them in order of causes: what stands earlier explains what stands later, where both are found at the
same time. A check is added by its file, a line here, and a patient with a healthy twin in `benchmarks/faults/`.
"""

CHECKS: tuple[str, ...] = (
    # data
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
    "constant-columns",
    # network
    "unregistered-layers",
    "unused-layers",
    "no-gradient",
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
    # loss
    "loss-sign",
    "broadcast-loss",
    "wrong-loss",
    "unbounded-loss",
    "probabilities-as-scores",
    "loss-sum",
    "start-loss",
    "overfit-one-batch",
    # optimizer
    # loop
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
    # training
    "dead-units",
    # evaluation
    "imbalanced-accuracy",
)
