"""The report page as a reader meets it: opened from disk in Chromium with the network off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .sample import (
    SAMPLES,
    hostile,
    leave_one_out,
    letters,
    live,
    many_trials,
    regression,
    three_classes,
    tiny,
    wide_search,
)

pytestmark = pytest.mark.browser

Opens = Callable[..., Any]
ALL = {"whiskers", "folds", "curve", "thumbs"}
CHARTS = {
    "regression": ALL | {"setting", "scatter", "errors"},
    "three_classes": ALL | {"setting", "confusion", "symptom", "templates", "planes"},
    "letters": ALL | {"setting", "confusion"},
    "tiny": {"whiskers"},
    "hostile": ALL | {"setting", "confusion", "symptom", "templates", "planes"},
    "live": ALL,
    "many_trials": ALL | {"setting", "scatter", "errors"},
    "wide_search": {"whiskers", "folds", "setting", "scatter", "errors"},
    "leave_one_out": ALL | {"setting", "scatter", "errors"},
}


def find(browser: Any, selector: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", selector)
    return found


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def drawn_charts(browser: Any) -> set[str]:
    """The charts that hold a drawing of a visible size."""
    script = """return [...document.querySelectorAll("[data-chart][data-drawn=yes]")]
        .filter(box => [...box.querySelectorAll("svg")].some(s => s.getBoundingClientRect().width > 50))
        .map(box => box.dataset.chart)"""
    return set(browser.execute_script(script))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_chart_is_there_and_nothing_complains(open_page: Opens, requests: Opens, name: str) -> None:
    browser = open_page(SAMPLES[name]())
    assert browser.execute_script("return document.documentElement.dataset.charts") == "drawn"
    assert drawn_charts(browser) == CHARTS[name]
    assert browser.get_log("browser") == []
    assert all(url.startswith(("file:", "data:")) for url in requests())


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [390, 800])
def test_page_fits_narrow_windows(open_page: Opens, name: str, width: int) -> None:
    browser = open_page(SAMPLES[name](), width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert drawn_charts(browser) == CHARTS[name]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("make", [regression, three_classes, many_trials])
def test_leaderboard_shows_the_scores(open_page: Opens, make: Callable[[], Any]) -> None:
    content = make()
    browser = open_page(content)
    headline = find(browser, "#headline")[0]
    for key in ("value", "low", "high"):
        assert float(headline.get_attribute(f"data-{key}")) == content["headline"][key]
    assert texts(browser, "h1") == [content["headline"]["sentence"]]
    trials = {str(t["number"]): t for t in content["trials"]}
    rows = find(browser, "#leaderboard tbody tr")
    assert len(rows) == len(trials)
    for row in rows:
        trial = trials[row.get_attribute("data-trial")]
        cell = row.find_element("css selector", "td.score")
        assert float(cell.get_attribute("data-value")) == trial["score"]
        shown = cell.get_attribute("textContent").split()
        assert shown == [f"{trial['score']:.3f}", f"{trial['low']:.3f}–{trial['high']:.3f}"]


def whisker_dots(browser: Any) -> list[tuple[float, float]]:
    """Score and horizontal position of the dot of each row that has one inside the axis."""
    script = """return [...document.querySelectorAll("#leaderboard tbody tr")].flatMap(row => {
        const dot = row.querySelector("td.whisker circle");
        const score = Number(row.querySelector("td.score").dataset.value);
        return dot ? [[score, dot.getBoundingClientRect().x]] : [];
    })"""
    return [(score, x) for score, x in browser.execute_script(script)]


def test_dots_of_the_leaderboard_stand_on_one_linear_axis(open_page: Opens) -> None:
    dots = whisker_dots(open_page(regression()))
    assert len(dots) == 13  # all but the constant, which lies far beyond the axis
    (first, left), (last, right) = min(dots), max(dots)
    for score, x in dots:
        assert x == pytest.approx(left + (score - first) / (last - first) * (right - left), abs=1)


def test_far_baseline_is_an_arrow_and_is_explained(open_page: Opens) -> None:
    browser = open_page(regression())
    labels = [svg.get_attribute("aria-label") for svg in find(browser, "td.whisker svg")]
    assert labels[-1].startswith("constant: 0.39")
    assert "›" in texts(browser, "td.whisker")[-1]
    assert find(browser, ".off")[0].is_displayed()


@pytest.mark.parametrize("make", [regression, three_classes, wide_search])
def test_every_setting_that_varies_has_a_panel(open_page: Opens, make: Callable[[], Any]) -> None:
    content = make()
    browser = open_page(content)
    names = [s["name"].replace("_", " ") for s in content["importance"]["settings"]]
    assert texts(browser, ".panel h3 span") == names[:16]
    assert len(find(browser, ".panel svg")) == len(names[:16])
    assert texts(browser, "#settings-table tbody th") == names
    ticks = [
        texts(browser, f".panel:nth-child({i}) [aria-label='y-axis tick label'] text") for i in (1, 2, 3, 4)
    ]
    assert ticks[0]
    assert ticks == [ticks[0]] * 4  # one axis of scores for all


def test_every_trial_is_a_mark_in_the_panel_of_a_setting_that_all_have(open_page: Opens) -> None:
    content = wide_search()
    given = content["importance"]
    browser = open_page(content)
    assert given["settings"][0]["name"] == "learning_rate"
    panel = ".panel:first-child"
    dots = len(find(browser, f"{panel} [aria-label=dot]:not(.rings) circle[r='2']"))
    marks = texts(browser, f"{panel} [aria-label=text] text")
    scores = [t["score"] for t in given["trials"]]
    assert marks.count("×") == scores.count(None) == 2
    assert marks.count("▴") == sum(s is not None and s > given["edge"] for s in scores) > 0
    assert dots + len(marks) == len(scores) == 100


def test_panels_and_tips_stay_inside_a_narrow_window(open_page: Opens) -> None:
    content = wide_search()
    for s in content["importance"]["settings"]:
        s["name"] *= 5
    browser = open_page(content, width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    point_at(browser, find(browser, ".panel svg")[1], 150, 80)
    box = find(browser, "#trial-tip")[0].rect
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390


def point_at(browser: Any, svg: Any, x: int, y: int) -> None:
    from selenium.webdriver import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    size = svg.size
    ActionChains(browser).move_to_element_with_offset(
        svg, x - size["width"] // 2, y - size["height"] // 2
    ).perform()


def test_pointing_at_a_dot_rings_its_trial_in_every_panel(open_page: Opens) -> None:
    content = regression()
    browser = open_page(content)
    tip = find(browser, "#trial-tip")[0]
    assert not tip.is_displayed()
    point_at(browser, find(browser, ".panel svg")[0], 120, 60)
    rings = [r.get_attribute("data-ring") for r in find(browser, ".panel .rings circle.chosen")]
    assert len(rings) == len(content["importance"]["settings"])
    [number] = set(rings)
    [trial] = [t for t in content["trials"] if str(t["number"]) == number]
    assert tip.is_displayed()
    assert trial["name"] in tip.text
    assert f"{trial['score']:.3f}" in tip.text
    point_at(browser, find(browser, "#folds svg")[0], 5, 5)
    assert not tip.is_displayed()
    assert not find(browser, ".panel .rings circle.chosen")


def test_fold_table_shows_the_fold_scores(open_page: Opens) -> None:
    content = regression()
    browser = open_page(content)
    trials = {str(t["number"]): t for t in content["trials"]}
    for row in find(browser, "#fold-table tbody tr"):
        cells = row.find_elements("css selector", "td[data-value]")
        shown = [float(v) if (v := c.get_attribute("data-value")) else None for c in cells]
        assert shown == trials[row.get_attribute("data-trial")]["fold_scores"]


def test_every_fold_of_every_trial_is_a_dot(open_page: Opens) -> None:
    content = leave_one_out()
    browser = open_page(content)
    dots = len(find(browser, "[data-chart=folds] circle"))
    arrows = sum("›" in t for t in texts(browser, "[data-chart=folds] text"))
    assert dots + arrows == sum(len(t["fold_scores"]) for t in content["trials"])
    assert dots > 0.95 * (dots + arrows)


def test_pointing_at_a_dot_shows_its_fold(open_page: Opens) -> None:
    from selenium.webdriver import ActionChains

    content = regression()
    browser = open_page(content)
    svg = find(browser, "[data-chart=folds] svg")[0]
    lines = "return [...document.querySelectorAll('.paths path')].filter(p => p.style.display === '').length"
    assert browser.execute_script(lines) == 0
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    ActionChains(browser).move_to_element(svg).perform()
    assert browser.execute_script(lines) == 1
    assert any(name in t for name in content["fold_names"] for t in texts(browser, "[data-chart=folds] svg"))


def test_choosing_a_trial_shows_its_curve(open_page: Opens) -> None:
    content = regression()
    browser = open_page(content)
    curved = [t for t in content["trials"] if t["curve"]]
    assert [o.split(maxsplit=1)[1] for o in texts(browser, "#curve-trial option")] == [
        t["name"] for t in curved
    ]
    find(browser, ".thumbs button")[4].click()
    large = find(browser, "[data-chart=curve] svg")[0]
    assert curved[4]["name"] in large.get_attribute("aria-label")
    assert f"epoch {curved[4]['epoch']} chosen" in texts(browser, "[data-chart=curve] svg")[0]
    assert find(browser, "#curve-trial")[0].get_attribute("value") == "4"
    assert [b.get_attribute("aria-pressed") for b in find(browser, ".thumbs button")].index("true") == 4


def test_first_epochs_do_not_flatten_the_curve(open_page: Opens) -> None:
    content = regression()
    browser = open_page(content)
    ticks = texts(browser, "[data-chart=curve] [aria-label='y-axis tick label'] text")
    losses = content["trials"][0]["curve"]["validation"]["median"]
    assert max(map(float, ticks)) < 2 * losses[-1] < 0.1 * losses[0]


def test_scatter_holds_the_drawn_rows(open_page: Opens) -> None:
    content = regression()
    browser = open_page(content)
    assert len(find(browser, "[data-chart=scatter] circle")) == 2000
    assert "2,000 of 2,930 rows" in texts(browser, "#outcome-note")[0]


@pytest.mark.parametrize("make", [three_classes, letters])
def test_confusion_matrix_shows_the_counts(open_page: Opens, make: Callable[[], Any]) -> None:
    outcome = make()["outcome"]
    browser = open_page(make())
    shown = texts(browser, "[data-chart=confusion] [aria-label=text] text")
    counts = [str(n) for row in outcome["confusion"] for n in row if n]
    assert [t for t in shown if t.isdigit()] == counts
    assert len(find(browser, "#confusion-table td")) == len(outcome["classes"]) ** 2


def test_further_trials_are_drawn_when_opened(open_page: Opens) -> None:
    browser = open_page(many_trials())
    assert not find(browser, "#leaderboard-rest td.whisker svg")
    find(browser, "#leaderboard-rest summary")[0].click()
    time.sleep(0.2)  # the browser tells of the opening in its next frame
    assert len(find(browser, "#leaderboard-rest td.whisker svg")) == 83


def test_hostile_text_does_nothing(open_page: Opens) -> None:
    content = hostile()
    browser = open_page(content)
    assert browser.execute_script("return window.pwned") is None
    assert find(browser, "img") == []
    assert texts(browser, "#columns .name")[0].startswith(content["columns"][0]["name"][:30])


def test_foreign_script_cannot_run(open_page: Opens) -> None:
    browser = open_page(tiny())
    browser.execute_script("""const script = document.createElement("script");
        script.textContent = "window.pwned = 1";
        document.body.append(script)""")
    assert browser.execute_script("return window.pwned") is None


def test_live_page_keeps_the_readers_place(open_page: Opens) -> None:
    browser = open_page(live())
    assert find(browser, "#live")[0].is_displayed()
    browser.execute_script("document.querySelector('#folds details').open = true; scrollTo(0, 1234)")
    find(browser, ".thumbs button")[2].click()
    top = browser.execute_script("return scrollY")
    browser.refresh()
    assert browser.execute_script("return scrollY") == top
    assert browser.execute_script("return document.querySelector('#folds details').open")
    assert find(browser, "#curve-trial")[0].get_attribute("value") == "2"


def luminance(color: str) -> float:
    red, green, blue = (int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3])
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_contrast_in_light_and_dark(open_page: Opens, dark: bool) -> None:
    """Contrast ratio of at least 4.5 (WCAG 2.2, 1.4.3) for page text, chart text and the two curve colors."""
    browser = open_page(regression(), dark=dark)
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    paper = luminance(browser.execute_script(style, "body", "backgroundColor"))
    assert (paper < 0.1) is dark
    colors = [
        browser.execute_script(style, selector, "color")
        for selector in (
            "h1",
            ".read",
            "nav a",
            ".tag.status",
            ".warnings h2",
            "[data-chart=folds] svg",
            ".panel p",
            ".panel svg",
        )
    ]
    colors += [
        browser.execute_script(style, f".key.{key}", "borderBottomColor") for key in ("validation", "train")
    ]
    for color in colors:
        lighter, darker = sorted((luminance(color), paper), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, color


def test_page_is_readable_by_keyboard_and_screen_reader(open_page: Opens) -> None:
    browser = open_page(regression())
    script = """const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
        return {
        unnamed: [...document.querySelectorAll("svg")].filter(s => s.role !== "img" || !s.ariaLabel).length,
        headings: [...document.querySelectorAll("h1, h2, h3")].map(h => h.tagName).join(" "),
        links: [...document.querySelectorAll("nav a")].every(a => document.querySelector(a.hash)),
        scrollable: [...document.querySelectorAll(".scroll")].filter(
            s => s.scrollWidth > s.clientWidth && s.tabIndex < 0).length,
        labels: [...document.querySelectorAll("select, button")].filter(
            e => !e.closest("label") && !e.textContent).length,
        ids: ids.length - new Set(ids).size}"""
    found = browser.execute_script(script)
    assert found.pop("headings").startswith("H1 H2 H2")
    assert found.pop("links") is True
    assert set(found.values()) == {0}


def test_ticks_of_an_answer_are_told_apart(open_page: Opens) -> None:
    content = regression()
    points = [[i, 0.97112 + 0.00003 * i, None, None] for i in range(10)]
    series = [{"name": "score", "points": points, "line": False}]
    picture = {"x": "seed", "y": "accuracy", "series": series, "rules": [], "log_x": False}
    content["answers"] = [{"name": "seeds", "sentence": "", "how": "", "look": False, "picture": picture}]
    browser = open_page(content)
    ticks = texts(browser, "#answers [aria-label='y-axis tick label'] text")
    assert len(ticks) > 2
    assert len({*ticks}) == len(ticks)


def test_the_name_of_a_finding_leads_to_what_it_is(open_page: Opens) -> None:
    browser = open_page(three_classes())
    told = find(browser, "#explain-dead-units")[0]
    assert not told.find_element("css selector", "p").is_displayed()
    find(browser, "#finding-dead-units h3 a")[0].click()
    time.sleep(0.2)
    assert told.find_element("css selector", "p").is_displayed()
    assert "no slope, no gradient" in told.text


def test_every_layer_is_a_line_of_its_own_in_every_panel(open_page: Opens) -> None:
    browser = open_page(three_classes())
    script = """return [...document.querySelectorAll(".symptom")].map(figure => [
        figure.querySelector("h3").textContent,
        new Set([...figure.querySelectorAll("[aria-label=line] path")].map(p => p.getAttribute("stroke"))).size])"""
    drawn = dict(browser.execute_script(script))
    assert drawn == {
        "Outputs, mean": 3, "Outputs, variance": 3, "Gradients, variance": 3, "Weights, moved": 3,
        "Weights, per step": 3, "Dead units": 2, "Gradient, norm": 1,
    }  # fmt: skip
    assert len(find(browser, "[data-chart=templates] [aria-label=rect] rect")) == 3 * 16


def test_planes_are_those_of_the_features_chosen(open_page: Opens) -> None:
    from selenium.webdriver.support.select import Select

    content = three_classes()
    browser = open_page(content)
    across, up = (Select(find(browser, f"#plane-{axis}")[0]) for axis in "xy")
    Select(find(browser, "#plane-x")[0]).select_by_visible_text("flipper")
    assert [s.first_selected_option.text for s in (across, up)] == [
        "flipper",
        "beak",
    ]  # they never are the same
    up.select_by_visible_text("mass")
    svg = find(browser, "[data-chart=planes] svg")[0]
    assert "by flipper and mass" in svg.get_attribute("aria-label")
    own = content["linear"]
    middle = [sum(p[f] for p in own["points"]) / len(own["points"]) for f in range(3)]
    lines = browser.execute_script(
        """const svg = document.querySelector("[data-chart=planes] svg");
        const [x, y] = [svg.scale("x"), svg.scale("y")];
        return [...svg.querySelectorAll("[aria-label=link] path")].map(p => {
            const [x1, y1, x2, y2] = p.getAttribute("d").match(/-?[0-9.]+/g).map(Number);
            return [[x1, y1], [x2, y2]].map(([a, b]) => [x.invert(a), y.invert(b)]);
        })"""
    )
    assert lines
    planes = [
        lambda a, b, w=w, c=c: w[0] * middle[0] + w[1] * a + w[2] * b + c
        for w, c in zip(own["weights"], own["bias"], strict=True)
    ]
    for ends in lines:
        assert any(all(abs(plane(*end)) < 0.02 for end in ends) for plane in planes)
