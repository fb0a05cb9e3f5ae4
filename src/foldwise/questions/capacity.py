"""How many random labels the network can learn by heart."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.judge.metrics import METRICS, Metric
from foldwise.plans.course import Course
from foldwise.plans.policy import Decision
from foldwise.questions.numbers import brief, points
from foldwise.questions.subject import Subject, count, refuse_constant, undisturbed, with_even_rows
from foldwise.settings import Settings
from foldwise.store.answers import Answer, Picture, Rule, Series

AT_ONCE = 14  # sizes in one job
JOBS = 4
LARGEST_BATCH = 16


def answer(subject: Subject, *, labellings: int = 10, steps: int = 4000, most: int | None = None) -> Answer:
    """Find the most rows whose random labels the network fits without an error, by trying sizes and closing in.

    For each size n and labelling, rows are drawn from those of the study and labels from all classes alike (for
    numbers: a coin, −1 or 1, of which the sign must be right). A size is fitted by a labelling when in some epoch
    every row is right. Zhang et al. 2017, *Understanding deep learning requires rethinking generalization*. For a
    linear network on points in general position, the most rows of which every labelling is fitted is its VC
    dimension, features + 1, and half of the labellings are fitted at 2·(features + 1) rows (Cover 1965). What counts
    is what these settings reach in so many steps; their weight decay, dropout and noise count too. Batches have at
    most 16 rows, so that small sizes have several in an epoch.

    Args:
        subject: the trial that is asked about.
        labellings: how many random labellings of each size.
        steps: how long each may try.
        most: no more rows than these; by default all of the study.

    Raises:
        PlanError: fewer than 2 rows, or more than there are.
    """
    refuse_constant(subject)
    labellings, steps = count("labellings", labellings), count("steps", steps)
    most = subject.rows if most is None else min(subject.rows, count("most", most, least=2))
    world = _world(subject, labellings)
    tried: dict[int, Tried] = {}
    sizes = sorted({2**k for k in range(1, math.ceil(math.log2(most)))} | {most})
    for job in range(1, JOBS + 1):
        size = f"{len(sizes)} size{'s' * (len(sizes) > 1)}"
        about = f"job {job} of at most {JOBS}: {size} × {labellings} labellings"
        tried |= _try(world, sizes, steps, about)
        sizes = _closer(tried, labellings, most)
        if not sizes:
            break
    return _answer(world, tried, most, steps)


@dataclass(frozen=True)
class World:
    """Rows and labels: for each labelling an order of all rows, and labels for all of them."""

    subject: Subject
    orders: Int[np.ndarray, "labellings rows"]
    labels: np.ndarray
    metric: Metric


@dataclass(frozen=True)
class Tried:
    """What became of a size: how many labellings were fitted, and the mean length of all weights of those."""

    fitted: int
    norm: float
    parameters: int


def _world(subject: Subject, labellings: int) -> World:
    random, targets = subject.random(2), subject.table.targets
    size = min(LARGEST_BATCH, subject.settings.batch_size)
    own = replace(
        subject,
        table=with_even_rows(subject.table),
        settings=undisturbed(subject.settings, batch_size=size, batch_growth=1.0),
    )
    orders = np.stack([random.permutation(subject.rows) for _ in range(labellings)])
    shape = (labellings, *targets.shape)
    task = subject.table.task
    if task.kind == "regression":
        return World(own, orders, random.choice([-1.0, 1.0], size=shape), SIGNS)
    if task.soft:
        labels = np.eye(targets.shape[1])[random.integers(targets.shape[1], size=shape[:2])]
    elif targets.ndim == 2:
        labels = random.integers(2, size=shape).astype(targets.dtype)
    else:
        labels = random.integers(len(task.classes[0]), size=shape).astype(targets.dtype)
    return World(own, orders, labels, METRICS["accuracy"])


def _signs(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    return ((outputs > 0) != (targets > 0)).double().mean(-1)


SIGNS = Metric("signs", "share of right signs", True, ("regression",), _signs, lambda mean: 1 - mean)


@dataclass(frozen=True)
class UntilFitted:
    """Stops a size as soon as every labelling was right once; `fitted` says by trial which were."""

    fitted: dict[int, np.ndarray] = field(default_factory=dict)
    scalings: Collection[str] = ()

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Look whether every member has had no error."""
        for course in courses:
            if not course.ended or course.trial not in self.fitted or course.epoch == course.settings.epochs:
                now = np.array(course.scores[-1]) == 0
                self.fitted[course.trial] = now | self.fitted.get(
                    course.trial, np.zeros(len(now), dtype=bool)
                )
        return Decision({trial: "fitted" for trial, own in self.fitted.items() if own.all()})


def _try(world: World, sizes: Sequence[int], steps: int, about: str) -> dict[int, Tried]:
    """Train all labellings of some sizes, in one job."""
    subject, labellings, settings = world.subject, len(world.orders), world.subject.settings
    train = np.zeros((len(sizes), labellings, subject.rows), dtype=bool)
    for s, n in enumerate(sizes):
        for labelling, order in enumerate(world.orders):
            train[s, labelling, order[:n]] = True
    policy = UntilFitted()
    flat = train.reshape(-1, subject.rows)
    job = subject.train(
        "capacity",
        [undisturbed(settings, epochs=_epochs(settings, n, steps)) for n in sizes],
        Folds(flat, flat, "scored on the rows that they learn"),
        seeds=subject.seeds(1),
        folds_of=np.arange(len(flat)).reshape(len(sizes), labellings).tolist(),
        variants=Variants.of_targets(world.labels, np.tile(np.arange(labellings), len(sizes))),
        metric=world.metric,
        policy=policy,
        about=about,
    )
    found = {}
    for stack in job.stacks:
        norms = stack.cohort.state.parameters.double().norm(dim=1)
        for trial, places in stack.places.items():
            own = policy.fitted[trial]
            norm = norms[torch.tensor(places)][torch.from_numpy(own)]
            mean = float(norm.mean()) if own.any() else math.nan
            found[sizes[trial]] = Tried(int(own.sum()), mean, stack.cohort.layout.size)
    return found


def _epochs(settings: Settings, rows: int, steps: int) -> int:
    """Give as many epochs as make the steps; none to a network that takes none."""
    each = math.ceil(rows / (settings.batch_size * settings.accumulation))
    return math.ceil(steps / each) if settings.epochs else 0


def _closer(tried: dict[int, Tried], labellings: int, most: int) -> list[int]:
    """Choose sizes between those that say where the first labelling fails, and where half of them do."""
    sizes = sorted(tried)
    every, half = surely(tried, labellings), _last(tried, math.ceil(labellings / 2))
    new: set[int] = set()
    for start, count_ in ((every, AT_ONCE // 2), (half, AT_ONCE // 2)):
        end = next((n for n in sizes if n > start), most)
        if end - start > max(1, start // 50):
            new |= {round(n) for n in np.linspace(start, end, count_ + 2)[1:-1]}
    return sorted(n for n in new if n not in tried and n >= 2)


def surely(tried: dict[int, Tried], labellings: int) -> int:
    """Give the largest size up to which every labelling of all sizes was fitted; 1 when none was."""
    last = 1
    for n in sorted(tried):
        if tried[n].fitted < labellings:
            break
        last = n
    return last


def _last(tried: dict[int, Tried], least: int) -> int:
    return max((n for n, t in tried.items() if t.fitted >= max(1, least)), default=1)


def half_point(sizes: Float[np.ndarray, " sizes"], shares: Float[np.ndarray, " sizes"]) -> float:
    """Give the size at which half of the labellings are fitted: shares made falling, and joined by lines.

    NaN when all sizes are fitted more often than that.

    >>> half_point(np.array([4.0, 8.0, 12.0]), np.array([1.0, 0.75, 0.25]))
    10.0
    """
    falling = np.array(shares, dtype=float)
    # pool neighbors that rise until none does (isotonic regression)
    blocks = [[value, 1] for value in falling]
    i = 0
    while i < len(blocks) - 1:
        if blocks[i][0] < blocks[i + 1][0]:
            (a, m), (b, n) = blocks[i], blocks[i + 1]
            blocks[i : i + 2] = [[(a * m + b * n) / (m + n), m + n]]
            i = max(0, i - 1)
        else:
            i += 1
    falling = np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])
    below = np.flatnonzero(falling <= 0.5)
    if not len(below):
        return math.nan
    k = int(below[0])
    if k == 0:
        return float(sizes[0])
    share = (falling[k - 1] - 0.5) / (falling[k - 1] - falling[k])
    return float(sizes[k - 1] + share * (sizes[k] - sizes[k - 1]))


def _answer(world: World, tried: dict[int, Tried], most: int, steps: int) -> Answer:
    sizes = np.array(sorted(tried))
    shares = np.array([tried[n].fitted / len(world.orders) for n in sizes])
    every = max((int(n) for n in sizes if (shares[sizes <= n] == 1).all()), default=0)
    half = half_point(sizes.astype(float), shares)
    norm = tried[every].norm if every else math.nan
    parameters = tried[int(sizes[0])].parameters
    table = pl.DataFrame(
        {
            "rows": sizes, "fitted": [tried[n].fitted for n in sizes], "share": shares,
            "weight_norm": [tried[n].norm for n in sizes],
        }
    )  # fmt: skip
    rules = [Rule(float(every), f"all: {every:,}", vertical=True)] if every else []
    rules += [Rule(half, f"half: {half:,.0f}", vertical=True)] if math.isfinite(half) else []
    picture = Picture(
        "rows with random labels", "share of labellings learnt by heart",
        (Series("labellings", points(sizes, shares), line=True),), tuple(rules), log_x=True,
    )  # fmt: skip
    how = (
        f"Rows of the study with labels drawn at random, {steps:,} steps each; a labelling is learnt by heart when in "
        "some epoch no row is wrong."
        + (f" The weights that fit {every:,} rows have a length of {brief(norm)}." if every else "")
    )
    facts = {"every": float(every), "half": half, "parameters": float(parameters), "weight_norm": norm}
    return Answer("capacity", _sentence(world, every, half, most, parameters), how, table, facts, picture)


def _sentence(world: World, every: int, half: float, most: int, parameters: int) -> str:
    by = f"by {world.subject.name} ({parameters:,} parameters)"
    each = f"every one of {len(world.orders)} random labellings"
    if every == most:
        return (
            f"All {most:,} rows are learnt by heart in {each} {by}: its capacity is larger than this table."
        )
    until = (
        f"half of them at about {half:,.0f}" if math.isfinite(half) else "more than half of them to the end"
    )
    rows = f"{every:,} rows" if every else "Not even 2 rows"
    return f"{rows} are learnt by heart in {each}, and {until}, {by}."
