"""Checks: one fault each, one file each. A file's docstring is what `foldwise explain` prints; `find` looks for it.

`CHECKS` names them in order of causes: what stands earlier explains what stands later, where both are found at the
same time. A check is added by its file, a line here, and a patient with a healthy twin in `benchmarks/faults/`.
"""

CHECKS: tuple[str, ...] = (
    # data
    "constant-columns",
    # network
    # loss
    # optimizer
    "schedule-ends-early",
    "clipped-always",
    "epsilon-dominates",
    "decay-dominates",
    "tiny-batches",
    "rate-too-high",
    "half-overflow",
    # loop
    # training
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
    # evaluation
    "overconfident",
    "looked-too-often",
    "within-noise",
)
