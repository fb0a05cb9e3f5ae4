"""Contents of report pages for the tests: what a study hands to `render`, made up but plausible.

Every function gives a fresh dict, the same one each time (fixed seeds).
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable
from typing import Any

from foldwise.judge.importance import importance
from foldwise.judge.verdict import TrialResult
from foldwise.report.content import importance_of
from foldwise.settings import Settings, make_settings

Content = dict[str, Any]

HOSTILE = (
    "</script><script>window.pwned=1</script><!--\u2028\u2029"
    "<img src=x onerror='window.pwned=1'>&amp;{{7*7}}\"'"
)


def _curve(rng: random.Random, floor: float, start: float, epochs: int, overfit: float = 0.0) -> Content:
    """A falling loss with a band over the folds; validation turns up again when `overfit` is positive."""
    steps = list(range(1, epochs + 1))
    wobble = [rng.gauss(0, 0.02 * floor) for _ in steps]
    train = [floor * 0.8 + (start - floor) * math.exp(-0.9 * (e - 1)) - overfit * 0.3 * e for e in steps]
    validation = [
        floor + (start - floor) * math.exp(-0.8 * (e - 1)) + overfit * max(0, e - epochs * 0.55) + w
        for e, w in zip(steps, wobble, strict=True)
    ]
    band = {
        name: {"median": m, "low": [v * (1 - wide) for v in m], "high": [v * (1 + wide) for v in m]}
        for name, m, wide in (("train", train, 0.03), ("validation", validation, 0.08))
    }
    return {"epoch": steps, **band}


def _interval(scores: list[float]) -> tuple[float, float, float, float]:
    """Mean, low, high and standard deviation of a trial's fold scores."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / max(1, len(scores) - 1))
    half = 1.96 * deviation / math.sqrt(len(scores))
    return mean, mean - half, mean + half, deviation


def _trial(
    rng: random.Random, number: int, name: str, network: str, settings: Content, *, center: float, folds: int
) -> Content:
    scores = [center * (1 + 0.05 * math.sin(1.7 * f) + rng.gauss(0, 0.02)) for f in range(folds)]
    score, low, high, deviation = _interval(scores)
    return {
        "number": number,
        "name": name,
        "network": network,
        "settings": settings,
        "score": score,
        "low": low,
        "high": high,
        "deviation": deviation,
        "fold_scores": scores,
        "epoch": None,
        "epochs": None,
        "place": None,
        "tied": False,
        "status": "finished",
        "curve": None,
    }


def _perceptron(rng: random.Random, number: int, center: float, *, folds: int, floor: float) -> Content:
    rate = rng.choice([0.001, 0.003, 0.01])
    width = rng.choice([32, 64, 128])
    dropout = rng.choice([0.0, 0.1, 0.3])
    decay = rng.choice([0.0, 0.01])
    settings = {
        "learning_rate": rate,
        "width": width,
        "depth": 2,
        "dropout": dropout,
        "weight_decay": decay,
        "activation": "relu",
        "batch_size": 64,
        "optimizer": "adamw",
    }
    name = f"mlp {width}×2, rate {rate:g}" + (f", dropout {dropout:g}" if dropout else "")
    trial = _trial(rng, number, name, "mlp", settings, center=center, folds=folds)
    trial["epochs"] = 30
    trial["epoch"] = rng.randint(9, 29)
    trial["curve"] = _curve(rng, floor, 30 * floor, 30, overfit=floor * 0.02 * (trial["epoch"] < 20))
    return trial


def _importance(trials: list[Content], *, lower: bool) -> Content | None:
    """What the page says of the settings of a search: that of the perceptrons, as a study would have it."""
    results = [
        TrialResult(
            number=t["number"],
            name=t["name"],
            settings=make_settings(t["settings"]) if t["network"] == "mlp" else Settings(network="constant"),
            place=t["place"],
            score=math.nan if t["score"] is None else t["score"],
            low=math.nan,
            high=math.nan,
            deviation=math.nan if t["deviation"] is None else t["deviation"],
            fold_scores=(),
            epoch=0,
            tied=t["tied"],
            status=t["status"],
        )
        for t in trials
    ]
    return importance_of(importance(results, higher_is_better=not lower))


def _ranked(trials: list[Content], *, lower: bool, tied: int) -> list[Content]:
    """Order by score and number the places; the first `tied` after the best count as ties with it."""
    trials.sort(key=lambda t: (t["score"] is None, (t["score"] or 0) * (1 if lower else -1)))
    for place, trial in enumerate(trials, start=1):
        trial["place"] = place
        trial["tied"] = 1 < place <= 1 + tied
    return trials


def _columns(names: list[str]) -> list[Content]:
    return [
        {
            "name": name,
            "kind": "category" if i % 4 == 0 else "number",
            "role": "feature",
            "dtype": "String" if i % 4 == 0 else "Float64",
            "missing": 0 if i % 3 else 17,
            "distinct": 5 if i % 4 == 0 else 1200 + i,
            "levels": ["Gilbert", "NAmes", "Sawyer", "StoneBr", "Veenker"] if i % 4 == 0 else [],
            "use": "one flag per level" if i % 4 == 0 else "standardized per fold on training rows",
        }
        for i, name in enumerate(names)
    ]


def regression() -> Content:
    """The default search on a table of houses: twelve perceptrons, a linear model, a constant; five folds."""
    rng = random.Random(1)
    trials = [
        _perceptron(rng, n, 0.128 * (1 + 0.012 * n), folds=5, floor=0.0164 * (1 + 0.03 * n))
        for n in range(12)
    ]
    trials.append(
        _trial(rng, 12, "linear regression", "linear", {"learning_rate": 0.01}, center=0.146, folds=5)
    )
    trials[-1] |= {"epochs": 30, "epoch": 30, "curve": _curve(rng, 0.021, 0.5, 30)}
    trials.append(_trial(rng, 13, "constant", "constant", {}, center=0.397, folds=5))
    trials[9]["status"] = "diverged: folds 2, 3"
    trials[9]["fold_scores"][1] = trials[9]["fold_scores"][2] = None
    trials = _ranked(trials, lower=True, tied=3)
    best = trials[0]
    truth = [round(math.exp(rng.gauss(12, 0.4))) for _ in range(2930)]
    prediction = [t * math.exp(rng.gauss(0, 0.12)) for t in truth]
    names = [
        "Lot Area",
        "Overall Qual",
        "Year Built",
        "Neighborhood",
        "Gr Liv Area",
        "Garage Cars",
        "Full Bath",
    ]
    columns = _columns(names + [f"Feature {i}" for i in range(18)])
    columns += [
        {
            "name": "PID",
            "kind": "identifier",
            "role": "set aside",
            "dtype": "Int64",
            "missing": 0,
            "distinct": 2930,
            "levels": [],
            "use": "set aside: a different value in every row names the row and says nothing about it",
        },
        {
            "name": "price",
            "kind": "number",
            "role": "target",
            "dtype": "Int64",
            "missing": 0,
            "distinct": 1032,
            "levels": [],
            "use": "predicted on the logarithm",
        },
    ]
    return {
        "title": "price",
        "headline": {
            "sentence": f"price: log-RMSE {best['score']:.3f} (95 % {best['low']:.3f}–{best['high']:.3f}), "
            f"linear model 0.146, constant 0.397",
            "how": "Mean over 5 folds and 1 seed of the best of 14 trials, every row predicted by networks "
            "that never saw it; corrected for having chosen the best (bootstrap over the predictions).",
            "metric": "log-RMSE",
            "lower_is_better": True,
            "value": best["score"],
            "low": best["low"],
            "high": best["high"],
        },
        "facts": [
            ["rows", "2,930"],
            ["features", "287"],
            ["trials", "14"],
            ["folds", "5"],
            ["members", "70"],
            ["epochs", "30"],
            ["time", "41 s"],
            ["engine", "stacked, 3 stacks"],
        ],
        "warnings": [
            "1 of 70 members diverged: trial 9, folds 2 and 3. Its scores are left out of the comparison.",
            "Column `PID` names the rows and was set aside; say --column PID=number to use it.",
        ],
        "trials": trials,
        "importance": _importance(trials, lower=True),
        "curve_label": "squared error of log price",
        "fold_names": [f"fold {i}" for i in range(1, 6)],
        "outcome": {
            "kind": "regression",
            "truth": truth,
            "prediction": prediction,
            "row": list(range(len(truth))),
        },
        "worst_rows": [
            {
                "row": 17 + 31 * i,
                "truth": f"{120000 + 7000 * i:,}",
                "prediction": f"{240000 - 3000 * i:,}",
                "loss": 0.6931 / (1 + 0.3 * i),
                "cells": {
                    "Lot Area": f"{9000 + 11 * i}",
                    "Overall Qual": "5",
                    "Year Built": f"{1950 + i}",
                    "Neighborhood": "Old Town" if i % 2 else None,
                    "Gr Liv Area": f"{1400 + 50 * i}",
                    "Garage Cars": "2",
                    "Full Bath": "1",
                    "Sale Condition": "Abnormal",
                    "Roof Material": "Composition shingle",
                    "Exterior 1st": "Vinyl siding",
                },
            }
            for i in range(10)
        ],
        "columns": columns,
        "environment": {
            "foldwise": "0.1.0",
            "python": "3.12.4",
            "torch": "2.13.0",
            "processor": "2 cores, x86_64",
            "device": "cpu",
            "dtype": "float32",
            "seed": "0",
        },
        "command": "foldwise fit houses.csv --target price --folds 5 --out runs/houses",
        "run": "runs/houses",
        "live": False,
    }


def _classes(classes: list[str], *, rows: int, title: str, center: float) -> Content:
    rng = random.Random(len(classes))
    content = regression()
    trials = [
        _perceptron(rng, n, center * (1 - 0.004 * n), folds=5, floor=0.12 * (1 + 0.05 * n)) for n in range(12)
    ]
    trials.append(_trial(rng, 12, "softmax regression", "softmax", {}, center=center * 0.9, folds=5))
    trials.append(_trial(rng, 13, "constant", "constant", {}, center=1 / len(classes), folds=5))
    for trial in trials:
        trial["fold_scores"] = [min(1.0, 1 - (1 - s) * 0.9) for s in trial["fold_scores"]]
        trial["score"], trial["low"], trial["high"], trial["deviation"] = _interval(trial["fold_scores"])
    trials = _ranked(trials, lower=False, tied=2)
    best = trials[0]
    each = rows // len(classes)
    confusion = [[0] * len(classes) for _ in classes]
    for i, row in enumerate(confusion):
        row[i] = each
        for _ in range(round(each * (1 - center) * 1.5)):
            j = min(len(classes) - 1, max(0, round(rng.gauss(i, 2))))
            if j != i:
                row[i] -= 1
                row[j] += 1
    content |= {
        "title": title,
        "headline": {
            "sentence": f"{title}: accuracy {best['score']:.3f} (95 % {best['low']:.3f}–{best['high']:.3f}), "
            f"softmax regression {trials[12]['score']:.3f}, constant {trials[13]['score']:.3f}",
            "how": "Mean over 5 folds of the best of 14 trials, every row predicted by networks that never "
            "saw it.",
            "metric": "accuracy",
            "lower_is_better": False,
            "value": best["score"],
            "low": best["low"],
            "high": best["high"],
        },
        "warnings": [],
        "trials": trials,
        "importance": _importance(trials, lower=False),
        "curve_label": "cross-entropy",
        "outcome": {"kind": "classes", "classes": classes, "confusion": confusion},
    }
    return content


def three_classes() -> Content:
    """Penguins: three classes, accuracy, higher is better; with findings and what was measured of them."""
    content = _classes(["Adelie", "Chinstrap", "Gentoo"], rows=342, title="species", center=0.96)
    return content | {
        "findings": _findings(),
        "looks": _looks(),
        "linear": _linear(content["outcome"]["classes"]),
    }


def _findings() -> Content:
    tried = {"what": "learning rate ÷ 10", "after": "0.96 ± 0.02", "better": "5 of 5", "p": "0.004"}
    alarm = {
        "code": "dead-units",
        "alarm": True,
        "sure": "likely",
        "trials": [4, 9],
        "evidence": "91 % of the 32 units of `activation2` are 0 for every row.",
        "where": ["activation2"],
        "more": 0,
        "step": 120,
        "was": "0.54 ± 0.14",
        "tried": [
            tried | {"helps": "helps", "good": True},
            tried | {"what": "leaky ReLU", "after": "diverged", "helps": "no gain", "good": False},
        ],
        "suggested": "learning rate ÷ 10",
        "advice": "Suggested: learning rate ÷ 10.",
        "symptoms": ["plateau", "underfitting"],
        "what": "Units of a layer that are 0 for every row.",
        "sections": [["Evidence", "the share of units"], ["Why it hurts", "no slope, no gradient"]],
    }
    hint = alarm | {"code": "constant-columns", "alarm": False, "sure": "a hint", "trials": [], "tried": []}
    return {"summary": "checks: 1 alarm and 1 hint", "found": [alarm, hint]}


def _looks() -> Content:
    epochs = [0, 1, 2, 3, 5, 8]

    def series(start: float, factor: float) -> list[float | None]:
        return [start * factor**e for e in epochs]

    layers = [
        {
            "name": name,
            "kind": kind,
            "role": role,
            "units": 32,
            "mean": series(0.1, 1.1),
            "variance": series(1.0, 1 + 0.2 * at),
            "gradient_variance": series(1e-3, 0.1 + 0.2 * at),
            "dead": [0.0, 0.1, 0.3, 0.6, 0.9, 0.9],
            "saturated": [None] * 6,
        }
        for at, (name, kind, role) in enumerate(
            [
                ("hidden1", "Linear", "weights"),
                ("activation1", "ReLU", "activation"),
                ("hidden2", "Linear", "weights"),
                ("activation2", "ReLU", "activation"),
                ("output", "Linear", "weights"),
            ]
        )
    ]
    weights = [
        {
            "name": name,
            "gradient_norm": series(1.0, 0.8),
            "moved": [None, *series(0.1, 1.1)[1:]],
            "per_step": [None, *series(1e-2, 0.5)[1:]],
        }
        for name in ("hidden1", "hidden2", "output")
    ]
    return {
        "trial": 4,
        "steps": [12 * e for e in epochs],
        "epochs": epochs,
        "layers": layers,
        "weights": weights,
        "gradient_norm": series(2.0, 0.9),
        "clipped": [None, 1.0, 0.5, 0.2, 0.0, 0.0],
    }


def _linear(classes: list[str]) -> Content:
    rng = random.Random(3)
    return {
        "trial": 2,
        "classes": classes,
        "names": ["beak", "flipper", "mass"],
        "weights": [[1.0, 0.5, 0.1], [-1.0, 0.4, 0.2], [0.0, -0.9, -0.3]],
        "bias": [0.1, 0.0, -0.1],
        "points": [[rng.gauss(0, 1) for _ in range(3)] for _ in range(60)],
        "labels": [rng.randrange(3) for _ in range(60)],
        "images": [[None if i == 0 else rng.gauss(0, 1) for i in range(16)] for _ in classes],
    }


def letters() -> Content:
    """Twenty-six classes."""
    return _classes(list(string.ascii_uppercase), rows=20000, title="letter", center=0.93)


def tiny() -> Content:
    """One trial and nothing else known: every field that may be null is null."""
    trial = dict.fromkeys(regression()["trials"][0])
    return {
        "title": "y",
        "headline": dict.fromkeys(regression()["headline"]) | {"sentence": "y: RMSE 1.25", "value": 1.25},
        "facts": [],
        "warnings": [],
        "trials": [
            trial | {"number": 0, "name": "mlp 8×1", "network": "mlp", "score": 1.25, "fold_scores": None}
        ],
        "importance": None,
        "curve_label": None,
        "fold_names": None,
        "outcome": None,
        "worst_rows": None,
        "columns": None,
        "environment": None,
        "command": None,
        "run": None,
        "live": False,
    }


def hostile() -> Content:
    """Every text tries to leave its place in the page."""

    def poison(value: Any) -> Any:
        if isinstance(value, str):
            return value + HOSTILE
        if isinstance(value, list):
            return [poison(v) for v in value]
        if isinstance(value, dict):
            return {k: poison(v) for k, v in value.items()}
        return value

    content = three_classes()
    content = {key: poison(value) for key, value in content.items()}
    content["outcome"]["kind"] = "classes"
    for trial in content["trials"]:
        trial["settings"] = {k + HOSTILE: v for k, v in trial["settings"].items()}
    for row in content["worst_rows"]:
        row["cells"] = {k + HOSTILE: v for k, v in row["cells"].items()}
    content["environment"] = {k + HOSTILE: v for k, v in content["environment"].items()}
    content["title"] += "\ud800"  # half of a surrogate pair: cannot be written as UTF-8
    return content


def live() -> Content:
    """Early in a run: some trials have not scored, curves are short, nothing is predicted yet."""
    content = regression()
    content["live"] = True
    content["headline"] |= {"sentence": "price: 9 of 70 members trained, best so far log-RMSE 0.131"}
    content["outcome"] = content["worst_rows"] = content["importance"] = None
    for trial in content["trials"][4:]:
        trial |= dict.fromkeys(
            ("score", "low", "high", "deviation", "epoch", "curve", "place", "fold_scores")
        )
        trial["status"] = "waiting"
    for trial in content["trials"][:4]:
        curve = trial["curve"]
        curve["epoch"] = curve["epoch"][:2]
        for part in ("train", "validation"):
            curve[part] = {k: v[:2] for k, v in curve[part].items()}
        trial["epoch"] = 2
        trial["status"] = "training: epoch 2 of 30"
    return content


def many_trials() -> Content:
    """A search of 100 trials."""
    rng = random.Random(5)
    content = regression()
    trials = [
        _perceptron(rng, n, 0.128 * (1 + 0.004 * n), folds=5, floor=0.0164 * (1 + 0.01 * n))
        for n in range(98)
    ]
    trials.append(_trial(rng, 98, "linear regression", "linear", {}, center=0.146, folds=5))
    trials.append(_trial(rng, 99, "constant", "constant", {}, center=0.397, folds=5))
    content["trials"] = _ranked(trials, lower=True, tied=21)
    content["importance"] = _importance(trials, lower=True)
    return content


def wide_search() -> Content:
    """A search of 100 trials over 19 settings, of which learning rate and input noise matter, the width a little.

    Some settings are there for some trials only; two trials diverged and a few scored far out.
    """
    rng = random.Random(8)
    content = regression()
    trials = [_drawn(rng, n) for n in range(1, 101)]
    for trial in trials[20:22]:
        trial |= dict.fromkeys(("score", "low", "high", "deviation", "curve"))
        trial |= {"fold_scores": [None] * 5, "status": "diverged: folds 1, 2, 3, 4, 5"}
        trial["settings"]["learning_rate"] = 0.3
    content["trials"] = _ranked(trials, lower=True, tied=9)
    content["importance"] = _importance(trials, lower=True)
    return content


def _drawn(rng: random.Random, number: int) -> Content:
    """One trial of the wide search: settings drawn at random, and a score that follows from a few of them."""
    optimizer = rng.choice(["adamw", "sgd", "rmsprop", "adagrad", "nadam"])
    schedule = rng.choice(["constant", "cosine", "one_cycle", "exponential"])
    settings: Content = {
        "learning_rate": float(f"{10 ** rng.uniform(-4.5, -0.5):.3g}"),
        "width": rng.choice([16, 32, 64, 128, 256]),
        "depth": rng.choice([1, 2, 3]),
        "activation": rng.choice(["relu", "leaky_relu", "tanh", "sigmoid", "scaled_sigmoid", "gelu", "silu"]),
        "normalization": rng.choice(["none", "batch", "layer"]),
        "dropout": round(rng.uniform(0, 0.6), 3),
        "initialization": rng.choice(["xavier", "kaiming"]),
        "scaling": rng.choice(["robust", "standard"]),
        "optimizer": optimizer,
        "weight_decay": rng.choice([0.0, 0.001, 0.01, 0.1]),
        "schedule": schedule,
        "batch_size": rng.choice([16, 32, 64, 128, 256, 512]),
        "input_noise": round(rng.uniform(0, 1), 2),
        "clip_norm": rng.choice([0.0, 1.0, 5.0]),
        "mixup": rng.choice([0.0, 0.2]),
    }
    if optimizer == "sgd":
        settings |= {"momentum": rng.choice([0.5, 0.9]), "nesterov": rng.choice([True, False])}
    if schedule == "exponential":
        settings["decay_per_epoch"] = round(rng.uniform(0.8, 1), 3)
    if rng.random() < 0.4:
        settings["hidden1.rate_factor"] = rng.choice([0.1, 1.0, 10.0])
    off = abs(math.log10(settings["learning_rate"]) + 2.2)
    center = 0.12 * (
        1 + 0.12 * off**2 + 0.9 / math.sqrt(settings["width"]) + 0.35 * settings["input_noise"] ** 2
    )
    center *= math.exp(rng.gauss(0, 0.04)) * (7 if number % 33 == 0 else 1)
    name = f"mlp {settings['width']}×{settings['depth']}, rate {settings['learning_rate']:g}, {optimizer}, {schedule}"
    trial = _trial(rng, number, name, "mlp", settings, center=center, folds=5)
    return trial | {"epochs": 30, "epoch": rng.randint(9, 29)}


def leave_one_out() -> Content:
    """Three hundred folds of one row each: very uneven fold scores."""
    rng = random.Random(6)
    content = regression()
    content["fold_names"] = [f"row {i}" for i in range(300)]
    for trial in content["trials"]:
        trial["fold_scores"] = [abs(rng.gauss(0, trial["score"])) * 1.25 for _ in range(300)]
        trial["score"], trial["low"], trial["high"], trial["deviation"] = _interval(trial["fold_scores"])
    content["trials"] = _ranked(content["trials"], lower=True, tied=8)
    content["importance"] = _importance(content["trials"], lower=True)
    content["outcome"] = {
        key: value[:300] if key != "kind" else value for key, value in content["outcome"].items()
    }
    return content


SAMPLES: dict[str, Callable[[], Content]] = {
    f.__name__: f
    for f in (
        regression,
        three_classes,
        letters,
        tiny,
        hostile,
        live,
        many_trials,
        wide_search,
        leave_one_out,
    )
}
