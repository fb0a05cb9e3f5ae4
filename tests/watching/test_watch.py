"""watch(): it changes nothing, leaves nothing behind, and copes with loops of many kinds."""

import contextlib
import copy
import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import optimizer as torch_optimizer

import foldwise
from foldwise.errors import NetworkError
from foldwise.watching.watch import Watch

ROWS, BATCH = 96, 16


def table() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 6, generator=source)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def batches(epochs: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = table()
    for _ in range(epochs):
        for rows in torch.randperm(ROWS).split(BATCH):
            yield x[rows], y[rows]


Step = Callable[[nn.Module, Any, Tensor, Tensor], None]


def step(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def train(net: nn.Module, optimizer: Any, how: Step = step, epochs: int = 4) -> None:
    x, _ = table()
    for number, (inputs, targets) in enumerate(batches(epochs)):
        how(net, optimizer, inputs, targets)
        if number % 6 == 5:
            net.eval()
            with torch.no_grad():
                net(x)
            net.train()


def closure(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    def again() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    optimizer.step(again)


def scaled(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    if not hasattr(optimizer, "scaler"):
        optimizer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)  # the first steps overflow
    scaler = optimizer.scaler
    with torch.autocast("cpu", torch.float16):
        out = net(x)
    optimizer.zero_grad()
    scaler.scale(F.cross_entropy(out.float(), y)).backward()
    scaler.step(optimizer)
    scaler.update()


def own_loss(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad(set_to_none=False)
    (F.one_hot(y, 2) - net(x).softmax(-1)).square().sum(1).mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    optimizer.step()


def adam(net: nn.Module) -> Any:
    return torch.optim.Adam(net.parameters(), 0.01)


def lbfgs(net: nn.Module) -> Any:
    return torch.optim.LBFGS(net.parameters(), 0.1, max_iter=3)


def state(net: nn.Module) -> list[Tensor]:
    return [t.clone() for t in net.state_dict().values()]


def hooks_of(net: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_modules = sum(len(getattr(m, kind)) for m in net.modules() for kind in kinds)
    of_tensors = sum(len(p._backward_hooks or {}) for p in net.parameters())
    optimizers = len(torch_optimizer._global_optimizer_pre_hooks) + len(
        torch_optimizer._global_optimizer_post_hooks
    )
    modes = len(torch.overrides._get_current_function_mode_stack())
    return of_modules + of_tensors + optimizers + modes


@pytest.mark.parametrize("how", [step, closure, scaled, own_loss])
@pytest.mark.parametrize("make", [adam, lbfgs])
def test_training_is_the_same_to_the_last_bit(how: Step, make: Callable[[nn.Module], Any]) -> None:
    if make is lbfgs and how is not closure:
        pytest.skip("L-BFGS wants a closure")
    alone = network()
    random.seed(0)
    train(alone, make(alone), how)
    chance = (torch.rand(3), random.random())
    watched = network()
    optimizer = make(watched)
    random.seed(0)
    with foldwise.watch(watched, optimizer, F.cross_entropy) as watch:
        train(watched, optimizer, how)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    assert [f for f in watch.findings if f.alarm] == []
    assert (torch.rand(3).tolist(), random.random()) == (chance[0].tolist(), chance[1])
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(state(alone), state(watched), strict=True))


def test_hooks_are_removed() -> None:
    net = network()
    before = hooks_of(net)
    with foldwise.watch(net, adam(net)) as watch:
        assert hooks_of(net) > before
        train(net, adam(net))
    assert hooks_of(net) == before
    assert watch.sight().looks


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "step"])
def test_hooks_are_removed_after_an_exception(where: str) -> None:
    net = network()
    optimizer = adam(net)
    before = hooks_of(net)

    def broken(net: nn.Module, optimizer: Any, x: Tensor, y: Tensor) -> None:
        out = net(x[:, :3] if where == "forward" else x)
        loss = F.cross_entropy(out, y[:2] if where == "loss" else y)
        (loss.detach() if where == "backward" else loss).backward()
        optimizer.step(lambda: 1 / 0)

    with (
        pytest.raises((RuntimeError, ValueError, ZeroDivisionError)),
        foldwise.watch(net, optimizer) as watch,
    ):
        train(net, optimizer, broken)
    assert hooks_of(net) == before
    assert watch.findings == []


def test_a_copy_or_a_file_of_the_network_does_not_watch() -> None:
    net = network()
    with foldwise.watch(net, adam(net)) as watch:
        other = copy.deepcopy(net)
        file = io.BytesIO()
        torch.save(net, file)
        read = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        for one in (other, read):
            one(table()[0]).sum().backward()
        assert watch.loop().passes == 0


def test_findings_can_be_asked_for_inside() -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        for x, y in batches(2):
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        assert "gradients-not-zeroed" in [f.code for f in watch.findings]
    assert watch.findings is watch.findings


def test_a_watch_can_be_used_again() -> None:
    net = network()
    optimizer = adam(net)
    watch = foldwise.watch(net, optimizer)
    with watch:
        train(net, optimizer, lambda n, o, x, y: (F.cross_entropy(n(x), y).backward(), o.step())[0])
    assert watch.findings
    with watch:
        train(net, optimizer)
    assert watch.findings == []


def test_what_is_counted() -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer)
    loop = watch.loop() if watch.open else watch.sight().loop
    assert loop is not None
    assert (loop.steps, loop.passes, loop.dark_evaluation, loop.dark_training) == (24, 24, 4, 0)
    assert (loop.empty, loop.doubled, loop.left, loop.cleared, loop.thrown, loop.evaluating) == (0,) * 6
    assert loop.heard == loop.backwards == loop.watched > 5
    assert loop.modes == ("1", "3")
    assert all(p.held and p.reached and p.moved for p in loop.parameters)
    assert {p.name for p in loop.parameters if p.fresh} == {"0.weight", "4.weight"}
    assert loop.rates.tolist() == [0.01] * 24
    assert loop.options[0]["betas"] == (0.9, 0.999)


def test_nothing_is_missed_while_there_is_nothing_to_do() -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer, epochs=70)
        busy = watch.tally.watched + len(watch.losses.steps)
    loop = watch.sight().loop
    assert loop is not None
    assert busy < 0.6 * 420  # of the steps; so that others are among them
    assert (loop.steps, loop.passes, loop.dark_evaluation, loop.epoch) == (420, 420, 70, 6)
    assert len(loop.rates) == 420
    assert (loop.empty, loop.doubled, loop.left, loop.cleared, loop.thrown, loop.evaluating) == (0,) * 6


def test_what_goes_wrong_late_is_seen() -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer, epochs=20)
        net.eval()
        for x, y in batches(20):  # and nothing empties gradients
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    loop = watch.sight().loop
    assert loop is not None
    assert (loop.steps, loop.evaluating, loop.evaluating_since) == (240, 120, 121)
    assert loop.left > 0


def test_the_first_batch_and_the_loss_are_overheard() -> None:
    net = network()
    start = state(net)
    optimizer = adam(net)
    torch.manual_seed(3)
    (x, y), *_ = batches(1)
    torch.manual_seed(3)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer)
    sight = watch.sight()
    own = sight.network
    assert own is not None
    assert own.loss is not None
    assert own.targets is not None
    assert own.loss_name == "cross_entropy"
    assert torch.equal(own.inputs, x)
    assert torch.equal(own.targets, y)
    assert all(torch.equal(a, b) for a, b in zip(start, state(own.module), strict=True))
    scores = torch.randn(BATCH, 2)
    assert torch.equal(own.loss(scores, y), F.cross_entropy(scores, y, reduction="none"))
    assert [look.step for look in sight.looks][:4] == [0, 1, 2, 4]
    assert sight.looks[-1].step == 24
    weight = next(w for w in sight.looks[-1].weights if w.name == "4.weight")
    assert weight.norm == pytest.approx(net[4].weight.norm().item())  # type: ignore


class Lightning(nn.Module):
    """What a Lightning module looks like, with its own call left out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.loss = network(), nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.loss(self.body(batch[0]), batch[1])


def test_modules_with_a_training_step() -> None:
    module = Lightning()
    optimizer = adam(module)
    with foldwise.watch(module, optimizer) as watch:
        for batch in batches():

            def again(batch: tuple[Tensor, Tensor] = batch) -> Tensor:
                loss = module.training_step(batch)
                optimizer.zero_grad()
                loss.backward()
                return loss

            optimizer.step(again)
    sight = watch.sight()
    assert sight.loop is not None
    assert sight.loop.passes == 24
    assert sight.network is not None
    assert sight.network.loss_name == "cross_entropy"
    assert sight.looks[-1].step == 24
    assert watch.findings == []
    assert hooks_of(module) == 0


@pytest.mark.parametrize("inside", [False, True])
def test_compiled_networks(inside: bool) -> None:
    alone, net = network(), network()
    if inside:
        net.compile(backend="eager")
        compiled = net
    else:
        compiled = torch.compile(net, backend="eager")  # type: ignore[assignment]
    torch.manual_seed(5)
    train(alone, adam(alone))
    torch.manual_seed(5)
    optimizer = adam(net)
    with foldwise.watch(compiled, optimizer, F.cross_entropy) as watch:
        train(compiled, optimizer)
    assert watch.findings == []
    assert hooks_of(net) == 0
    assert all(torch.equal(a, b) for a, b in zip(state(alone), state(net), strict=True))
    assert watch.sight().loop.steps == 24  # type: ignore[union-attr]


def test_two_optimizers_that_share_one_backward_pass() -> None:
    net = network()
    first, second = adam(net[0]), torch.optim.SGD(net[1:].parameters(), 0.1)  # type: ignore[index]
    for told in ([first, second], first, None):
        with foldwise.watch(net, told) as watch:
            for x, y in batches():
                net.zero_grad()
                F.cross_entropy(net(x), y).backward()
                first.step()
                second.step()
        assert watch.findings == []


def test_networks_that_take_turns() -> None:
    """The loss of one network runs through the other, whose gradients are emptied only when its turn comes."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(2, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    one, other = adam(maker), adam(judge)
    with foldwise.watch(judge, other) as watch:
        for x, _ in batches(8):
            made = maker(torch.randn(len(x), 2))
            other.zero_grad()
            (judge(made.detach()).mean() - judge(x).mean()).backward()
            other.step()
            one.zero_grad()
            (-judge(made).mean()).backward()
            one.step()
    assert [f.code for f in watch.findings if f.alarm] == []


class Wrapping(torch.optim.Adam):
    """An optimizer whose step calls the one that it inherits, which PyTorch hooks as well."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


def test_a_step_within_a_step_is_one() -> None:
    net = network()
    torch.optim.Adam(net.parameters())
    optimizer = Wrapping(net.parameters(), 0.01)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer, epochs=70)
    assert watch.sight().loop.steps == 420  # type: ignore[union-attr]
    assert watch.findings == []


@pytest.mark.parametrize("broken", [{3}, {50, 77, 120}])
def test_a_step_that_ends_in_an_exception_is_not_counted_and_the_next_ones_are(broken: set[int]) -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        for number, (x, y) in enumerate(batches(30)):

            def again(number: int = number, x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(x), y)
                loss.backward()
                if number in broken:
                    raise RuntimeError("out of memory")
                return loss

            with contextlib.suppress(RuntimeError):
                optimizer.step(again)
    assert watch.sight().loop.steps == 180 - len(broken)  # type: ignore[union-attr]
    assert [f for f in watch.findings if f.alarm] == []


def test_what_checks_train_is_none_of_the_loop() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    optimizer = adam(net)
    rare = (table()[0][:, :1] > 1.5).float()
    with foldwise.watch(net, optimizer) as watch:
        for number in range(60):
            optimizer.zero_grad()
            F.binary_cross_entropy(net(table()[0]), rare).backward()
            optimizer.step()
            if number % 10 == 1:
                assert [f for f in watch.findings if f.alarm] == []
    assert watch.sight().loop.steps == 60  # type: ignore[union-attr]
    assert list(watch.optimizers) == [optimizer]


def test_gradients_that_the_loop_puts_there_itself_are_not_added() -> None:
    net = network()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        for x, y in batches(10):
            parameters = list(net.parameters())
            found = torch.autograd.grad(F.cross_entropy(net(x), y), parameters)
            for p, gradient in zip(parameters, found, strict=True):
                p.grad = gradient
            optimizer.step()
    loop = watch.sight().loop
    assert loop is not None
    assert loop.checked > 5
    assert loop.left == 0


class Growing(nn.Module):
    """Makes its last layer in its first pass, when the optimizer has been made."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None:
            self.last = nn.Linear(16, 2)
        found: Tensor = self.last(F.relu(self.first(x)))
        return found


def test_layers_that_the_first_pass_makes_are_not_held() -> None:
    torch.manual_seed(0)
    net = Growing()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer)
    assert [f.code for f in watch.findings if f.alarm] == ["unheld-parameters"]
    assert watch.findings[0].where == ("last.weight", "last.bias")


def test_networks_of_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor, *, shift: Tensor) -> dict[str, Tensor]:
            return {"rows": torch.arange(len(x)), "scores": self.net(x + shift)}

    net = Two()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(net(x, shift=torch.ones(6))["scores"], y).backward()
            optimizer.step()
    sight = watch.sight()
    assert sight.network is None
    assert [layer.name for layer in sight.looks[0].layers] == ["net.0", "net.1", "net.2", "net.3", "net.4"]
    assert watch.findings == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("two", [False, True])
def test_graphs_are_copied_in_a_way_of_their_own(two: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Any:
            hidden = torch.relu(self.first(x))
            return (self.last(hidden), hidden) if two else self.last(hidden)

    graph = torch.fx.symbolic_trace(Net())
    optimizer = torch.optim.Adam(graph.parameters(), 0.01)
    with foldwise.watch(graph, optimizer) as watch:
        for x, y in batches():
            optimizer.zero_grad()
            out = graph(x)[0] if two else graph(x)
            F.mse_loss(torch.sigmoid(out), y[:, None].float()).backward()
            optimizer.step()
    assert not watch.findings.alarms
    network = watch.sight().network
    assert network is not None
    for module in (network.module, copy.deepcopy(copy.deepcopy(network.module))):
        out = module(network.inputs)
        assert out.shape == (BATCH, 1)
        assert float(out.detach().min()) > 0
        assert float(out.detach().max()) < 1


def test_networks_that_cannot_be_copied() -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("not to be copied")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    net = Locked()
    optimizer = adam(net)
    with foldwise.watch(net, optimizer) as watch:
        train(net, optimizer, lambda n, o, x, y: (F.cross_entropy(n(x), y).backward(), o.step())[0])
    assert [f.code for f in watch.findings] == ["gradients-not-zeroed"]


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(NetworkError, match="`model` must be"):
        foldwise.watch(3)  # type: ignore[arg-type]


def test_the_name_stays_a_function() -> None:
    import foldwise.watching.watch

    assert isinstance(foldwise.watch(network()), Watch)
    assert isinstance(foldwise.watch(network()), Watch)
