"""Pictures of checks: a patient of the fault benchmark beside its healthy twin, drawn as SVG."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import check_scenes as scenes
import numpy as np
import polars as pl
import torch
from check_scenes import Kind, Seen, each
from check_svg import picture
from torch import Tensor, nn

from foldwise.checks.order import findings_of
from foldwise.data.folds import Folds
from foldwise.errors import FoldwiseError
from foldwise.examine import sight_before
from foldwise.fitting import fit, job_of
from foldwise.terminal import Display

HERE = Path(__file__).parent
PICTURES = HERE / "images" / "checks"
AREAS = ("data", "network", "training", "loops")
TASKS, SEED = ("digits", "phoneme", "abalone", "spambase", "california"), 0  # the first in which it is found
BETTER_SEEN = {
    "target-leak": ("california", "phoneme"),
    "shared-groups": ("california", "phoneme"),
    "shifted-validation": ("california", "abalone"),
}
"""Tasks for checks whose fault is seen there at a glance."""
Run = Callable[[Any], Seen]  # trains on a task, or only looks at it


@dataclass(frozen=True)
class Drawing:
    """A kind of picture: how it is drawn; what it shows, in words; its axis, see `check_svg.picture`."""

    kind: Kind
    what: str
    axis: str = ""


CURVES = Drawing(each(scenes.curves), "Training and validation loss, over epochs")
DEAD = Drawing(scenes.by_layer("dead"), "Share of dead units by layer, over epochs", axis="share")
SATURATED = Drawing(
    scenes.by_layer("saturated"), "Share of saturated outputs by layer, over epochs", axis="share"
)
BACK = Drawing(scenes.by_layer("gradient_variance"), "Variance of gradients by layer, over epochs")
FORTH = Drawing(scenes.by_layer("variance"), "Variance of outputs by layer, over epochs")
MOVED = Drawing(scenes.by_layer("moved"), "Distance of weights from their start by layer, over epochs")
GRADIENTS = Drawing(each(scenes.gradients), "Norm of gradients, over the turns of a loop")
DISTANCES = Drawing(
    each(scenes.distances), "Distance of weights from their start by layer, over the turns of a loop"
)
CALLS = Drawing(
    each(scenes.calls),
    "The first turns of a loop: the network is run, gradients come back, the optimizer steps",
)
MODES = Drawing(
    each(scenes.modes), "The mode of the network in the turns of the first three epochs of a loop"
)

CLAIMS = Drawing(
    each(scenes.claims), "Score (accuracy, or R² where above 0) in validation, and on new rows", "share"
)
SIDES = Drawing(
    scenes.sides, "Mean of a column among the rows that each fold learns from and is scored on", "near"
)
EARLY = Drawing(
    each(scenes.first_gradients),
    "Norm of gradients, over the first 15 turns of a loop, until they are no numbers",
)

DRAWN = {
    "dead-units": DEAD,
    "saturated-units": SATURATED,
    "saturating-activation": BACK,
    "vanishing-gradients": BACK,
    "exploding-gradients": EARLY,
    "non-finite": EARLY,
    "repeated-rows": Drawing(
        each(scenes.copies), "Share of the rows a fold is scored on that it also learns from", "share"
    ),
    "shared-groups": CLAIMS,
    "target-leak": CLAIMS,
    "shifted-targets": SIDES,
    "shifted-validation": SIDES,
    "missing-codes": Drawing(scenes.histogram, "How often values of a column occur"),
    "vanishing-signal": FORTH,
    "exploding-signal": FORTH,
    "initial-scale": FORTH,
    "softmax-hidden": FORTH,
    "equal-weights": MOVED,
    "no-gradient": MOVED,
    "unused-layers": MOVED,
    "uneven-layers": MOVED,
    "rate-too-low": MOVED,
    "decay-dominates": MOVED,
    "epsilon-dominates": MOVED,
    "clipped-always": MOVED,
    "gradients-not-zeroed": GRADIENTS,
    "unscaled-targets": GRADIENTS,
    "detached-loss": GRADIENTS,
    "cleared-gradients": GRADIENTS,
    "missing-step": DISTANCES,
    "part-without-gradient": DISTANCES,
    "unheld-parameters": DISTANCES,
    "stale-parameters": DISTANCES,
    "double-step": CALLS,
    "step-without-backward": CALLS,
    "eval-in-training": MODES,
    "train-in-evaluation": MODES,
    "schedule-per-batch": Drawing(
        each(scenes.rate), "Learning rate as a share of its highest, over the turns of a loop", "share"
    ),
    "constant-columns": Drawing(scenes.histogram, "How often values of the column occur"),
    "overlapping-folds": Drawing(
        each(scenes.fold_grid), "Which of 60 rows each fold learns from and is scored on"
    ),
    "unscaled-inputs": Drawing(each(scenes.input_sizes), "Deviation of each input as the network gets it"),
    "overfit-one-batch": Drawing(
        each(scenes.one_batch), "Loss on one batch of 32 rows, over 200 steps on it alone"
    ),
    "start-loss": Drawing(
        each(scenes.from_start),
        "Validation loss from before the first step on, over epochs, and that of a constant",
    ),
    "imbalanced-accuracy": Drawing(
        each(scenes.right_of_each), "Share of each class that is recognized", axis="share"
    ),
    "looked-too-often": Drawing(
        each(scenes.choices),
        "Scores of the better half of all trials, the best first, and what is left of its score without luck",
        "near",
    ),
    "within-noise": Drawing(each(scenes.fold_scores), "Scores of the folds, and their means"),
}
"""What is drawn of a check; of those that are not here, the curves of the loss."""


@dataclass(frozen=True)
class Patient:
    """What is wrong, the run that is ill, its twin; the tasks on which it makes sense, empty: all."""

    name: str
    ill: Run
    well: Run
    tasks: tuple[str, ...] = ()


def draw(codes: Sequence[str]) -> None:
    """Draw the pictures of checks whose patient is there; says which have none."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for code in codes:
        done = drawn(code)
        if done is None:
            print(f"{code}: no patient", file=sys.stderr)
        else:
            (PICTURES / f"{code}.svg").write_text(done, encoding="utf-8")
            print(f"{code}: drawn", file=sys.stderr)


def drawn(code: str) -> str | None:
    """Run the patients of a check until one is found to be ill, and draw it beside its twin; None when none is."""
    from benchmarks.faults.case import tasks

    known = tasks(SEED)
    how = DRAWN.get(code, CURVES)
    for patient in patients(code):
        for name in [t for t in patient.tasks or BETTER_SEEN.get(code, TASKS) if t in known]:
            panels = ill_and_well(code, patient, known[name], how.kind)
            if panels is not None:
                said = f"Left: {patient.name}; right: the same without it ({name}). {how.what}"
                return picture(*panels, patient.name, said, axis=how.axis)
    return None


def ill_and_well(code: str, patient: Patient, task: Any, kind: Kind) -> scenes.Scene:
    """Run a patient and its twin, and draw them; None when it is not found to be ill, or there is nothing to draw."""
    try:
        ill = patient.ill(task)
        return kind(ill, patient.well(task), code) if ill.says(code) else None
    except FoldwiseError:  # it cannot be planted in this task
        return None


def patients(code: str) -> Iterator[Patient]:
    """List the patients of a check: those planted for it here, then cases of which it is the first cause first."""
    from benchmarks.faults.case import plain

    yield from planted().get(code, ())
    found: list[tuple[int, Patient]] = []
    for area in AREAS:
        module = importlib.import_module(f"benchmarks.faults.{area}")
        for case in module.FAULTS:
            if code in case.causes:
                well = case.healthy or (module.plain if area == "loops" else plain)
                own = Patient(case.name, partial(seen, case.run), partial(seen, well), case.tasks)
                found.append((case.causes.index(code), own))
    yield from (patient for _, patient in sorted(found, key=lambda own: own[0]))


def seen(run: Callable[[Any, int], Any], task: Any) -> Seen:
    """Run a case, and keep what is to be drawn of it."""
    from benchmarks.faults import case, loops

    own = Seen()

    def keep(study: Any) -> None:
        own.study = study

    with case.witnessed(keep), loops.witnessed(own.turns.see):
        outcome = run(task, SEED)
    own.findings, own.score, own.claimed = outcome.findings, outcome.score, outcome.claimed
    own.turns.close()
    return own


def broken(study: Any, loop: Any, task: Any) -> Seen:
    """Find what broke a study, and show the first turns of a loop that trains alike."""
    return replace(seen(study, task), turns=seen(loop, task).turns)


def looked_at(task: Any, **given: Any) -> Seen:
    """Look at a task before any training, as `foldwise.check` does."""
    from benchmarks.faults.case import SETTINGS

    search = {k: v for k, v in SETTINGS.items() if "net" not in given or k not in ("width", "depth")}
    asked = {"data": task.train, "target": task.target, "search": search, "seed": SEED, "folds": 5}
    if task.kind == "regression":
        asked["task"] = "regression"
    sight = sight_before(job_of(SimpleNamespace(**{**defaults(), **asked, **given}), Display()))
    return Seen(findings_of(sight), sight=sight)


def overlapping(task: Any) -> Seen:
    """Look at folds that learn from what they are scored on as well, which `foldwise.fit` would refuse."""
    sight = looked_at(task).sight
    assert sight is not None
    assert sight.folds is not None
    folds = sight.folds.outer
    ill = replace(sight, folds=Folds(folds.train | folds.validation, folds.validation, "by hand"))
    return Seen(findings_of(ill), sight=ill)


def defaults() -> dict[str, Any]:
    """Give what `fit` takes where nothing is said."""
    return {name: p.default for name, p in inspect.signature(fit).parameters.items()}


# Patients of checks that the benchmark has only as a symptom of something else, or not at all


def planted() -> dict[str, tuple[Patient, ...]]:
    """Give them by check."""
    from benchmarks.faults import data, loops, nets, network, training

    def only_looked_at(name: str, change: Callable[[Any], Any]) -> Patient:
        return Patient(name, lambda task: looked_at(change(task)), looked_at, loops.REGRESSION[::-1])

    from benchmarks.faults.case import plain, studied

    def settings(name: str, **changes: object) -> Patient:
        return Patient(
            name,
            partial(seen, lambda task, seed: studied(task, seed, changes)),
            partial(seen, plain),
        )

    def breaking(name: str, rate: float, momentum: float = 0.0) -> Patient:
        def of(rate: float) -> Run:
            how = training.trained(optimizer="sgd", learning_rate=rate, momentum=momentum)
            descend = loops.loop(optimizer=lambda net: torch.optim.SGD(net.parameters(), rate, momentum))
            return partial(broken, how, descend)

        return Patient(name, of(rate), of(0.03))

    def coded(task: Any) -> Any:
        return data.coded_missing(-999.0)(task, np.random.default_rng([SEED, 7]))

    def studied_with(change: Callable[[Any, Any], Any]) -> Run:
        return partial(seen, data.planted(change))

    choosing = partial(seen, training.chosen_often)
    among_many = partial(seen, partial(training.chosen_often, rows=600))

    def rare(class_weights: str | None = None) -> Any:
        short = {"epochs": 3}
        return lambda task, seed: studied(
            data.rare_class(task), seed, short, metric="accuracy", class_weights=class_weights
        )

    return {
        "dead-units": (settings("a rate of 3 with plain descent", learning_rate=3.0, optimizer="sgd"),),
        "non-finite": (breaking("a rate of 1000 with plain descent", 1000.0),),
        "exploding-gradients": (
            breaking("a rate of 3 with momentum", 3.0, 0.9),
            breaking("a rate of 1 with plain descent", 1.0),
        ),
        "saturated-units": (
            Patient(
                "tanh with initial deviation 2",
                partial(
                    seen, training.trained(activation="tanh", initialization="normal", initial_deviation=2.0)
                ),
                partial(seen, training.trained(activation="tanh")),
            ),
        ),
        "no-activation": (
            Patient(
                "no activation",
                partial(seen, network.with_net(nets.no_activation)),
                partial(seen, network.with_net(nets.plain)),
                ("phoneme", "california"),
            ),
        ),
        "missing-codes": (only_looked_at("missing cells coded as −999", coded),),
        "overfitting": (settings("512 units, 200 epochs", width=512, epochs=200, learning_rate=0.01),),
        "underfitting": (settings("one unit", width=1, depth=1),),
        "plateau": (settings("a rate of 1e-4 with plain descent", learning_rate=1e-4, optimizer="sgd"),),
        "jitter": (settings("a rate of 0.1, 4 rows in a batch", learning_rate=0.1, batch_size=4),),
        "uneven-layers": (
            settings("the first layer at a rate of 1e-7", **{"hidden1.learning_rate": 1e-7}),
            settings("the first layer at 1e-5 of the rate", **{"hidden1.rate_factor": 1e-5}),
        ),
        "start-loss": (settings("initial deviation × 10", initialization="normal", initial_deviation=2.5),),
        "constant-columns": (only_looked_at("a column read wrongly", one_value),),
        "schedule-per-batch": (
            Patient(
                "step schedule stepped for each batch",
                partial(seen, loops.loop(schedule=loops.step_per_epoch, per_batch=True)),
                partial(seen, loops.loop(schedule=loops.step_per_epoch)),
            ),
        ),
        "unscaled-inputs": (
            Patient(
                "inputs in their own units",
                partial(seen, loops.loop(scaled=False)),
                partial(seen, loops.plain),
                loops.REGRESSION[::-1],
            ),
        ),
        "unscaled-targets": (
            Patient(
                "targets like prices",
                partial(seen, loops.loop(loss=of_prices)),
                partial(seen, loops.plain),
                loops.REGRESSION,
            ),
        ),
        "overlapping-folds": (Patient("folds that learn from all rows", overlapping, looked_at),),
        "overfit-one-batch": (
            Patient(
                "inputs that are lost on the way",
                partial(looked_at, net=Cut),
                looked_at,
                ("california", "abalone", "digits"),
            ),
        ),
        "looked-too-often": (Patient("chosen among 200 by 60 rows", choosing, among_many, training.ROOMY),),
        "within-noise": (
            Patient("60 rows", studied_with(data.few), partial(seen, plain), ("phoneme", "california")),
        ),
        "imbalanced-accuracy": (
            Patient(
                "accuracy on 95 % one class",
                partial(seen, rare()),
                partial(seen, rare("balanced")),
                data.BINARY,
            ),
        ),
    }


def one_value(task: Any) -> Any:
    """Read the most varied column wrongly: its median everywhere."""
    from benchmarks.faults.data import varied

    name = varied(task)[0]
    return replace(task, train=task.train.with_columns(pl.lit(task.train[name].median()).alias(name)))


def of_prices(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the squared error of targets that are about 100,000 each."""
    return nn.functional.mse_loss(outputs, 1e5 * (targets + 2))


class Cut(nn.Module):
    """A network into which no input gets."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body, self.output = nn.Linear(inputs, 32), nn.Linear(32, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Lose them."""
        return self.output(torch.relu(self.body(x * 0)))
