"""A winner that owes much of its score to having been chosen among many.

Evidence: the winner's score, and what is left of it when the choice is repeated on resamples of the rows and scored on
the rows left out, beside the interval; how many trials were searched.

Why it hurts: of many scores that differ by chance the best is the luckiest, and the luck does not come back.

How sure: a hint: the headline is corrected for it already, and only the leaderboard must not be taken at its word.

What to try: fewer trials; nested validation; repeated folds; more rows.

References: Cawley & Talbot 2010, *On over-fitting in model selection and subsequent selection bias in
performance evaluation*; Tsamardinos, Greasidou & Borboudakis 2018, *Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation*.
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sight import Sight

EXPLAINS: tuple[str, ...] = ()
OF_INTERVAL = 0.2  # of its width: less is not worth a word beside the interval
TRIALS = 20  # fewer are no search that anybody would call long


def find(sight: Sight) -> Finding | None:
    """Look for luck that is large beside the interval."""
    if sight.optimism is None or sight.trials < TRIALS:
        return None
    luck, width = sight.optimism
    if not luck > OF_INTERVAL * width > 0:
        return None
    return Finding(
        "looked-too-often",
        "hint",
        f"the best of {sight.trials} trials looks better by {luck:.2g} than it is, because it was chosen; its interval "
        f"is {width:.2g} wide",
        trials=sight.about,
        remedies=(
            Remedy("nested validation", options={"nested": 5}),
            Remedy("repeated folds", options={"repeats": 5}),
            Remedy("fewer trials"),
        ),
    )
