"""A graph drawn as SVG: boxes, lines, and what the colors mean. Nothing is loaded; all text is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from foldwise.autograd.folding import Box, Boxes, Chip, boxes_of
from foldwise.autograd.layout import Extent, Layout, laid_out
from foldwise.autograd.nodes import Edge, GraphNode
from foldwise.autograd.tree import amount, described, shape

WIDE = 226.0  # an operation
HIGH = 44.0
LEAF = 26.0  # height of an input, a constant or the output
CHIP = 20.0
CHIPS = 4  # beside one box; more are counted
BESIDE = 14.0  # between chips and box
MARGIN = 22.0
LINE = 17.0  # of text above the picture

# Widths of letters in a broad sans-serif, as parts of the font size: which one a reader has is not known.
NARROW, BROAD = set("iljtfrI.,:;|![]()'·- "), set("mwMW@%×…")

STYLE = """
.fw-graph{--paper:#fdfdfb;--raised:#f6f6f3;--ink:#1c2127;--soft:#59626d;--line:#d3d5d1;--accent:#1b5fb8;
--faint:#a9aeb4;--band:rgb(27 95 184/9%);--warm:#b9551a;--heat:rgb(185 85 26/50%);
font-family:-apple-system,BlinkMacSystemFont,"Segoe UI",Inter,Roboto,"Noto Sans","Helvetica Neue",Arial,sans-serif;
font-size:12px;font-variant-numeric:tabular-nums;max-width:100%;height:auto}
@media screen and (prefers-color-scheme:dark){.fw-graph{--paper:#14171b;--raised:#1c2026;--ink:#e4e6e9;--soft:#9ea7b2;
--line:#39414b;--faint:#5a6470;--accent:#79aefc;--band:rgb(121 174 252/14%);--warm:#f0a062;--heat:rgb(240 160 98/55%)}}
.fw-graph .paper{fill:var(--paper)}
.fw-graph text{fill:var(--ink)}
.fw-graph .name{font-size:13px;font-weight:600}
.fw-graph .soft{fill:var(--soft);font-size:11px}
.fw-graph .box{fill:var(--raised);stroke:var(--line)}
.fw-graph .heat{fill:var(--heat)}
.fw-graph .bytes{fill:var(--warm);font-size:11px}
.fw-graph .chip{fill:var(--band);stroke:none}
.fw-graph .chip-text{fill:var(--accent);font-size:11px}
.fw-graph .leaf{fill:var(--paper);stroke:var(--line)}
.fw-graph .end{fill:var(--accent);stroke:none}
.fw-graph .end-text{fill:var(--paper);font-weight:600}
.fw-graph path{fill:none;stroke:var(--soft);stroke-width:1.2}
.fw-graph .tip{fill:var(--soft);stroke:none}
.fw-graph .off .box,.fw-graph .off .leaf,.fw-graph .off .chip{fill:none;stroke:var(--faint);stroke-dasharray:4 3}
.fw-graph .off text,.fw-graph .off .chip-text{fill:var(--soft);font-weight:400}
.fw-graph path.off{stroke:var(--faint);stroke-dasharray:4 3}
.fw-graph .tip.off{fill:var(--faint);stroke:none}
.fw-graph .cut .box{stroke:var(--warm);stroke-dasharray:4 3;fill:none}
.fw-graph .cut .name{fill:var(--warm)}
.fw-graph .fold .box{stroke-dasharray:1 0;fill:var(--paper)}
.fw-graph .deck{fill:var(--paper);stroke:var(--line)}
"""


def draw(
    nodes: Sequence[GraphNode], edges: Iterable[Edge], sentence: str, remarks: Sequence[str], most: int
) -> str:
    """Draw a graph, with a sentence above it and remarks below, as one SVG element."""
    made = boxes_of(nodes, edges, most)
    extents = {key: _extent(box) for key, box in made.boxes.items()}
    layout = laid_out(extents, made.edges, nodes[-1].number, _strong(made))
    legend = _legend(made)
    width = max(layout.width, sum(wide for _, _, wide in legend), 400.0) + 2 * MARGIN
    head = _wrapped([sentence], width - 2 * MARGIN, 12.5)
    foot = [*_wrapped(remarks, width - 2 * MARGIN, 11.5)]
    top = MARGIN + LINE * len(head) + 14
    left = (width - layout.width) / 2
    bottom = top + layout.height + 26
    height = bottom + LINE * (len(foot) + 1) + 6
    heaviest = max((box.bytes for box in made.boxes.values()), default=0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fw-graph" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{_safe(sentence)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="6"/>',
        *(_text(MARGIN, MARGIN + LINE * i + 8, line) for i, line in enumerate(head)),
        f'<g transform="translate({left:.1f} {top:.1f})">',
        *_lines(made, layout, extents),
        *(_box(box, layout.places[key], heaviest) for key, box in made.boxes.items()),
        "</g>",
        *_drawn_legend(legend, bottom),
        *(_text(MARGIN, bottom + LINE * (i + 1) + 4, line, "soft") for i, line in enumerate(foot)),
        "</svg>",
    ]
    return "\n".join(parts)


def _strong(made: Boxes) -> set[tuple[int, int]]:
    """Find the edges between operations through which gradients flow."""
    kinds = {key: box.last.kind for key, box in made.boxes.items()}
    return {(s, t) for (s, t), state in made.edges.items() if state == "recorded" and kinds[s] == "operation"}


def _extent(box: Box) -> Extent:
    if box.last.kind != "operation":
        half = _leaf_width(box) / 2
        return Extent(half, half, LEAF)
    chips = _chips(box)
    reach = BESIDE + max(map(_chip_width, chips)) if chips else 0.0
    deck = 6.0 if box.folded else 0.0
    return Extent(WIDE / 2 + reach, WIDE / 2 + deck, max(HIGH + deck, len(chips) * (CHIP + 4) - 4))


def _chips(box: Box) -> list[Chip]:
    if len(box.chips) <= CHIPS:
        return box.chips
    shown = [] if box.folded else box.chips[: CHIPS - 1]
    rest = box.chips[len(shown) :]
    gets = any(c.state == "recorded" for c in rest)
    return [
        *shown,
        Chip(f"{len(rest)} {'more ' if shown else ''}parameters", (), "recorded" if gets else "pruned"),
    ]


def _chip_text(chip: Chip) -> str:
    count = chip.label.endswith("parameters") and not chip.shape
    return chip.label if count else f"{_cut(chip.label, 24)} {shape(chip.shape)}"


def _chip_width(chip: Chip) -> float:
    return _width(_chip_text(chip), 11) + 18


def _leaf_text(box: Box) -> str:
    size = "" if box.last.kind == "output" and not box.last.shape else f" {shape(box.last.shape)}"
    return f"{_cut(box.last.label, 28)}{size}"


def _leaf_width(box: Box) -> float:
    return max(64.0, _width(_leaf_text(box), 12) + 26)


def _box(box: Box, place: tuple[float, float], heaviest: int) -> str:
    x, y = place
    kind = box.last.kind
    look = _look(box)
    title = f"<title>{_safe(_about(box))}</title>"
    if kind != "operation":
        width = _leaf_width(box)
        end = kind == "output"
        radius = 5 if kind in ("input", "constant") else LEAF / 2
        named = "chip" if kind == "parameter" else "end" if end and not look else "leaf"
        shapes = _rect(x - width / 2, y - LEAF / 2, width, LEAF, radius, named)
        words = _text(x, y + 4, _leaf_text(box), f"{named}-text", "middle")
        return f'<g class="{look}">{title}{shapes}{words}</g>'
    left, top = x - WIDE / 2, y - HIGH / 2
    parts = [title]
    if box.folded:
        parts += [_rect(left + d, top + d, WIDE, HIGH, 5, "deck") for d in (6, 3)]
    parts.append(_rect(left, top, WIDE, HIGH, 5, "box"))
    if heaviest and box.bytes:
        parts.append(_rect(left + 1, top + HIGH - 4, (WIDE - 2) * box.bytes / heaviest, 3, 1.5, "heat"))
    parts += _words(box, left, top)
    parts += _beside(box, left, y)
    return f'<g class="{look}">{"".join(parts)}</g>'


def _words(box: Box, left: float, top: float) -> list[str]:
    inner = WIDE - 20
    name = _fitted(box.folded or box.main.label, inner, 14)
    words = [_text(left + 10, top + 18, name, "name")]
    block = "" if box.folded else _fitted(box.main.block, inner - _width(name, 14) - 8, 11, at_end=False)
    if block and (len(block) > 4 or not block.startswith("…")):
        words.append(_text(left + WIDE - 10, top + 18, block, "soft", "end"))
    room = inner - (_width(f"stores {amount(box.bytes)}", 11) + 8 if box.bytes else 0)
    words.append(_text(left + 10, top + 34, _fitted(_below(box), room, 11), "soft"))
    if box.bytes:
        words.append(_text(left + WIDE - 10, top + 34, f"stores {amount(box.bytes)}", "bytes", "end"))
    return words


def _below(box: Box) -> str:
    if box.counted:
        return f"{box.operations} operation{'s' * (box.operations != 1)}"
    if box.state == "unused":
        return f"{shape(box.main.shape)} · not used"
    return f"{shape(box.main.shape)}{' · cut off' if _cuts(box) else ''}"


def _beside(box: Box, left: float, y: float) -> list[str]:
    chips = _chips(box)
    top = y - (len(chips) * (CHIP + 4) - 4) / 2
    parts = []
    for i, chip in enumerate(chips):
        width, middle = _chip_width(chip), top + i * (CHIP + 4) + CHIP / 2
        off = "" if chip.state == "recorded" else "off"
        x = left - BESIDE - width
        parts += [
            f'<g class="{off}">',
            f"<title>{_safe(f'{chip.label} {shape(chip.shape)} {chip.why}'.strip())}</title>"
            if chip.shape
            else "",
            f'<path class="{off}" d="M{left - BESIDE:.1f} {middle:.1f}H{left:.1f}"/>',
            _rect(x, middle - CHIP / 2, width, CHIP, CHIP / 2, "chip"),
            _text(x + width / 2, middle + 4, _chip_text(chip), "chip-text", "middle"),
            "</g>",
        ]
    return parts


def _lines(made: Boxes, layout: Layout, extents: dict[int, Extent]) -> list[str]:
    """Draw from the lower edge of what is used to the upper edge of its user, through the gaps between."""
    parts = []
    for (source, target), state in made.edges.items():
        points = list(layout.routes[source, target])
        high = {key: LEAF if made.boxes[key].last.kind != "operation" else HIGH for key in (source, target)}
        points[0] = (points[0][0], points[0][1] + high[source] / 2)
        points[-1] = (_landing(made, layout, source, target), points[-1][1] - high[target] / 2 - 6)
        off = "" if state == "recorded" else "off"
        parts.append(f'<path class="{off}" d="{_curve(points)}"/>')
        x, y = points[-1]
        parts.append(
            f'<polygon class="tip {off}" points="{x - 3.5:.1f},{y:.1f} {x + 3.5:.1f},{y:.1f} {x:.1f},{y + 6:.1f}"/>'
        )
    return parts


def _landing(made: Boxes, layout: Layout, source: int, target: int) -> float:
    """Spread the lines that end in one box along its upper edge; the one that comes straight stays in the middle."""
    came = {s: layout.routes[s, target][-2][0] for s in made.before(target)}
    coming = sorted(came, key=came.__getitem__)
    x = layout.places[target][0]
    middle = min(
        range(len(coming)), key=lambda i: (abs(came[coming[i]] - x) > 1, abs(i - (len(coming) - 1) / 2))
    )
    box = made.boxes[target]
    room = (WIDE if box.last.kind == "operation" else _leaf_width(box)) * 0.4
    step = min(36.0, room / max(middle, len(coming) - 1 - middle, 1))
    straight = abs(came[coming[middle]] - x) <= 1
    return x + step * (coming.index(source) - (middle if straight else (len(coming) - 1) / 2))


def _curve(points: Sequence[tuple[float, float]]) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = (to_y - y) / 2
        path += (
            f"V{to_y:.1f}"
            if abs(to_x - x) < 0.5
            else f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}"
        )
    return path


def _legend(made: Boxes) -> list[tuple[str, str, float]]:
    """Say what is to be explained in this picture: a look, words, and how wide both are."""
    chips = [c for b in made.boxes.values() for c in b.chips]
    leaves = [b.state for b in made.boxes.values() if b.last.kind == "parameter"]
    states = [b.state for b in made.boxes.values()] + [c.state for c in chips]
    found = {
        "chip": ("parameter that gets a gradient", "recorded" in [*leaves, *(c.state for c in chips)]),
        "heat": ("share of what is stored", any(b.bytes for b in made.boxes.values())),
        "cut": ("cuts the gradient off", any(map(_cuts, made.boxes.values()))),
        "off": ("no gradient", any(s != "recorded" for s in states)),
    }
    return [(look, words, 27 + _width(words, 11) + 18) for look, (words, there) in found.items() if there]


def _drawn_legend(legend: Sequence[tuple[str, str, float]], y: float) -> list[str]:
    parts, x = [], MARGIN
    for look, words, width in legend:
        if look == "heat":
            mark = _rect(x, y - 5, 20, 3, 1.5, look)
        else:
            mark = _rect(x, y - 9, 20, 11, 5, "chip" if look == "chip" else "box")
        parts += [
            f'<g class="{look if look in ("cut", "off") else ""}">{mark}</g>',
            _text(x + 27, y, words, "soft"),
        ]
        x += width
    return parts


def _cuts(box: Box) -> bool:
    return box.state == "pruned" and "cut" in box.main.why


def _look(box: Box) -> str:
    if box.folded and box.state == "recorded":
        return "fold"
    if box.state == "recorded":
        return ""
    return "cut" if _cuts(box) else "off"


def _about(box: Box) -> str:
    lines = [described(m) for m in box.members[:12]]
    return "\n".join([*lines, *([f"and {len(box.members) - 12} more"] if len(box.members) > 12 else [])])


def _rect(x: float, y: float, width: float, height: float, radius: float, look: str) -> str:
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'


def _text(x: float, y: float, words: str, look: str = "", anchor: str = "") -> str:
    end = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}"{end}>{_safe(words)}</text>'


def _safe(words: str) -> str:
    """Escape text; what XML cannot hold becomes a mark."""
    return html.escape(re.sub(r"[^\t\n\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "\ufffd", words))


def _width(words: str, size: float) -> float:
    return size * sum(
        0.36 if c in NARROW else 0.94 if c in BROAD else 0.7 if c.isupper() else 0.62 for c in words
    )


def _cut(words: str, most: int) -> str:
    """Shorten a name in front: its end says most."""
    return words if len(words) <= most else f"…{words[1 - most :]}"


def _fitted(words: str, room: float, size: float, at_end: bool = True) -> str:
    """Shorten text to the room there is, at its end or in front."""
    if _width(words, size) <= room:
        return words
    while words and _width(f"{words}…", size) > room:
        words = words[:-1] if at_end else words[1:]
    return f"{words}…" if at_end else f"…{words}"


def _wrapped(sentences: Sequence[str], room: float, size: float) -> list[str]:
    lines: list[str] = []
    for sentence in sentences:
        line = ""
        for word in sentence.split():
            if line and _width(f"{line} {word}", size) > room:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        lines.append(line)
    return lines
