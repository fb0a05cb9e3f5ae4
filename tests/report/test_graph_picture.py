"""The picture of a recorded graph as a reader sees it: text inside its boxes, dark on light and light on dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import foldwise

pytestmark = pytest.mark.browser

OUTSIDE = """
const place = e => e.getBoundingClientRect();
const outside = (a, b) =>
  a.left < b.left - .5 || a.right > b.right + .5 || a.top < b.top - .5 || a.bottom > b.bottom + .5;
const over = (a, b) =>
  a.top < b.bottom - 3 && b.top < a.bottom - 3 && a.left < b.left && a.right > b.left;
const paper = place(document.querySelector('.fw-graph .paper'));
const found = [...document.querySelectorAll('.fw-graph text')].filter(t => outside(place(t), paper));
for (const g of document.querySelectorAll('.fw-graph g')) {
  const box = [...g.children].find(c => c.matches('.box, .leaf, .end, .chip'));
  const texts = [...g.children].filter(c => c.matches('text'));
  if (box) found.push(...texts.filter(t => outside(place(t), place(box))));
  found.push(...texts.filter(a => texts.some(b => a !== b && over(place(a), place(b)))));
}
return found.map(t => t.textContent);
"""


class Long(nn.Module):
    """Names and shapes that need room."""

    def __init__(self) -> None:
        super().__init__()
        self.an_extremely_long_name_of_a_module = nn.Sequential(
            nn.Conv3d(12, 128, 3, padding=1), nn.BatchNorm3d(128)
        )
        self.short = nn.Linear(128, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.an_extremely_long_name_of_a_module(x)
        return self.short(torch.nn.functional.softplus(hidden).mean((2, 3, 4))) - hidden.detach().mean()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Callable[..., Any]:
    def show(picture: Any, dark: bool) -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        chromium.get(picture.save(tmp_path / "graph.html").as_uri())
        return chromium

    return show


@pytest.mark.parametrize("dark", [False, True])
def test_text_stays_inside_its_box(show: Callable[..., Any], dark: bool) -> None:
    module = Long()
    x = torch.randn(16, 12, 4, 4, 4)
    picture = foldwise.graph(lambda x: module(x).square().mean(), x, module=module)
    browser = show(picture, dark)
    assert browser.execute_script(OUTSIDE) == []
    look = "return getComputedStyle(document.querySelector(arguments[0])).fill"
    paper, ink = (browser.execute_script(look, f".fw-graph {s}") for s in (".paper", ".name"))
    bright = [sum(map(int, color[4:-1].split(","))) for color in (paper, ink)]
    assert (bright[0] < bright[1]) == dark
