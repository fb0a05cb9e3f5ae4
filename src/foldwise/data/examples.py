"""Real tables that come with scikit-learn, ready to train on without a download."""

from __future__ import annotations

from typing import Any

import polars as pl

from foldwise.errors import DataError, did_you_mean, listed

EXAMPLES = {
    "digits": "digit",
    "breast_cancer": "diagnosis",
    "diabetes": "progression",
    "wine": "cultivar",
    "iris": "species",
}
NAMED_CLASSES = ("breast_cancer", "wine", "iris")


def load_example(name: str) -> tuple[pl.DataFrame, str]:
    """Load digits, breast_cancer, diabetes, wine or iris; return the table and the name of its target.

    Raises DataError for another name.

    >>> frame, target = load_example("iris")
    >>> frame.shape, target
    ((150, 5), 'species')
    """
    if name not in EXAMPLES:
        raise DataError(
            f"there is no example `{name}`.",
            hint=did_you_mean(name, EXAMPLES) or f"there are {listed(list(EXAMPLES))}",
        )
    bunch = _load(name)
    target = EXAMPLES[name]
    labels = bunch.target_names[bunch.target].tolist() if name in NAMED_CLASSES else bunch.target
    columns = {str(column): bunch.data[:, i] for i, column in enumerate(bunch.feature_names)}
    return pl.DataFrame(columns | {target: labels}), target


def _load(name: str) -> Any:
    from sklearn import datasets  # here: it takes a second to import, and most tables are read from files

    return getattr(datasets, f"load_{name}")()
