"""The estimators keep what scikit-learn promises of any estimator, and learn what `fit` learns."""

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import foldwise
from foldwise import NetClassifier, NetRegressor
from foldwise.data.folds import Folds
from foldwise.data.table import Source, open_table
from foldwise.estimators import setting_defaults
from foldwise.plans.ask import ask_one
from foldwise.plans.defaults import one_setting
from foldwise.plans.plan import Member
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone
from foldwise.settings import SEARCHED

torch.set_num_threads(1)

SMALL: dict[str, Any] = {"width": 8, "depth": 1, "epochs": 5}
WHOLE: dict[str, Any] = {"batch_size": 10**6, "dropout": 0.0, "epochs": 20, "dtype": "float64"}
"""Settings under which a row of weight 2 is a row that is there twice: each step takes all rows, and draws nothing."""
BY_BATCHES = {
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn from the rows that are there, and a row that "
    "is there twice may be in two of them; equal where each step takes all rows (WHOLE, which passes)"
}
CHECKED = [
    pytest.param(NetClassifier(), BY_BATCHES, id="classifier", marks=pytest.mark.slow),
    pytest.param(NetRegressor(), BY_BATCHES, id="regressor", marks=pytest.mark.slow),
    pytest.param(NetClassifier(**WHOLE), {}, id="classifier, whole batches"),
    pytest.param(NetRegressor(**WHOLE), {}, id="regressor, whole batches"),
]


@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings
@pytest.mark.parametrize(("estimator", "expected"), CHECKED)
def test_check_estimator(estimator: Any, expected: dict[str, str]) -> None:
    results = check_estimator(estimator, expected_failed_checks=expected, on_skip=None)
    by_status = {s: {r["check_name"] for r in results if r["status"] == s} for s in ("xfail", "skipped")}
    assert by_status["xfail"] == {*expected}
    assert by_status["skipped"] <= {"check_array_api_input"}  # which needs an environment variable


# Parameters


def test_every_setting_is_a_parameter() -> None:
    names = {*NetClassifier().get_params()}
    assert {n for n in SEARCHED if n != "alpha"} | {"rmsprop_alpha", "class_weight"} <= names
    assert "class_weight" not in NetRegressor().get_params()


def test_defaults_are_those_of_plans() -> None:
    chosen = one_setting("binary", 1000)
    defaults = setting_defaults()
    assert all(defaults[n] in (value, "auto") for n, value in chosen.items())
    estimator, table = NetClassifier(), open_table(*_frame(load_breast_cancer), task="binary")
    made = estimator.one_setting(table.task, 569)
    assert made == ask_one("binary", 569, {})
    assert (made.epochs, made.batch_size) == (one_setting("binary", 569)["epochs"], 32)


def _frame(load: Callable[..., Any]) -> tuple[pl.DataFrame, list[str], Source]:
    X, y = load(return_X_y=True)
    return pl.DataFrame({f"x{i}": c for i, c in enumerate(X.T)} | {"y": y}), ["y"], Source(None, None, "", {})


def test_parameters_are_set_got_and_cloned() -> None:
    estimator = NetClassifier(width=5, rmsprop_alpha=0.9, optimizer="rmsprop")
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(width=6).width == 6
    table = open_table(*_frame(load_breast_cancer), task="binary")
    assert estimator.one_setting(table.task, 569).alpha == 0.9
    with pytest.raises(TypeError, match="no parameter `widht`"):
        NetClassifier(widht=5)
    with pytest.raises(ValueError, match="Invalid parameter 'widht'"):
        estimator.set_params(widht=5)
    assert repr(estimator) == "NetClassifier(optimizer='rmsprop', rmsprop_alpha=0.9, width=6)"


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"width": 0}, "width"),
        ({"momentum": 0.9}, "`momentum` has no effect with optimizer adamw"),
        ({"early_stopping": 3}, "needs rows to validate on"),
        ({"schedule": "plateau"}, "needs rows to validate on"),
        ({"trials": 3}, "`trials` has no effect without a search"),
        ({"final": "refit"}, "`final` has no effect without a search"),
        ({"seeds": 0}, "`seeds` must be at least 1"),
        ({"engine": "cuda"}, "there is no engine"),
        ({"loss": "squared_error"}, "is not for a multiclass target"),
        ({"class_weight": {7: 2}}, "unknown class, `7`"),
        ({"search": {"width": [4]}, "final": "best"}, "`final` is ensemble or refit"),
        ({"search": "default", "width": 4}, "`width` has no effect on the default search"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], match: str) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=match):
        NetClassifier(**{"epochs": 3, **given} if "search" not in given else given).fit(X, y)


def test_rows_that_cannot_be_used_are_refused() -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        NetClassifier().fit(csr_matrix(X), y)
    with pytest.raises(ValueError, match="one class only"):
        NetClassifier().fit(X, 0 * y)
    with pytest.raises(ValueError, match="groups"):
        NetClassifier().fit(X, y, groups=y)
    with pytest.raises(ValueError, match="multiclass-multioutput"):
        NetClassifier().fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="diverged"):
        NetClassifier(**SMALL, learning_rate=1e30, optimizer="sgd").fit(X, y)


# What is learned


def test_it_trains_what_the_reference_trains() -> None:
    X, y = load_diabetes(return_X_y=True)
    own = {"width": 6, "depth": 1, "epochs": 4, "dropout": 0.2}
    model = NetRegressor(**own, dtype="float64", random_state=3).fit(X, y)
    settings = ask_one("regression", len(X), own)
    every = np.ones(len(X), dtype=bool)
    numbers = np.ones(X.shape[1], dtype=bool)
    data = prepare_fold(
        X, y[:, None], every, every, numbers, settings.scaling, True, torch.float64, np.ones(len(X)), None
    )
    start = _start(settings, X, y)
    for _ in train_alone(Member(0, 0, 3, settings), start, data, Own(_form("squared_error"), None, (), [])):
        pass
    outputs = outputs_of(start, data).detach().numpy()[:, 0]
    assert model.predict(X) == pytest.approx(outputs * y.std() + y.mean(), rel=1e-8)


def _form(loss: str) -> Any:
    from foldwise.engine.losses import LOSSES

    return LOSSES[loss].form


def _start(settings: Any, X: np.ndarray, y: np.ndarray) -> torch.nn.Module:
    from foldwise.data.prepare import learn_preparation, learn_target_scale
    from foldwise.engine.members import Nursery
    from foldwise.engine.rows import place_rows

    every, ones = np.ones((1, len(X)), dtype=bool), np.ones(len(X))
    folds = Folds(every, every, "")
    preparation = learn_preparation(X, every, np.ones(X.shape[1], dtype=bool), settings.scaling, ones)
    rows = place_rows(
        X, y[:, None], folds, {settings.scaling: preparation}, learn_target_scale(y[:, None], every, ones),
        device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip
    return Nursery(rows, {settings.loss: 1}).start(Member(0, 0, 3, settings))


def test_seeds_are_averaged() -> None:
    X, y = load_iris(return_X_y=True)
    both = NetClassifier(**SMALL, seeds=2, random_state=5).fit(X, y).predict_proba(X)
    each = [NetClassifier(**SMALL, random_state=s).fit(X, y).predict_proba(X) for s in (5, 6)]
    assert both == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert not np.allclose(each[0], each[1])


def test_random_state() -> None:
    X, y = load_iris(return_X_y=True)

    def of(state: Any) -> np.ndarray:
        return NetClassifier(**SMALL, random_state=state).fit(X, y).predict_proba(X)

    assert np.array_equal(of(1), of(1))
    assert np.array_equal(of(np.random.RandomState(1)), of(np.random.RandomState(1)))
    assert not np.array_equal(of(1), of(2))
    assert not np.array_equal(of(None), of(None))


def test_weights_mean_rows() -> None:
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:60], y[:60]
    times = np.random.default_rng(0).integers(0, 3, len(y))
    weighted = NetRegressor(**WHOLE).fit(X, y, sample_weight=times)
    repeated = NetRegressor(**WHOLE).fit(X.repeat(times, axis=0), y.repeat(times))
    assert weighted.predict(X) == pytest.approx(repeated.predict(X), rel=1e-7)
    assert weighted.score(X, y, sample_weight=times) == pytest.approx(
        repeated.score(X.repeat(times, axis=0), y.repeat(times))
    )


@pytest.mark.parametrize("labels", [["a", "b", "c"], [3, 10, 2], [0.0, 1.0, -1.0]])
def test_labels_of_any_kind(labels: list[Any]) -> None:
    X, y = load_iris(return_X_y=True)
    named = np.array(labels)[y]
    model = NetClassifier(**{**SMALL, "epochs": 40}).fit(X, named)
    assert model.classes_.tolist() == sorted(labels)
    assert model.score(X, named) > 0.9
    shares = model.predict_proba(X)
    assert (model.classes_[shares.argmax(1)] == model.predict(X)).all()
    assert model.decision_function(X) == pytest.approx(np.log(shares), abs=1e-9)


def test_class_weights() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    plain = NetClassifier(**SMALL).fit(X, y)
    rare = NetClassifier(**SMALL, class_weight={0: 50}).fit(X, y)
    assert rare.predict(X).mean() < plain.predict(X).mean()
    whole = NetClassifier(**SMALL, class_weight={0: 50, 1: 1}).fit(X, y)
    assert np.array_equal(rare.predict_proba(X), whole.predict_proba(X))
    balanced = NetClassifier(**SMALL, class_weight="balanced").fit(X, y)
    share = len(y) / (2 * np.bincount(y))
    written = NetClassifier(**SMALL, class_weight=dict(enumerate(share.tolist()))).fit(X, y)
    assert balanced.predict_proba(X) == pytest.approx(written.predict_proba(X), abs=1e-5)


def test_several_labels_and_several_targets() -> None:
    X, Y = make_multilabel_classification(80, n_classes=3, random_state=0)
    model = NetClassifier(**{**SMALL, "epochs": 30}).fit(X, Y)
    assert model.predict(X).shape == model.predict_proba(X).shape == (80, 3)
    assert ((model.predict_proba(X) > 0.5) == model.predict(X)).all()
    assert (model.predict(X) == Y).mean() > 0.8
    X, y = load_diabetes(return_X_y=True)
    both = np.stack([y, -2 * y], axis=1)
    two = NetRegressor(**{**SMALL, "epochs": 30}).fit(X, both)
    assert two.predict(X).shape == both.shape
    assert two.score(X, both) > 0.3


def test_log_target() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = NetRegressor(**SMALL, log_target=True).fit(X, y)
    by_hand = NetRegressor(**SMALL).fit(X, np.log(y))
    assert model.predict(X) == pytest.approx(np.exp(by_hand.predict(X)), rel=1e-5)


# Frames


def _table(rows: int = 90) -> pl.DataFrame:
    random = np.random.default_rng(0)
    size = random.normal(size=rows)
    color = random.choice(["red", "green", "blue"], rows)
    gaps = [None if i % 9 == 0 else s for i, s in enumerate(size.tolist())]
    return pl.DataFrame(
        {"size": gaps, "color": color, "id": np.arange(rows), "ill": size + (color == "red") > 0.3}
    )


@pytest.mark.parametrize("form", [pl.DataFrame, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow])
def test_frames_of_any_library(form: Any) -> None:
    table = _table()
    X, y = form(table.drop("ill")), table["ill"].to_numpy()
    model = NetClassifier(**{**SMALL, "epochs": 40}).fit(X, y)
    assert model.n_features_in_ == 3
    assert model.score(X, y) > 0.8
    inputs = [f.name for f in model.column_plan_.features]
    assert inputs == [
        "size",
        "size is missing",
        *[f"color = {c}" for c in model.column_plan_.columns[1].levels],
        "id",
    ]


def test_names_of_columns_are_checked() -> None:
    table = _table().to_pandas()
    X, y = table.drop(columns="ill"), table["ill"]
    model = NetClassifier(**SMALL, columns={"id": "drop"}).fit(X, y)
    assert model.feature_names_in_.tolist() == ["size", "color", "id"]
    assert "id" not in [f.column for f in model.column_plan_.features]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[["id", "size", "color"]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"size": "Size"}))


def test_a_frame_of_numbers_is_an_array() -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    framed, plain = NetRegressor(**SMALL).fit(X, y), NetRegressor(**SMALL).fit(X.to_numpy(), y.to_numpy())
    assert np.array_equal(framed.predict(X), plain.predict(X.to_numpy()))


def test_constant_and_empty_columns_do_no_harm() -> None:
    X, y = load_diabetes(return_X_y=True)
    more = np.column_stack([X, np.ones(len(X)), np.full(len(X), np.nan)])
    assert NetRegressor(**SMALL).fit(more, y).predict(more).shape == y.shape


# A search inside


@pytest.fixture(scope="module")
def searched() -> NetClassifier:
    X, y = load_iris(return_X_y=True)
    return NetClassifier(search={"width": [4, 8]}, folds=3, random_state=1, epochs=10).fit(X, y)


def test_a_search_is_a_study(searched: NetClassifier) -> None:
    X, y = load_iris(return_X_y=True)
    # what the estimator is by itself, and foldwise.fit is not
    own = {"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.03, "scaling": "standard"}
    study = foldwise.fit(X, y, search={"width": [4, 8], "epochs": 10, **own}, folds=3, seed=1)
    assert searched.study_.leaderboard.equals(study.leaderboard)
    assert searched.n_iter_ == study.results[0].epoch
    shares = study.predict(X, calibrated=False).select("^probability.*$").to_numpy()
    assert searched.predict_proba(X) == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "search"),
    [
        ({"learning_rate": 0.01}, {"width": [4, 8]}),
        ({"dropout": 0.1}, {"network": ["linear", "mlp"], "learning_rate": [0.02]}),
        ({"depth": 0}, {"learning_rate": [0.02, 0.03]}),
    ],
)
def test_settings_hold_in_a_search_also_where_they_are_defaults(given: Any, search: Any) -> None:
    X, y = load_iris(return_X_y=True)
    model = NetClassifier(**{"epochs": 2, **given}, search=search, folds=2).fit(X, y)
    for network in search.get("network", ["mlp"]):
        own = [r.settings for r in model.study_.results if r.settings.network == network]
        own = [s for s in own if s.epochs == 2 and s.learning_rate in search.get("learning_rate", [0.01])]
        alone = (
            NetClassifier(epochs=2, network=network, **given)
            if network == "mlp"
            else NetClassifier(network=network)
        )
        expected = alone.one_setting(model.task_, len(X)).effective()
        assert own
        for s in own:
            for name in {"learning_rate", "dropout", "weight_decay", "scaling"} - {*search}:
                assert s.effective().get(name) == expected.get(name), name


def test_a_search_ends_in_a_refit() -> None:
    X, y = load_iris(return_X_y=True)
    model = NetClassifier(search={"width": [4, 8]}, folds=3, epochs=10, final="refit", seeds=2).fit(X, y)
    assert model.refit_.rows == len(X)
    assert len(model.refit_.models.members) == 2
    assert model.score(X, y) > 0.8


def test_groups_stay_together() -> None:
    X, y = load_iris(return_X_y=True)
    groups = np.arange(len(y)) // 5
    model = NetClassifier(search={"width": [4]}, folds=3, epochs=3).fit(X, y, groups=groups)
    assert model.n_features_in_ == 4
    assert len(model.column_plan_.features) == 4
    for validation in model.study_.folds.validation:
        assert not {*groups[validation]} & {*groups[~validation]}


# In the company of scikit-learn


def test_pickled_and_joblib(searched: NetClassifier, tmp_path: Any) -> None:
    X, y = load_iris(return_X_y=True)
    for model in (searched, NetClassifier(**SMALL).fit(X, y)):
        joblib.dump(model, tmp_path / "model")
        for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):  # noqa: S301
            assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert pickle.loads(pickle.dumps(searched)).study_.metric == searched.study_.metric  # noqa: S301


def test_pipeline_and_cross_validation() -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), NetClassifier(**SMALL))
    scores = cross_validate(pipeline, X, y, cv=3, scoring=["accuracy", "neg_log_loss", "roc_auc"])
    assert scores["test_accuracy"].min() > 0.85
    by_hand = cross_val_predict(NetClassifier(**SMALL), X, y, cv=3, method="predict_proba")
    assert by_hand.shape == (len(y), 2)


def test_grid_search_and_calibration() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    search = GridSearchCV(
        NetClassifier(**SMALL), {"width": [2, 8], "learning_rate": [0.001, 0.01]}, cv=2
    ).fit(X, y)
    assert search.best_score_ > 0.85
    for method in ("sigmoid", "temperature"):
        calibrated = CalibratedClassifierCV(NetClassifier(**SMALL), method=method, cv=2).fit(X, y)
        assert calibrated.predict_proba(X).sum(1) == pytest.approx(1)


def test_metadata_is_routed() -> None:
    X, y = load_iris(return_X_y=True)
    groups = np.arange(len(y)) % 10
    weights = np.where(y == 0, 1e-9, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        asked = NetClassifier(**SMALL).set_fit_request(sample_weight=True, groups=False)
        asked = asked.set_score_request(sample_weight=True)
        routed = {"sample_weight": weights, "groups": groups}
        scores = cross_validate(asked, X, y, cv=GroupKFold(2), params=routed, return_estimator=True)
        assert all((e.predict(X) != 0).mean() > 0.9 for e in scores["estimator"])
        inner = NetClassifier(search={"width": [4]}, epochs=2, folds=2)
        inner = inner.set_fit_request(groups=True, sample_weight=False)
        cross_validate(inner, X, y, cv=2, params={"groups": groups})


def test_fit_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    X, y = load_iris(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetClassifier(**SMALL).fit(X, y).predict(X)
        NetClassifier(search={"width": [4]}, folds=2, epochs=2).fit(X, y)
    assert capfd.readouterr() == ("", "")


def test_a_network_of_ones_own() -> None:
    X, y = load_iris(return_X_y=True)
    model = NetClassifier(net=Own3, options={"hidden": 7}, epochs=30).fit(X, y)
    assert model.refit_.models.parameters.shape[1] == 4 * 7 + 7 + 7 * 3 + 3
    assert model.score(X, y) > 0.9
    assert clone(model).get_params()["net"] is Own3
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))  # noqa: S301


class Own3(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, hidden: int = 5) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(inputs, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_frame_with_names_that_are_numbers() -> None:
    X, y = load_iris(return_X_y=True)
    frame = pd.DataFrame(X)
    model = NetClassifier(**SMALL).fit(frame, y)
    assert not hasattr(model, "feature_names_in_")
    assert np.array_equal(model.predict(frame), model.predict(X))
