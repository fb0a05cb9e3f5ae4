"""Which boxes a picture of a graph has: parameters beside their operation; long graphs folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from foldwise.autograd.nodes import VIEWS, Edge, GraphNode, State

LONGEST_PART = 24  # boxes of a part that is looked for again
REPEATS = 3  # a part that follows itself so often is drawn once
NAMES = 3  # operations that a folded chain names

MARKS = {"t": "ᵀ", "transpose": "ᵀ"}


@dataclass(frozen=True)
class Chip:
    """A parameter beside the operation that uses it."""

    label: str
    shape: tuple[int, ...]
    state: State
    why: str = ""


@dataclass
class Box:
    """What is drawn as one: an operation, a leaf, the output, or several operations that are folded."""

    key: int
    members: list[GraphNode]
    chips: list[Chip] = field(default_factory=list)
    folded: str = ""
    counted: bool = False  # say how many operations it stands for, rather than name them

    @property
    def last(self) -> GraphNode:
        return self.members[-1]

    @property
    def main(self) -> GraphNode:
        """Give the operation that names the box: not one that only looks at the same numbers in another shape."""
        return next((m for m in reversed(self.members) if m.label not in VIEWS), self.last)

    @property
    def operations(self) -> int:
        return sum(m.kind == "operation" for m in self.members)

    @property
    def bytes(self) -> int:
        return sum(m.bytes for m in self.members)

    @property
    def state(self) -> State:
        return "recorded" if any(m.state == "recorded" for m in self.members) else self.last.state


class Boxes:
    """The boxes of a picture and what leads where, while they are folded."""

    def __init__(self, nodes: Sequence[GraphNode], edges: Iterable[Edge]) -> None:
        self.boxes = {n.number: Box(n.number, [n]) for n in nodes}
        self.sources: dict[int, dict[int, State]] = {key: {} for key in self.boxes}
        self.users: dict[int, dict[int, State]] = {key: {} for key in self.boxes}
        for e in edges:
            self._connect(e.source, e.target, e.state)

    @property
    def edges(self) -> dict[tuple[int, int], State]:
        return {(s, t): state for t, sources in self.sources.items() for s, state in sources.items()}

    def before(self, key: int) -> list[int]:
        return list(self.sources[key])

    def after(self, key: int) -> list[int]:
        return list(self.users[key])

    def merge(self, keys: Sequence[int], folded: str = "", counted: bool = False) -> None:
        """Make one box of several; it takes the place of the last."""
        goal, inside = keys[-1], set(keys)
        box = self.boxes[goal]
        box.members = [m for k in keys for m in self.boxes[k].members]
        box.chips = [c for k in keys for c in self.boxes[k].chips]
        box.folded, box.counted = folded, counted
        coming = [(s, state) for k in keys for s, state in self.sources[k].items() if s not in inside]
        going = [(t, state) for k in keys for t, state in self.users[k].items() if t not in inside]
        for k in keys:
            self._disconnect(k)
            if k != goal:
                del self.boxes[k], self.sources[k], self.users[k]
        for source, state in coming:
            self._connect(source, goal, state)
        for target, state in going:
            self._connect(goal, target, state)

    def drop(self, key: int) -> None:
        self._disconnect(key)
        del self.boxes[key], self.sources[key], self.users[key]

    def _connect(self, source: int, target: int, state: State) -> None:
        if self.sources[target].get(source) != "recorded":  # of several edges, the strongest
            self.sources[target][source] = self.users[source][target] = state

    def _disconnect(self, key: int) -> None:
        for source in self.sources[key]:
            del self.users[source][key]
        for target in self.users[key]:
            del self.sources[target][key]
        self.sources[key], self.users[key] = {}, {}

    def spine(self) -> list[int]:
        """Give the boxes that use something, in order; the others stand beside their users."""
        return [key for key in self.boxes if self.sources[key]]


def boxes_of(nodes: Sequence[GraphNode], edges: Iterable[Edge], most: int) -> Boxes:
    """Decide what is drawn; at most `most` boxes and the leaves beside them."""
    made = Boxes(nodes, edges)
    _parameters_beside(made)
    _views_inside(made)
    while len(made.boxes) > most and _fold_repeats(made):
        pass
    if len(made.boxes) > most:
        _fold_chains(made)
    if len(made.boxes) > most:
        _fold_middle(made, most)
    return made


def _parameters_beside(made: Boxes) -> None:
    """Put parameters, and views of them, into the box of the one operation that uses them."""
    for key, box in list(made.boxes.items()):
        if box.last.kind != "parameter":
            continue
        label, views = box.last.label, []
        user = made.after(key)
        while len(user) == 1 and _is_view(made, user[0]):
            views.append(user[0])
            label += MARKS.get(made.boxes[user[0]].last.label, "")
            user = made.after(user[0])
        if len(user) != 1 or made.boxes[user[0]].last.kind != "operation":
            continue
        state = made.sources[user[0]][views[-1] if views else key]
        node = box.last
        made.boxes[user[0]].chips.append(
            Chip(label, node.shape, state if node.state == "recorded" else node.state, node.why)
        )
        for view in [key, *views]:
            if view != key:  # views are part of the operation: they are counted
                made.boxes[user[0]].members = made.boxes[view].members + made.boxes[user[0]].members
            made.drop(view)


def _views_inside(made: Boxes) -> None:
    """Put views into the box of what they look at or, when that is used elsewhere too, of what uses them."""
    for key in list(made.boxes):
        if not _is_view(made, key):
            continue
        (source,), users = made.before(key), made.after(key)
        if made.after(source) == [key] and _both_operations(made, source, key):
            made.merge([source, key])
        elif len(users) == 1 and _both_operations(made, key, users[0]):
            made.merge([key, users[0]])


def _both_operations(made: Boxes, one: int, other: int) -> bool:
    a, b = made.boxes[one], made.boxes[other]
    return a.last.kind == b.last.kind == "operation" and a.state == b.state


def _is_view(made: Boxes, key: int) -> bool:
    node = made.boxes[key].last
    return node.label in VIEWS and node.kind == "operation" and len(made.before(key)) == 1


def _fold_chains(made: Boxes) -> None:
    """Make one box of operations that follow each other, where none but the first uses a parameter."""
    for key in made.spine():
        if key not in made.boxes:
            continue
        chain = [key]
        while _goes_on(made, chain[-1]):
            chain.append(made.after(chain[-1])[0])
        if len(chain) > 1:
            made.merge(chain, _named([made.boxes[k].main.label for k in chain]))


def _goes_on(made: Boxes, key: int) -> bool:
    after = made.after(key)
    if len(after) != 1:
        return False
    this, following = made.boxes[key], made.boxes[after[0]]
    return (
        _both_operations(made, key, after[0])
        and not this.folded
        and not following.folded
        and not following.chips
        and made.before(after[0]) == [key]
    )


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - NAMES} more" if len(labels) > NAMES else ""
    return " · ".join(labels[:NAMES]) + more


def _fold_repeats(made: Boxes) -> bool:
    """Draw a part of the graph that follows itself several times once, and say how often it does."""
    parts = _parts(made)
    looks = [_look(made, part) for part in parts]
    best: tuple[int, int, int, int] | None = None
    for period in range(1, min(LONGEST_PART, len(parts) // REPEATS) + 1):
        start = 0
        while start + period < len(parts):
            end = start + period
            while end < len(parts) and looks[end] == looks[end - period]:
                end += 1
            times = (end - start) // period
            saved = sum(map(len, parts[start + period : start + times * period])) - 1
            if times >= REPEATS and saved > 0 and (best is None or saved > best[0]):
                best = (saved, start, period, times)
            start = max(start + 1, end - period)
    if best is None:
        return False
    _, start, period, times = best
    rest = [key for part in parts[start + period : start + times * period] for key in part]
    _merge_with_sources(made, rest, f"{times - 1} more like this")
    return True


def _parts(made: Boxes) -> list[list[int]]:
    """Cut the graph wherever one box is all that the rest builds on."""
    spine = made.spine()
    place = {key: i for i, key in enumerate(spine)}
    furthest = [0] * len(spine)
    for s, t in made.edges:
        if s in place:
            furthest[place[s]] = max(furthest[place[s]], place[t])
    cuts, far = [], 0
    for i in range(len(spine)):
        if far <= i:
            cuts.append(i)
        far = max(far, furthest[i])
    return [spine[a + 1 : b + 1] for a, b in pairwise([-1, *cuts])]


def _look(made: Boxes, part: Sequence[int]) -> Any:
    inside = {key: i for i, key in enumerate(part)}
    boxes = [made.boxes[k] for k in part]
    if any(b.counted or b.last.kind == "output" for b in boxes):
        return part[0]  # nothing else looks like this
    own = [(b.main.label, b.folded, b.main.shape, b.state, len(b.chips)) for b in boxes]
    ways = sorted((inside.get(s, -1), inside[t]) for t in part for s in made.sources[t])
    return (own, ways)


def _fold_middle(made: Boxes, most: int) -> None:
    """Make one box of all operations but the first and the last."""
    ends = max(2, most // 2 - 1)
    while len(made.boxes) > most and ends >= 2:
        spine = [key for key in made.spine() if made.boxes[key].last.kind != "output"]
        middle = spine[ends:-ends]
        if len(middle) > 1:
            count = sum(made.boxes[k].operations for k in middle)
            _merge_with_sources(made, middle, f"and {count} more")
        ends = ends * 2 // 3


def _merge_with_sources(made: Boxes, keys: Sequence[int], folded: str) -> None:
    inside = set(keys)
    beside = [
        k
        for k in made.boxes
        if k not in inside and not made.before(k) and made.after(k) and inside.issuperset(made.after(k))
    ]
    made.merge([*beside, *keys], folded, counted=True)
