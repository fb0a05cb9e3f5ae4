"""The study of `adult` (5 folds × default search) against the same members trained one after the other.

    python benchmarks/speed/adult.py [--members 8] [--pairs 3] [--width 32]

With --width every perceptron of the default search has that width.

The peer is a plain PyTorch loop as one writes it by hand, with tensors in memory and no DataLoader, the best of one and
two threads, with torch's own dropout (the keyed one is slower and would flatter us). Its time is measured on members
drawn at random from the study, in pairs with a stacked run of the whole study's first epochs, and stated per member
and epoch. That results are equal is checked on the same members with keyed dropout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from foldwise.data.table import open_table, read_source
from foldwise.engine.dropout import KeyedDropout
from foldwise.engine.losses import losses_for
from foldwise.job import Job
from foldwise.judge.metrics import choose_metric
from foldwise.plans.ask import ask
from foldwise.plans.defaults import DOZEN
from foldwise.plans.plan import Member
from foldwise.reference import Alone, Own, outputs_of, prepare_fold, train_alone
from foldwise.study import folds_of

HERE = Path(__file__).parent
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "adult" / "adult-train.csv"


def make_job(width: int | None = None, dtype: torch.dtype = torch.float32) -> Job:
    """Make the study of `adult` ready, as `foldwise fit adult-train.csv --target column_14` does."""
    frame, targets, source = read_source(str(DATA), None, "column_14", None, {})
    table = open_table(frame, targets, source)
    folds = folds_of(table, 5, 1, None, 0)
    search = None if width is None else [{**own, "width": width} for own in DOZEN]
    plan, _ = ask(table.task.kind, len(table.features), search, None, len(folds), 1, 0)
    return Job(table, plan, folds, choose_metric(None, table.task), None, torch.device("cpu"), dtype)


def fold_data(job: Job, member: Member) -> Alone:
    """Prepare one fold for the plain loop; not timed."""
    table, s = job.table, member.settings
    return prepare_fold(
        table.features, losses_for(table.task)[s.loss].shaped(table.targets), job.folds.train[member.fold],
        job.folds.validation[member.fold], table.numbers, s.scaling, False, job.dtype,
    )  # fmt: skip


def with_native_dropout(module: nn.Module) -> nn.Module:
    """Put torch's own dropout in place of the keyed one."""
    for name, child in list(module.named_children()):
        if isinstance(child, KeyedDropout):
            setattr(module, name, nn.Dropout(child.rate))
    return module


def plain_seconds(job: Job, member: Member, epochs: int, threads: int) -> float:
    """Time a loop written by hand, per epoch (validation included, as in the study)."""
    torch.set_num_threads(threads)
    data, s = fold_data(job, member), member.settings
    module = with_native_dropout(job.nursery(s.loss).start(member))
    weights, biases = ([p for p in module.parameters() if (p.ndim >= 2) == own] for own in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": s.weight_decay}, {"params": biases, "weight_decay": 0.0}],
        lr=s.learning_rate,
    )
    rows = torch.from_numpy(np.flatnonzero(data.train))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, -(-len(rows) // s.batch_size) * s.epochs)
    start = time.perf_counter()
    for _ in range(epochs):
        module.train()
        total = 0.0
        for batch in rows[torch.randperm(len(rows))].split(s.batch_size):
            optimizer.zero_grad()
            outputs = module(data.features[batch])
            loss = F.binary_cross_entropy_with_logits(outputs, data.targets[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        outputs_of(module, data)
    return (time.perf_counter() - start) / epochs


def stacked_seconds(job: Job, epochs: range) -> float:
    """Time all members of the study together, per member and epoch (validation and choosing included)."""
    torch.set_num_threads(os.cpu_count() or 1)
    trained = [s for s in job.stacks if s.epochs]
    start = time.perf_counter()
    for epoch in epochs:
        for stack in trained:
            stack.take_turn(epoch, job.measure, lambda rows: None)
    return (time.perf_counter() - start) / len(epochs) / sum(len(s.members) for s in trained)


def largest_difference(members: list[Member], width: int | None) -> float:
    """Compare weights after one epoch, stacked and alone, in float64: in float32 rounding alone drives both apart."""
    job = make_job(width, torch.float64)
    differences = []
    for member in members:
        stack = next(s for s in job.stacks if member in s.members)
        place = stack.members.index(member)
        companions = sorted({place, *range(3)})
        stack.engine._mode(training=True)
        stack.engine._epoch(companions, 1)
        module = job.nursery(member.settings.loss).start(member)
        next(train_alone(member, module, fold_data(job, member), Own()))
        alone = torch.cat([p.detach().flatten() for p in module.parameters()])
        differences.append(float((stack.engine.state.parameters[place] - alone).abs().max()))
    return max(differences)


def main() -> None:
    """Measure in pairs and write the ratio down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", type=int)
    given = parser.parse_args()
    job = make_job(given.width)
    for stack in job.stacks:
        stack.take_turn(0, job.measure, lambda rows: None)
    networks = [m for m in job.plan.members() if m.settings.network != "constant"]
    random = np.random.default_rng(0)
    drawn = [networks[i] for i in random.choice(len(networks), given.members, replace=False)]
    pairs = []
    for pair in range(given.pairs):
        ours = stacked_seconds(job, range(1 + 2 * pair, 3 + 2 * pair))
        one = statistics.mean(plain_seconds(job, m, 1, 1) for m in drawn)
        two = statistics.mean(plain_seconds(job, m, 1, 2) for m in drawn)
        pairs.append(
            {"stacked": ours, "plain_1_thread": one, "plain_2_threads": two, "ratio": min(one, two) / ours}
        )
        print(pairs[-1], flush=True)
    torch.set_num_threads(os.cpu_count() or 1)
    difference = largest_difference(drawn[:2], given.width)
    assert difference < 1e-9, difference
    found = {
        "members": len(networks),
        "pairs": pairs,
        "ratio": statistics.median(p["ratio"] for p in pairs),
        "largest_difference_of_weights_after_one_epoch_float64": difference,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        },
    }
    name = "default" if given.width is None else f"width {given.width}"
    path = HERE / "adult.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**whole, name: found}, indent=1))
    print(
        f"ratio {found['ratio']:.1f}, largest difference of weights after one epoch in float64 {difference:.1e}"
    )


if __name__ == "__main__":
    main()
