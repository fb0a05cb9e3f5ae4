"""The report page as text: everything is there, nothing in a table can break out of it, nothing is loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from foldwise.report import page
from foldwise.report.page import render

from .sample import (
    HOSTILE,
    SAMPLES,
    leave_one_out,
    letters,
    live,
    many_trials,
    regression,
    three_classes,
    wide_search,
)

LIMIT = 1_500_000


class Elements(HTMLParser):
    """All elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def tags(self) -> dict[str, int]:
        names = [tag for tag, _ in self.found]
        return {name: names.count(name) for name in sorted(set(names))}


def inline_data(html: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Elements(html).scripts[0])
    return data


@pytest.mark.parametrize("name", SAMPLES)
def test_page_is_one_small_file_that_loads_nothing(name: str) -> None:
    html = render(SAMPLES[name]())
    assert len(html.encode()) < LIMIT
    addresses = [
        value
        for _, attributes in Elements(html).found
        for key, value in attributes.items()
        if key in {"src", "href", "srcset", "data", "action", "poster"}
    ]
    assert all(a is not None and (a.startswith("#") or a == "data:,") for a in addresses)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.S))
    assert "url(" not in styles
    assert "@import" not in styles


def test_page_says_what_the_content_says() -> None:
    content = regression()
    text = Elements(render(content)).text
    for said in (
        content["headline"]["sentence"],
        content["headline"]["how"],
        content["command"],
        content["run"],
        *content["warnings"],
        *(word for fact in content["facts"] for word in fact),
        *(t["name"] for t in content["trials"]),
        *(c["name"] for c in content["columns"]),
        *(c["use"] for c in content["columns"]),
        *content["environment"].values(),
        *(w["truth"] for w in content["worst_rows"]),
    ):
        assert said in text


def test_baselines_and_ties_are_marked_and_explained() -> None:
    elements = Elements(render(regression()))
    rows = [a["class"] or "" for tag, a in elements.found if tag == "tr" and "class" in a]
    assert sum("baseline" in r for r in rows) == 2
    assert sum("tied" in r for r in rows) == 3
    assert "within the noise" in elements.text
    assert "a network has to beat" in elements.text


def test_settings_that_differ_are_columns_and_equal_ones_are_not_shown() -> None:
    elements = Elements(render(regression()))
    labels = {a.get("data-label") for tag, a in elements.found if tag == "td"}
    assert {"learning rate", "width", "dropout", "weight decay"} <= labels
    assert "batch size" not in labels


def test_many_settings_are_left_to_the_name() -> None:
    content = regression()
    for i, trial in enumerate(content["trials"]):
        trial["settings"] |= {f"option_{k}": i + k for k in range(6)}
    elements = Elements(render(content))
    assert "option 5" not in {a.get("data-label") for tag, a in elements.found if tag == "td"}
    assert content["trials"][0]["name"] in elements.text


def test_many_trials_keep_the_baselines_in_the_first_table() -> None:
    html = render(many_trials())
    first, rest = html.split('<details id="leaderboard-rest">')
    assert len(re.findall("<tr [^>]*data-trial=", first)) == 17
    assert "linear regression" in first
    assert "constant" in first
    assert "83 further trials" in rest


def test_large_studies_stay_small() -> None:
    content = many_trials()
    content["trials"] = [t | {"number": i} for i, t in enumerate(content["trials"] * 20)]
    content["columns"] = content["columns"] * 40
    content["outcome"] = {
        "kind": "regression",
        "truth": [0.1 * i for i in range(200_000)],
        "prediction": [0.1 * i + 0.123456789 for i in range(200_000)],
        "row": list(range(200_000)),
    }
    for row in content["worst_rows"]:
        row["cells"] = {f"pixel {i}": str(i % 256) for i in range(784)}
    for trial in content["trials"]:
        trial["fold_scores"] = [1 / (1 + f) for f in range(1000)]
    html = render(content)
    assert len(html.encode()) < LIMIT
    assert len(inline_data(html)["outcome"]["points"]) == 2000


def test_settings_that_mattered_come_first_and_are_said_in_words() -> None:
    content = wide_search()
    settings = content["importance"]["settings"]
    assert len(content["importance"]["trials"]) == 100
    assert len(settings) > 16
    html = render(content)
    assert len(html.encode()) < LIMIT
    text = Elements(html).text
    first = settings[0]
    assert first["name"] == "learning_rate"
    assert f"goes with {100 * first['share']:.0f} % of the differences" in text
    assert "no sign of an effect" in text
    assert "not what it causes" in text
    left_out = [s["name"].replace("_", " ") for s in settings[16:]]
    assert f"Not drawn: {', '.join(left_out)}." in text
    drawn = inline_data(html)["mattered"]
    assert [p["name"] for p in drawn["panels"]] == [s["name"] for s in settings[:16]]
    assert {len(p["values"]) for p in drawn["panels"]} == {100}


def test_without_a_setting_that_varies_there_is_no_section() -> None:
    for absent in (None, {}, {"trials": [], "settings": []}):
        html = render(regression() | {"importance": absent})
        assert 'id="settings"' not in html
        assert 'href="#settings"' not in html
        assert inline_data(html)["mattered"] is None


def test_few_trials_have_dots_but_no_shares() -> None:
    content = regression()
    for s in content["importance"]["settings"]:
        s |= {
            "share": None,
            "p_value": None,
            "beyond_chance": False,
            "verdict": "too few trials to tell",
            "groups": [],
        }
    text = Elements(render(content)).text
    assert text.count("too few trials to tell") == len(content["importance"]["settings"])
    assert "nothing can be told from chance" in text
    assert "bar the mean" not in text


def test_spread_between_folds_that_would_hide_the_dots_is_said_and_not_drawn() -> None:
    content = wide_search()
    assert "Thin line" in Elements(render(content)).text
    for trial in content["importance"]["trials"]:
        trial["deviation"] = 0.25
    html = render(content)
    assert "Thin line" not in Elements(html).text
    assert "(typically ± 0.250)" in Elements(html).text
    drawn = inline_data(html)["mattered"]
    assert drawn["whiskers"] is False
    low, high = drawn["domain"]
    assert high - low < 1.2 * (drawn["edge"] - drawn["best"])


def test_of_thousands_of_trials_some_are_drawn_and_the_winner_always() -> None:
    content = wide_search()
    given = content["importance"]
    given["trials"] = [t | {"number": i, "place": i + 1} for i, t in enumerate(given["trials"][::-1] * 30)]
    for s in given["settings"]:
        s["values"] = s["values"][::-1] * 30
    html = render(content)
    assert len(html.encode()) < LIMIT
    drawn = inline_data(html)["mattered"]["trials"]
    assert len(drawn) in (300, 301)
    assert drawn[0][0] == 0
    assert "of 3,000 trials are drawn" in Elements(html).text


def test_rows_are_thinned_the_same_way_every_time() -> None:
    assert render(regression()) == render(regression())
    points = inline_data(render(regression()))["outcome"]["points"]
    assert len(points) == 2000
    assert len({p[0] for p in points}) == 2000


def test_scores_are_written_as_numbers_and_shown_rounded() -> None:
    content = regression()
    html = render(content)
    for trial in content["trials"]:
        assert f'data-value="{trial["score"]}"><b>{trial["score"]:.3f}</b>' in html
        assert f"{trial['low']:.3f}–{trial['high']:.3f}" in html


def test_hostile_text_adds_no_element() -> None:
    tags, plain = Elements(render(SAMPLES["hostile"]())).tags(), Elements(render(three_classes())).tags()
    for tag in (
        "script",
        "img",
        "style",
        "iframe",
        "meta",
        "link",
        "base",
        "form",
        "svg",
        "table",
        "section",
    ):
        assert tags.get(tag) == plain.get(tag)


def test_hostile_text_is_shown_as_text() -> None:
    content = SAMPLES["hostile"]()
    elements = Elements(render(content))
    shown = re.sub(r"[\u2028\u2029]", "", HOSTILE)
    text = re.sub(r"[\u2028\u2029]", "", elements.text)
    for prefix in (
        "Lot Area",
        "mlp 32×2, rate 0.01, dropout 0.1",
        "foldwise",
        "Adelie",
        "2,930",
    ):
        assert prefix + shown in text
    assert "49" not in text.split("{{7*7}}")[1][:5]


def test_inline_json_cannot_end_its_script() -> None:
    content = SAMPLES["hostile"]()
    html = render(content)
    raw = html[html.index('id="data">') :].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(raw.removeprefix('id="data">'))
    assert inline_data(html)["outcome"]["classes"] == content["outcome"]["classes"]
    assert inline_data(html)["trials"][0]["name"] == content["trials"][0]["name"]


@pytest.mark.parametrize("name", SAMPLES)
def test_only_the_own_scripts_may_run(name: str) -> None:
    html = render(SAMPLES[name]())
    elements = Elements(html)
    policy = next(
        a["content"] or "" for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    allowed = re.search(r"script-src ([^;]*);", policy)
    assert allowed is not None
    assert (
        allowed[1].count("sha256-") == len(elements.scripts) - 1
    )  # the first holds the data and does not run
    assert "unsafe-inline" not in allowed[1]


def test_live_page_reads_itself_again() -> None:
    assert 'http-equiv="refresh"' in render(live())
    assert "Still training" in render(live())
    assert 'http-equiv="refresh"' not in render(regression())


def holes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a content, but for the inner ones of long lists, of which the first stands for all."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from holes(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from holes(value[0], (*path, 0))


def punched(content: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = None
    return content


@pytest.mark.parametrize("make", [regression, three_classes], ids=lambda f: f.__name__)
def test_any_value_may_be_unknown(make: Any) -> None:
    content = make()
    for path in holes(content):
        if isinstance(path[-1], int) and path[0] != "outcome" and "curve" not in path:
            continue  # an entry of a list is there; what it says may be unknown
        if "confusion" in path[:-1]:
            continue
        html = render(punched(copy.deepcopy(content), path))
        assert "None" not in Elements(html).text, path


@pytest.mark.parametrize("key", regression())
def test_any_part_may_be_absent(key: str) -> None:
    content = regression()
    del content[key]
    assert "</html>" in render(content)


def test_empty_content_is_a_page() -> None:
    assert "<h1>A study</h1>" in render({})


def test_not_a_number_is_unknown() -> None:
    content = regression()
    content["trials"][0] |= {"score": float("nan"), "low": float("-inf"), "high": float("inf")}
    content["outcome"]["prediction"][0] = float("nan")
    html = render(content)
    assert not re.search(r"\b(nan|inf|NaN|Infinity)\b", Elements(html).text + Elements(html).scripts[0])


def test_epochs_are_thinned_but_the_chosen_and_the_last_one_stay() -> None:
    content = regression()
    epochs = list(range(1, 1001))
    loss = {"median": [1 / e for e in epochs], "low": None, "high": None}
    content["trials"][0] |= {"epoch": 618, "curve": {"epoch": epochs, "train": loss, "validation": loss}}
    curve = inline_data(render(content))["trials"][0]["curve"]
    assert len(curve["epoch"]) <= page.CURVE_POINTS + 2
    assert {1, 618, 1000} <= set(curve["epoch"])
    assert curve["validation"]["median"][curve["epoch"].index(618)] == pytest.approx(1 / 618, rel=1e-3)
    assert "low" not in curve["validation"]


def test_axes_are_logarithmic_only_when_score_and_values_are() -> None:
    content = regression()
    assert inline_data(render(content))["outcome"]["log"] is True
    content["outcome"]["truth"][0] = 0
    assert inline_data(render(content))["outcome"]["log"] is False
    content = regression()
    content["headline"]["metric"] = "RMSE"
    assert inline_data(render(content))["outcome"]["log"] is False


def test_most_frequent_mistakes_are_listed() -> None:
    content = letters()
    mistakes = page.frequent_mistakes(content["outcome"])
    counts = sorted(
        (n for i, row in enumerate(content["outcome"]["confusion"]) for j, n in enumerate(row) if i != j),
        reverse=True,
    )
    assert [m[2] for m in mistakes] == counts[:8]
    assert 'id="mistakes"' in render(content)


def test_hundreds_of_folds_have_no_table_but_a_picture() -> None:
    html = render(leave_one_out())
    assert 'id="fold-table"' not in html
    assert len(inline_data(html)["trials"][0]["folds"]) == 300


def test_shipped_libraries_are_the_ones_of_the_readme() -> None:
    vendor = page.HERE / "vendor"
    table = (vendor / "README.md").read_text(encoding="utf-8")
    for library in vendor.glob("*.js"):
        assert hashlib.sha256(library.read_bytes()).hexdigest() in table


def test_licenses_travel_with_the_page() -> None:
    html = render({})
    for license_file in (page.HERE / "vendor").glob("*LICENSE*.txt"):
        assert license_file.read_text(encoding="utf-8").strip() in html


def test_findings_are_cards_with_what_was_tried_and_what_they_are() -> None:
    text = " ".join(Elements(render(three_classes())).text.split())
    for part in (
        "dead-units likely trials 4, 9",
        "91 % of the 32 units of activation2 are 0 for every row. First seen after 120 steps.",
        "Score without a remedy: 0.54 ± 0.14.",
        "learning rate ÷ 100.96 ± 0.025 of 50.004helps",  # cells, one after another
        "Suggested: learning rate ÷ 10.",
        "Also explains: plateau, underfitting.",
        "Why it hurts. no slope, no gradient",
        "1 hint: constant-columns",
    ):
        assert part in text, part


def test_a_doubt_is_said_under_the_headline() -> None:
    content = regression()
    assert 'class="doubt"' not in render(content)
    doubted = content | {
        "headline": content["headline"] | {"doubt": "do not believe this score: `<id>` tells"}
    }
    assert "Do not believe this score: <id> tells. See the findings" in " ".join(
        Elements(render(doubted)).text.split()
    )


def test_remedies_that_make_no_pairs_have_no_columns_for_them() -> None:
    honest = {"what": "leave it out", "after": "0.6 ± 0.1", "better": None, "p": None, "helps": "to believe"}
    found = {"code": "target-leak", "alarm": True, "sure": "likely", "tried": [honest]}
    page = render(regression() | {"findings": {"summary": "", "found": [found]}})
    assert "leave it out" in page
    assert "folds better" not in page
    assert "corrected test that they" not in page


def test_checks_that_found_nothing_are_one_line() -> None:
    quiet = regression() | {"findings": {"summary": "checks: nothing found (41 looked)", "found": []}}
    text = Elements(render(quiet)).text
    assert "Checks: nothing found (41 looked)." in text
    assert 'class="finding"' not in render(quiet)


def test_of_many_layers_some_are_drawn_from_the_first_to_the_last() -> None:
    content = three_classes()
    layer = content["looks"]["layers"][0]
    content["looks"]["layers"] = [layer | {"name": f"block{i}"} for i in range(200)]
    panel = inline_data(render(content))["inside"]["panels"][0]
    names = [line["name"] for line in panel["lines"]]
    assert (len(names), names[0], names[-1]) == (10, "block0", "block199")
    assert len(render(content)) < LIMIT
