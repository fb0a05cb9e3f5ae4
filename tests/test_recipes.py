"""Recipes against independent computations: scikit-learn's closed forms and its step-by-step learners."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression, QuantileRegressor, Ridge, SGDClassifier

import foldwise
import studies
import zoo
from foldwise import collect
from foldwise.data.folds import make_folds
from foldwise.data.prepare import apply_preparation, learn_preparation, learn_target_scale
from foldwise.engine.orders import epoch_order
from foldwise.errors import SettingsError
from foldwise.job import Job
from foldwise.plans.plan import Member
from foldwise.settings import Settings, make_settings
from foldwise.study import Study

pytestmark = pytest.mark.slow  # together they take minutes

LINEAR: dict[str, Any] = {"network": "linear", "optimizer": "sgd", "scaling": "standard", "batch_size": 1000}


def trained(task: str, trials: list[dict[str, Any]], **asked: Any) -> Job:
    """Train linear networks on a small table."""
    job = studies.job(
        studies.table(task), task, [{**LINEAR, "initialization": "constant", **t} for t in trials], **asked
    )
    assert job.train(studies.quiet)
    return job


def last_weights(job: Job, trial: int, fold: int = 0) -> list[np.ndarray]:
    """Give weights and bias of every member of a trial and fold after its last epoch."""
    stack = next(s for s in job.stacks if trial in s.trials)
    places = [p for p, m in enumerate(stack.members) if (m.trial, m.fold) == (trial, fold)]
    return [stack.cohort.state.parameters[p].numpy() for p in places]


def prepared(job: Job, fold: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prepare the training rows of a fold as a member gets them."""
    table, train = job.table, job.folds.train
    learnt = learn_preparation(table.features, train, table.numbers, "standard")
    y = table.targets[train[fold]]
    if table.task.kind == "regression":
        scale = learn_target_scale(table.targets, train)
        y = ((y - scale.shift[fold]) / scale.scale[fold]).ravel()
    return apply_preparation(learnt, fold, table.features[train[fold]]), y


# Penalties and noise


def test_an_l2_penalty_is_ridge_regression() -> None:
    strength = 0.3
    job = trained(
        "regression", [{"l2": strength, "learning_rate": 0.2, "epochs": 800, "loss": "squared_error"}]
    )
    x, y = prepared(job)
    # ours is the mean of squares + ½λ‖w‖², theirs the sum of squares + α‖w‖²
    theirs = Ridge(alpha=strength / 2 * len(y), tol=1e-12).fit(x, y)
    [ours] = last_weights(job, 0)
    np.testing.assert_allclose(ours, [*theirs.coef_, theirs.intercept_], atol=1e-8)


def test_noise_on_inputs_approaches_ridge_regression() -> None:
    noise, seeds = 0.5, 30
    trial = {"input_noise": noise, "learning_rate": 0.1, "epochs": 700, "schedule": "cosine"}
    job = trained("regression", [trial, {**trial, "input_noise": 0.0}], seeds=seeds)
    x, y = prepared(job)
    # E‖y − (X + E)w‖² = ‖y − Xw‖² + nσ²‖w‖² (Bishop 1995)
    theirs = Ridge(alpha=len(y) * noise**2).fit(x, y).coef_
    ours = np.mean(last_weights(job, 0), axis=0)[:-1]
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    plain = np.mean(last_weights(job, 1), axis=0)[:-1]
    assert np.abs(plain - theirs).max() > 0.1


def test_a_softmax_regression_is_that_of_scikit_learn() -> None:
    strength = 0.1
    trial = {"l2": strength, "learning_rate": 0.5, "epochs": 1500, "loss": "cross_entropy"}
    job = trained("multiclass", [trial])
    x, y = prepared(job)
    theirs = LogisticRegression(C=1 / (strength * len(y)), tol=1e-12, max_iter=10_000).fit(x, y)
    [ours] = last_weights(job, 0)
    np.testing.assert_allclose(ours[: theirs.coef_.size].reshape(3, -1), theirs.coef_, atol=1e-6)


def test_the_quantile_loss_finds_quantiles() -> None:
    trial = {"loss": "quantile", "quantile": 0.8, "learning_rate": 0.3, "epochs": 2000, "schedule": "cosine"}
    job = trained("regression", [trial])
    x, y = prepared(job)
    theirs = QuantileRegressor(quantile=0.8, alpha=0).fit(x, y)
    [ours] = last_weights(job, 0)

    def pinball(predicted: np.ndarray) -> float:
        return float(np.maximum(0.8 * (y - predicted), -0.2 * (y - predicted)).mean())

    assert pinball(x @ ours[:-1] + ours[-1]) < pinball(theirs.predict(x)) + 1e-3


def test_the_limit_on_weights_holds() -> None:
    trials = [{"weight_limit": limit, "learning_rate": 0.1, "epochs": 50} for limit in (0.01, 0.2, 0.0)]
    job = trained("regression", trials)
    squares = [float(np.square(last_weights(job, t)[0][:-1]).sum()) for t in range(3)]
    assert squares[0] == pytest.approx(0.01)
    assert squares[1] == pytest.approx(0.2)
    assert squares[2] > 0.3


# The perceptron and the support vector machine, step by step


@pytest.mark.parametrize(("margin", "decay"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.05)])
def test_hinges_learn_like_those_of_scikit_learn(margin: float, decay: float) -> None:
    trial = {
        "network": "linear",
        "loss": "binary_hinge",
        "margin": margin,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "weight_decay": decay,
        "batch_size": 1,
        "epochs": 5,
        "scaling": "standard",
        "initialization": "constant",
    }
    job = trained("binary", [trial])
    x, y = prepared(job)
    name = "hinge" if margin else "perceptron"
    theirs = SGDClassifier(
        loss=name, penalty="l2", alpha=decay, learning_rate="constant", eta0=0.5, shuffle=False
    )
    train = torch.from_numpy(job.folds.train[0])
    place = np.cumsum(job.folds.train[0]) - 1
    for epoch in range(1, 6):
        order = epoch_order(len(train), 0, epoch)
        own = place[order[train[order]].numpy()]
        theirs.partial_fit(x[own], y[own], classes=[0, 1])
    [ours] = last_weights(job, 0)
    np.testing.assert_allclose(ours, [*theirs.coef_[0], theirs.intercept_[0]], atol=1e-12)


# Batches


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_batches_are_one_big_batch(optimizer: str, reduction: str) -> None:
    what, rule = zoo.TARGETS["classes"], zoo.OPTIMIZERS[optimizer]
    world = zoo.world(what, recipe=zoo.RECIPES["weights"])
    after = []
    for batches in ({"batch_size": 12}, {"batch_size": 4, "accumulation": 3}):
        asked = {**rule.shared, **rule.trials[1], **batches, "width": 6, "reduction": reduction}
        settings = make_settings(
            {**asked, "loss": what.loss, "learning_rate": 0.01}, base={"optimizer": rule.name}
        )
        engine = world.engine([Member(0, fold, 0, settings) for fold in range(4)])
        for _epoch in range(1, 6):
            zoo.advance(engine)
        after.append(engine.cohort.state.parameters)
    torch.testing.assert_close(*after, rtol=1e-9, atol=1e-11)


def test_a_batch_of_all_rows_is_a_step_per_epoch() -> None:
    job = trained("regression", [{"epochs": 4}])
    assert job.stacks[0].cohort.state.step.tolist() == [4, 4, 4]


# Replay finds every recipe again


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_a_member_of_every_recipe_can_be_replayed(recipe: str) -> None:
    doing, frame = zoo.RECIPES[recipe], studies.table("multiclass")
    network = zoo.Network("mlp", {"network": "mlp", "width": 5, "depth": 1}, "chain")
    trials = []
    for own in doing.trials:
        asked = zoo._named_blocks({"batch_size": 8, **own, **doing.shared, "epochs": 4}, network)
        trials.append({**network.settings, **asked, "optimizer": "adamw", "learning_rate": 0.02})
    weights = np.random.default_rng(0).uniform(0.2, 3, len(frame)) if doing.weighted else None
    study = foldwise.fit(
        frame,
        target="kind",
        search=trials,
        links=doing.links,
        weights=weights,
        folds=3,
        dtype="float64",
    )
    for trial in range(1, len(study.plan.trials) + 1):
        if study.plan.trials[trial - 1].network == "mlp":
            again = study.replay(trial, 2, data=frame)
            assert again.matches
            assert again.largest < 1e-9


def test_the_plateau_watches_the_mean_over_folds(small_steps: Study) -> None:
    curves = small_steps.history.filter(pl.col("trial") == 4).sort("fold", "epoch")
    rates = curves.filter(pl.col("epoch") > 0)["learning_rate"].to_numpy().reshape(3, -1)
    assert (rates[0] == rates[1]).all()
    assert (rates[0] == rates[2]).all()
    assert rates[0, 0] == 0.5
    assert rates[0, -1] < 0.5


@pytest.fixture(scope="module")
def small_steps() -> Study:
    """A rate so high that the loss does not fall, watched by a schedule without patience."""
    trial = {"network": "mlp", "width": 5, "depth": 1, "learning_rate": 0.5, "schedule": "plateau"}
    frame = studies.table("multiclass")
    return foldwise.fit(
        frame, target="kind", search={**trial, "patience": 0, "epochs": 12, "batch_size": 8}, folds=3
    )


def test_frozen_blocks_stay_as_they_start() -> None:
    what = zoo.TARGETS["classes"]
    world = zoo.world(what)
    settings = make_settings({"loss": what.loss, "width": 6, "hidden2.frozen": True, "weight_decay": 0.1})
    engine = world.engine([Member(0, 0, 0, settings)])
    before = {n: p.clone() for n, p in engine.cohort.layout.split(engine.cohort.state.parameters).items()}
    zoo.advance(engine)
    after = engine.cohort.layout.split(engine.cohort.state.parameters)
    assert {n for n in before if torch.equal(before[n], after[n])} == {"hidden2.weight", "hidden2.bias"}


def test_folds_of_one_row_more_than_a_batch_train_with_batch_normalization() -> None:
    frame = studies.table("regression", rows=18)
    folds = make_folds(18, numbers=np.repeat([0, 1], 9))
    job = studies.job(frame, "regression", [{"normalization": "batch", "batch_size": 4}], folds=folds)
    assert job.train(studies.quiet)
    assert collect.history(job)["training_loss"].drop_nulls().is_finite().any()


def test_settings_of_a_recipe_are_stored(tmp_path: Any) -> None:
    study = foldwise.fit(
        example="wine",
        search={"hidden1.rate_factor": 0.5, "l1": 0.001, "mixup": 0.2, "width": 8, "epochs": 2},
        folds=2,
    )
    study.save(tmp_path / "run")
    assert foldwise.load(tmp_path / "run").plan.trials == study.plan.trials
    assert isinstance(study.plan.trials[-1], Settings)
    assert "hidden1.rate_factor 0.5" in study.results[0].name or len(study.plan.trials) > 1


def test_trials_of_a_quantile_are_compared_by_it_when_asked(tmp_path: Any) -> None:
    frame = studies.table("regression", rows=120)
    search = {**LINEAR, "loss": "quantile", "quantile": [0.1, 0.9], "learning_rate": 0.3, "epochs": 400}
    study = foldwise.fit(frame, target="price", search=search, folds=3, metric="quantile:0.9")
    assert study.results[0].settings.quantile == 0.9
    assert not any("quantile" in note for note in study.plan_summary.notes)
    assert foldwise.load(study.save(tmp_path / "run")).metric.label == "quantile loss (τ = 0.9)"
    other = foldwise.fit(frame, target="price", search={**search, "epochs": 1}, folds=3)
    assert any("metric quantile:0.1 compares by what they learn" in n for n in other.plan_summary.notes)


# What users get wrong


def test_a_link_that_mixes_members_is_refused() -> None:
    mixing = foldwise.Link(lambda d, r, n: d - d.mean(0, keepdim=True))
    with pytest.raises(SettingsError, match="mixes members: what one gets depends on another"):
        foldwise.fit(example="iris", links=[mixing], search={"width": 4, "epochs": 1}, folds=2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda o, t: o.foo, "fails: AttributeError"),
        (lambda o, t: (o - t).detach().square().mean(-1), "no gradient leads back"),
        (lambda o, t: (o > t).long().sum(-1), "no gradient leads back"),
        (lambda o, t: (o - t + torch.randn_like(o)).square().mean(-1), "draws random numbers"),
        (lambda o: o.mean(-1), "fails: TypeError"),
        (lambda o, t: (o - t).square(), r"take the mean over what is left of a row"),
    ],
)
def test_a_loss_that_cannot_be_learnt_says_why(wrong: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        foldwise.fit(example="diabetes", loss=wrong, search={"width": 4, "epochs": 1}, folds=2)


def test_a_link_that_fails_says_why() -> None:
    wrong = foldwise.Link(lambda d, r, n: d * n.settings["nothing"])
    with pytest.raises(SettingsError, match=r"fails: KeyError: 'nothing'[\s\S]*columns \[members, 1\]"):
        foldwise.fit(example="iris", links=[wrong], search={"width": 4, "epochs": 1}, folds=2)
