"""graph(): what is said of a recorded graph is what autograd does, and the picture says what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import foldwise
from foldwise.autograd.folding import boxes_of
from foldwise.autograd.layout import ACROSS, Extent, laid_out
from foldwise.autograd.nodes import VIEWS
from foldwise.recorded_graph import Graph, graph_of_network


def labels(nodes: Any) -> list[str]:
    return [n.label for n in nodes]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.norm1(self.conv1(x)))))


class Parts(nn.Module):
    """A network with a cut, an unused branch, a teacher without gradients and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.critic, self.teacher = (nn.Linear(4, 4) for _ in range(4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.never = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(self.frozen(x)).tanh()
        self.critic(hidden).sigmoid()
        with torch.no_grad():
            goal = self.teacher(x).relu()
        best = hidden.argmax(1)
        weight = (hidden.detach() - goal).abs().mean() + best.float().mean()
        return (weight * (self.second(hidden) - x) ** 2).mean()


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (6, 4)),
    "norms": lambda: (
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.LayerNorm(8), nn.GELU()),
        (6, 4),
    ),
    "residual": lambda: (nn.Sequential(nn.Conv2d(3, 4, 3), Block(4), Block(4), nn.Flatten()), (2, 3, 6, 6)),
    "recurrent": lambda: (nn.LSTM(4, 3), (5, 2, 4)),
    "attention": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 3, 8)),
    "parts": lambda: (Parts(), (6, 4)),
}


def loss_of(out: Any) -> Tensor:
    return (out[0] if isinstance(out, tuple) else out).square().mean()


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module, shape = NETWORKS[name]()
    return module, torch.randn(*shape)


def test_a_small_network_is_what_it_is() -> None:
    module, x = network("mlp")
    found = foldwise.graph(loss_of(module(x)), module=module)
    assert labels(found.operations) == ["t", "addmm", "relu", "t", "addmm", "pow", "mean"]
    assert [n.shape for n in found.operations] == [(4, 8), (6, 8), (6, 8), (8, 3), (6, 3), (6, 3), ()]
    by_number = {n.number: n for n in found.nodes}
    edges = {(by_number[e.source].label, by_number[e.target].label) for e in found.edges}
    assert edges == {
        ("0.weight", "t"), ("2.weight", "t"), ("t", "addmm"), ("0.bias", "addmm"), ("2.bias", "addmm"),
        ("addmm", "relu"), ("relu", "addmm"), ("addmm", "pow"), ("pow", "mean"), ("mean", "loss"),
    }  # fmt: skip
    assert found.nodes[-1].kind == "output"
    [relu] = [n for n in found.operations if n.label == "relu"]
    assert [(s.name, s.shape, s.bytes, s.held) for s in relu.saved] == [("result", (6, 8), 6 * 8 * 4, False)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_comes_after_what_it_uses(name: str) -> None:
    module, x = network(name)
    found = graph_of_network(module, x, loss_of)
    assert [n.number for n in found.nodes] == list(range(len(found.nodes)))
    assert all(e.source < e.target for e in found.edges)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_get_a_gradient_when_backward_gives_one(name: str) -> None:
    module, x = network(name)
    found = graph_of_network(module, x, loss_of)
    loss_of(module(x)).backward()
    assert {p.name: p.gets for p in found.parameters} == {
        n: p.grad is not None for n, p in module.named_parameters()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_those_that_autograd_packs(name: str) -> None:
    """torch's own hooks see each tensor as it is stored."""
    module, x = network(name)
    found = graph_of_network(module, x, loss_of)
    held = {t.untyped_storage().data_ptr() for t in [x, *module.parameters(), *module.buffers()]}
    sizes: dict[int, int] = {}
    kept = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t)  # or its memory is used again
        if t.untyped_storage().data_ptr() not in held:
            sizes.setdefault(t.untyped_storage().data_ptr(), t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = module(x)
        loss = loss_of(out)
    unused = sum(n.bytes for n in found.unused)
    assert loss.requires_grad
    assert found.stored_bytes + unused == sum(sizes.values())


def test_pruned_branches_say_why() -> None:
    module, x = network("parts")
    found = graph_of_network(module, x, None)
    why = {(n.block, n.label): n.why for n in found.pruned}
    assert why["frozen", "linear"] == "nothing that it uses needs a gradient"
    assert why["teacher", "linear"] == "the gradient is cut off here: done under `no_grad`"
    assert why["", "detach"] == "`detach` cuts the gradient off here"
    assert why["", "argmax"] == "its result is not a floating point number, and has no gradient"
    assert why["", "abs"] == "nothing that it uses needs a gradient"
    assert {n.block for n in found.unused} == {"critic", ""}
    assert {n.label for n in found.unused} == {"t", "addmm", "sigmoid"}
    reasons = {p.name.split(".")[0]: p.why for p in found.parameters}
    assert reasons == {
        "first": "", "second": "", "frozen": "frozen (requires_grad is False)",
        "teacher": "used only where no gradient is recorded", "never": "the output does not use it",
        "critic": "used only by what the output does not depend on",
    }  # fmt: skip
    by_number = {n.number: n for n in found.nodes}
    dashed = {
        (by_number[e.source].label, by_number[e.target].label) for e in found.edges if e.state == "pruned"
    }
    assert {
        ("tanh", "detach"),
        ("detach", "sub"),
        ("linear", "addmm"),
        ("inputs", "sub"),
        ("add", "mul"),
    } <= dashed


def test_targets_and_their_place_are_shown() -> None:
    module, x = network("mlp")
    classes = torch.zeros(6).long()
    found = foldwise.graph(lambda x, classes: F.cross_entropy(module(x), classes), x, classes, module=module)
    by_number = {n.number: n for n in found.nodes}
    ends = {(by_number[e.source].label, by_number[e.target].label) for e in found.edges}
    assert {("x", "addmm"), ("classes", "nll_loss")} <= ends


def test_a_function_written_by_hand_is_marked_with_what_it_stores() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient * ctx.saved_tensors[0]

    module = nn.Linear(3, 2)
    found = foldwise.graph(Square.apply(module(torch.ones(4, 3))).sum(), module=module)
    [square] = [n for n in found.operations if n.by_hand]
    assert square.label == "Square"
    assert [s.bytes for s in square.saved] == [4 * 2 * 4]
    assert "written by hand" in str(found)


def test_several_outputs_and_names() -> None:
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = foldwise.graph(lambda: (a.sin(), {"more": b.sum()}), named_parameters=[("a", a), ("b", b)])
    assert [n.label for n in found.nodes if n.kind == "output"] == ["output 1", "loss 2"]
    assert [p.gets for p in found.parameters] == [True, True]
    found = foldwise.graph((a * b).sum())
    assert [p.name for p in found.parameters] == ["leaf", "leaf"]


def test_tied_parameters_have_both_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    found = graph_of_network(module, torch.ones(2, 3), torch.sum)
    assert [n.label for n in found.nodes if n.kind == "parameter"] == ["0.weight = 1.weight"]
    assert [(p.name, p.gets) for p in found.parameters] == [("0.weight", True), ("1.weight", True)]


def test_nothing_is_changed() -> None:
    module, x = network("norms")
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    graph_of_network(module, x, loss_of)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    loss = loss_of(module(x))
    foldwise.graph(loss, module=module)
    loss.backward()  # still possible


def test_hooks_are_gone_after_an_error() -> None:
    with pytest.raises(RuntimeError):
        graph_of_network(nn.Linear(3, 2), torch.ones(2, 5))
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_after_backward_it_says_that_what_was_stored_is_gone() -> None:
    module, x = network("mlp")
    loss = loss_of(module(x))
    loss.backward()
    found = foldwise.graph(loss, module=module)
    assert found.freed
    assert "freed" in found.sentence


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(foldwise.FoldwiseError) as caught:
        foldwise.graph(*args, **options)
    assert caught.value.hint
    return caught.value.problem


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    x = torch.ones(2, requires_grad=True)
    assert "nothing was recorded" in refusal(torch.ones(2).sum())
    assert "takes no inputs" in refusal(x.sum(), x)
    assert "no tensor" in refusal(lambda: 3)
    assert "at least 8" in refusal(x.sum(), most=3)
    assert "a module or a function; got int" in refusal(3)
    assert "missing a required argument: 'w'" in refusal(lambda x, w: x * w, x)
    assert "with no input" in refusal(torch.nn.Linear(2, 1))
    assert "got str" in refusal(x.sum(), module="net")
    found = foldwise.graph(x.sum())
    with pytest.raises(foldwise.FoldwiseError, match=r"loss\.png"):
        found.save(tmp_path / "loss.png")
    with pytest.raises(foldwise.FoldwiseError, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "loss.svg")


def test_without_any_gradient_a_function_is_still_shown() -> None:
    found = foldwise.graph(lambda x: x.exp().sum(), torch.ones(3))
    assert not found.operations
    assert labels(found.pruned) == ["exp", "sum"]
    ElementTree.fromstring(found.svg)


def words(found: Graph) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(found.svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_picture_is_well_formed_and_says_it_all(name: str) -> None:
    module, x = network(name)
    found = graph_of_network(module, x, loss_of)
    said = words(found)
    if len(boxes_of(found.nodes, found.edges, found.most).boxes) < found.most:
        drawn = [n for n in found.nodes if n.kind == "operation" and n.label not in VIEWS]
        for label in {n.label for n in drawn}:
            folded = [w for w in said if re.search(rf"\b{label}\b", w)]
            assert folded, label
    assert said.count("loss") == 1
    assert " ".join(said).count("get") >= 1


def test_names_are_escaped(tmp_path: Path) -> None:
    bad = '</text><script>alert("x")</script>&\x00'
    w = torch.ones(2, requires_grad=True)
    found = foldwise.graph((w * 2).sum(), named_parameters=[(bad, w)])
    ElementTree.fromstring(found.svg)
    assert "<script" not in found.svg
    assert foldwise.graph(w.sum()).save(tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<svg")
    page = found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert found._repr_html_() == found.svg


def stack(count: int) -> Graph:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(3, 4, 3), *(Block(4) for _ in range(count)), nn.Flatten())
    return graph_of_network(blocks, torch.randn(2, 3, 6, 6), loss_of)


def test_repeated_parts_are_drawn_once() -> None:
    found = stack(20)
    said = words(found)
    assert "19 more like this" in said
    assert f"{19 * 6 + 1} operations" in said  # the last one with flatten, a view, in its box
    assert "76 parameters" in said


def tangled(count: int) -> Graph:
    def function(x: Tensor) -> Tensor:
        chance = torch.Generator().manual_seed(0)
        found = [x]
        for i in range(count):
            a, b = torch.randint(0, len(found), (2,), generator=chance).tolist()
            found.append([torch.add, torch.mul, torch.sub][i % 3](found[a], found[b]).tanh())
        return sum(f.mean() for f in found)  # type: ignore[return-value]

    return foldwise.graph(function, torch.randn(3, requires_grad=True))


@pytest.mark.parametrize("found", [stack(40), tangled(150)], ids=["stack", "tangled"])
@pytest.mark.parametrize("most", [8, 20, 48])
def test_long_graphs_are_folded_and_every_operation_is_in_a_box(found: Graph, most: int) -> None:
    made = boxes_of(found.nodes, found.edges, most)
    assert len(made.boxes) <= most
    members = [m.number for box in made.boxes.values() for m in box.members]
    operations = {n.number for n in found.nodes if n.kind == "operation"}
    assert len(members) == len(set(members))
    assert operations <= set(members)
    assert sum(b.bytes for b in made.boxes.values()) == sum(n.bytes for n in found.nodes)


def test_chains_of_elementwise_operations_are_folded() -> None:
    def chain(x: Tensor) -> Tensor:
        for i in range(70):
            x = [torch.sin, torch.exp, torch.tanh, torch.cos, torch.neg][(i * i + i // 7) % 5](x)
        return x.sum()

    found = foldwise.graph(chain, torch.ones(3, requires_grad=True))
    assert any(re.search(r"and \d+ more$|more like this", w) for w in words(found))


def test_very_deep_graphs_are_no_problem() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0001
    found = foldwise.graph(y.sum())
    assert len(found.operations) == 5001
    ElementTree.fromstring(found.svg)
    assert "more lines" in str(found)


def test_the_text_is_a_tree_in_which_shared_parts_stand_once() -> None:
    text = str(stack(2))
    assert text.count("conv1.weight") == 2
    assert re.search(r"├─ \w+ \[\d+\], below", text)
    assert "└─ inputs 2 × 3 × 6 × 6 · input" in text or "├─ inputs 2 × 3 × 6 × 6 · input" in text
    module, x = network("parts")
    text = str(graph_of_network(module, x, None))
    assert "no gradient for never.weight, never.bias: the output does not use it" in text
    assert "`detach` cuts the gradient off here" in text


@given(
    st.integers(2, 25), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=60), st.randoms()
)
def test_boxes_never_overlap_and_lines_lead_down(
    count: int, pairs: list[tuple[int, int]], random: Any
) -> None:
    edges = {(min(p) % count, max(p) % count) for p in pairs if min(p) % count < max(p) % count}
    edges |= {(i, i + 1) for i in range(count - 1) if not any(s == i for s, _ in edges)}
    extents = {
        i: Extent(random.uniform(20, 200), random.uniform(20, 100), random.choice([26.0, 44.0]))
        for i in range(count)
    }
    found = laid_out(extents, edges, count - 1, edges)
    for (s, t), route in found.routes.items():
        heights = [y for _, y in route]
        assert heights == sorted(heights)
        assert found.places[s][1] + extents[s].height / 2 < found.places[t][1] - extents[t].height / 2 - 1
    for i, (x, y) in found.places.items():
        assert x - extents[i].left >= -1e-6
        assert x + extents[i].right <= found.width + 1e-6
        for j, (other, level) in found.places.items():
            if i < j and abs(y - level) < (extents[i].height + extents[j].height) / 2:
                gap = (
                    other - extents[j].left - x - extents[i].right
                    if other > x
                    else x - extents[i].left - other - extents[j].right
                )
                assert gap >= ACROSS - 1e-6
