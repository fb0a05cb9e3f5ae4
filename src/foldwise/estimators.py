"""The scikit-learn face: a network as an estimator, with one setting or with a search inside."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import numpy as np
import polars as pl
from jaxtyping import Float
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from foldwise.data.missing import Codes, read_codes
from foldwise.data.read import read_table
from foldwise.data.table import Source, Table, open_table
from foldwise.data.target import Task
from foldwise.devices import device_of, dtype_of, engine_called
from foldwise.engine.predict import Refit
from foldwise.errors import FoldwiseError, InputError, SettingsError
from foldwise.fitting import fit as fit_study
from foldwise.judge.metrics import class_scores, natural, probabilities
from foldwise.outcome import combined_outputs, member_outputs, outputs_of
from foldwise.plans.ask import ask_one
from foldwise.plans.defaults import DOZEN, one_setting
from foldwise.plans.ranges import several
from foldwise.plans.search import as_grid
from foldwise.refit import Means, train_on_all
from foldwise.settings import SEARCHED, Settings
from foldwise.study import Study
from foldwise.terminal import Display

BY_THE_ROWS = ("loss", "batch_size", "epochs")
"""The settings whose default depends on task and rows (`plans/defaults.py`); as a parameter it is "auto"."""
NAMED_OTHERWISE = {"alpha": "rmsprop_alpha"}
"""Parameters that are called otherwise than their setting: `alpha` is the strength of a penalty in scikit-learn."""
SEARCH: dict[str, Any] = {
    "search": None,
    "trials": None,
    "sampler": "latin",
    "halving": None,
    "budget": None,
    "places": None,
    "folds": 5,
    "repeats": 1,
    "metric": None,
    "final": "ensemble",
}
"""What is asked of a search, and so of no effect without one."""
OTHERS: dict[str, Any] = {
    "net": None,
    "options": None,
    "links": (),
    "seeds": 1,
    "columns": None,
    "missing": None,
    "random_state": 0,
    "engine": "auto",
    "device": "auto",
    "dtype": "float32",
}


@cache
def setting_defaults() -> Mapping[str, Any]:
    """Give the settings that an estimator takes, with their defaults."""
    chosen = one_setting("regression", 100)
    known = {name: chosen.get(name, Settings.model_fields[name].default) for name in SEARCHED}
    known |= dict.fromkeys(BY_THE_ROWS, "auto")
    return {NAMED_OTHERWISE.get(name, name): value for name, value in known.items()}


def takes(**own: Any) -> Any:
    """Give a class its constructor: all settings, what a search is asked, and parameters of its own.

    scikit-learn reads the names of parameters from the constructor's signature. Written out, every setting and its
    default would stand in a second place.
    """
    defaults = {**setting_defaults(), **OTHERS, **SEARCH, **own}

    def decorate(kind: type) -> type:
        def __init__(self: Any, **parameters: Any) -> None:
            for name in parameters:
                if name not in defaults:
                    raise TypeError(f"{kind.__name__} has no parameter `{name}`.")
            for name, default in defaults.items():
                setattr(self, name, parameters.get(name, default))

        own_self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        named = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=v) for n, v in defaults.items()]
        __init__.__signature__ = inspect.Signature([own_self, *named])  # type: ignore[attr-defined]
        __init__.__doc__ = "Take settings by name; see docs/settings.md."
        kind.__init__ = __init__  # type: ignore[misc]
        return kind

    return decorate


@contextmanager
def in_the_terms_of_scikit_learn() -> Iterator[None]:
    """Raise what is wrong with rows and settings as a ValueError, which is what scikit-learn expects."""
    try:
        yield
    except FoldwiseError as error:
        raise InputError(error.problem, hint=error.hint) from error


class _NetEstimator(BaseEstimator):
    """What both estimators share; see those."""

    study_: Study
    refit_: Refit | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train on all rows or, with a search, on folds of them.

        Args:
            X: `[rows, features]`, numbers (NaN: missing), or a frame of pandas, polars or Arrow with any columns.
            y: `[rows]`, or `[rows, targets]`.
            sample_weight: `[rows]`, how much each row counts; 0 as if it were absent.
            groups: `[rows]`, rows of one group stay in one fold of the search; only with a search.

        Returns:
            The estimator itself.

        Raises:
            ValueError: rows or settings cannot be used; the message says what and where.
        """
        with in_the_terms_of_scikit_learn():
            frame, targets, weights = self._read(X, y, sample_weight)
            if self.search is None:
                self._refuse_useless(groups)
                self._train(frame, targets, weights)
            else:
                self._search(frame, targets, weights, groups)
        return self

    # What is learned, and how

    def _given(self) -> dict[str, Any]:
        """Give the settings that are not their defaults."""
        known = setting_defaults()
        given = {name: _plain(getattr(self, name)) for name in known}
        given = {name: value for name, value in given.items() if value != known[name] and not callable(value)}
        for setting, name in NAMED_OTHERWISE.items():
            if name in given:
                given[setting] = given.pop(name)
        return {**given, **(self.options or {})}

    def one_setting(self, task: Task, rows: int) -> Settings:
        """Give the settings of the network that `fit` trains on so many rows when it does not search."""
        given = self._given()
        given.pop("loss", None)
        loss = None if self.loss == "auto" or given.get("network") == "constant" else self.loss
        if given.get("network") == "constant":
            given["epochs"] = 0
        made = ask_one(task.kind, rows, given, net=self.net, loss=loss, links=self.links)
        useless = {"early_stopping": made.early_stopping, "schedule plateau": made.schedule == "plateau"}
        if asked := [name for name, value in useless.items() if value]:
            raise SettingsError(
                f"`{asked[0]}` needs rows to validate on, and one setting is trained on all of them.",
                hint="leave it out, or give search={…}, which validates on folds",
            )
        return made

    def _refuse_useless(self, groups: Any) -> None:
        useless = [name for name, default in SEARCH.items() if getattr(self, name) != default]
        useless += ["groups"] if groups is not None else []
        if useless:
            raise SettingsError(
                f"`{useless[0]}` has no effect without a search.",
                hint='search={"learning_rate": [0.001, 0.01]}',
            )

    def means(self) -> Means:
        """Say with what it trains beside settings."""
        return Means(
            net=self.net, loss=self.loss if callable(self.loss) else None, links=tuple(self.links),
            device=device_of(self.device), dtype=dtype_of(self.dtype),
            engine=engine_called(self.engine, None, "auto"),
        )  # fmt: skip

    def all_seeds(self) -> list[int]:
        """Give the seeds of its networks."""
        if isinstance(self.seeds, bool) or self.seeds < 1:
            raise SettingsError(f"`seeds` must be at least 1; got {self.seeds}.")
        first = self._seed()
        return [first + n for n in range(self.seeds)]

    def _seed(self) -> int:
        given = self.random_state
        if isinstance(given, int | np.integer):
            return int(given)
        return int(check_random_state(given).randint(2**31 - 1))

    def _train(self, frame: pl.DataFrame, targets: list[str], weights: np.ndarray | None) -> None:
        table = self.open(frame, targets, weights)
        settings = self.one_setting(table.task, len(table.features))
        self.refit_ = train_on_all(table, settings, self.all_seeds(), self.means())
        self.task_, self.column_plan_ = table.task, table.columns
        self.n_iter_ = self.refit_.epochs
        self.__dict__.pop("study_", None)

    def _search(
        self, frame: pl.DataFrame, targets: list[str], weights: np.ndarray | None, groups: Any
    ) -> None:
        if self.final not in ("ensemble", "refit"):
            raise SettingsError(f"`final` is ensemble or refit; got {self.final!r}.")
        asked = {name: getattr(self, name) for name in SEARCH if name not in ("search", "final")}
        named: dict[str, Any] = {}
        if groups is not None:
            check_consistent_length(np.asarray(groups), np.empty(frame.height))
            named["groups"] = "groups" if "groups" not in frame.columns else "groups of rows"
            frame = frame.with_columns(pl.Series(named["groups"], np.asarray(groups)))
        search = self.search
        given = self._given()
        given.pop("loss", None)
        if search == "default":
            if given:
                raise SettingsError(
                    f"`{next(iter(given))}` has no effect on the default search.",
                    hint="search={…}, or leave it out",
                )
            search = None
        else:
            search = [own for grid in as_grid(search).grids for own in self._completed({**given, **grid})]
        study = fit_study(
            frame, target=targets, search=search, net=self.net, loss=None if self.loss == "auto" else self.loss,
            links=self.links, seeds=self.seeds, seed=self._seed(), weights=weights, columns=self.kinds(frame),
            missing=self.codes(frame), engine=self.engine, device=self.device, dtype=self.dtype, display=Display(),
            command=f"{self!r}.fit",
            remedies=False, **asked, **named, **self.learnt(),
        )  # fmt: skip
        self.refit_ = None
        if self.final == "refit":
            self.refit_ = study.refit(self.seeds, device=self.device, engine=self.engine, display=Display())
        study.table = None  # a fitted estimator does not carry its rows along
        self.study_, self.task_, self.column_plan_ = study, study.task, study.columns
        self.n_iter_ = study.results[0].epoch if self.refit_ is None else self.refit_.epochs

    def _completed(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Name the defaults of the estimator, which `foldwise.fit` has not, in a mapping of a search.

        Where they have an effect on some of its networks alone, there is a mapping for each.
        """
        network = values.get("network", "mlp" if self.net is None else "custom")
        kinds = [
            ({"network": n, "depth": d}, self._own_defaults(n, d))
            for n in several(network)
            for d in several(values.get("depth", Settings.model_fields["depth"].default))
        ]
        if all(own == kinds[0][1] for _, own in kinds):
            return [{**kinds[0][1], **values}]
        return [{**own, **values, **{n: v for n, v in kind.items() if n in values}} for kind, own in kinds]

    def _own_defaults(self, network: Any, depth: Any) -> dict[str, Any]:
        """Give the defaults that are not those of `foldwise.fit`, as far as they have an effect on a network."""
        least = getattr(depth, "low", depth)  # of a range
        needed: tuple[str, ...] = ()
        if network == "custom" and self.net is not None:
            parameters = inspect.signature(self.net).parameters
            needed = tuple(
                n for n in DOZEN[0] if n in parameters and parameters[n].default is inspect.Parameter.empty
            )
        try:
            made = Settings.model_validate(
                {**DOZEN[0], "network": network, "depth": least, "takes": needed}, context="stored"
            )
        except ValidationError:  # which is said, and better, where the search is read
            return {}
        has_effect = made.effective()
        return {name: value for name, value in DOZEN[0].items() if name in has_effect}

    def open(self, frame: pl.DataFrame, targets: list[str], weights: np.ndarray | None) -> Table:
        """Plan and encode the rows of a table."""
        return open_table(
            frame,
            targets,
            Source(None, None, "", {}),
            weights=weights,
            columns=self.kinds(frame),
            missing=self.codes(frame),
            **self.learnt(),
        )

    def kinds(self, frame: pl.DataFrame) -> dict[str, Any]:
        """Say what columns hold: those of numbers are numbers here, as everywhere in scikit-learn."""
        features = frame.columns[: self.n_features_in_]
        numbers = {name: "number" for name in features if frame.schema[name].is_numeric()}
        return {**numbers, **(self.columns or {})}

    def codes(self, frame: pl.DataFrame) -> Codes:
        """Say what is read as missing in columns of X; rows to fit may be a part that lacks it, so that is no error."""
        return read_codes(frame[:, : self.n_features_in_], self.missing, lenient=True)

    def learnt(self) -> dict[str, Any]:
        """Say what the targets are."""
        raise NotImplementedError

    # Rows

    def _read(self, X: Any, y: Any, sample_weight: Any) -> tuple[pl.DataFrame, list[str], np.ndarray | None]:
        """Give one frame of features and targets, the names of targets, and weights."""
        if is_frame(X):
            validate_data(self, X, skip_check_array=True)
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y", estimator=self)
            check_consistent_length(np.empty(read_table(X).height), y)
        else:
            X, y = validate_data(
                self,
                X,
                y,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                multi_output=True,
                ensure_min_samples=2,
            )
        y = column_or_1d(y, warn=True) if y.ndim == 1 or y.shape[1] == 1 else y
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, np.empty((len(y), 1)), ensure_non_negative=True)
        frame, targets = self._frame(X), self._targets(y, weights)
        if both := [name for name in targets.columns if name in frame.columns]:
            targets = targets.rename({name: f"target {name}" for name in both})
        return pl.concat([frame, targets], how="horizontal"), targets.columns, weights

    def _frame(self, X: Any) -> pl.DataFrame:
        frame = read_table(X)
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{i}" for i in range(self.n_features_in_)] if names is None else list(names)
        return frame.rename(dict(zip(frame.columns, names, strict=True)))

    def _targets(self, y: np.ndarray, weights: np.ndarray | None) -> pl.DataFrame:
        raise NotImplementedError

    # What it says of new rows

    def features_of(self, X: Any) -> Float[np.ndarray, "rows features"]:
        """Check rows to predict, and encode them."""
        check_is_fitted(self, "task_")
        if is_frame(X):
            validate_data(self, X, skip_check_array=True, reset=False)
        else:
            X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        with in_the_terms_of_scikit_learn():
            return self.column_plan_.encode(self._frame(X))

    def outputs(self, X: Any) -> Float[Tensor, "rows outputs"]:
        """Give what a single network would that says what all networks say together."""
        features = self.features_of(X)
        if self.refit_ is None:
            return combined_outputs(member_outputs(self.study_, features, None, exact=True), self.task_)
        models = self.refit_.models.exact()
        places = [*range(len(models.members))]
        outputs = outputs_of(models, places, self.refit_, features, self.task_, self.net)
        return combined_outputs(outputs, self.task_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def is_frame(X: Any) -> bool:
    """Tell a table with named columns of any type from an array."""
    return not isinstance(X, np.ndarray) and (hasattr(X, "columns") or hasattr(X, "column_names"))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@takes(class_weight=None)
class NetClassifier(ClassifierMixin, _NetEstimator):
    """Classify rows by a network: one class of two or more for each row, or several labels of 0 and 1.

    With one setting it trains `seeds` networks on all rows and averages their probabilities. With a `search` it
    cross-validates (a `foldwise.Study`, in `study_`) and predicts with the winner: with the mean of its fold members,
    or with networks trained anew on all rows (`final="refit"`).

    Args:
        network, width, depth, learning_rate …: every setting of docs/settings.md. Not given, they are those that
            served real tables best (`plans/defaults.py`); `loss`, `batch_size`, `epochs`: "auto" suits task and rows.
        net, options, loss, links: a network of your own with values of its arguments, a loss and links; see the guide.
        search: "default", or settings to try as in `foldwise.fit`; settings given beside it hold for every trial.
        trials, sampler, halving, budget, places, folds, repeats, metric: of the search, as in `foldwise.fit`.
        final: after a search, "ensemble" or "refit".
        seeds: networks of each setting.
        class_weight: "balanced", or what the rows of each class count, 1 where a class is not named.
        columns: kinds of columns by name (number, category, date, drop), where the guess for a frame is wrong.
        missing: what is read as a missing cell of X: values for every column, or a mapping from columns to them.
        random_state: seed of everything random; a whole number gives the same networks each time.
        engine, device, dtype: as in `foldwise.fit`.

    Attributes:
        classes_: the classes, in the order of `predict_proba`; of several labels, their numbers.
        study_: the study, after a search.
        refit_: the networks trained on all rows, where there are some.
        n_iter_: epochs that the networks took.
        n_features_in_, feature_names_in_: number and names of the columns seen in `fit`.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NetClassifier(width=16, epochs=40).fit(X, y)
    >>> model.predict(X[:2]), model.score(X, y) > 0.9
    (array([0, 0]), True)
    """

    def learnt(self) -> dict[str, Any]:
        """Say what the targets are."""
        weights = self.class_weight
        if isinstance(weights, Mapping):
            unknown = [label for label in weights if label not in self.classes_]
            if unknown:
                raise SettingsError(f"`class_weight` names an unknown class, `{unknown[0]}`.")
            named = dict.fromkeys(range(len(self.classes_)), 1.0)
            named |= {i: weights[c] for i, c in enumerate(self.classes_.tolist()) if c in weights}
            weights = {self._written(i): weight for i, weight in named.items()}
        return {"task": self._kind, "class_weights": weights}

    def _written(self, number: int) -> Any:
        return number if self._numbered else self.classes_[number]

    def _targets(self, y: np.ndarray, weights: np.ndarray | None) -> pl.DataFrame:
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            self.classes_, self._kind, self._numbered = np.arange(y.shape[1]), "multilabel", True
            return pl.DataFrame({f"y{i}": column.astype(np.int64) for i, column in enumerate(y.T)})
        if y.ndim > 1:
            raise InputError(
                f"y is {kind}: several targets of several classes.",
                hint="one classifier for each, or 0 and 1",
            )
        self.classes_ = np.unique(y if weights is None else y[weights > 0])
        if len(self.classes_) < 2:
            raise InputError(
                f"y has one class only, `{self.classes_[0]}`: a classifier needs rows of two classes or more."
            )
        self._kind = "binary" if len(self.classes_) == 2 else "multiclass"
        # text and whole numbers are written as they are; other labels by their number, which always has a type
        self._numbered = self.classes_.dtype.kind not in "iuU" and not all(
            type(c) is str for c in self.classes_
        )
        return pl.DataFrame({"y": np.searchsorted(self.classes_, y) if self._numbered else y})

    @property
    def _order(self) -> list[int]:
        """Give the place of each class among the outputs of networks."""
        known = list(self.task_.classes[0])
        return [known.index(self._written(i)) for i in range(len(self.classes_))]

    def encoded(self, y: Any) -> np.ndarray:
        """Write targets as networks learn them: numbers of classes, or labels as 0.0 and 1.0."""
        if self._kind == "multilabel":
            return np.asarray(y, dtype=np.float64)
        return np.array(self._order)[np.searchsorted(self.classes_, np.asarray(y))]

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class of each row, `[rows]`, or labels of 0 and 1, `[rows, labels]`."""
        return self.decided(self.outputs(X))

    def decided(self, outputs: Float[Tensor, "rows outputs"]) -> np.ndarray:
        """Turn outputs into classes."""
        if self._kind == "multilabel":
            return (outputs > 0).long().numpy()
        return self.classes_[class_scores(outputs, self.task_)[:, self._order].argmax(-1).numpy()]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        """Give the probability of each class, or of each label."""
        return self.shares(self.outputs(X))

    def shares(self, outputs: Float[Tensor, "rows outputs"]) -> Float[np.ndarray, "rows classes"]:
        """Turn outputs into probabilities."""
        found = probabilities(outputs.double(), self.task_).numpy()
        return found if self._kind == "multilabel" else found[:, self._order]

    def decision_function(self, X: Any) -> np.ndarray:
        """Give the logarithm of each class's probability, `[rows, classes]`; log-odds of two classes and of labels."""
        return self.scores(self.outputs(X))

    def scores(self, outputs: Float[Tensor, "rows outputs"]) -> np.ndarray:
        """Turn outputs into what `decision_function` gives."""
        outputs = outputs.double()
        if self._kind == "multilabel":
            return outputs.numpy()
        own = class_scores(outputs, self.task_)[:, self._order]
        return (own[:, 1] - own[:, 0] if self._kind == "binary" else own.log_softmax(-1)).numpy()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@takes(log_target=False)
class NetRegressor(RegressorMixin, _NetEstimator):
    """Predict numbers by a network, one or several for each row.

    Parameters and attributes are those of `NetClassifier` without classes, and:

    Args:
        log_target: learn the logarithm of a positive target; None: when that makes it less skewed.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> NetRegressor(network="linear", epochs=20).fit(X, y).predict(X[:3]).shape
    (3,)
    """

    def learnt(self) -> dict[str, Any]:
        """Say what the targets are."""
        return {"task": "regression", "log_target": self.log_target}

    def _targets(self, y: np.ndarray, weights: np.ndarray | None) -> pl.DataFrame:
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        self._flat = y.ndim == 1
        return pl.DataFrame({"y": y} if self._flat else {f"y{i}": column for i, column in enumerate(y.T)})

    def encoded(self, y: Any) -> np.ndarray:
        """Write targets as networks learn them: `[rows, targets]`, the logarithm where it is learned."""
        numbers = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        return np.log(numbers) if self.task_.log else numbers

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of each row, `[rows]`, or several, `[rows, targets]`."""
        return self.decided(self.outputs(X))

    def decided(self, outputs: Float[Tensor, "rows outputs"]) -> np.ndarray:
        """Turn outputs into numbers."""
        found = natural(outputs.double(), self.task_).numpy()
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
