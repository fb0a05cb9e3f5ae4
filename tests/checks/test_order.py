"""Findings in order: causes first, symptoms under them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foldwise.checks import CHECKS, GROUPS, symptoms
from foldwise.checks.explain import SECTIONS, explain
from foldwise.checks.finding import Finding, Remedy, Tried
from foldwise.checks.order import check_module, in_order, in_order_again
from foldwise.checks.telling import doubt
from foldwise.errors import SettingsError
from foldwise.store.findings import findings_as_plain, findings_from_plain


def finding(
    code: str, *, sure: str = "likely", trials: tuple[int, ...] = (), step: int | None = None
) -> Finding:
    return Finding(code, sure, "it is so", trials=trials, step=step)  # type: ignore[arg-type]


def test_alarms_come_before_hints_and_early_ones_before_late_ones() -> None:
    found = in_order([finding("constant-columns", sure="hint"), finding("dead-units", step=40, trials=(4,))])
    assert [f.code for f in found] == ["dead-units", "constant-columns"]


@pytest.fixture
def explaining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let constant columns explain dead units."""
    monkeypatch.setattr(check_module("constant-columns"), "EXPLAINS", ("dead-units",))


@pytest.mark.usefixtures("explaining")
def test_a_symptom_is_folded_into_its_cause() -> None:
    (found,) = in_order([finding("dead-units", step=40), finding("constant-columns")])
    assert (found.code, found.symptoms) == ("constant-columns", ("dead-units",))


@pytest.mark.usefixtures("explaining")
def test_what_was_seen_later_or_elsewhere_or_is_only_a_hint_explains_nothing() -> None:
    later = [finding("dead-units", step=40), finding("constant-columns", step=50)]
    elsewhere = [finding("dead-units", trials=(4,)), finding("constant-columns", trials=(5,))]
    hint = [finding("dead-units"), finding("constant-columns", sure="hint")]
    for both in (later, elsewhere, hint):
        assert {f.code for f in in_order(both)} == {"dead-units", "constant-columns"}


@pytest.mark.usefixtures("explaining")
def test_slight_hints_are_kept_under_an_alarm_alone() -> None:
    slight = replace(finding("dead-units", sure="hint"), slight=True)
    assert in_order([slight]) == []
    assert in_order([slight, finding("plateau", sure="hint")])[0].code == "plateau"
    (found,) = in_order([slight, finding("constant-columns")])
    assert found.symptoms == ("dead-units",)
    assert in_order([replace(slight, sure="likely")])  # an alarm is never left out


@pytest.mark.usefixtures("explaining")
def test_what_was_folded_into_an_alarm_that_is_taken_back_is_found_by_itself() -> None:
    slight = replace(finding("plateau", sure="hint"), slight=True)
    (cause, other) = in_order(
        [
            replace(finding("dead-units", step=40), remedies=(Remedy("wider", {"width": 64}),)),
            finding("constant-columns"),
            slight,
            finding("jitter"),
        ]
    )
    assert in_order_again([cause, other]) == [cause, other]
    found = in_order_again([replace(cause, sure="hint"), other])
    assert [(f.code, f.symptoms) for f in found] == [
        ("jitter", ()),
        ("dead-units", ()),
        ("constant-columns", ()),
    ]


def test_what_comes_back_and_cannot_be_tried_is_a_hint() -> None:
    cause = Finding("underfitting", "likely", "it did not learn")
    seeming = Finding(
        "within-noise", "likely", "no better than the constant", remedies=(Remedy("more rows"),)
    )
    (found,) = in_order([cause, seeming])
    assert in_order_again([found])[0].symptoms == ("within-noise",)
    assert [f.alarm for f in in_order_again([replace(found, sure="hint")])] == [False, False]
    tried = replace(seeming, remedies=(Remedy("wider", {"width": 64}),))
    (found,) = in_order([cause, tried])
    assert [f.code for f in in_order_again([replace(found, sure="hint")]) if f.alarm] == ["within-noise"]


def test_remedies_are_not_judged_by_a_score_that_is_given_away() -> None:
    better = Tried("learning rate 0.1", {"learning_rate": 0.1}, 0.5, 0.6, 0.01, 0.01, 5, 5, 0.001, True)
    slow = replace(finding("half-overflow"), tried=(better,))
    leak, hint = finding("target-leak"), finding("target-leak", sure="hint")
    assert in_order([slow, hint])[0].suggested == better
    (_, told) = in_order([slow, leak])
    assert told.suggested is None
    assert str(told).endswith("Nothing is suggested: the score is given away, so see to target-leak first.")
    (back,) = findings_from_plain(findings_as_plain([told]))
    assert back == told
    assert in_order_again([told])[0].suggested == better


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_is_explained(code: str) -> None:
    told = explain(code)
    assert told.what.endswith(".")
    assert tuple(told.sections) == SECTIONS
    assert all(told.sections.values())
    assert {*check_module(code).EXPLAINS} <= {*CHECKS}


def test_a_symptom_in_a_group_is_explained_by_every_cause_of_the_group() -> None:
    for group in (v for name, v in vars(symptoms).items() if name.isupper()):
        assert set(group) <= {*CHECKS}
    (found,) = in_order([finding(code) for code in ("initial-scale", *symptoms.BREAKS)])
    assert {found.code, *found.symptoms} == {"initial-scale", *symptoms.BREAKS}


def test_what_a_training_looks_like_explains_no_fault_of_data_network_loss_or_loop() -> None:
    causes = [c for name in ("data", "network", "loss", "loop") for c in GROUPS[name]]
    for symptom in GROUPS["training"]:
        assert not set(check_module(symptom).EXPLAINS) & set(causes)


def test_no_check_of_that_name() -> None:
    with pytest.raises(SettingsError, match="no check `dead-unit`") as raised:
        explain("dead-unit")
    assert "dead-units" in raised.value.hint


def test_a_look_measures_what_a_layer_gives() -> None:
    from foldwise.checks.look import look_at

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    look = look_at(net, x, y, lambda o, t: (o - t).square().mean(1))
    with torch.no_grad():
        hidden = net[0](x)
    assert [own.name for own in look.layers] == ["0", "1", "2"]
    assert look.layers[0].mean == pytest.approx(float(hidden.mean()))
    assert look.layers[1].variance == pytest.approx(float(hidden.tanh().var(correction=0)))
    assert look.layers[1].saturated == pytest.approx(float((hidden.tanh().abs() >= 0.96).double().mean()))
    loss = (net(x) - y).square().mean(1).mean()
    gradient = torch.autograd.grad(loss, net[2].weight)[0]
    weights = next(w for w in look.weights if w.name == "2.weight")
    assert weights.gradient_norm == pytest.approx(float(gradient.norm()))
    assert look.loss == pytest.approx(float(loss.detach()))


class Functional(torch.nn.Module):
    """Its activation is a plain function; it draws random numbers and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        self.drop, self.norm = torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.drop(torch.relu(self.first(self.norm(x)) - 100)))


def test_an_activation_that_is_no_module_is_seen_and_a_look_leaves_no_trace() -> None:
    from foldwise.checks.look import look_at

    net = Functional().eval()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    state = torch.get_rng_state()
    look = look_at(net, torch.randn(8, 3), torch.zeros(8, 2), lambda o, t: (o - t).square().mean(1))
    (seen,) = [own for own in look.activations if own.dead == 1]
    assert seen.name == "before drop"
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert not net.first._forward_hooks
    assert len(state) == len(torch.get_rng_state())


def test_an_alarm_that_the_score_is_given_away_is_not_folded_under_one_that_leaves_it_alone() -> None:
    found = in_order([finding("conflicting-labels"), finding("repeated-rows")])
    assert [(f.code, f.given_away) for f in found] == [
        ("conflicting-labels", "repeated-rows"),
        ("repeated-rows", ""),
    ]
    assert doubt(found, 1.0)
    (one,) = in_order([finding("conflicting-labels"), finding("repeated-rows", sure="hint")])
    assert one.symptoms == ("repeated-rows",)
    (one,) = in_order([finding("overlapping-folds"), finding("repeated-rows")])
    assert one.symptoms == ("repeated-rows",)
