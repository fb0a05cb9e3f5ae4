"""One offline page for a study: HTML with its style, its charts and their libraries inline."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from foldwise.report.faults import known_findings
from foldwise.report.inside import inside_of, linear_of
from foldwise.report.numbers import decimals, drawn_at_random, number, short, significant
from foldwise.report.panels import panels_of

Content = Mapping[str, Any]

HERE = Path(__file__).parent
FIRST_TRIALS = 15  # in the first table and the picture of folds; the rest is behind a fold-out
MOST_TRIALS = 200  # in the page at all
MOST_CURVES = 30  # trials whose learning curves are drawn
CURVE_POINTS = 100  # epochs drawn per curve
FOLD_POINTS = 6000  # folds drawn, all trials together
MOST_POINTS = 2000  # rows in predicted against true
FOLD_CELLS = 1500  # a table of fold scores larger than this helps nobody
FIRST_COLUMNS = 15
MOST_COLUMNS = 400
MOST_CLASSES = 30  # of a confusion matrix that is also given as a table
MOST_CELLS = 60  # columns of the table of worst rows
BASELINES = frozenset({"constant", "linear", "softmax"})

TRIAL_KEYS = (
    "number",
    "name",
    "network",
    "settings",
    "score",
    "low",
    "high",
    "deviation",
    "fold_scores",
    "epoch",
    "epochs",
    "place",
    "tied",
    "recommended",
    "status",
    "cut",
    "curve",
)


def render(content: Content) -> str:
    """Write the report page of a study as one HTML file that loads nothing.

    `content` is plain JSON-able data. Any value may be missing or None; the page then leaves that part out.
    All text is shown as text, whatever it contains.

    >>> page = render({"title": "price", "headline": {"sentence": "price: RMSE <b>3.1"}})
    >>> "RMSE &lt;b&gt;3.1" in page
    True
    """
    page = plain(content)
    headline = page.get("headline") or {}
    trials = [_trial(t) for t in page.get("trials") or []]
    first, rest = _split_trials(trials)
    outcome = _known_outcome(page.get("outcome"))
    mattered = panels_of(page.get("importance"))
    belief = _known_belief(page.get("belief"))
    inside, linear = inside_of(page.get("looks")), linear_of(page.get("linear"))
    digits = decimals(headline.get("value"), headline.get("low"), headline.get("high"))
    columns = page.get("columns") or []
    label = page.get("curve_label") or "loss"
    scripts = [Markup(_libraries()), Markup(_source("charts.js")), Markup(_source("page.js"))]
    return _template().render(
        page=page,
        headline=headline,
        trials=trials,
        first=first,
        rest=rest,
        left_out=len(trials) - len(first) - len(rest),
        settings=differing_settings(trials),
        nested_kinds=len({c["trial"] for c in (page.get("nested") or {}).get("choices", [])}),
        fold_table=sum(len(t["fold_scores"] or []) for t in first) <= FOLD_CELLS,
        fold_names=page.get("fold_names")
        or range(1, 1 + max([len(t["fold_scores"] or []) for t in first], default=0)),
        has_folds=any(t["fold_scores"] for t in first),
        has_curves=any(t["curve"] for t in [*first, *rest]),
        curve_label=label[:1].upper() + label[1:],
        mattered=mattered,
        belief=belief,
        findings=known_findings(page.get("findings")),
        inside=inside,
        linear=linear,
        outcome=outcome,
        mistakes=frequent_mistakes(outcome),
        cell_names=_cell_names(page.get("worst_rows") or []),
        first_columns=columns[:FIRST_COLUMNS],
        rest_columns=columns[FIRST_COLUMNS:MOST_COLUMNS],
        columns_left_out=max(0, len(columns) - MOST_COLUMNS),
        as_table=outcome and outcome["kind"] == "classes" and len(outcome["classes"]) <= MOST_CLASSES,
        data=inline_json(
            chart_data(page, outcome, first, rest, digits)
            | {
                "mattered": mattered and mattered["drawn"],
                "belief": belief,
                "inside": inside,
                "linear": linear,
            }
        ),
        number=functools.partial(number, digits=digits),
        css=Markup(_source("page.css")),
        scripts=scripts,
        policy=_policy(scripts),
    )


def plain(value: Any) -> Any:
    """Copy `value` without what a page cannot show: NaN and infinities become None, half surrogate pairs "?".

    >>> plain({"a": [1.5, float("nan")], "b": "x\\ud800"})
    {'a': [1.5, None], 'b': 'x?'}
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def inline_json(value: Any) -> Markup:
    """Write JSON that can stand inside a script element: nothing in it can end the element or open a comment.

    >>> inline_json("</script><!--")
    Markup('"\\\\u003c/script\\\\u003e\\\\u003c!--"')
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII, so U+2028 is escaped already
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def unbroken(text: str) -> Markup:
    """Escape a sentence and keep its ranges and percentages on one line.

    >>> unbroken("<b> 0.121–0.136")
    Markup('&lt;b&gt; <span class="whole">0.121–0.136</span>')
    """
    parts = re.split(r"(\d[\d.,]*(?:–[\d.,]*\d| %))", text)
    whole = Markup('<span class="whole">{}</span>')
    return Markup("").join(whole.format(part) if i % 2 else part for i, part in enumerate(parts))


def coded(text: str) -> Markup:
    """Escape a sentence, what stands between backticks as code.

    >>> coded("`a<b` is constant")
    Markup('<code>a&lt;b</code> is constant')
    """
    code = Markup("<code>{}</code>")
    parts = text.split("`")
    odd = len(parts) % 2 == 0  # a backtick without its other half is text
    return Markup("").join(
        code.format(part) if i % 2 and not (odd and i == len(parts) - 1) else part
        for i, part in enumerate(parts)
    )


def differing_settings(trials: Sequence[Content]) -> list[str]:
    """Name the settings that differ between the trials that are not baselines.

    >>> one = {"baseline": False, "settings": {"width": 32, "depth": 2}}
    >>> differing_settings([one, {"baseline": False, "settings": {"width": 64, "depth": 2}}])
    ['width']
    """
    tried = [t["settings"] or {} for t in trials if not t["baseline"]]
    names = dict.fromkeys(name for settings in tried for name in settings)
    return [n for n in names if len({json.dumps(s.get(n), sort_keys=True, default=str) for s in tried}) > 1]


def setting(trial: Content, name: str) -> str:
    """Write one setting of a trial; empty when the trial has none of that name.

    >>> setting({"settings": {"hidden": [64, 32], "dropout": 0.1}}, "hidden")
    '64×32'
    """
    value = (trial["settings"] or {}).get(name)
    if isinstance(value, float):
        return f"{value:g}".replace("-", "−")
    if isinstance(value, list):
        return "×".join(map(str, value))
    return "" if value is None else str(value)


def frequent_mistakes(outcome: Content | None, most: int = 8) -> list[tuple[str, str, int, float]]:
    """List the classes most often taken for another: true, predicted, count, share of the true class's rows.

    >>> frequent_mistakes({"kind": "classes", "classes": ["a", "b"], "confusion": [[9, 1], [0, 5]]})
    [('a', 'b', 1, 0.1)]
    """
    if not outcome or outcome["kind"] != "classes":
        return []
    classes, confusion = outcome["classes"], outcome["confusion"]
    found = [
        (classes[i], classes[j], count, count / sum(row))
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(found, key=lambda m: -m[2])[:most]


def chart_data(
    page: Content, outcome: Content | None, first: Sequence[Content], rest: Sequence[Content], digits: int
) -> dict[str, Any]:
    """Gather what the charts draw, rounded and thinned to what can be seen."""
    headline = page.get("headline") or {}
    listed = [*first, *rest]
    folds = FOLD_POINTS // max(1, len(first))
    drawn = [i for i, t in enumerate(listed) if t["curve"]][:MOST_CURVES]
    return {
        "metric": headline.get("metric"),
        "lower": headline.get("lower_is_better"),
        "digits": digits,
        "foldNames": page.get("fold_names"),
        "curveLabel": page.get("curve_label"),
        "trials": [
            {key: t[key] for key in ("number", "name", "place", "baseline", "tied", "epoch", "epochs")}
            | {key: short(t[key]) for key in ("score", "low", "high")}
            | {
                "loss": (t["settings"] or {}).get("loss"),
                "folds": _folds(t, folds) if i < len(first) else None,
                "curve": _curve(t) if i in drawn else None,
            }
            for i, t in enumerate(listed)
        ],
        "outcome": _outcome(outcome, headline.get("metric") or ""),
        "answers": [_picture(answer) for answer in page.get("answers") or []],
    }


def _picture(answer: Content) -> dict[str, Any]:
    """Give what is drawn of an answer, thinned to what can be seen."""
    picture = answer.get("picture") or {}
    series = picture.get("series") or []
    return {
        **{key: picture.get(key) for key in ("x", "y", "log_x", "rules")},
        "series": [
            {
                "name": s["name"],
                "line": s["line"],
                "points": [
                    [short(v) for v in s["points"][i]] for i in drawn_at_random(len(s["points"]), MOST_POINTS)
                ],
            }
            for s in series
        ],
    }


def _trial(given: Content) -> dict[str, Any]:
    trial = {**dict.fromkeys(TRIAL_KEYS), **given}
    trial["name"] = trial["name"] or f"trial {trial['number']}"
    trial["baseline"] = given.get("baseline", trial["network"] in BASELINES)
    trial["curve"] = trial["curve"] if (trial["curve"] or {}).get("epoch") else None
    return trial


def _split_trials(trials: Sequence[Content]) -> tuple[list[Content], list[Content]]:
    """The trials shown at once (the best, and every baseline) and those behind a fold-out."""
    if len(trials) <= FIRST_TRIALS + 3:
        return list(trials), []
    shown = [t for place, t in enumerate(trials) if place < FIRST_TRIALS or t["baseline"]]
    return shown, [t for t in trials[FIRST_TRIALS:] if not t["baseline"]][:MOST_TRIALS]


def _folds(trial: Content, most: int) -> list[list[float | None]] | None:
    """Pairs of fold number and score, thinned when there are very many folds."""
    scores = trial["fold_scores"]
    return scores and [[f, short(scores[f])] for f in drawn_at_random(len(scores), most)]


def _curve(trial: Content) -> dict[str, Any]:
    curve = trial["curve"]
    epochs = curve["epoch"]
    step = max(1, math.ceil(len(epochs) / CURVE_POINTS))
    keep = [i for i, e in enumerate(epochs) if i % step == 0 or i == len(epochs) - 1 or e == trial["epoch"]]
    parts = {
        part: {key: [short(values[i], 4) for i in keep] for key, values in curve[part].items() if values}
        for part in ("train", "validation")
        if curve.get(part)
    }
    return {"epoch": [epochs[i] for i in keep], **parts}


def _known_belief(given: Content | None) -> dict[str, Any]:
    """The panels of the section that have a sentence, in order."""
    return {n: p for n in ("luck", "variance", "calibration", "sureness") if (p := (given or {}).get(n))}


def _known_outcome(outcome: Content | None) -> Content | None:
    """The outcome, or None when a part without which it cannot be drawn is missing."""
    needed = ("classes", "confusion") if (outcome or {}).get("kind") == "classes" else ("truth", "prediction")
    return outcome if outcome and all(outcome.get(part) for part in needed) else None


def _outcome(outcome: Content | None, metric: str) -> dict[str, Any] | None:
    if not outcome:
        return None
    if outcome["kind"] == "classes":
        return {
            "kind": "classes",
            "classes": [str(c) for c in outcome["classes"]],
            "confusion": outcome["confusion"],
        }
    truth, prediction = outcome["truth"], outcome["prediction"]
    known = [i for i, pair in enumerate(zip(truth, prediction, strict=True)) if None not in pair]
    names = outcome.get("row") or range(len(truth))
    drawn = [known[i] for i in drawn_at_random(len(known), MOST_POINTS)]
    return {
        "kind": "regression",
        "rows": len(known),
        "points": [[names[i], short(truth[i], 4), short(prediction[i], 4)] for i in drawn],
        "log": "log" in metric.lower()
        and bool(drawn)
        and min(min(truth[i], prediction[i]) for i in known) > 0,
    }


def _cell_names(worst_rows: Iterable[Content]) -> list[str]:
    return list(dict.fromkeys(name for row in worst_rows for name in row.get("cells") or {}))[:MOST_CELLS]


def _policy(scripts: Sequence[str]) -> str:
    """The page's content security policy: these scripts and nothing else run, nothing is loaded."""
    sums = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{s}'" for s in sums)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@functools.cache
def _libraries() -> str:
    """The chart libraries, with the licenses that must travel with them."""
    licenses = "\n".join(
        _source(f"vendor/{n}") for n in ("plot.LICENSE.txt", "d3.LICENSE.txt", "bundled.LICENSES.txt")
    )
    return f"/*\n{licenses}*/\n{_source('vendor/d3.min.js')}\n{_source('vendor/plot.umd.min.js')}"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        finalize=lambda value: "" if value is None else value,
    )
    environment.globals |= {
        "setting": setting,
        "significant": significant,
        "unbroken": unbroken,
        "coded": coded,
    }
    return environment.from_string(_source("template.html"))
