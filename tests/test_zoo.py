"""The zoo is complete: what the package offers is what the tests run over."""

from __future__ import annotations

from typing import get_args

import zoo
from foldwise.data.prepare import SCALINGS
from foldwise.engine.initialize import INITIALIZATIONS
from foldwise.engine.losses import LOSSES
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.schedules import SCHEDULES
from foldwise.engine.step import REGULARIZERS
from foldwise.nets.activations import ACTIVATIONS
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.settings import BLOCK_SETTINGS, FREE, Loss, Settings


def choices(name: str) -> set[str]:
    """List what a setting can be."""
    return set(get_args(Settings.model_fields[name].annotation))


def test_every_choice_of_every_setting_is_in_the_zoo() -> None:
    assert set(zoo.ACTIVATIONS) == set(ACTIVATIONS) == choices("activation")
    assert set(zoo.NORMALIZATIONS) == choices("normalization")
    assert set(zoo.FEATURE_MAPS) == choices("feature_map")
    assert set(zoo.INITIALIZATIONS) == {*INITIALIZATIONS, "own"} == choices("initialization")
    assert set(zoo.SCHEDULES) == set(SCHEDULES) == choices("schedule")
    assert set(zoo.SCALINGS) == set(SCALINGS) == choices("scaling")
    assert {o.name for o in zoo.OPTIMIZERS.values()} == set(OPTIMIZERS) == choices("optimizer")


def test_networks_of_the_zoo_have_every_layer() -> None:
    for name in ("network", "normalization", "feature_map", "activation"):
        default = Settings.model_fields[name].default
        assert {n.settings.get(name, default) for n in zoo.NETWORKS.values()} == choices(name)


def test_recipes_of_the_zoo_have_every_regularizer_schedule_and_noise() -> None:
    asked = {name for r in zoo.RECIPES.values() for trial in (*r.trials, r.shared) for name in trial}
    assert {"input_noise", "label_noise", "mixup", "accumulation", "batch_growth", "reduction"} <= asked
    for setting, _ in REGULARIZERS:
        assert {setting, f"FIRST.{setting}", f"LAST.{setting}"} & asked
    assert {f"{b}.{s}" for b in ("FIRST", "LAST") for s in BLOCK_SETTINGS} & asked
    assert {n.split(".")[1] for n in asked if "." in n} == set(BLOCK_SETTINGS)
    chosen = {trial.get("schedule", "constant") for r in zoo.RECIPES.values() for trial in r.trials}
    assert chosen == choices("schedule")


def test_every_loss_is_in_the_zoo_for_every_task_that_it_is_for() -> None:
    assert {t.loss for t in zoo.TARGETS.values()} == {*LOSSES, "custom"} == set(get_args(Loss))
    ours = {(t.kind, t.loss) for t in zoo.TARGETS.values()}
    assert ours == {(task, loss) for task, losses in LOSSES_OF_TASK.items() for loss in losses}


def test_members_of_mixed_stacks_differ_in_every_free_setting() -> None:
    varied: set[str] = set()
    pairs = [(o, "plain", "classes") for o in zoo.OPTIMIZERS]
    pairs += [("adamw", recipe, "classes") for recipe in zoo.RECIPES]
    pairs += [("sgd", "plain", target) for target in zoo.TARGETS]
    for network in ("mlp tanh", "fourier"):
        for optimizer, recipe, target in pairs:
            members = zoo.mixed(
                zoo.NETWORKS[network], zoo.TARGETS[target], optimizer, recipe=zoo.RECIPES[recipe]
            )
            assert len({m.settings.shape() for m in members}) == 1
            varied |= {name for name in FREE if len({getattr(m.settings, name) for m in members}) > 1}
    # test_initialize, test_half; test_clocks, for it is the loop that stops early, not the stack
    elsewhere = {"initial_deviation", "initial_value", "loss_scale", "early_stopping"}
    assert varied == set(FREE) - elsewhere


def test_folds_of_the_zoo_differ_in_their_number_of_steps() -> None:
    train = [zoo.ROWS - v for v in zoo.VALIDATED]
    assert len({-(-n // zoo.BATCH) for n in train}) > 1
    assert len({n % zoo.BATCH for n in train}) > 2
