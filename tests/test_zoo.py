"""The zoo is complete: what the package offers is what the tests run over."""

from __future__ import annotations

from typing import get_args

import zoo
from foldwise.data.prepare import SCALINGS
from foldwise.engine.initialize import INITIALIZATIONS
from foldwise.engine.losses import LOSSES
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.schedules import SCHEDULES
from foldwise.nets.activations import ACTIVATIONS
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.settings import FREE, Activation, Initialization, Loss, Settings


def choices(name: str) -> set[str]:
    """List what a setting can be."""
    return set(get_args(Settings.model_fields[name].annotation))


def test_every_choice_of_every_setting_is_in_the_zoo() -> None:
    assert set(zoo.ACTIVATIONS) == set(ACTIVATIONS) == set(get_args(Activation))
    assert set(zoo.INITIALIZATIONS) == set(INITIALIZATIONS) | {"own"} == set(get_args(Initialization))
    assert set(zoo.SCHEDULES) == set(SCHEDULES) == choices("schedule")
    assert set(zoo.SCALINGS) == set(SCALINGS) == choices("scaling")
    assert set(zoo.OPTIMIZERS) == set(OPTIMIZERS) == choices("optimizer")
    assert {n.settings["network"] for n in zoo.NETWORKS.values()} == choices("network")


def test_every_loss_is_in_the_zoo_for_every_task_that_it_is_for() -> None:
    assert {t.loss for t in zoo.TARGETS.values()} == set(LOSSES) == set(get_args(Loss))
    ours = {(t.kind, t.loss) for t in zoo.TARGETS.values()}
    assert ours == {(task, loss) for task, losses in LOSSES_OF_TASK.items() for loss in losses}


def test_members_of_the_mixed_stack_differ_in_every_free_setting() -> None:
    varied: set[str] = set()
    for optimizer in zoo.OPTIMIZERS:
        network, target = zoo.NETWORKS["mlp tanh"], zoo.TARGETS["classes"]
        members = zoo.mixed(network, target, optimizer)
        assert len({m.settings.shape() for m in members}) == 1
        varied |= {name for name in FREE if len({getattr(m.settings, name) for m in members}) > 1}
    assert varied == set(FREE)


def test_folds_of_the_zoo_differ_in_their_number_of_steps() -> None:
    train = [zoo.ROWS - v for v in zoo.VALIDATED]
    assert len({-(-n // zoo.BATCH) for n in train}) > 1
    assert len({n % zoo.BATCH for n in train}) > 2
