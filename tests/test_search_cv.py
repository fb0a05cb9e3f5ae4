"""SearchCV finds what GridSearchCV finds over the same estimator, in one job."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import loguniform
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.linear_model import LinearRegression
from sklearn.metrics import make_scorer, mean_pinball_loss, recall_score
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV, ShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foldwise import NetClassifier, NetRegressor, SearchCV

torch.set_num_threads(1)

WHOLE: dict[str, Any] = {"batch_size": 10**6, "dropout": 0.0, "epochs": 8, "depth": 1}
"""Each step takes all rows of a fold, so the order of rows means nothing."""
GRID = {"width": [4, 8], "learning_rate": [0.003, 0.03]}


def assert_equal_results(ours: dict[str, Any], theirs: dict[str, Any], rel: float = 1e-5) -> None:
    assert set(ours) == set(theirs)
    assert ours["params"] == theirs["params"]
    for name, values in theirs.items():
        if name.startswith("param_"):
            assert ours[name].tolist() == values.tolist()
        elif "_time" in name:
            assert np.isfinite(ours[name]).all()
        elif name != "params":
            assert ours[name] == pytest.approx(values, rel=rel, abs=1e-6), name


@pytest.mark.parametrize(
    ("estimator", "load", "more"),
    [
        (NetClassifier(**WHOLE), load_iris, {"cv": 3, "return_train_score": True}),
        (NetClassifier(**WHOLE), load_breast_cancer, {"cv": 2, "scoring": "roc_auc"}),
        (NetClassifier(**WHOLE, seeds=2), load_breast_cancer, {"cv": 2, "scoring": "neg_log_loss"}),
        (NetClassifier(**WHOLE, class_weight="balanced"), load_breast_cancer, {"cv": 2, "scoring": "f1"}),
        (NetRegressor(**WHOLE), load_diabetes, {"cv": ShuffleSplit(3, test_size=0.3, random_state=0)}),
        (
            NetRegressor(**WHOLE, log_target=True),
            load_diabetes,
            {"cv": 2, "scoring": "neg_mean_absolute_percentage_error"},
        ),
    ],
)
def test_scores_are_those_of_grid_search(estimator: Any, load: Any, more: dict[str, Any]) -> None:
    X, y = load(return_X_y=True)
    ours = SearchCV(estimator, GRID, **more).fit(X, y)
    theirs = GridSearchCV(estimator, GRID, **more).fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)
    assert (ours.best_params_, ours.best_index_) == (theirs.best_params_, theirs.best_index_)
    assert ours.n_splits_ == theirs.n_splits_
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


def test_batches_are_alike_where_the_rows_of_a_fold_come_first() -> None:
    # the order of rows is drawn by their places: those of this split have the same places alone
    X, y = load_diabetes(return_X_y=True)
    split = [(np.arange(300), np.arange(300, len(y)))]
    estimator = NetRegressor(epochs=4, depth=1, dropout=0.2, batch_size=32)
    ours = SearchCV(estimator, GRID, cv=split).fit(X, y)
    theirs = GridSearchCV(estimator, GRID, cv=split).fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)


def test_shapes_and_conditional_settings_in_one_job() -> None:
    X, y = load_iris(return_X_y=True)
    grid = [
        {"network": ["linear"], "learning_rate": [0.01, 0.1]},
        {"width": [4], "activation": ["relu", "tanh"], "scaling": ["robust", "standard"], "epochs": [3, 6]},
        {"optimizer": ["sgd"], "momentum": [0.9], "width": [4, 4]},
    ]
    estimator = NetClassifier(
        **{**WHOLE, "depth": 2}
    )  # which is the default, so that a linear network may have it
    ours = SearchCV(estimator, grid, cv=2, scoring="neg_log_loss").fit(X, y)
    theirs = GridSearchCV(estimator, grid, cv=2, scoring="neg_log_loss").fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)


def test_drawn_candidates_are_those_of_randomized_search() -> None:
    X, y = load_iris(return_X_y=True)
    ranges = {"learning_rate": loguniform(1e-3, 1e-1), "width": [2, 4, 8]}
    ours = SearchCV(NetClassifier(**WHOLE), ranges, n_iter=4, cv=2, random_state=0).fit(X, y)
    theirs = RandomizedSearchCV(NetClassifier(**WHOLE), ranges, n_iter=4, cv=2, random_state=0).fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)


def test_several_scorers() -> None:
    X, y = load_iris(return_X_y=True)
    more = {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss", "cv": 2}
    ours = SearchCV(NetClassifier(**WHOLE), GRID, **more).fit(X, y)
    theirs = GridSearchCV(NetClassifier(**WHOLE), GRID, **more).fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)
    assert ours.best_index_ == theirs.best_index_
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-5)
    with pytest.raises(ValueError, match="must name one"):
        SearchCV(NetClassifier(), GRID, scoring=["accuracy"]).fit(X, y)


def test_a_scorer_of_ones_own() -> None:
    X, y = load_iris(return_X_y=True)
    for scorer in (make_scorer(recall_score, average="macro"), lambda e, X, y: (e.predict(X) == y).mean()):
        ours = SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring=scorer).fit(X, y)
        theirs = GridSearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring=scorer).fit(X, y)
        assert_equal_results(ours.cv_results_, theirs.cv_results_)
    with pytest.raises(AttributeError, match="refit_"):
        SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring=lambda e, X, y: e.refit_.epochs).fit(X, y)
    with pytest.raises(ValueError, match="other rows"):
        SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring=lambda e, X, y: e.predict(X[:2]).sum()).fit(X, y)


def test_metrics_of_foldwise() -> None:
    X, y = load_diabetes(return_X_y=True)
    ours = SearchCV(NetRegressor(**WHOLE), GRID, cv=2, scoring=["rmse", "quantile:0.9"], refit="rmse").fit(
        X, y
    )
    pinball = make_scorer(mean_pinball_loss, alpha=0.9, greater_is_better=False)
    scoring = {"rmse": "neg_root_mean_squared_error", "quantile:0.9": pinball}
    theirs = GridSearchCV(NetRegressor(**WHOLE), GRID, cv=2, scoring=scoring, refit="rmse").fit(X, y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)
    X, y = load_breast_cancer(return_X_y=True)
    bits = SearchCV(
        NetClassifier(**WHOLE), GRID, cv=2, scoring=["log_loss_bits", "log_loss"], refit=False
    ).fit(X, y)
    found = bits.cv_results_
    assert found["mean_test_log_loss_bits"] == pytest.approx(found["mean_test_log_loss"] / np.log(2))
    one = SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring="log_loss_bits").fit(X, y)
    assert one.score(X, y) == pytest.approx(SCORE_IN_NATS(one, X, y) / np.log(2))
    with pytest.raises(ValueError, match="not a metric"):
        SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring="quantile:0.5").fit(X, y)


def SCORE_IN_NATS(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    return float(np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean())


def test_weights_and_groups() -> None:
    X, y = load_iris(return_X_y=True)
    random = np.random.default_rng(0)
    weights, groups = random.integers(0, 3, len(y)).astype(float), random.integers(0, 10, len(y))
    given = {"sample_weight": weights, "groups": groups}
    ours = SearchCV(NetClassifier(**WHOLE), GRID, cv=GroupKFold(3)).fit(X, y, **given)
    theirs = GridSearchCV(NetClassifier(**WHOLE), GRID, cv=GroupKFold(3)).fit(X, y, **given)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)
    metric = SearchCV(
        NetClassifier(**WHOLE), GRID, cv=GroupKFold(3), scoring=["log_loss_bits", "log_loss"], refit=False
    )
    found = metric.fit(X, y, **given).cv_results_
    assert found["mean_test_log_loss_bits"] == pytest.approx(found["mean_test_log_loss"] / np.log(2))
    with pytest.warns(UserWarning, match="takes no weights"):
        SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring=lambda e, X, y: 0.0).fit(
            X, y, sample_weight=weights
        )


def test_several_labels() -> None:
    X, Y = make_multilabel_classification(60, n_classes=3, random_state=0)
    ours = SearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring="f1_micro").fit(X, Y)
    theirs = GridSearchCV(NetClassifier(**WHOLE), GRID, cv=2, scoring="f1_micro").fit(X, Y)
    assert_equal_results(ours.cv_results_, theirs.cv_results_)


@pytest.mark.parametrize("form", [pl.DataFrame, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow])
def test_frames(form: Any) -> None:
    X, y = load_iris(return_X_y=True)
    color = np.array(["red", "green"])[y % 2]
    frame = form(pl.DataFrame({f"x{i}": c for i, c in enumerate(X.T)} | {"color": color}))
    search = SearchCV(NetClassifier(**{**WHOLE, "epochs": 40}), GRID, cv=3).fit(frame, y)
    assert search.feature_names_in_.tolist() == ["x0", "x1", "x2", "x3", "color"]
    assert search.best_score_ > 0.9


def test_a_candidate_that_diverges_comes_last() -> None:
    X, y = load_diabetes(return_X_y=True)
    grid = {"learning_rate": [1e30, 0.01], "optimizer": ["sgd"]}
    search = SearchCV(NetRegressor(**WHOLE), grid, cv=2).fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert search.cv_results_["rank_test_score"].tolist() == [2, 1]
    with pytest.raises(ValueError, match="every candidate diverged"):
        SearchCV(NetRegressor(**WHOLE), {**grid, "learning_rate": [1e30]}, cv=2).fit(X, y)


def test_it_is_an_estimator() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    search = SearchCV(NetClassifier(**WHOLE), GRID, cv=2)
    assert is_classifier(search)
    assert clone(search).get_params()["estimator__epochs"] == 8
    pipeline = make_pipeline(StandardScaler(), search)
    assert cross_validate(pipeline, X, y, cv=2)["test_score"].min() > 0.85
    assert not hasattr(SearchCV(NetRegressor(), GRID), "predict_proba")
    fitted = search.fit(X, y)
    assert fitted.classes_.tolist() == [0, 1]
    assert (fitted.decision_function(X) > 0).astype(int).tolist() == fitted.predict(X).tolist()


def test_what_cannot_be_one_job_is_refused() -> None:
    X, y = load_iris(return_X_y=True)
    for estimator, grid, match in (
        (LinearRegression(), GRID, "got LinearRegression"),
        (make_pipeline(StandardScaler(), NetClassifier()), GRID, "last step"),
        (NetClassifier(search={"width": [4]}), GRID, "search of its own"),
        (NetClassifier(), {"seeds": [1, 2]}, "`seeds` is no setting"),
        (NetClassifier(), {"widht": [1, 2]}, "Did you mean `width`"),
        (NetClassifier(), {"schedule": ["plateau"]}, "rows to validate on"),
    ):
        with pytest.raises(ValueError, match=match):
            SearchCV(estimator, grid, cv=2).fit(X, y)
    with pytest.raises(ValueError, match="no scorer `acuracy`"):
        SearchCV(NetClassifier(), GRID, scoring="acuracy").fit(X, y)
    unfitted = SearchCV(NetClassifier(**WHOLE), GRID, cv=2, refit=False).fit(X, y)
    assert unfitted.best_score_ > 0
    with pytest.raises(ValueError, match="no final network"):
        unfitted.predict(X)


def test_the_best_is_chosen_by_a_callable() -> None:
    X, y = load_iris(return_X_y=True)

    def worst(found: dict[str, Any]) -> int:
        return int(found["mean_test_score"].argmin())

    ours, theirs = (
        kind(NetClassifier(**WHOLE), GRID, cv=3, refit=worst).fit(X, y) for kind in (SearchCV, GridSearchCV)
    )
    assert (ours.best_index_, ours.best_params_) == (theirs.best_index_, theirs.best_params_)
    assert ours.best_index_ != ours.cv_results_["rank_test_score"].argmin()
    assert not hasattr(ours, "best_score_")
    assert not hasattr(theirs, "best_score_")
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))
    with pytest.raises(ValueError, match="number of a candidate"):
        SearchCV(NetClassifier(**WHOLE), GRID, cv=3, refit=lambda found: 4).fit(X, y)


def test_columns_of_parameters_have_the_types_of_grid_search() -> None:
    X, y = load_iris(return_X_y=True)
    grid = [
        {"width": [4, 8], "learning_rate": [0.01]},
        {"activation": ["relu", "tanh"], "nesterov": [False], "optimizer": ["sgd"], "width": [4]},
    ]
    ours, theirs = (
        kind(NetClassifier(**{**WHOLE, "epochs": 1}), grid, cv=2).fit(X, y).cv_results_
        for kind in (SearchCV, GridSearchCV)
    )
    for name in (n for n in theirs if n.startswith("param_")):
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].tolist() == theirs[name].tolist()
