"""Checks of training in loops of the user's own: each finds its patient, and is silent on what only looks odd."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LambdaLR

import foldwise
from checks.loops import adam, found, network, table, turn
from foldwise.checks.order import findings_of
from foldwise.checks.sight import Curve, Sight

STEPS = 6  # of an epoch


def rated(rate: float, **options: Any) -> dict[str, Any]:
    net = network()
    return {"net": net, "optimizer": torch.optim.Adam(net.parameters(), rate, **options)}


def warmed(over: int) -> dict[str, Any]:
    given = rated(1e-4)
    return {**given, "schedule": LambdaLR(given["optimizer"], lambda s: min(1.0, (s + 1) / over))}


def test_a_rate_too_low() -> None:
    finding = found("rate-too-low", **rated(1e-5), epochs=30)
    assert finding is not None
    assert finding.sure == "likely"
    assert finding.remedies[0].what == "learning rate 0.001 (× 100)"
    assert "second half of the steps" in finding.evidence


@pytest.mark.parametrize(
    "given", [{**rated(1e-2), "epochs": 30}, {**rated(1e-5), "epochs": 12}, {**warmed(400), "epochs": 30}],
    ids=["usual", "few steps", "still warming up"],
)  # fmt: skip
def test_a_rate_that_is_not_too_low(given: dict[str, Any]) -> None:
    assert found("rate-too-low", **given) is None


def test_a_network_that_was_trained_before_may_be_tuned_slowly() -> None:
    net = network()
    found("rate-too-low", net=net, epochs=30)
    assert (
        found("rate-too-low", net=net, optimizer=torch.optim.Adam(net.parameters(), 1e-5), epochs=30) is None
    )


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_decay(kind: Any) -> None:
    def decayed(strength: float) -> Any:
        net = network()
        own = kind(net.parameters(), 0.01, weight_decay=strength)
        return found("decay-dominates", net=net, optimizer=own, epochs=30)

    finding = decayed(30.0)
    assert finding is not None
    assert "`weight_decay` 30" in finding.evidence
    assert decayed(1e-3) is None
    assert decayed(0.0) is None


def test_epsilon() -> None:
    assert found("epsilon-dominates", **rated(0.003, eps=1.0), epochs=30).sure == "likely"  # type: ignore[union-attr]
    assert found("epsilon-dominates", **rated(0.003, eps=1e-3), epochs=30) is None
    meant = found("epsilon-dominates", **rated(3.0, eps=1.0), epochs=30)
    assert meant is None or meant.sure == "hint"


def clipped(norm: float) -> Any:
    def once(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), norm)
        optimizer.step()

    net = network()
    own = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    return found("clipped-always", once, net=net, optimizer=own, epochs=30)


def test_clipping() -> None:
    finding = clipped(1e-4)
    assert finding is not None
    assert "a norm of 0.0001" in finding.evidence
    assert clipped(0.1) is None
    assert clipped(100.0) is None


def scheduled(code: str, make: Any, rate: float = 0.003, epochs: int = 30) -> Any:
    given = rated(rate)
    return found(code, turn, **given, schedule=make(given["optimizer"]), epochs=epochs)


def test_a_schedule_that_ends_early() -> None:
    def until(step: int, rate: float) -> Any:
        return scheduled(
            "schedule-ends-early", lambda own: LambdaLR(own, lambda s: 1.0 if s < step else 1e-4), rate
        )

    finding = until(60, 0.001)
    assert finding is not None
    assert "epoch 11 of 30" in finding.evidence
    assert until(120, 0.03) is None  # nothing is left to be learned


def test_a_cosine_of_epochs_stepped_for_each_batch() -> None:
    finding = scheduled("schedule-per-batch", lambda own: CosineAnnealingLR(own, 30))
    assert finding is not None
    assert "in 30 steps" in finding.evidence
    assert scheduled("schedule-per-batch", lambda own: CosineAnnealingLR(own, 30 * STEPS)) is None
    cycles = scheduled(
        "schedule-per-batch", lambda own: CyclicLR(own, 0.001, 0.01, 2 * STEPS, cycle_momentum=False)
    )
    assert cycles is None


def test_a_rate_too_high() -> None:
    finding = found("rate-too-high", **rated(3.0), epochs=10)
    assert finding is not None
    assert "rose to" in finding.evidence
    assert found("rate-too-high", optimizer=None, epochs=10) is None


def test_checks_that_need_validation_are_silent() -> None:
    for code in (
        "overfitting",
        "plateau",
        "underfitting",
        "few-steps",
        "tiny-batches",
        "within-noise",
        "overconfident",
    ):
        assert found(code, epochs=10) is None
    assert adam(network()) is not None


def test_a_rate_so_low_that_the_gradient_stays_the_same_is_not_taken_for_clipping() -> None:
    def whole(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(table()[0]), table()[1]).backward()
        optimizer.step()

    for own in (torch.optim.SGD, torch.optim.Adam):
        net = network()
        assert (
            found("clipped-always", whole, net=net, optimizer=own(net.parameters(), 1e-7), epochs=30) is None
        )
    assert found("rate-too-low", whole, net=net, optimizer=own(net.parameters(), 1e-7), epochs=30)


class Faint(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1e-10 * x


def test_a_smaller_epsilon_is_suggested_than_the_usual_one() -> None:
    net = nn.Sequential(Faint(), nn.Linear(6, 2))
    meant = found("epsilon-dominates", net=net, optimizer=adam(net), epochs=30)
    assert meant is not None
    assert [r.what for r in meant.remedies] == ["ε = 1e-11"]


@pytest.mark.parametrize("steps", [5, 8, 13, 21, 34, 60])
@pytest.mark.parametrize("lasts", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("rate", [1e-4, 0.05, 1e9])
def test_short_loops_warn_of_nothing(steps: int, lasts: float, rate: float) -> None:
    x, y = table()
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), rate)
    ends = LambdaLR(optimizer, lambda step: 1.0 if step < lasts * steps else 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with foldwise.watch(net, optimizer) as watch:
            for step in range(steps):
                turn(net, optimizer, x[step % 80 :], y[step % 80 :])
                ends.step()
        assert watch.findings is not None


@pytest.mark.parametrize("known", [0, 1, 2, 5, 19])
def test_points_of_a_curve_that_are_not_known_warn_of_nothing(known: int) -> None:
    training = np.full(20, np.nan)
    training[np.linspace(0, 19, known).astype(int)] = np.linspace(1, 0.2, known)
    nan = np.full(20, np.nan)
    rate = np.array([1.0] * 10 + [1e-5] * 10)
    curve = Curve(training, nan, nan, np.full((20, 1), np.nan), 1.0, rate, nan, nan, 3, 20, epochs=False)
    loops = (None, watched())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loop in loops:
            findings_of(Sight(curve=curve, loop=loop))


def watched() -> Any:
    net = network()
    with foldwise.watch(net, adam(net)) as watch:
        for _ in range(60):
            turn(net, watch.given[0], *table())
    return watch.sight().loop
