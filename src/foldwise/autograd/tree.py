"""A graph as text: from the output back to what it is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from foldwise.autograd.nodes import Edge, GraphNode

MOST_LINES = 200


def tree(nodes: Sequence[GraphNode], edges: Iterable[Edge]) -> list[str]:
    """Write what each operation uses below it, indented; the longest way back stays in the column.

    An operation that is used twice is written once, and named by its number elsewhere.
    """
    edges = list(edges)
    before: dict[int, list[int]] = {n.number: [] for n in nodes}
    uses = [0] * len(nodes)
    for e in edges:
        before[e.target].append(e.source)
        uses[e.source] += 1
    depth = [0] * len(nodes)
    for n in nodes:
        depth[n.number] = max((depth[s] + 1 for s in before[n.number]), default=0)
    lines: list[str] = []
    written: set[int] = set()
    for end in sorted((n.number for n in nodes if not uses[n.number]), reverse=True):
        stack = [(end, "", "", "")]
        while stack:
            number, mark, bar, place = stack.pop()
            node = nodes[number]
            if before[number] and (place or number in written):
                lines.append(f"{mark}{node.label} [{number}], {place or 'above'}")
                continue
            written.add(number)
            lines.append(
                mark + described(node, f" [{number}]" if uses[number] > 1 and before[number] else "")
            )
            stack += reversed(
                list(_below(sorted(before[number], key=depth.__getitem__), before, written, bar))
            )
    if len(lines) > MOST_LINES:
        left, half = len(lines) - MOST_LINES, MOST_LINES // 2
        lines = [*lines[:half], f"… and {left} more lines (`nodes` and `edges` have all)", *lines[-half:]]
    return lines


def _below(
    sources: Sequence[int], before: Mapping[int, Sequence[int]], written: set[int], bar: str
) -> Iterator[tuple[int, str, str, str]]:
    """Give what is used, with the marks before it; what comes on the longest way back anyway is written there."""
    for n, source in enumerate(sources):
        last = n == len(sources) - 1
        if last and before[source]:
            yield source, bar, bar, ""
        else:
            later = not last and source not in written and _leads_to(sources[-1], source, before)
            mark, wide = ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield source, bar + mark, bar + wide, "below" if later else ""


def _leads_to(start: int, goal: int, before: Mapping[int, Sequence[int]]) -> bool:
    stack, seen = [start], {start}
    while stack:
        number = stack.pop()
        if number == goal:
            return True
        fresh = [s for s in before[number] if s >= goal and s not in seen]  # numbers grow along every way
        seen.update(fresh)
        stack += fresh
    return False


def described(node: GraphNode, reference: str = "") -> str:
    """Describe a node in a line: name, shape, where in the network, what it stores."""
    parts = [f"{node.label}{reference} {shape(node.shape)}"]
    if node.kind in ("parameter", "input", "constant") and node.kind != node.label:
        parts.append(node.kind)
    if node.block:
        parts.append(f"in {node.block}")
    if node.by_hand:
        parts.append("written by hand")
    if node.saved:
        parts.append(f"stores {stored(node)}")
    if node.state != "recorded":
        parts.append(
            f"{'pruned' if node.state == 'pruned' else 'unused'}{f': {node.why}' if node.why else ''}"
        )
    return " · ".join(parts)


def stored(node: GraphNode, most: int = 4) -> str:
    """Name what an operation stores: result 16 × 8 (512 B)."""
    named = [
        f"{s.name} {shape(s.shape)} ({'there anyway' if s.held else amount(s.bytes)})"
        for s in node.saved[:most]
    ]
    more = f" and {len(node.saved) - most} more" if len(node.saved) > most else ""
    return ", ".join(named) + more


def shape(sizes: Sequence[int]) -> str:
    """Write a shape.

    >>> shape((16, 8)), shape(())
    ('16 × 8', 'scalar')
    """
    return " × ".join(map(str, sizes)) if sizes else "scalar"


def amount(count: int) -> str:
    """Write a number of bytes.

    >>> amount(512), amount(2048), amount(3_400_000)
    ('512 B', '2.0 kB', '3.4 MB')
    """
    size, units = float(count), iter(("kB", "MB", "GB", "TB"))
    if count < 1000:
        return f"{count} B"
    unit = "B"
    while size >= 999.95 and (following := next(units, None)):
        size, unit = size / 1000, following
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"
