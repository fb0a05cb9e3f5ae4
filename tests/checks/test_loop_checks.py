"""Checks of loops: each finds its patient, and is silent on the healthy twin and on what only looks odd."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    StepLR,
)

from checks.loops import adam, found, modal, network, turn
from foldwise.checks.explain import explain
from foldwise.checks.loop import Loop
from foldwise.checks.order import check_module
from foldwise.checks.schedule_per_batch import find as find_schedule
from foldwise.checks.sight import Sight

Turn = Callable[[nn.Module, Any, Tensor, Tensor], None]


def never_zeroed(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def sometimes_zeroed(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    """Empty the gradients once in ten steps only."""
    optimizer.count = getattr(optimizer, "count", 0) + 1
    if optimizer.count % 10 == 0:
        optimizer.zero_grad()
    never_zeroed(net, optimizer, x, y)


def accumulating(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.count = getattr(optimizer, "count", 0) + 1
    F.cross_entropy(net(x), y).div(4).backward()
    if optimizer.count % 4 == 0:
        optimizer.step()
        optimizer.zero_grad()


def zeroed_through_data(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    for p in net.parameters():
        if p.grad is not None:
            p.grad.data.zero_()
    never_zeroed(net, optimizer, x, y)


def detached(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(net(x).detach().requires_grad_(), y).backward()
    optimizer.step()


def as_number(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    torch.tensor(F.cross_entropy(net(x), y).item(), requires_grad=True).backward()
    optimizer.step()


def no_step(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()


def rare_step(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    no_step(net, optimizer, x, y)
    optimizer.count = getattr(optimizer, "count", 0) + 1
    if optimizer.count % 5 == 0:
        optimizer.step()


def zeroed_too_early(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    no_step(net, optimizer, x, y)
    optimizer.zero_grad()
    optimizer.step()


def twice(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    turn(net, optimizer, x, y)
    optimizer.step()


def rare_backward(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    loss = F.cross_entropy(net(x), y)
    optimizer.count = getattr(optimizer, "count", 0) + 1
    if optimizer.count % 4 == 1:
        loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


def by_hand(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for p in net.parameters():
            assert p.grad is not None
            p -= 0.05 * p.grad
            p.grad = None


def sharpness_aware(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    """Take gradients where the loss is worse near by, as Foret et al. 2021 do; the first are thrown away on purpose."""
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        moves = [0.01 * p.grad.sign() for p in net.parameters() if p.grad is not None]
        for p, move in zip(net.parameters(), moves, strict=True):
            p += move
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for p, move in zip(net.parameters(), moves, strict=True):
            p -= move
    optimizer.step()


HEALTHY = [turn, accumulating, zeroed_through_data, sharpness_aware]


@pytest.mark.parametrize(
    ("code", "patient", "sure"),
    [
        ("gradients-not-zeroed", never_zeroed, "sure"),
        ("gradients-not-zeroed", sometimes_zeroed, "likely"),
        ("detached-loss", detached, "sure"),
        ("detached-loss", as_number, "sure"),
        ("missing-step", no_step, "sure"),
        ("missing-step", rare_step, "likely"),
        ("cleared-gradients", zeroed_too_early, "likely"),
        ("double-step", twice, "likely"),
        ("step-without-backward", rare_backward, "likely"),
    ],
)
def test_turns(code: str, patient: Turn, sure: str) -> None:
    finding = found(code, patient)
    assert finding is not None
    assert finding.sure == sure
    for healthy in HEALTHY:
        assert found(code, healthy) is None
    assert found(code, by_hand, told=False) is None


def test_the_evidence_counts() -> None:
    finding = found("gradients-not-zeroed", never_zeroed)
    assert finding is not None
    assert finding.evidence.startswith("in 11 of 11 steps watched closely")
    assert finding.symptoms == ()


def of(net: nn.Module, *names: str) -> Any:
    return torch.optim.Adam([p for n, p in net.named_parameters() if n.startswith(names)], 0.01)


def test_parameters_that_no_optimizer_holds() -> None:
    net = network()
    finding = found("unheld-parameters", net=net, optimizer=of(net, "0", "4"))
    assert finding is not None
    assert (finding.sure, finding.where) == ("likely", ("2.weight", "2.bias"))
    assert found("unheld-parameters") is None


def test_frozen_parameters_are_meant() -> None:
    net = network()
    net[0].requires_grad_(False)
    assert found("unheld-parameters", net=net, optimizer=of(net, "2", "4")) is None


def test_a_trained_body_may_be_left_out_on_purpose() -> None:
    net = network()
    found("unheld-parameters", net=net, epochs=30)
    finding = found("unheld-parameters", net=net, optimizer=of(net, "4"))
    assert finding is not None
    assert not finding.alarm


def test_parameters_moved_by_another_optimizer_are_not_missed() -> None:
    net = network()
    other = of(net, "2")

    def both(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        turn(net, optimizer, x, y)
        other.step()

    assert found("unheld-parameters", both, net=net, optimizer=of(net, "0", "4")) is None


def test_stale_parameters() -> None:
    net = network()
    optimizer = adam(net)
    finding = found("stale-parameters", net=copy.deepcopy(net), optimizer=optimizer)
    assert finding is not None
    assert finding.sure == "sure"
    assert len(finding.where) == 6
    net[2] = nn.Linear(16, 8)
    finding = found("stale-parameters", net=net, optimizer=optimizer)
    assert finding is not None
    assert finding.where == ("2.weight", "2.bias")
    assert found("stale-parameters") is None


def test_an_optimizer_may_hold_more() -> None:
    net, other = network(), network()
    assert found("stale-parameters", net=net, optimizer=adam(nn.ModuleList([net, other]))) is None


def never_back(net: nn.Module, x: Tensor) -> None:
    net.eval()


def still_training(net: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        net(x)


def test_evaluation_mode_in_training() -> None:
    finding = found("eval-in-training", net=modal(), after=never_back)
    assert finding is not None
    assert (finding.sure, finding.where, finding.step) == ("likely", ("1", "3"), 7)
    assert found("eval-in-training", net=modal()) is None
    assert found("eval-in-training", net=network(), after=never_back) is None, "no layer minds"
    frozen = modal()
    frozen[0].requires_grad_(False)
    hint = found("eval-in-training", net=frozen, after=never_back)
    assert hint is not None
    assert not hint.alarm


def test_training_mode_in_evaluation() -> None:
    finding = found("train-in-evaluation", net=modal(), after=still_training)
    assert finding is not None
    assert finding.sure == "likely"
    assert "8 times" in finding.evidence
    assert found("train-in-evaluation", net=modal()) is None
    assert found("train-in-evaluation", net=network(), after=still_training) is None, "no layer minds"
    once = found("train-in-evaluation", net=modal(), after=still_training, epochs=1)
    assert once is not None
    assert not once.alarm


STEPS = 8 * 6


def schedules(optimizer: Any) -> dict[str, LRScheduler]:
    return {
        "for each epoch": StepLR(optimizer, 2, 0.1),
        "decay": ExponentialLR(optimizer, 0.5),
        "cosine": CosineAnnealingLR(optimizer, STEPS),
        "slow": ExponentialLR(optimizer, 0.9),
        "warm-up": LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20)),
        "late": StepLR(optimizer, STEPS // 3, 0.1),
    }


@pytest.mark.parametrize("name", ["for each epoch", "decay", "cosine", "slow", "warm-up", "late"])
def test_schedules(name: str) -> None:
    net = network()
    optimizer = adam(net)
    finding = found("schedule-per-batch", net=net, optimizer=optimizer, schedule=schedules(optimizer)[name])
    assert (finding is not None) == (name in ("for each epoch", "decay"))


def decayed(factor: float, epochs: int, batches: int) -> Loop:
    return Loop(rates=0.01 * factor ** np.arange(epochs * batches), epoch=batches)


def test_few_epochs_of_decay_for_each_batch() -> None:
    finding = find_schedule(Sight(loop=decayed(0.9, 5, 20)))
    assert finding is not None
    assert finding.sure == "likely"
    assert "would end at 0.0066" in finding.evidence
    assert find_schedule(Sight(loop=decayed(0.93, 5, 20))).sure == "hint"  # type: ignore[union-attr]
    assert find_schedule(Sight(loop=decayed(0.9, 100, 1))) is None  # one batch is an epoch
    assert find_schedule(Sight(loop=decayed(0.99, 5, 20))) is None
    assert find_schedule(Sight(loop=decayed(1e-5 ** (1 / 100), 5, 20))) is None  # computed from the length


@pytest.mark.parametrize("epoch", [None, 20])
def test_a_second_phase_with_a_hundredth_of_the_rate_is_meant(epoch: int | None) -> None:
    rates = np.array([1e-3] * 40 + [1e-5] * 200)
    assert find_schedule(Sight(loop=Loop(rates=rates, epoch=epoch))) is None
    assert (
        find_schedule(Sight(loop=Loop(rates=rates / np.where(rates < 1e-4, 2, 1), epoch=epoch))) is not None
    )


def test_milestones_of_epochs_counted_in_batches() -> None:
    net = network()
    optimizer = adam(net)
    for_each = MultiStepLR(optimizer, [3, 6], 0.1)
    assert found("schedule-per-batch", net=net, optimizer=optimizer, schedule=for_each) is not None
    late = MultiStepLR(adam(net), [24, 36], 0.1)
    assert found("schedule-per-batch", net=net, optimizer=late.optimizer, schedule=late) is None


def test_rates_that_are_not_known_are_no_fault() -> None:
    rates = np.r_[1.0, np.full(99, 1e-9)]
    assert find_schedule(Sight(loop=Loop(rates=rates))) is not None
    assert find_schedule(Sight(loop=Loop(rates=np.zeros(100)))) is None
    assert find_schedule(Sight(loop=Loop(rates=np.full(100, np.nan)))) is None
    assert find_schedule(Sight(loop=Loop(rates=rates[:20]))) is None
    assert find_schedule(Sight()) is None


class Parts(nn.Module):
    """A body, a head, and a head that is run or not but never used."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        if self.way == "detach":
            hidden = hidden.detach()
        if self.way == "no_grad":
            with torch.no_grad():
                hidden = self.body(x).tanh()
        if self.way == "numpy":
            hidden = torch.from_numpy(hidden.detach().numpy())
        if self.way == "run":
            self.other(hidden)
        return self.head(hidden)


@pytest.mark.parametrize("way", ["detach", "no_grad", "numpy"])
def test_parts_that_are_cut_off(way: str) -> None:
    finding = found("part-without-gradient", net=Parts(way))
    assert finding is not None
    assert finding.where == ("body.weight", "body.bias")


@pytest.mark.parametrize("way", ["run", "unused"])
def test_heads_that_are_not_used_are_meant(way: str) -> None:
    assert found("part-without-gradient", net=Parts(way)) is None


def test_parts_cut_off_on_purpose() -> None:
    net = Parts("detach")
    net.body.requires_grad_(False)
    assert found("part-without-gradient", net=net, optimizer=of(net, "head")) is None


def test_outputs_from_which_no_way_leads_back() -> None:
    class Dark(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).detach().requires_grad_()

    finding = found("part-without-gradient", net=Dark())
    assert finding is not None
    assert (finding.sure, len(finding.where)) == ("sure", 6)


APPLIED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": lambda o, y: F.cross_entropy(torch.softmax(o, 1), y),
    "layer": lambda o, y: nn.CrossEntropyLoss()(nn.Softmax(1)(o), y),
    "sigmoid": lambda o, y: F.binary_cross_entropy_with_logits(o[:, :1].sigmoid(), y[:, None].float()),
    "row": lambda o, y: F.binary_cross_entropy_with_logits(torch.sigmoid(o[:, 0]), y.float()),
    "squeezed": lambda o, y: F.binary_cross_entropy_with_logits(
        torch.sigmoid(o[:, :1]).squeeze(1), y.float()
    ),
}
RIGHT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scores": F.cross_entropy,
    "log-softmax twice": lambda o, y: F.cross_entropy(torch.log_softmax(o, 1), y),
    "logarithm": lambda o, y: F.nll_loss(torch.softmax(o, 1).clamp_min(1e-9).log(), y),
    "probabilities": lambda o, y: F.binary_cross_entropy(torch.sigmoid(o[:, 0]), y.float()),
    "Brier": lambda o, y: F.mse_loss(torch.softmax(o, 1), F.one_hot(y, 2).float()),
    "temperature": lambda o, y: F.cross_entropy(20 * torch.tanh(o), y),
    "penalty": lambda o, y: F.cross_entropy(o, y) + 0.01 * torch.softmax(o, 1).square().mean(),
}


def applying(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., None]:
    def how(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()

    return how


@pytest.mark.parametrize("loss", APPLIED.values(), ids=APPLIED)
def test_probabilities_made_in_the_loop(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert found("probabilities-as-scores", applying(loss)) is not None


@pytest.mark.parametrize("loss", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("code", ["probabilities-as-scores", "unreachable-targets", "start-loss"])
def test_losses_that_suit_what_they_get(code: str, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert found(code, applying(loss)) is None


def test_relu_before_squared_errors_in_the_loop() -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(torch.relu(o[:, 0]), 2.0 * y - 1)

    assert found("unreachable-targets", applying(loss)) is not None


def far(size: float, middle: float = 0.0) -> Callable[..., None]:
    return applying(lambda o, y: F.mse_loss(o, size * (y[:, None] + middle)))


def of_a_number() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))


@pytest.mark.parametrize("kind", [torch.optim.Adam, lambda p, rate: torch.optim.SGD(p, rate, 0.9)])
def test_targets_as_large_as_prices(kind: Any) -> None:
    def finding(how: Callable[..., None], rate: float) -> Any:
        net = of_a_number()
        return found("unscaled-targets", how, net=net, optimizer=kind(net.parameters(), rate), epochs=10)

    large = finding(far(1e5, 2), 0.01)
    assert large is not None
    assert large.sure == "likely"
    assert finding(far(1), 0.01) is None
    assert finding(far(1, 2), 0.01) is None


def test_large_targets_that_are_learned() -> None:
    net = nn.Sequential(of_a_number(), Scaled(1e5))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    assert found("unscaled-targets", far(1e5, 2), net=net, optimizer=optimizer) is None
    net = of_a_number()
    fast = torch.optim.Adam(net.parameters(), 0.3)
    assert found("unscaled-targets", far(500), net=net, optimizer=fast, epochs=60) is None


def test_large_targets_around_which_outputs_are() -> None:
    torch.manual_seed(0)
    noise = 10 * torch.randn(96)
    net = of_a_number()
    reached = torch.optim.Adam(net.parameters(), 0.1)
    how = applying(lambda o, y: F.mse_loss(o[:, 0], 500 + noise[: len(y)]))
    assert found("unscaled-targets", how, net=net, optimizer=reached, epochs=60) is None


@pytest.mark.parametrize("rate", [1e-5, 3.0])
@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss])
def test_outputs_that_the_loop_turns_back(loss: Any, rate: float) -> None:
    net = of_a_number()
    how = applying(lambda o, y: loss(o * 50 + 500, 450 + 100.0 * y[:, None]))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    assert found("unscaled-targets", how, net=net, optimizer=optimizer, epochs=10) is None


def test_sigmoids_in_the_loop_before_a_loss_of_probabilities() -> None:
    how = applying(lambda o, y: F.binary_cross_entropy(torch.sigmoid(o), y[:, None].float()))
    for bias in (-0.5, 0.5):
        net = of_a_number()
        nn.init.constant_(net[2].bias, bias)
        assert found("start-loss", how, net=net, optimizer=adam(net)) is None


def test_scores_that_the_loop_turns_round_are_open() -> None:
    def finding(sign: float) -> Any:
        net = network()
        nn.init.constant_(net[4].bias, -5.0)
        rate = torch.optim.Adam(net.parameters(), 1e-4)
        how = applying(lambda o, y: F.cross_entropy(torch.relu(sign * o), y))
        return found("unreachable-targets", how, net=net, optimizer=rate)

    assert finding(-1.0) is None
    assert finding(1.0) is not None


@pytest.mark.parametrize("loss", [F.l1_loss, F.huber_loss])
def test_absolute_errors_of_targets_out_of_reach_are_no_broadcast(loss: Any) -> None:
    net = of_a_number()
    right = applying(lambda o, y: loss(o[:, 0], 1e5 * (y + 2.0)))
    assert found("broadcast-loss", right, net=net, optimizer=adam(net)) is None
    wrong = applying(lambda o, y: loss(o, 1e5 * (y + 2.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finding = found("broadcast-loss", wrong, net=net, optimizer=adam(net))
    assert finding is not None
    assert finding.sure == "sure"


class Scaled(nn.Module):
    """Turn outputs back to the units of targets."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * (x + 2)


CODES = (
    "stale-parameters", "detached-loss", "part-without-gradient", "missing-step", "step-without-backward",
    "cleared-gradients", "gradients-not-zeroed", "double-step", "unheld-parameters", "schedule-per-batch",
    "eval-in-training", "train-in-evaluation", "unscaled-targets",
)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_every_check_is_explained(code: str) -> None:
    assert set(explain(code).sections) == {
        "Evidence", "Why it hurts", "How sure", "What to try", "References",
    }  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_where_there_is_no_loop_nothing_is_found(code: str) -> None:
    assert check_module(code).find(Sight()) is None


class Heads(nn.Module):
    """Two heads on one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.body(x))
        return self.one(hidden), self.two(hidden)


@pytest.mark.parametrize("both", [False, True])
def test_a_head_that_no_loss_is_given_is_a_hint_that_says_so(both: bool) -> None:
    def learn(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        one, two = net(x)
        (F.cross_entropy(one, y) + (F.cross_entropy(two, y) if both else 0.0)).backward()
        optimizer.step()

    net = Heads()
    finding = found("no-gradient", learn, net=net, optimizer=adam(net))
    if both:
        assert finding is None
    else:
        assert finding is not None
        assert (finding.sure, finding.where) == ("hint", ("two.weight", "two.bias"))
        assert finding.evidence.endswith("; what the loss is computed from does not depend on them")
        assert "detach" not in finding.remedies[0].what
