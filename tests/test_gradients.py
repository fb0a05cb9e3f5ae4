"""check_gradients: right gradients pass, each kind of wrong one is found and named, and nothing is changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import foldwise
from foldwise.autograd.numerical import central, one_sided
from foldwise.gradients import GradientCheck

EPS = float(np.finfo(float).eps)


def inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Any]
) -> Callable[..., Tensor]:
    """Make a function of one tensor with a backward pass of its own, which gets x and the gradient."""

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            return backward(ctx.saved_tensors[0], gradient)

    return ByHand.apply


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.query(x) @ x.transpose(-1, -2)).softmax(-1) @ self.value(x)


MODULES: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "linear": lambda: (nn.Linear(3, 2), (4, 3)),
    "mlp": lambda: (nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (4, 3)),
    "dropout": lambda: (nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.SiLU(), nn.Linear(5, 2)), (4, 3)),
    "batch norm": lambda: (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)),
        (6, 3),
    ),
    "evaluated": lambda: (nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.GELU()).eval(), (6, 3)),
    "convolution": lambda: (nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()), (2, 2, 5, 5)),
    "recurrent": lambda: (nn.LSTM(3, 2), (4, 2, 3)),
    "attention": lambda: (Attention(), (2, 3, 4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_right_gradients_of_modules_agree(name: str) -> None:
    torch.manual_seed(0)
    module, shape = MODULES[name]()
    check = foldwise.check_gradients(module, inputs(*shape), entries=60)
    assert check.agree, check
    assert "forward" not in check.missing
    assert check.worst.relative_error <= 1e-7
    assert not any(e.unsure for e in check.entries), check
    names = {e.tensor for e in check.entries}
    assert names >= {n for n, _ in module.named_parameters()}
    assert len(names) == len(list(module.parameters())) + 1


def test_every_way_gives_what_is_known() -> None:
    x = torch.tensor([0.3, -1.2, 2.0])
    check = foldwise.check_gradients(lambda x: x.sin().sum(), x)
    assert not check.missing
    for e in check.entries:
        assert e.index is not None
        known = math.cos(x.double()[e.index[0]])
        for way, value in e.values.items():
            assert value == pytest.approx(known, rel=1e-9), way


SYMBOLIC: dict[str, Callable[[Tensor], Tensor]] = {
    "exp log": lambda x: (x.exp() + 1).log(),
    "powers": lambda x: x**3 - 2 * x**2 + 1 / (x**2 + 1),
    "sigmoids": lambda x: (
        x.sigmoid() + x.tanh() + F.silu(x) + F.softplus(x) + F.gelu(x) + F.gelu(x, approximate="tanh")
    ),
    "bends": lambda x: (
        F.relu(x) + F.leaky_relu(x, 0.1) + F.elu(x) + x.abs() + x.clamp(-0.5, 0.5) + F.hardtanh(x)
    ),
    "softmax": lambda x: F.log_softmax(x, 1) * x.softmax(0),
    "cross-entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 2])),
    "soft labels": lambda x: F.cross_entropy(x, torch.full((2, 3), 1 / 3).double(), label_smoothing=0.1),
    "logistic": lambda x: F.binary_cross_entropy_with_logits(x, torch.ones_like(x)),
    "huber": lambda x: F.huber_loss(x, torch.zeros_like(x), delta=0.7),
    "products": lambda x: x @ x.T + (x.T @ x).diagonal().prod(),
    "matrices": lambda x: torch.einsum("ij,kj->ik", x, x).sum(0, keepdim=True) * x.mean(),
    "norms": lambda x: x.norm() + x.norm(dim=0) + x.std() + x.var(0),
    "layer norm": lambda x: F.layer_norm(x, (3,)),
    "batch norm": lambda x: F.batch_norm(x.T, None, None, training=True),
    "shapes": lambda x: (
        torch.cat([x.T.reshape(2, 3), x[:, 1:2]], 1)[0].unsqueeze(0).expand(2, 4)
        * torch.stack([x[0, 0], x[1, 2]])[:, None]
    ),
    "extremes": lambda x: x.amax(1) * x.min(0).values.sum() + torch.maximum(x, -x).logsumexp(1),
    "dropout": lambda x: F.dropout(x, 0.5) * x,
    "where": lambda x: torch.where(x > 0, x**3, x * x),
    "sums": lambda x: x.cumsum(1) * x.sin() + x.atan(),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_formulas_agree_with_the_other_ways(name: str) -> None:
    check = foldwise.check_gradients(SYMBOLIC[name], inputs(2, 3, seed=1))
    assert "symbolic" not in check.missing, check.missing
    assert check.agree, check


WRONG: dict[str, tuple[Callable[..., Tensor], str]] = {
    "sign": (by_hand(torch.sin, lambda x, g: -g * x.cos()), "the sign is wrong"),
    "factor": (by_hand(torch.square, lambda x, g: g * x), "the factor 2 is missing"),
    "axis": (
        by_hand(
            lambda x: x.softmax(1), lambda x, g: x.softmax(1) * (g - (g * x.softmax(1)).sum(0, keepdim=True))
        ),
        "",
    ),
    "nothing": (by_hand(torch.square, lambda x, g: torch.zeros_like(x)), "No gradient comes back"),
    "none": (by_hand(torch.square, lambda x, g: None), "No gradient comes back"),
    "other formula": (by_hand(torch.tanh, lambda x, g: g * (1 - x**2)), ""),
    "without the gradient": (by_hand(lambda x: x.square().sum(), lambda x, g: 2 * x + 0 * g + 1e-4), ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backward_is_found(name: str) -> None:
    function, said = WRONG[name]
    check = foldwise.check_gradients(function, inputs(3, 4))
    assert not check.agree
    assert check.worst.odd == ("backward",)
    assert check.worst.tensor == "x"
    assert said in check.sentence
    assert check.missing["forward"] == "a torch.autograd.Function in it has no jvp"
    assert check.worst.values["symbolic"] == pytest.approx(check.worst.values["numerical"])


@pytest.mark.parametrize(
    ("function", "backward"),
    [
        (torch.sin, lambda x, g: g * x.cos()),
        (torch.relu, lambda x, g: g * (x > 0)),
        (torch.abs, lambda x, g: g * x.sign()),
    ],
)
def test_a_right_backward_passes(function: Callable[..., Tensor], backward: Callable[..., Tensor]) -> None:
    x = inputs(3, 4)
    x[0, :2] = 0
    assert foldwise.check_gradients(by_hand(function, backward), x).agree


def test_one_wrong_entry_of_many_is_found_and_named() -> None:
    def backward(x: Tensor, gradient: Tensor) -> Tensor:
        found = gradient * x.cos()
        found[37, 21] *= 1.001
        return found

    check = foldwise.check_gradients(by_hand(lambda x: x.sin().sum(), backward), inputs(60, 50), entries=10)
    named = [e for e in check.disagreeing if e.index is not None]
    assert [e.index for e in named] == [(37, 21)]
    assert check.worst.name == "x[37, 21]"
    assert check.checked["x"] == (10, 3000)


def test_a_wrong_gradient_of_a_parameter_is_named() -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            return gradient @ weight, gradient.T @ x.flip(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(inputs(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return Product.apply(x, self.weight)

    check = foldwise.check_gradients(nn.Sequential(nn.Linear(3, 3), Layer()), inputs(4, 3))
    assert {e.tensor for e in check.disagreeing} == {"1.weight"}
    assert "1.weight" in check.sentence
    assert "1.weight" in str(check)


def test_a_wrong_jvp_is_found() -> None:
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.sin()

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx: Any, tangent: Tensor) -> Tensor:
            return -tangent * ctx.saved_tensors[0].cos()

    check = foldwise.check_gradients(Sine.apply, inputs(3))
    assert check.worst.odd == ("forward",)
    assert "forward disagrees with backward, numerical and symbolic" in check.sentence


KINKS: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "relu": (F.relu, torch.zeros(4)),
    "abs": (torch.abs, torch.zeros(4)),
    "tie, shared": (lambda x: x.amax(1), torch.ones(2, 3)),
    "tie, first": (lambda x: x.max(1).values, torch.ones(2, 3)),
    "maximum": (lambda x: torch.maximum(x, x.flip(0)), torch.ones(4)),
    "norm": (torch.norm, torch.zeros(3)),
    "hinge": (lambda x: (1 - x).clamp(min=0), torch.ones(3)),
    "close to one": (F.relu, torch.full((3,), 1e-9)),
    "tiny beside": (F.relu, torch.tensor([1e-6, -1e-6, 3.0])),
}


@pytest.mark.parametrize("name", KINKS)
def test_right_gradients_at_kinks_pass(name: str) -> None:
    function, x = KINKS[name]
    assert foldwise.check_gradients(function, x).agree


def test_many_kinks_at_once_pass() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 1)
    )
    check = foldwise.check_gradients(net, torch.zeros(2, 3))
    assert check.agree, check
    assert any(e.beside for e in check.entries)


@pytest.mark.parametrize("at_zero", [5.0, -0.5, math.nan])
def test_a_wrong_gradient_at_a_kink_is_found(at_zero: float) -> None:
    def backward(x: Tensor, gradient: Tensor) -> Tensor:
        return gradient * torch.where(x == 0, at_zero, (x > 0).to(x.dtype))

    check = foldwise.check_gradients(by_hand(torch.relu, backward), torch.tensor([0.0, 1.0, -1.0]))
    assert [e.index for e in check.disagreeing] == [(0,)]
    assert check.worst.between is not None
    assert "must lie between" in check.sentence


def test_a_wrong_gradient_beside_kinks_is_found() -> None:
    """At 0 half of the gradient lies between the one-sided derivatives; a little beside it does not."""
    halved = by_hand(torch.relu, lambda x, g: g * 0.5 * (x >= 0))
    check = foldwise.check_gradients(halved, torch.zeros(6))
    assert not check.agree
    assert all(e.beside for e in check.disagreeing)
    assert "moved off a kink" in str(check)


def test_a_gradient_that_is_not_finite_is_found() -> None:
    check = foldwise.check_gradients(lambda x: (x * x).sqrt() * 0 + x, torch.zeros(3))
    assert not check.agree
    assert "not finite" in check.sentence


def test_what_is_left_out_on_purpose_disagrees() -> None:
    check = foldwise.check_gradients(lambda x: x * x.detach(), inputs(3))
    assert check.worst.odd == ("backward", "forward")
    assert "`detach`" in check.sentence
    straight_through = by_hand(torch.round, lambda x, g: g)
    assert not foldwise.check_gradients(straight_through, inputs(3)).agree


def test_nothing_is_changed() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    module[0].weight.grad = torch.ones_like(module[0].weight)
    x = inputs(5, 3)
    given_x, before = x.clone(), copy.deepcopy(module.state_dict())
    dtypes = [p.dtype for p in module.parameters()]
    state = torch.get_rng_state()
    assert foldwise.check_gradients(module, x).agree
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, given_x)
    assert not x.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert dtypes == [p.dtype for p in module.parameters()]
    assert module.training
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert module[3].weight.grad is None


def test_a_function_may_write_over_its_inputs() -> None:
    assert foldwise.check_gradients(lambda x: x.mul_(2).sin_(), inputs(3)).agree


def test_inputs_that_are_no_floats_are_left_alone() -> None:
    def function(x: Tensor, classes: Tensor, *, weights: dict[str, Any], name: str) -> Tensor:
        assert name == "a name"
        assert classes.dtype == torch.int64
        return (x[torch.arange(4), classes] * weights["of classes"][0][classes]).sum()

    named = {
        "x": inputs(4, 3),
        "classes": torch.tensor([0, 1, 2, 0]),
        "weights": {"of classes": [torch.ones(3)]},
        "name": "a name",
    }
    check = foldwise.check_gradients(function, named)
    assert check.agree, check
    assert set(check.checked) == {"x", "weights['of classes'][0]"}


def test_only_inputs_that_require_a_gradient_are_compared_if_any_do() -> None:
    a, b = inputs(3), inputs(3, seed=1).requires_grad_()
    check = foldwise.check_gradients(lambda a, b: (a * b).sum(), (a, b))
    assert set(check.checked) == {"b"}
    assert check.agree


def test_parameters_can_be_left_out_and_frozen_ones_are() -> None:
    module = nn.Linear(3, 2)
    assert set(foldwise.check_gradients(module, inputs(2, 3), parameters=False).checked) == {"input"}
    module.weight.requires_grad_(False)
    assert set(foldwise.check_gradients(module, inputs(2, 3)).checked) == {"input", "bias"}


def test_methods_of_modules_are_functions_of_their_parameters() -> None:
    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def energy(self, x: Tensor) -> Tensor:
            return (self.scale * x).square().sum()

    check = foldwise.check_gradients(Energy().energy, inputs(2))
    assert set(check.checked) == {"x", "scale"}
    assert check.agree


def test_several_outputs_are_all_differentiated() -> None:
    wrong = by_hand(torch.sin, lambda x, g: 1.5 * g * x.cos())
    check = foldwise.check_gradients(lambda x: {"right": x.cos(), "more": (x, wrong(x))}, inputs(3))
    assert not check.agree


def test_outputs_in_single_precision_are_compared_roughly_and_it_is_said() -> None:
    check = foldwise.check_gradients(lambda x: x.float().sin(), inputs(3))
    assert check.agree
    assert any("not in double precision" in note for note in check.notes)
    wrong = by_hand(torch.sin, lambda x, g: 1.1 * g * x.cos())
    assert not foldwise.check_gradients(lambda x: wrong(x.float()), inputs(3)).agree


def test_an_input_without_connection_is_named() -> None:
    check = foldwise.check_gradients(lambda x, unused: x.sum(), (inputs(2), inputs(2)))
    assert check.agree
    assert any("no connection from unused" in note for note in check.notes)


def refusal(function: Any, x: Any, **options: Any) -> str:
    with pytest.raises(foldwise.FoldwiseError) as caught:
        foldwise.check_gradients(function, x, **options)
    assert caught.value.hint
    return caught.value.problem


def test_what_cannot_be_compared_is_refused() -> None:
    x = inputs(3)
    assert "output is complex" in refusal(torch.fft.fft, x)
    assert "input is complex" in refusal(torch.abs, torch.complex(x, x))
    assert "no floating point numbers" in refusal(torch.argmax, x)
    assert "no floating point numbers: NoneType" in refusal(lambda x: None, x)
    assert "nothing to differentiate" in refusal(lambda x: x, torch.tensor([1, 2]))
    assert "NaN or infinity" in refusal(torch.log, -x.abs())
    assert "double precision" in refusal(lambda v: v @ torch.ones(3), x)
    assert "cannot be" in refusal(torch.sin, x, entries=0)
    weighted = torch.ones(3)
    assert "no gradient" in refusal(lambda x, w: F.cross_entropy(x, torch.tensor(0), weight=w), (x, weighted))
    counter = iter(range(100))
    assert "different values" in refusal(lambda x: x * next(counter), x)


def test_errors_of_the_function_itself_come_through() -> None:
    with pytest.raises(ZeroDivisionError):
        foldwise.check_gradients(lambda x: x * (1 // 0), inputs(3))


def test_why_there_is_no_formula_is_said() -> None:
    def why(function: Any, *shape: int) -> str:
        return foldwise.check_gradients(function, inputs(*shape), entries=5).missing["symbolic"]

    assert "100 numbers" in why(torch.sin, 10, 10)
    assert "depends on the numbers" in why(lambda x: x if x.sum() > 0 else -x, 3)
    assert "`erfinv`" in why(lambda x: torch.erfinv(x.tanh() / 2), 3)
    assert "1,500 operations" in why(lambda x: (x[:, None] * x[None]).softmax(0).softmax(1).log(), 6)


def test_the_same_seed_compares_the_same_entries() -> None:
    def compared(seed: int) -> list[tuple[int, ...] | None]:
        check = foldwise.check_gradients(lambda x: x.sin().sum(), inputs(500), entries=20, seed=seed)
        return sorted(e.index for e in check.entries if e.index)

    assert compared(1) == compared(1) != compared(2)


def test_the_record_and_its_table() -> None:
    check = foldwise.check_gradients(WRONG["factor"][0], inputs(12))
    table = check.table()
    assert len(table) == len(check.entries) == 12
    assert table.columns[:5] == ["tensor", "index", "backward", "numerical", "symbolic"]
    assert table["relative_error"].is_sorted(descending=True)
    assert table["relative_error"].to_list() == pytest.approx([0.5] * 12)
    assert "and 4 more" in str(check)
    assert isinstance(check, GradientCheck)
    assert check.table(3).height == 3


@given(
    st.floats(-3, 3), st.floats(0.01, 20), st.sampled_from(["sin", "exp", "cube", "tanh"]), st.floats(0, 1e6)
)  # fmt: skip
def test_differences_are_as_exact_as_they_say(x: float, scale: float, kind: str, offset: float) -> None:
    functions: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "sin": (np.sin, np.cos),
        "exp": (lambda v: np.exp(-(v**2)), lambda v: -2 * v * np.exp(-(v**2))),
        "cube": (lambda v: v**3, lambda v: 3 * v**2),
        "tanh": (np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    }
    value, slope = functions[kind]
    found = central(lambda t: np.array([value(scale * (x + t)) + offset]), max(abs(x), 0.1), EPS)
    true = scale * slope(scale * x)
    assert abs(found.value - true) <= found.error
    assert found.error <= 1e-6 * (abs(true) + scale + (offset + 1) / max(abs(x), 0.1))


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_one_sided_differences_bracket_a_kink(left: float, right: float) -> None:
    def bent(t: float) -> np.ndarray:
        return np.array([right * t if t > 0 else left * t, 2 * t])

    low, high = one_sided(bent, 1.0, EPS)
    assert low.value == pytest.approx(min(left, right) + 2, abs=1e-8)
    assert high.value == pytest.approx(max(left, right) + 2, abs=1e-8)


def test_arguments_that_cannot_be_are_explained() -> None:
    def product(x: Any, w: Any) -> Any:
        return x * w

    x, w = inputs(2), inputs(2)
    with pytest.raises(foldwise.FoldwiseError, match=r"one tuple; got 2 of them\.\nhint: .*\(f, \(x, w\)\)"):
        foldwise.check_gradients(product, x, w)
    assert "missing a required argument: 'w'" in refusal(product, x)
    assert "with 3 inputs: too many" in refusal(product, (x, w, w))
    assert "with 1 input: " in refusal(product, {"x": x})
    assert "a module or a function; got Tensor" in refusal(x, w)
    assert "`loss` takes a module or a function; got str" in refusal(product, (x, w), loss="mse")
    assert "the module cannot be called with 2 inputs" in refusal(torch.nn.Linear(2, 1), (x, w))
    assert foldwise.check_gradients(product, {"x": x, "w": w}).agree
