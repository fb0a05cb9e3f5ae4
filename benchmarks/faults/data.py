"""Faults of data, folds and evaluation, and healthy runs that look like them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sklearn import model_selection

from benchmarks.faults.case import Case, Outcome, Task, studied

Plant = Callable[[Task, np.random.Generator], Task]
CLASSES = ("spambase", "phoneme", "digits")
BINARY = ("spambase", "phoneme")


@dataclass(frozen=True)
class Given:
    """A splitter of scikit-learn's form that gives the folds it was made with."""

    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give training and validation rows of each fold."""
        return iter(self.pairs)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Count the folds."""
        return len(self.pairs)


def planted(
    plant: Plant, settings: Mapping[str, Any] = {}, **arguments: Any
) -> Callable[[Task, int], Outcome]:
    """Run a task whose rows to learn from have been changed."""

    def run(task: Task, seed: int) -> Outcome:
        return studied(plant(task, np.random.default_rng([seed, 7])), seed, settings, **arguments)

    return run


def with_target(task: Task, values: np.ndarray) -> Task:
    """Give the rows to learn from other targets."""
    return task.with_train(
        task.train.with_columns(pl.Series(task.target, values, dtype=task.train[task.target].dtype))
    )


def numbers(task: Task) -> list[str]:
    """Name the columns that hold numbers, without the target."""
    return [n for n in task.train.columns if n != task.target and task.train[n].dtype.is_numeric()]


def varied(task: Task) -> list[str]:
    """Name the number columns with many values, those with the most first."""
    return sorted(numbers(task), key=lambda n: -task.train[n].n_unique())


def rank_of(task: Task) -> np.ndarray:
    """Give each row's place in the order of the target, ties at random by place."""
    return np.argsort(np.argsort(task.train[task.target].to_numpy(), kind="stable")).astype(float)


# Faults of the targets


def shuffled(task: Task, random: np.random.Generator) -> Task:
    """Shuffle all targets."""
    return with_target(task, random.permutation(task.train[task.target].to_numpy()))


def mixed_up(share: float) -> Plant:
    """Give a share of the rows the target of another row."""

    def plant(task: Task, random: np.random.Generator) -> Task:
        values = task.train[task.target].to_numpy()
        wrong = random.random(len(values)) < share
        return with_target(task, np.where(wrong, random.permutation(values), values))

    return plant


def two_labels(task: Task, random: np.random.Generator) -> Task:
    """Put 30 % of the rows there a second time, with the target of another row."""
    chosen = random.random(task.train.height) < 0.3
    again = task.train.filter(pl.Series(chosen))
    values = random.permutation(task.train[task.target].to_numpy())[: again.height]
    again = again.with_columns(pl.Series(task.target, values, dtype=task.train[task.target].dtype))
    return task.with_train(pl.concat([task.train, again]))


# Faults of the rows


def few(task: Task, random: np.random.Generator) -> Task:
    """Leave a tenth of the rows, all classes among them."""
    if task.kind == "regression":
        return task.with_train(task.train[: task.train.height // 10])
    if task.kind == "multiclass":  # five folds want five rows of each class
        labels = task.train[task.target].to_numpy()
        each = task.train.height // 10 // len(np.unique(labels))
        firsts = [np.flatnonzero(labels == label)[:each] for label in np.unique(labels)]
        return task.with_train(task.train[np.sort(np.concatenate(firsts)).tolist()])
    chosen = model_selection.StratifiedShuffleSplit(1, train_size=0.1, random_state=int(random.integers(99)))
    rows, _ = next(chosen.split(np.zeros(task.train.height), task.train[task.target].to_numpy()))
    return task.with_train(task.train[np.sort(rows).tolist()])


def repeated(task: Task, random: np.random.Generator) -> Task:
    """Put 60 % of the rows there a second time, in no order."""
    chosen = random.random(task.train.height) < 0.6
    frame = pl.concat([task.train, task.train.filter(pl.Series(chosen))])
    return task.with_train(frame[random.permutation(frame.height).tolist()])


def groups(named: bool, each: int = 6) -> Plant:
    """Measure every sixth row six times: inputs differ by little, the target not at all; a column may name the row."""

    def plant(task: Task, random: np.random.Generator) -> Task:
        count = task.train.height // each
        frame = task.train[np.repeat(np.arange(count), each).tolist()]
        frame = frame.with_columns(
            pl.col(n).cast(pl.Float64) * pl.Series(1 + random.normal(0, 0.02, frame.height))
            for n in numbers(task)
        )
        if named:
            names = np.repeat(random.permutation(count) + 1000, each)
            frame = frame.with_columns(patient=pl.Series([f"p{n}" for n in names]))
            shown = task.test.with_columns(patient=pl.Series([f"q{n}" for n in range(task.test.height)]))
            task = Task(task.name, task.kind, task.target, task.train, shown)
        return task.with_train(frame[random.permutation(frame.height).tolist()])

    return plant


# Faults of the inputs


def copied_target(noise: float) -> Plant:
    """Add a column that is the target, moved by noise of so many deviations; later it says nothing."""

    def plant(task: Task, random: np.random.Generator) -> Task:
        values = task.train[task.target].to_numpy().astype(float)
        size = values.std()
        own = values + noise * size * random.normal(size=len(values))
        later = random.choice(values, task.test.height)
        return _with_column(task, "outcome_code", own, later)

    return plant


def ordering_id(task: Task, random: np.random.Generator) -> Task:
    """Number the rows in the order of the target, with gaps; rows come in another order."""
    own = rank_of(task) * 3 + random.integers(0, 3, task.train.height)
    return _with_column(task, "record", own, 2000.0 + np.arange(task.test.height))


def _with_column(task: Task, name: str, train: np.ndarray, test: np.ndarray) -> Task:
    return Task(
        task.name, task.kind, task.target,
        task.train.with_columns(pl.Series(name, train)), task.test.with_columns(pl.Series(name, test)),
    )  # fmt: skip


def coded_missing(code: float) -> Plant:
    """Write a code into 15 % of the cells of the four columns with the most values, also in the rows to test on."""

    def plant(task: Task, random: np.random.Generator) -> Task:
        chosen = varied(task)[:4]

        def coded(frame: pl.DataFrame) -> pl.DataFrame:
            return frame.with_columns(
                pl.when(pl.Series(random.random(frame.height) < 0.15))
                .then(pl.lit(code))
                .otherwise(pl.col(n).cast(pl.Float64))
                .alias(n)
                for n in chosen
            )

        return Task(task.name, task.kind, task.target, coded(task.train), coded(task.test))

    return plant


def noisy(task: Task, random: np.random.Generator) -> Task:
    """Add noise of one deviation to all numbers."""
    return task.with_train(
        task.train.with_columns(
            pl.col(n).cast(pl.Float64)
            + pl.Series(random.normal(0, float(task.train[n].std()), task.train.height))  # type: ignore[arg-type]
            for n in numbers(task)
        )
    )


# Faults of the folds


def noisy_training(task: Task, seed: int) -> Outcome:
    """Learn in each fold from rows whose numbers have noise of one deviation, and validate on rows as they are."""
    random, columns = np.random.default_rng([seed, 7]), numbers(task)
    clean = task.train.with_columns(pl.col(n).cast(pl.Float64) for n in columns)
    blurred = clean.with_columns(
        pl.col(n) + pl.Series(random.normal(0, float(clean[n].std()), clean.height))  # type: ignore[arg-type]
        for n in columns
    )
    kfold = model_selection.KFold(5, shuffle=True, random_state=seed)
    pairs = tuple((train + clean.height, validation) for train, validation in kfold.split(clean))
    return studied(task.with_train(pl.concat([clean, blurred])), seed, folds=Given(pairs))


def other_constants(task: Task, seed: int) -> Outcome:
    """Validate on rows that were prepared otherwise: smaller by half and moved by one deviation."""
    frame, last = task.train, task.train.height * 4 // 5
    moved = frame[last:].with_columns(
        (pl.col(n).cast(pl.Float64) * 0.5 + float(frame[n].std())).alias(n)  # type: ignore[arg-type]
        for n in numbers(task)
    )
    head = frame[:last].with_columns(pl.col(n).cast(pl.Float64) for n in numbers(task))
    pairs = ((np.arange(last), np.arange(last, frame.height)),)
    return studied(task.with_train(pl.concat([head, moved])), seed, folds=Given(pairs))


def sorted_folds(task: Task, seed: int) -> Outcome:
    """Cut a table that is sorted by its most varied column into folds without shuffling."""
    frame = task.train.sort(varied(task)[0])
    return studied(task.with_train(frame), seed, folds=model_selection.KFold(5))


def sorted_by_target(task: Task, seed: int) -> Outcome:
    """Cut a table that is sorted by the target into overlapping thirds of it without shuffling."""
    order = rank_of(task) + np.random.default_rng(seed).normal(0, 120, task.train.height)
    frame = task.train[np.argsort(order).tolist()]
    return studied(task.with_train(frame), seed, folds=model_selection.KFold(5))


def rare_in_training(task: Task, seed: int) -> Outcome:
    """Leave one row in fifty of one class among the training rows of each fold, and all among validation rows."""
    labels = task.train[task.target].to_numpy()
    rare = np.unique(labels)[-1]
    random, pairs = np.random.default_rng(seed), []
    for train, validation in model_selection.StratifiedKFold(5, shuffle=True, random_state=seed).split(
        labels, labels
    ):
        own = train[labels[train] == rare]
        kept = random.permutation(own)[: max(1, round(np.sum(labels[train] != rare) / 50))]
        pairs.append((np.sort(np.concatenate([train[labels[train] != rare], kept])), validation))
    return studied(task, seed, folds=Given(tuple(pairs)))


def thinned(task: Task, seed: int) -> Outcome:
    """Let folds learn from a tenth of the rows that they are not scored on."""
    random, labels = np.random.default_rng(seed), task.train[task.target].to_numpy()
    kfold = model_selection.KFold(5, shuffle=True, random_state=seed)
    pairs = tuple(
        (np.sort(random.permutation(train)[: len(train) // 10]), validation)
        for train, validation in kfold.split(labels)
    )
    return studied(task, seed, folds=Given(pairs))


def rare_class(task: Task, share: float = 0.05) -> Task:
    """Leave few rows of the rarer class, also among the rows to test on."""

    def thin(frame: pl.DataFrame) -> pl.DataFrame:
        labels = frame[task.target].to_numpy()
        names, counts = np.unique(labels, return_counts=True)
        rare = labels == names[counts.argmin()]
        kept = np.flatnonzero(rare)[: round(share / (1 - share) * np.sum(~rare))]
        return frame[np.sort(np.concatenate([np.flatnonzero(~rare), kept])).tolist()]

    return Task(task.name, task.kind, task.target, thin(task.train), thin(task.test))


def accuracy_of_rare(task: Task, seed: int) -> Outcome:
    """Score by accuracy where 95 % are of one class, with a network that is stopped early."""
    return studied(rare_class(task), seed, {"epochs": 8}, metric="accuracy")


FAULTS: list[Case] = [
    Case("labels shuffled", ("unlearnable-target",), planted(shuffled)),
    Case("10 % of the labels random", ("wrong-labels",), planted(mixed_up(0.1))),
    Case("30 % of the labels random", ("wrong-labels",), planted(mixed_up(0.3))),
    Case("the same rows with two labels", ("conflicting-labels",), planted(two_labels)),
    Case("90 % of the rows removed", ("few-rows",), planted(few)),
    Case("90 % of the training rows not learned", ("few-rows",), thinned),
    Case("imbalance 50:1 in training only", ("shifted-targets",), rare_in_training, tasks=CLASSES),
    Case("noise on the inputs, also of validation rows", ("noisy-inputs",), planted(noisy)),
    Case("noise on the inputs of training rows", ("shifted-validation",), noisy_training),
    Case("the target among the features", ("target-leak",), planted(copied_target(0.0))),
    Case("the target with noise among the features", ("target-leak",), planted(copied_target(0.05))),
    Case("an id that orders the target", ("target-leak",), planted(ordering_id)),
    Case("rows repeated", ("repeated-rows",), planted(repeated)),
    Case("missing cells coded as −999", ("missing-codes",), planted(coded_missing(-999.0))),
    Case("missing cells coded as 99999", ("missing-codes",), planted(coded_missing(99999.0))),
    Case("rows of one group on both sides, named", ("shared-groups",), planted(groups(named=True))),
    Case("rows of one group on both sides, not named", ("shared-groups",), planted(groups(named=False))),
    Case("validation rows prepared with other constants", ("shifted-validation",), other_constants),
    Case("folds cut from a sorted table", ("shifted-validation", "shifted-targets"), sorted_folds),
    Case("folds cut from a table sorted by target", ("shifted-targets", "shifted-validation"), sorted_by_target),
    Case("accuracy on 95 % one class", ("imbalanced-accuracy",), accuracy_of_rare, tasks=BINARY),
]  # fmt: skip


# Healthy runs


def rare_categories(task: Task, random: np.random.Generator) -> Task:
    """Add a category with some frequent and many rare levels, and a date."""

    def more(frame: pl.DataFrame) -> pl.DataFrame:
        code = np.minimum(random.geometric(0.08, frame.height), 60)
        day = pl.Series(random.integers(0, 900, frame.height)).cast(pl.Int32).cast(pl.Date)
        return frame.with_columns(pl.Series("shop", [f"s{c}" for c in code]), day.alias("day"))

    return Task(task.name, task.kind, task.target, more(task.train), more(task.test))


def flags_only(task: Task, random: np.random.Generator) -> Task:
    """Cut every number into four levels, as text."""

    def cut(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.Series(n, [f"q{v}" for v in np.digitize(frame[n].to_numpy(), cuts[n])]) for n in cuts
        )

    cuts = {n: np.unique(np.quantile(task.train[n].to_numpy(), [0.25, 0.5, 0.75])) for n in varied(task)[:8]}
    keep = [*cuts, task.target]
    return Task(task.name, task.kind, task.target, cut(task.train).select(keep), cut(task.test).select(keep))


def gaps(task: Task, random: np.random.Generator) -> Task:
    """Empty 15 % of all cells of numbers."""

    def empty(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.when(pl.Series(random.random(frame.height) < 0.15)).then(None).otherwise(pl.col(n)).alias(n)
            for n in numbers(task)
        )

    return Task(task.name, task.kind, task.target, empty(task.train), empty(task.test))


def any_scale(task: Task, random: np.random.Generator) -> Task:
    """Give every column a scale of its own, from 1e-4 to 1e6, and numbers to learn a large one."""
    sizes = {n: 10.0 ** random.integers(-4, 7) for n in numbers(task)}
    if task.kind == "regression":
        sizes[task.target] = 1e6

    def scaled(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col(n).cast(pl.Float64) * size for n, size in sizes.items())

    return Task(task.name, task.kind, task.target, scaled(task.train), scaled(task.test))


def easy(task: Task, random: np.random.Generator) -> Task:
    """Draw classes that lie well apart in six columns."""
    names = [f"x{i}" for i in range(6)]

    def draw(rows: int) -> pl.DataFrame:
        label = random.integers(0, 3, rows)
        x = random.normal(size=(rows, 6)) + 3 * np.eye(6)[label] - 3 * np.eye(6)[label + 3]
        frame = pl.DataFrame({n: x[:, i] for i, n in enumerate(names)})
        return frame.with_columns(pl.Series("y", np.array(["a", "b", "c"])[label]))

    return Task("easy", "multiclass", "y", draw(600), draw(600))


def heavy_tails(task: Task, random: np.random.Generator) -> Task:
    """Raise every number to exponentials of itself: a few rows lie far out."""

    def bent(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.Series(n, np.sinh(2 * (frame[n].to_numpy() - middle[n][0]) / middle[n][1])) for n in middle
        )

    middle = {n: (float(task.train[n].mean()), float(task.train[n].std()) + 1e-9) for n in varied(task)[:6]}  # type: ignore[arg-type]
    return Task(task.name, task.kind, task.target, bent(task.train), bent(task.test))


def in_time(task: Task, seed: int) -> Outcome:
    """Validate in the order of a column of time that means nothing."""

    def timed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.Series("moment", np.arange(frame.height)))

    return studied(task.with_train(timed(task.train)), seed, time="moment")


def by_groups(task: Task, seed: int) -> Outcome:
    """Name the groups of `groups`, and keep them together."""
    return studied(groups(named=True)(task, np.random.default_rng([seed, 7])), seed, groups="patient")


def weighted(task: Task, seed: int) -> Outcome:
    """Balance classes, and smooth labels."""
    return studied(task, seed, {"label_smoothing": 0.1}, class_weights="balanced")


def held_out(task: Task, seed: int) -> Outcome:
    """Validate once, on a fifth of the rows, with much dropout: validation is better than training."""
    return studied(task, seed, {"dropout": 0.5}, folds=5, holdout=0.2)


def unbalanced(task: Task, seed: int) -> Outcome:
    """Score by cross-entropy where 95 % are of one class."""
    return studied(rare_class(task), seed, metric="log_loss")


def nothing(task: Task, random: np.random.Generator) -> Task:
    """Change nothing."""
    return task


CONTROLS: list[Case] = [
    Case("as it is", (), planted(nothing)),
    Case("60 rows", (), planted(few)),
    Case("rare categories and dates", (), planted(rare_categories)),
    Case("flags only", (), planted(flags_only), tasks=("abalone", "california", *CLASSES)),
    Case("missing cells", (), planted(gaps)),
    Case("any scale", (), planted(any_scale)),
    Case("standard scaling, heavy tails", (), planted(heavy_tails, {"scaling": "standard"})),
    Case("easy, 99 % accuracy", (), planted(easy), tasks=("digits",)),
    Case("folds in time", (), in_time),
    Case("groups kept together", (), by_groups),
    Case("class weights and label smoothing", (), weighted, tasks=CLASSES),
    Case("hold-out, dropout", (), held_out),
    Case("95 % one class, cross-entropy", (), unbalanced, tasks=BINARY),
]
