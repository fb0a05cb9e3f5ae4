"""Train every fold, setting and seed of a network at once, and learn whether to believe the result.

The names below are loaded when first used, so that `import foldwise` and `foldwise --help` are instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foldwise.asking import (
        bootstrap,
        capacity,
        label_noise,
        learning_curve,
        leave_one_out,
        permuted_twin,
        seeds,
    )
    from foldwise.checking import check
    from foldwise.engine.links import Link
    from foldwise.errors import FoldwiseError
    from foldwise.estimators import NetClassifier, NetRegressor
    from foldwise.fitting import fit
    from foldwise.gradients import check_gradients
    from foldwise.plans.ranges import LogRange, Range
    from foldwise.plans.search import Grid
    from foldwise.recorded_graph import graph
    from foldwise.resuming import resume
    from foldwise.search_cv import SearchCV
    from foldwise.settings import Settings
    from foldwise.study import Study, load

__version__ = "0.1.0"
__all__ = [
    "FoldwiseError",
    "Grid",
    "Link",
    "LogRange",
    "NetClassifier",
    "NetRegressor",
    "Range",
    "SearchCV",
    "Settings",
    "Study",
    "bootstrap",
    "capacity",
    "check",
    "check_gradients",
    "fit",
    "graph",
    "label_noise",
    "learning_curve",
    "leave_one_out",
    "load",
    "permuted_twin",
    "resume",
    "seeds",
    "watch",
]

_HOMES = {
    "FoldwiseError": "foldwise.errors",
    "Grid": "foldwise.plans.search",
    "Link": "foldwise.engine.links",
    "LogRange": "foldwise.plans.ranges",
    "NetClassifier": "foldwise.estimators",
    "NetRegressor": "foldwise.estimators",
    "Range": "foldwise.plans.ranges",
    "SearchCV": "foldwise.search_cv",
    "Settings": "foldwise.settings",
    "Study": "foldwise.study",
    "check": "foldwise.checking",
    "check_gradients": "foldwise.gradients",
    "fit": "foldwise.fitting",
    "graph": "foldwise.recorded_graph",
    "load": "foldwise.study",
    "resume": "foldwise.resuming",
    "watch": "foldwise.watching.watch",
    **dict.fromkeys(
        ("bootstrap", "capacity", "label_noise", "leave_one_out", "learning_curve", "permuted_twin", "seeds"),
        "foldwise.asking",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
