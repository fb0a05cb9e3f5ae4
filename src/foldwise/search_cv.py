"""GridSearchCV and RandomizedSearchCV for the estimators of foldwise, as one job: all candidates on all folds."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    clone,
    is_classifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor

from foldwise import collect
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.data.target import Task
from foldwise.engine.predict import Models
from foldwise.errors import InputError, SettingsError, did_you_mean
from foldwise.estimators import (
    SEARCH,
    NetClassifier,
    NetRegressor,
    in_the_terms_of_scikit_learn,
    setting_defaults,
)
from foldwise.job import Job
from foldwise.judge.metrics import Metric, choose_metric, metric_called
from foldwise.outcome import Prepared, combined_outputs, outputs_of
from foldwise.plans.plan import Plan

SCORERS = {
    "accuracy": "accuracy",
    "log_loss": "neg_log_loss",
    "rmse": "neg_root_mean_squared_error",
    "mae": "neg_mean_absolute_error",
}
"""Metrics of foldwise that scikit-learn has too, by the scorer that gives them; losses are negative there."""

Split = tuple[np.ndarray, np.ndarray]


class SearchCV(MetaEstimatorMixin, BaseEstimator):
    """Try settings of a `NetClassifier` or `NetRegressor` by cross-validation, all of them in one job.

    It takes the place of scikit-learn's GridSearchCV and, with `n_iter`, of RandomizedSearchCV: the same candidates
    on the same folds, the same `cv_results_` and `best_…`. Where these fit one network after another, candidates and
    folds are trained together here. As there, a network is scored after its last epoch.

    Scores are those of GridSearchCV up to rounding where each step takes all rows of a fold, but for weights whose
    gradient is nothing but rounding: optimizers that divide by its size, such as adam, make whole steps of it (so with
    the bias of a linear regression at the start, whose targets have mean 0). Where rows come in
    batches, GridSearchCV shuffles the rows of each fold by themselves, and this search all rows once for all folds:
    scores then differ like those of two seeds. What a frame's columns hold is found from all rows here, not fold by
    fold; so are `batch_size` and `epochs` that are "auto", from the mean number of training rows.

    Args:
        estimator: a `NetClassifier` or `NetRegressor` without a search of its own.
        param_grid: lists of settings by name, or a list of such mappings; with `n_iter`, also distributions.
        n_iter: how many candidates to draw; None: all combinations.
        scoring: a scorer of scikit-learn by name, a callable (estimator, X, y), several of them (a list or mapping),
            or a metric of foldwise: accuracy, log_loss, rmse, mae, quantile:0.9 … (where lower is better, its
            negative). A callable sees what was predicted, not a network.
        refit: whether to train the best anew on all rows; with several scorers, the name of that which decides; or
            a callable that gives the index of the best from `cv_results_` (then there is no `best_score_`).
        cv: a number of folds, a splitter, or an iterable of (train, test); as in scikit-learn.
        random_state: of drawing candidates.
        return_train_score: whether training rows are scored too.

    Attributes:
        cv_results_: by candidate: parameters, scores on each split, mean, deviation and rank. Training is one job,
            so `mean_fit_time` is each candidate's share of it.
        best_params_, best_score_, best_index_, best_estimator_: the best, and it trained on all rows.
        n_splits_, scorer_, refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_: as in scikit-learn.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> search = SearchCV(NetClassifier(epochs=20), {"width": [4, 16], "learning_rate": [0.003, 0.03]}, cv=3)
    >>> search.fit(X, y).cv_results_["mean_test_score"].shape
    (4,)
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        n_iter: int | None = None,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        random_state: Any = None,
        return_train_score: bool = False,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.n_iter = n_iter
        self.scoring = scoring
        self.refit = refit
        self.cv = cv
        self.random_state = random_state
        self.return_train_score = return_train_score

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train all candidates on all folds, score them, and train the best on all rows.

        `sample_weight` counts in training, and in those scores that take weights; `groups` are for the splitter.
        Raises ValueError for what cannot be searched.
        """
        with in_the_terms_of_scikit_learn():
            estimator = _checked(self.estimator)
            candidates = self._candidates()
            self.scorer_, self.multimetric_ = self._scorers(estimator)
            deciding = self._deciding()
            splits = list(check_cv(self.cv, y, classifier=is_classifier(estimator)).split(X, y, groups))
            self.n_splits_ = len(splits)
            started = time.perf_counter()
            job = Trained.of(estimator, candidates, splits, X, y, sample_weight)
            seconds = (time.perf_counter() - started) / (len(candidates) * len(splits))
            self.cv_results_ = self._results(candidates, splits, job, (X, y, sample_weight), seconds)
            self.n_features_in_ = job.template.n_features_in_
            if hasattr(job.template, "feature_names_in_"):
                self.feature_names_in_ = job.template.feature_names_in_
        if deciding is not None or callable(self.refit):
            self._choose(deciding, candidates, estimator, X, y, sample_weight)
        return self

    # What is asked

    def _candidates(self) -> list[dict[str, Any]]:
        if self.n_iter is None:
            return list(ParameterGrid(self.param_grid))
        return list(ParameterSampler(self.param_grid, self.n_iter, random_state=self.random_state))

    def _scorers(self, estimator: Any) -> tuple[Any, bool]:
        """Give the scorer, or several by name."""
        several = isinstance(self.scoring, list | tuple | set | Mapping)
        if not several:
            return check_scoring(estimator, _scorer_called(self.scoring)), False
        named = self.scoring if isinstance(self.scoring, Mapping) else {name: name for name in self.scoring}
        return {n: check_scoring(estimator, _scorer_called(s)) for n, s in named.items()}, True

    def _deciding(self) -> str | None:
        """Give the name of the score by which the best is chosen; None when none is."""
        if self.refit is False:
            return None if self.multimetric_ else "score"
        if callable(self.refit):
            return None
        if not self.multimetric_:
            return "score"
        if self.refit not in self.scorer_:
            raise SettingsError(
                "`refit` must name one of several scorers.",
                hint=f"refit={next(iter(self.scorer_))!r}, or refit=False",
            )
        return str(self.refit)

    # What became of it

    def _results(
        self,
        candidates: list[dict[str, Any]],
        splits: list[Split],
        job: Trained,
        given: tuple[Any, Any, Any],
        seconds: float,
    ) -> dict[str, Any]:
        X, y, weights = given
        scorers = self.scorer_ if self.multimetric_ else {"score": self.scorer_}
        weighed = {} if weights is None else {name: _weighs(name, scorer) for name, scorer in scorers.items()}
        parts = ("test", "train") if self.return_train_score else ("test",)
        shape = (len(candidates), len(splits))
        scores = {(part, name): np.full(shape, np.nan) for part in parts for name in scorers}
        took = np.zeros(shape)
        for fold, (train, test) in enumerate(splits):
            for part, rows in zip(parts, (test, train), strict=False):
                for number, said in enumerate(job.foretold(fold, rows, X)):
                    started = time.perf_counter()
                    for name, scorer in scorers.items():
                        own = {"sample_weight": _rows(weights, rows)} if weighed.get(name) else {}
                        scores[part, name][number, fold] = _scored(
                            scorer, said, _rows(X, rows), _rows(y, rows), **own
                        )
                    if part == "test":
                        took[number, fold] = time.perf_counter() - started
        results: dict[str, Any] = {
            "mean_fit_time": np.full(len(candidates), seconds),
            "std_fit_time": np.zeros(len(candidates)),
            "mean_score_time": took.mean(axis=1),
            "std_score_time": took.std(axis=1),
            **_columns_of(candidates),
            "params": candidates,
        }
        for (part, name), found in scores.items():
            mean = found.mean(axis=1)
            results |= {f"split{fold}_{part}_{name}": column for fold, column in enumerate(found.T)}
            results |= {f"mean_{part}_{name}": mean, f"std_{part}_{name}": found.std(axis=1)}
            if part == "test":
                # candidates that diverged have no score and come last
                known = np.where(np.isnan(mean), -np.inf, mean)
                results[f"rank_test_{name}"] = rankdata(-known, method="min").astype(np.int32)
        return results

    def _choose(
        self,
        deciding: str | None,
        candidates: list[dict[str, Any]],
        estimator: Any,
        X: Any,
        y: Any,
        weights: Any,
    ) -> None:
        if deciding is None:
            self.best_index_ = self._chosen_by_the_user(len(candidates))
        else:
            self.best_index_ = int(self.cv_results_[f"rank_test_{deciding}"].argmin())
            self.best_score_ = self.cv_results_[f"mean_test_{deciding}"][self.best_index_]
        self.best_params_ = candidates[self.best_index_]
        if deciding is not None and np.isnan(self.best_score_):
            raise InputError("every candidate diverged.", hint="smaller learning rates")
        if self.refit is False:
            return
        best = clone(estimator).set_params(**clone(self.best_params_, safe=False))
        started = time.perf_counter()
        self.best_estimator_ = best.fit(X, y, sample_weight=weights)
        self.refit_time_ = time.perf_counter() - started

    def _chosen_by_the_user(self, count: int) -> int:
        chosen = self.refit(self.cv_results_)
        if not isinstance(chosen, int | np.integer) or isinstance(chosen, bool) or not 0 <= chosen < count:
            raise InputError(
                f"`refit` must give the number of a candidate, 0 to {count - 1}; got {chosen!r}.",
                hint='refit=lambda found: found["mean_test_score"].argmax()',
            )
        return int(chosen)

    # As the best one

    def _best(self) -> Any:
        check_is_fitted(self, "cv_results_")
        if not hasattr(self, "best_estimator_"):
            raise NotFittedError("this SearchCV trained no final network: it was told refit=False.")
        return self.best_estimator_

    @property
    def classes_(self) -> np.ndarray:
        """The classes."""
        return self._best().classes_

    def predict(self, X: Any) -> np.ndarray:
        """Predict by the best."""
        return self._best().predict(X)

    @available_if(lambda self: is_classifier(self.estimator))
    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        """Give probabilities by the best."""
        return self._best().predict_proba(X)

    @available_if(lambda self: is_classifier(self.estimator))
    def decision_function(self, X: Any) -> np.ndarray:
        """Give scores of classes by the best."""
        return self._best().decision_function(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Score the best, by what it was chosen by."""
        best = self._best()
        scorer = self.scorer_
        if self.multimetric_:
            if callable(self.refit):
                raise InputError(
                    "a callable `refit` names no scorer to score by.",
                    hint="score(best_estimator_, X, y) by one of scorer_",
                )
            scorer = self.scorer_[self.refit]
        return float(scorer(best, X, y))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        own = get_tags(self.estimator)
        tags.estimator_type = own.estimator_type
        tags.classifier_tags, tags.regressor_tags = own.classifier_tags, own.regressor_tags
        tags.target_tags, tags.input_tags = own.target_tags, own.input_tags
        return tags


def _checked(estimator: Any) -> NetClassifier | NetRegressor:
    if not isinstance(estimator, NetClassifier | NetRegressor):
        raise SettingsError(
            f"SearchCV trains NetClassifier and NetRegressor in one job; got {type(estimator).__name__}.",
            hint="scikit-learn's GridSearchCV takes any estimator; in a Pipeline, SearchCV is the last step",
        )
    if asked := [name for name, default in SEARCH.items() if getattr(estimator, name) != default]:
        raise SettingsError(
            f"the estimator has `{asked[0]}`, of a search of its own.",
            hint="leave it out, or fit the estimator itself",
        )
    return estimator


def _scorer_called(scoring: Any) -> Any:
    """Give a scorer as scikit-learn knows it; metrics of foldwise have the same scores there."""
    if not isinstance(scoring, str):
        return scoring
    known = [*SCORERS, *get_scorer_names()]
    if scoring not in SCORERS and (metric := metric_called(scoring)) is not None:
        return MetricScorer(metric)
    if scoring not in known:
        raise SettingsError(f"there is no scorer `{scoring}`.", hint=did_you_mean(scoring, known))
    return SCORERS.get(scoring, scoring)


@dataclass(frozen=True)
class MetricScorer:
    """A metric of foldwise as a scorer; negative where lower is better, because scorers are to be greater."""

    metric: Metric

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score what an estimator says of some rows."""
        task = estimator.task_
        choose_metric(self.metric.name, task)
        targets = torch.tensor(estimator.encoded(y))
        losses = self.metric.per_row(estimator.outputs(X), targets, task).double().numpy()
        score = self.metric.finish(float(np.average(losses, weights=sample_weight)))
        return score if self.metric.higher_is_better else -score


def _weighs(name: str, scorer: Any) -> bool:
    """Tell whether a scorer takes weights, as far as GridSearchCV knows too; warn when it does not."""
    asked = getattr(scorer, "_accept_sample_weight", None)
    takes = bool(asked()) if asked is not None else "sample_weight" in inspect.signature(scorer).parameters
    if not takes:
        warnings.warn(f"the scorer `{name}` takes no weights: its rows count alike.", stacklevel=4)
    return takes


def _scored(scorer: Callable[..., float], said: Foretold | None, X: Any, y: Any, **weights: Any) -> float:
    return np.nan if said is None else float(scorer(said, X, y, **weights))


def _rows(values: Any, rows: np.ndarray) -> Any:
    """Choose rows of an array, a list or a frame of any library."""
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if isinstance(values, pl.DataFrame | pl.Series):
        return values[rows]
    return values.take(rows) if hasattr(values, "column_names") else np.asarray(values)[rows]


def _columns_of(candidates: Sequence[Mapping[str, Any]]) -> dict[str, np.ma.MaskedArray]:
    """Lay parameters out by name, masked where a candidate does not name one."""
    columns = {}
    for name in sorted({name for own in candidates for name in own}):
        given = {number: own[name] for number, own in enumerate(candidates) if name in own}
        values: Any = np.ma.masked_all(len(candidates), dtype=_type_of([*given.values()]))
        for number, value in given.items():
            values[number] = value
        columns[f"param_{name}"] = values
    return columns


def _type_of(values: Sequence[Any]) -> np.dtype:
    """Find the type of a column as scikit-learn does: that of an array of the values; else, and for text, object."""
    try:
        found = np.asarray(values)
    except ValueError:  # sequences of unequal lengths
        return np.dtype(object)
    return found.dtype if found.ndim == 1 and found.dtype.kind not in "SU" else np.dtype(object)


# The job


@dataclass(frozen=True)
class Trained:
    """All candidates trained on all folds."""

    template: NetClassifier | NetRegressor
    job: Job
    stacks: list[Models]
    features: Float[np.ndarray, "rows features"]
    trials: list[int]  # that of each candidate; some may be alike
    diverged: set[int]

    @classmethod
    def of(
        cls,
        estimator: NetClassifier | NetRegressor,
        candidates: list[dict[str, Any]],
        splits: list[Split],
        X: Any,
        y: Any,
        sample_weight: Any,
    ) -> Trained:
        """Train every candidate on the training rows of every split, to its last epoch."""
        for values in candidates:
            _refuse_no_setting(values)
        template = clone(estimator)
        frame, targets, weights = template._read(X, y, sample_weight)
        table = template.open(frame, targets, weights)
        folds = _folds_of(splits, table, frame.height)
        rows = round(float(folds.train.sum(axis=1).mean()))
        settings = [
            clone(estimator).set_params(**values).one_setting(table.task, rows) for values in candidates
        ]
        trials = list(dict.fromkeys(settings))
        means = template.means()
        job = Job(
            table, Plan("search", tuple(trials), len(folds), tuple(template.all_seeds()), keep="last"), folds,
            choose_metric(None, table.task), means.net, means.device, means.dtype, loss=means.loss, links=means.links,
            engine=means.engine,
        )  # fmt: skip
        if not job.train(lambda now: None):
            raise KeyboardInterrupt
        template.task_, template.column_plan_ = table.task, table.columns
        diverged = {c.trial for c in job.field.courses if c.kept_epoch == 0 and c.settings.epochs}
        features = table.columns.encode(frame)
        return cls(
            template, job, collect.models(job), features, [trials.index(s) for s in settings], diverged
        )

    def foretold(self, fold: int, rows: np.ndarray, X: Any) -> list[Foretold | None]:
        """Give what each candidate, trained on a fold, says of some rows; None where it diverged."""
        shared = next(iter(self.job.stacks)).cohort.rows
        prepared = Prepared(shared.constants.to("cpu"), shared.scalings, shared.target_units())
        task = self.job.task
        by_trial: dict[int, Tensor] = {}
        for models in self.stacks:
            exact = models.exact()
            places = [
                p for p, m in enumerate(models.members) if m.fold == fold and m.trial not in self.diverged
            ]
            if not places:
                continue
            said = outputs_of(exact, places, prepared, self.features[rows], task, self.template.net)
            of = np.array([models.members[p].trial for p in places])
            by_trial |= {trial: combined_outputs(said[of == trial], task) for trial in np.unique(of).tolist()}
        return [
            None if trial in self.diverged else foretold(self.template, by_trial[trial])
            for trial in self.trials
        ]


def _refuse_no_setting(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in setting_defaults():
            raise SettingsError(
                f"`{name}` is no setting that networks of one job may differ in.",
                hint=did_you_mean(name, setting_defaults())
                or "scikit-learn's GridSearchCV takes every parameter",
            )


def _folds_of(splits: list[Split], table: Table, rows: int) -> Folds:
    """Divide the rows of a table, from which those of weight 0 were taken out."""
    train = np.zeros((len(splits), rows), dtype=bool)
    for fold, (learnt, _) in enumerate(splits):
        train[fold, learnt] = True
    train = train[:, table.row]
    if not train.any(axis=1).all():
        raise InputError("a split has no training rows.")
    # what is looked at while training is not scored: one row for each fold will do
    looked_at = np.zeros_like(train)
    looked_at[:, 0] = True
    return Folds(train, looked_at, "splits of scikit-learn")


# What a network said, in the place of the network


class Foretold(BaseEstimator):
    """Answers with what was predicted, whichever rows it is asked about; for scorers, which ask about those rows."""

    def __init__(self, template: Any = None, said: Tensor | None = None) -> None:
        self.template = template
        self.said = said

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def task_(self) -> Task:
        """What is learned."""
        return self.template.task_

    def encoded(self, y: Any) -> np.ndarray:
        """Write targets as networks learn them."""
        return self.template.encoded(y)

    def outputs(self, X: Any) -> Tensor:
        """Give what networks said."""
        if self.said is None or _num_samples(X) != len(self.said):
            raise InputError(
                "this scorer asks about other rows than those of its split.", hint="GridSearchCV"
            )
        return self.said

    def predict(self, X: Any) -> np.ndarray:
        """Give what was predicted."""
        return self.template.decided(self.outputs(X))


class _ForetoldClasses(ClassifierMixin, Foretold):
    @property
    def classes_(self) -> np.ndarray:
        return self.template.classes_

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.template.shares(self.outputs(X))

    def decision_function(self, X: Any) -> np.ndarray:
        return self.template.scores(self.outputs(X))


class _ForetoldNumbers(RegressorMixin, Foretold):
    pass


def foretold(template: NetClassifier | NetRegressor, said: Tensor) -> Foretold:
    """Make what stands in the place of a network that said this."""
    kind = _ForetoldClasses if is_classifier(template) else _ForetoldNumbers
    return kind(template, said)
