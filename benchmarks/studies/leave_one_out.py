"""Leave-one-out on digits: as many members as rows."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

import foldwise
from benchmarks.measure import CORES, alternate, timed
from benchmarks.render import Line, grid, ratio
from benchmarks.studies.digits import BATCH, NETWORK, fit, rows
from benchmarks.studies.search import perceptron

METHOD = """`foldwise.fit(X, y, folds="loo")` on digits: 1797 networks 64-64-64-10, 20 epochs, batch 32, Adam, from
the table in memory to the study, a constant and two linear models (as many members again, each) included. Plain
loop: 20 members by hand (fused Adam, one thread, no validation after epochs), times 1797 / 20; two such loops in
two processes would take half as long at best. Equal results: three members trained again, alone, by foldwise's
plain PyTorch reference (`replay`) match, and the accuracy of the loop's 20 members is within three standard errors
of foldwise's."""
EXTRAPOLATED = 20


def by_hand(X: Any, y: Any, members: range, epochs: int) -> float:
    """Train a few members, each without its row; give the share of these rows that are told right."""
    torch.set_num_threads(1)
    right = 0
    for left_out in members:
        kept = [row for row in range(len(X)) if row != left_out]
        table = torch.from_numpy(StandardScaler().fit(X[kept]).transform(X).astype("f4"))
        labels, own = torch.from_numpy(y), torch.tensor(kept)
        network = perceptron()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        for _ in range(epochs):
            for batch in own[torch.randperm(len(own))].split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(network(table[batch]), labels[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            right += int(network(table[left_out]).argmax() == labels[left_out])
    return right / len(members)


def matches(study: foldwise.Study, X: Any, y: Any) -> list[float]:
    """Replay three members of the last trial; give how far their predictions are from the study's."""
    trial = len(study.plan.trials)
    replays = [study.replay(trial, fold, data=(X, y)) for fold in (1, len(X) // 2, len(X))]
    if wrong := [r.sentence for r in replays if not r.matches]:
        raise AssertionError(wrong[0])
    return [r.largest for r in replays]


def run(quick: bool) -> dict[str, Any]:
    """Measure in pairs; a pair takes minutes."""
    X, y = rows()
    epochs = 20
    if quick:
        X, y, epochs = X[:60], y[:60], 3
    search = [{**NETWORK, "epochs": epochs, "learning_rate": 1e-3}]
    few = range(0, len(X), max(1, len(X) // EXTRAPOLATED))[:EXTRAPOLATED]
    last: dict[str, Any] = {}

    def theirs() -> float:
        return timed(lambda: last.update(hand=by_hand(X, y, few, epochs)), len(few) / len(X))

    def ours() -> float:
        torch.set_num_threads(CORES)
        return timed(lambda: last.update(study=fit(search, "loo", X, y)))

    by_hand(X, y, few[:1], 1)
    fit(search, 3, X[:100], y[:100])
    found = alternate(theirs, ours, 1 if quick else 3)
    study = last["study"]
    accuracy = float(
        study.leaderboard.filter(study.leaderboard["trial"] == len(study.plan.trials))["score"][0]
    )
    noise = 3 * (accuracy * (1 - accuracy) / len(few)) ** 0.5 + 1 / len(few)
    if not quick and abs(last["hand"] - accuracy) > noise:
        raise AssertionError(f"accuracies differ: {last['hand']:.3f} by hand, {accuracy:.3f} by foldwise")
    return {
        **found,
        "members": len(X),
        "replayed": matches(study, X, y),
        "accuracy": accuracy,
        "by_hand": last["hand"],
    }


def table(figures: dict[str, Any]) -> str:
    """Lay out the seconds."""
    f = figures
    heads = (
        "members",
        "plain loop, extrapolated",
        "foldwise",
        "ratio",
        "accuracy",
        "replayed members differ by",
    )
    cells = (
        f"{f['members']:,}", f"{f['peer']:.0f} s", f"{f['foldwise']:.1f} s", ratio(f), f"{f['accuracy']:.4f}",
        f"{max(f['replayed']):.0e}",
    )  # fmt: skip
    return grid(heads, [cells])


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show the ratio."""
    what = f"leave-one-out on digits, {figures['members']:,} networks, {figures['foldwise']:.0f} s"
    return [Line(what, "plain", f"{ratio(figures)} as fast")]
