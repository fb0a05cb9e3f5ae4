"""check(): what can be found before anything is trained."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from foldwise.checks.finding import Findings
from foldwise.checks.order import findings_of, warn_of
from foldwise.errors import SettingsError, did_you_mean
from foldwise.examine import sight_before
from foldwise.fitting import fit, job_of
from foldwise.nets.build import Net
from foldwise.terminal import Display

LATER = (
    "out",
    "overwrite",
    "checkpoint",
    "checks",
    "remedies",
    "display",
    "command",
)  # of `fit`: no use here


def check(data: Any = None, y: Any = None, *, net: Net | None = None, **given: Any) -> Findings:
    """Look for faults of the data, the folds, and the network and its loss at the start; trains nothing.

    Args:
        data: a table, as `fit` takes it.
        y: the targets of an array, as `fit` takes them.
        net: a network of your own, as `fit` takes it.
        given: arguments of `fit` that say what would be trained: target, search, folds, groups, loss …; of several
            trials the first is looked at.

    Returns:
        What was found, causes first; those with `alarm` say that something is wrong.

    Raises:
        FoldwiseError: what `fit` refuses.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> y = x[:, 0] + np.random.default_rng(1).normal(size=60)
    >>> [finding.code for finding in check(x, y, folds=3) if finding.alarm]
    []
    """
    known = [n for n in inspect.signature(fit).parameters if n not in LATER]
    for name in given:
        if name not in known:
            raise SettingsError(
                f"`check` takes no `{name}`.", hint=did_you_mean(name, known) or "it takes what `fit` takes"
            )
    defaults = {name: p.default for name, p in inspect.signature(fit).parameters.items()}
    defaults["engine"] = (
        "stacked"  # which trains nothing here, and starts sooner than the one that is compiled
    )
    job = job_of(SimpleNamespace(**{**defaults, **given, "data": data, "y": y, "net": net}), Display())
    found = findings_of(sight_before(job), broken=warn_of)
    return Findings(replace(finding, trials=()) for finding in found)
