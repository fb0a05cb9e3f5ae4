"""Where boxes stand: layers from top to bottom, few crossings, straight lines (Sugiyama, Tagawa, Toda 1981)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACROSS = 26.0  # between two boxes beside each other
DOWN = 30.0  # between two layers
SWEEPS = 12
STRONG = (
    1000.0  # how much more a line with a gradient straightens than one without or one that passes a layer
)


@dataclass(frozen=True)
class Extent:
    """How far a box reaches from its center to the left and to the right, and how high it is."""

    left: float
    right: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Centers of boxes (x, y of the middle), and for each line the points that it passes."""

    places: Mapping[int, tuple[float, float]]
    routes: Mapping[tuple[int, int], tuple[tuple[float, float], ...]]
    width: float
    height: float


Item = int | tuple[int, int, int]
"""A box, or where the line (source, target) passes a layer."""


def laid_out(
    extents: Mapping[int, Extent],
    edges: Iterable[tuple[int, int]],
    root: int,
    strong: Container[tuple[int, int]],
) -> Layout:
    """Place boxes so that lines lead down; `root`, on which most depends, is at the bottom.

    Edges that are `strong`, and boxes that have one, are straightened first.
    """
    edges = list(edges)
    layer = _layers(list(extents), edges, root)
    rows, links = _rows(layer, edges)
    _untangle(rows, links)
    size = {
        item: extents.get(item, Extent(3, 3, 0)) if isinstance(item, int) else Extent(3, 3, 0)
        for r in rows
        for item in r
    }
    x = _across(rows, links, size, strong)
    left = min(x[i] - size[i].left for r in rows for i in r)
    right = max(x[i] + size[i].right for r in rows for i in r)
    y, edges_of_rows, height = _down(rows, size)
    places = {i: (x[i] - left, y[i]) for r in rows for i in r if isinstance(i, int)}
    routes = {}
    first = min(layer.values())
    for s, t in edges:
        passed = [
            (x[s, t, n] - left, edge)
            for n in range(layer[s] + 1, layer[t])
            for edge in edges_of_rows[n - first]
        ]
        routes[s, t] = (places[s], *passed, places[t])
    return Layout(places, routes, right - left, height)


def _layers(keys: Sequence[int], edges: Sequence[tuple[int, int]], root: int) -> dict[int, int]:
    """Put each box right above the first that uses it; what leads nowhere right below what it uses."""
    after: dict[int, list[int]] = {k: [] for k in keys}
    before: dict[int, list[int]] = {k: [] for k in keys}
    for s, t in edges:
        after[s].append(t)
        before[t].append(s)
    order = _sorted(keys, before)
    height: dict[int, int] = {root: 0}
    for k in reversed(order):
        above = [height[t] + 1 for t in after[k] if t in height]
        if above and k != root:
            height[k] = max(above)
    for k in order:
        if k not in height:
            height[k] = min((height[s] for s in before[k] if s in height), default=1) - 1
    for k in reversed(order):  # a leaf that only leads nowhere
        if not before[k] and after[k]:
            height[k] = max(height[t] for t in after[k]) + 1
    top = max(height.values())
    return {k: top - h for k, h in height.items()}


def _sorted(keys: Sequence[int], before: Mapping[int, Sequence[int]]) -> list[int]:
    order: dict[int, None] = {}
    for key in keys:
        stack = [(key, False)]
        while stack:
            k, done = stack.pop()
            if done:
                order[k] = None
            elif k not in order:
                stack.append((k, True))
                stack += [(s, False) for s in before[k] if s not in order]
    return list(order)


def _rows(
    layer: Mapping[int, int], edges: Sequence[tuple[int, int]]
) -> tuple[list[list[Item]], list[tuple[Item, Item]]]:
    first = min(layer.values())
    rows: list[list[Item]] = [[] for _ in range(max(layer.values()) - first + 1)]
    for key, number in layer.items():
        rows[number - first].append(key)
    links: list[tuple[Item, Item]] = []
    for s, t in edges:
        last: Item = s
        for number in range(layer[s] + 1, layer[t]):
            here = (s, t, number)
            rows[number - first].append(here)
            links.append((last, here))
            last = here
        links.append((last, t))
    return rows, links


def _neighbors(links: Sequence[tuple[Item, Item]]) -> tuple[dict[Item, list[Item]], dict[Item, list[Item]]]:
    above: dict[Item, list[Item]] = {}
    below: dict[Item, list[Item]] = {}
    for s, t in links:
        above.setdefault(t, []).append(s)
        below.setdefault(s, []).append(t)
    return above, below


def _untangle(rows: list[list[Item]], links: Sequence[tuple[Item, Item]]) -> None:
    """Order each row by the mean place of its neighbors, up and down in turn; keep the order with fewest crossings."""
    above, below = _neighbors(links)
    best = [list(r) for r in rows]
    fewest = _crossings(rows, below)
    for sweep in range(SWEEPS):
        downward = sweep % 2 == 0
        neighbors = above if downward else below
        for row in rows if downward else reversed(rows):
            place = {item: i for r in rows for i, item in enumerate(r)}
            want = {i: _mean([place[n] for n in neighbors.get(i, [])], place[i]) for i in row}
            row.sort(key=want.__getitem__)
        if (crossings := _crossings(rows, below)) < fewest:
            fewest, best = crossings, [list(r) for r in rows]
    rows[:] = best


def _crossings(rows: Sequence[Sequence[Item]], below: Mapping[Item, Sequence[Item]]) -> int:
    place = {item: i for r in rows for i, item in enumerate(r)}
    count = 0
    for row in rows:
        ends = [(place[i], place[j]) for i in row for j in below.get(i, [])]
        count += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(ends) for c, d in ends[:n])
    return count


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _across(
    rows: Sequence[Sequence[Item]],
    links: Sequence[tuple[Item, Item]],
    size: Mapping[Item, Extent],
    strong: Container[tuple[int, int]],
) -> dict[Item, float]:
    """Move each row toward its neighbors, as near as its boxes, in their order, have room for (least squares)."""
    above, below = _neighbors(links)
    firm = {link for link in links if link in strong}
    heavy = {item for link in firm for item in link}
    x: dict[Item, float] = {}
    for row in rows:
        for item, place in zip(row, _spread([0.0] * len(row), [1.0] * len(row), row, size), strict=True):
            x[item] = place
    for sweep in range(4 * SWEEPS + 1):
        neighbors = [above, below][sweep % 2]
        for row in rows if sweep % 2 == 0 else reversed(rows):
            want = [_pulled(i, neighbors.get(i, []), x, firm) for i in row]
            weight = [STRONG if i in heavy else 1.0 for i in row]
            for item, place in zip(row, _spread(want, weight, row, size), strict=True):
                x[item] = place
    return x


def _pulled(item: Item, neighbors: Sequence[Item], x: Mapping[Item, float], firm: Container[Any]) -> float:
    pulls = [(x[n], STRONG if (n, item) in firm or (item, n) in firm else 1.0) for n in neighbors]
    strongest = max((w for _, w in pulls), default=0.0)
    return _mean([place for place, w in pulls if w == strongest], x[item])


def _spread(
    want: Sequence[float], weight: Sequence[float], row: Sequence[Item], size: Mapping[Item, Extent]
) -> list[float]:
    """Find the places nearest to those wanted that keep order and distance: isotonic regression, pooling neighbors."""
    offset, offsets = 0.0, []
    for i, item in enumerate(row):
        if i:
            offset += size[row[i - 1]].right + ACROSS + size[item].left
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for w, wanted, o in zip(weight, want, offsets, strict=True):
        pools.append((wanted - o, w, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, v, m), (a, u, n) = pools.pop(), pools.pop()
            pools.append(((a * u + b * v) / (u + v), u + v, n + m))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + o for mean, o in zip(flat, offsets, strict=True)]


def _down(
    rows: Sequence[Sequence[Item]], size: Mapping[Item, Extent]
) -> tuple[dict[Item, float], list[tuple[float, float]], float]:
    """Give the height of each item's middle, upper and lower edge of each row, and the height of all."""
    y: dict[Item, float] = {}
    edges: list[tuple[float, float]] = []
    top = 0.0
    for row in rows:
        height = max((size[i].height for i in row), default=0.0)
        y.update((item, top + height / 2) for item in row)
        edges.append((top, top + height))
        top += height + DOWN
    return y, edges, top - DOWN
