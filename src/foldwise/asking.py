"""Questions asked of a table: the study is trained first, then its trial is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from foldwise.errors import SettingsError
from foldwise.fitting import fit
from foldwise.plans.defaults import baselines
from foldwise.study import Study


def ask_table(question: str, data: Any = None, y: Any = None, *, settings: Any = None, **given: Any) -> Any:
    """Fit a table with settings and ask a question about them; gives the `Answer`.

    Args:
        question: its name.
        data: a table, as `fit` takes it.
        y: the targets of an array, as `fit` takes them.
        settings: what is asked about, as `fit` takes a search; with several trials, the winner is asked about.
        given: options of the question, and arguments of `fit` for all that is not one.

    Raises:
        FoldwiseError: what `fit` or the question refuses.

    >>> small = {"network": "mlp", "width": 4, "epochs": 2}
    >>> ask_table("seeds", example="iris", settings=small, folds=3, seeds=2).table["seed"].to_list()
    [0, 1]
    """
    ours = {name: value for name, value in given.items() if name not in inspect.signature(fit).parameters}
    ours |= {name: given[name] for name in SHARED.get(question, ()) if name in given}
    theirs = {"checks": False, **{name: value for name, value in given.items() if name not in ours}}
    study = fit(data, y, search=settings, **theirs)
    again = None if data is None else data if y is None else (data, y)
    return study.ask(question, _asked(study) if settings is not None else None, again, **ours)


SHARED = {
    "learning_curve": ("seeds", "repeats"),
    "seeds": ("seeds",),
    "leave_one_out": ("seeds",),
    "label_noise": ("seeds",),
    "permuted_twin": ("trials",),
}
"""Arguments that a question and `fit` both have; they go to the question."""


def _asked(study: Study) -> int | None:
    """Give the trial that was asked for, when it is one; None, the winner, when there are several."""
    first = len(baselines())
    own = range(first + 1, len(study.plan.trials) + 1)
    if not own:
        raise SettingsError(
            "these settings are those of a baseline.", hint="fit a study, and ask it with trial="
        )
    return own[0] if len(own) == 1 else None


def _about(question: str) -> Callable[..., Any]:
    def asked(data: Any = None, y: Any = None, *, settings: Any = None, **given: Any) -> Any:
        return ask_table(question, data, y, settings=settings, **given)

    asked.__name__ = asked.__qualname__ = question
    asked.__doc__ = (
        f"Fit a table and ask `{question}` about the settings: see `ask_table`, and `Study.{question}`."
    )
    return asked


learning_curve = _about("learning_curve")
seeds = _about("seeds")
leave_one_out = _about("leave_one_out")
capacity = _about("capacity")
permuted_twin = _about("permuted_twin")
label_noise = _about("label_noise")
bootstrap = _about("bootstrap")
