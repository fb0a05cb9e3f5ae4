"""Questions about a trained setting, each a plan of its own: one call, one job, one picture.

A question is a file here whose function `answer` takes a `Subject` and its options, and a line in the list below.
"""

QUESTIONS = (
    "learning_curve",
    "seeds",
    "leave_one_out",
    "capacity",
    "permuted_twin",
    "label_noise",
    "bootstrap",
)
"""The questions, each the name of its file."""
