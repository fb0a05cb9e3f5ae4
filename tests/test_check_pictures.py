"""How pictures of checks are drawn: everything lies within its panel, on an axis that suits it."""

import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from foldwise.checks import CHECKS

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def svg(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    import check_svg

    return check_svg


@pytest.mark.parametrize(
    "ys", [(0.0, 0.2, 1.0), (-3e5, 0.0, 2.0), (1e-9, 1.0, 1e9), (0.0, 0.0, 0.0), (5.0, 5.0, 5.0)]
)
@pytest.mark.parametrize("shape", ["line", "dots", "bars"])
def test_marks_lie_within_their_panel(svg: ModuleType, ys: tuple[float, ...], shape: str) -> None:
    own = svg.Panel((svg.Mark("a", 0.0, tuple(enumerate(ys)), shape),), span=(-1.0, 3.0))
    drawn = ElementTree.fromstring(svg.picture(own, own, "ill", "Left: ill"))
    xs, heights = [], []
    for line in drawn.iter(f"{SVG}polyline"):
        for point in line.get("points", "").split():
            x, y = point.split(",")
            xs.append(float(x))
            heights.append(float(y))
    for dot in drawn.iter(f"{SVG}circle"):
        xs.append(float(dot.get("cx", "")))
        heights.append(float(dot.get("cy", "")))
    for box in drawn.iter(f"{SVG}rect"):
        x, y, width, height = (float(box.get(n, "")) for n in ("x", "y", "width", "height"))
        xs += [x, x + width]
        heights += [y, y + height]
    assert len(xs) >= 6
    left, right = svg.LEFT, svg.WIDTH + svg.GAP + svg.LEFT
    assert all(left <= x <= left + svg.INNER or right <= x <= right + svg.INNER for x in xs)
    assert all(svg.TOP - 0.1 <= y <= svg.TOP + svg.HEIGHT + 0.1 for y in heights)


def test_powers_of_ten_only_where_nothing_is_0_throughout(svg: ModuleType) -> None:
    wide = svg.Mark("a", 0.0, ((0, 1e-3), (1, 1.0)))
    assert svg.scale_of([wide]).log
    assert not svg.scale_of([wide, svg.Mark("b", 1.0, ((0, 0.0), (1, 0.0)))]).log
    assert not svg.scale_of([wide], "share").log
    assert svg.scale_of([wide], "share").high == 1


def test_what_is_drawn_is_of_checks(svg: ModuleType) -> None:
    import check_pictures

    assert {*check_pictures.DRAWN, *check_pictures.BETTER_SEEN} <= set(CHECKS)
