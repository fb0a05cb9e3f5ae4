"""A whole grid search on digits, from a table in memory to the result, against what people use for it."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import CORES, Missing, alternate, timed
from benchmarks.render import Line, grid, ratio
from benchmarks.studies.digits import BATCH, FOLDS, HIDDEN, NETWORK, fit, last_accuracies, rows

METHOD = """Digits (1797 rows, 64 features), 5 folds × 20 settings (5 learning rates × 4 weight decays) × 30 epochs,
hidden layers (64, 64), ReLU, Adam, batch 32, standardized per fold, the same stratified folds for all; one process,
from the table in memory to the result, all workers warm, imports not counted. foldwise is the whole of
`foldwise.fit`: a constant and two linear models besides, the best epoch of each trial, intervals and the correction
for the choice. Peers do less:

- *scikit-learn*: `GridSearchCV(MLPClassifier)`, all of it, `n_jobs=2`, without refit;
- *skorch*: `GridSearchCV(NeuralNetClassifier)`, `n_jobs=2`, two settings (10 members), times 10;
- *Lightning*: `Trainer.fit` for each of 10 members, no logger, checkpoint or progress bar, one thread, times 10; two
  processes at once would take half of that at best;
- *pytabkit*: RealMLP's vectorized folds (`n_cv=5`) for one setting, both threads, times 20; it is another network of
  about the size, and its accuracy is its own.

Ratios are medians of pairs in turn, with their range. Equal results: mean accuracy over the members that a peer
trained, after the last epoch, is within 0.01 of foldwise's for the same settings (except pytabkit)."""
RATES, DECAYS = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3), (0.0, 1e-5, 1e-4, 1e-3)
SETTINGS = tuple(itertools.product(RATES, DECAYS))
FEW = tuple((rate, 0.0) for rate in (1e-3, 4e-3))
TOLERANCE = 0.01
GOALS = {"scikit-learn": 8.0, "skorch": 30.0, "Lightning": 50.0, "pytabkit": None}
Accuracies = dict[tuple[float, float], float]
"""Mean accuracy over the folds, by learning rate and weight decay."""


def by_foldwise(epochs: int) -> Accuracies:
    """Run the search with foldwise."""
    torch.set_num_threads(CORES)
    search = [{**NETWORK, "epochs": epochs, "learning_rate": r, "weight_decay": d} for r, d in SETTINGS]
    accuracies = last_accuracies(fit(search), epochs, len(SETTINGS))
    return dict(zip(SETTINGS, accuracies.tolist(), strict=True))


def by_sklearn(epochs: int, settings: tuple[tuple[float, float], ...] = SETTINGS) -> Accuracies:
    """Run it with scikit-learn; its penalty is alpha/2 · |w|² / batch, so alpha is the weight decay times the batch."""
    network = MLPClassifier(
        HIDDEN, batch_size=BATCH, max_iter=epochs, n_iter_no_change=epochs + 1, tol=0, random_state=0
    )
    grids = [
        {"mlpclassifier__learning_rate_init": [r], "mlpclassifier__alpha": [d * BATCH]} for r, d in settings
    ]
    return _grid_search(make_pipeline(StandardScaler(), network), grids, settings)


def _grid_search(model: Any, grids: list[dict[str, Any]], settings: Any, X: Any = None) -> Accuracies:
    table, y = rows()
    search = GridSearchCV(model, grids, cv=FOLDS, n_jobs=CORES, refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(table if X is None else X, y)
    return dict(zip(settings, search.cv_results_["mean_test_score"].tolist(), strict=True))


def perceptron() -> nn.Sequential:
    """Make the network for the peers that use PyTorch."""
    first, second = HIDDEN
    return nn.Sequential(
        nn.Linear(64, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )


def by_skorch(epochs: int) -> Accuracies:
    """Run a part of it with skorch."""
    from skorch import NeuralNetClassifier

    network = NeuralNetClassifier(
        perceptron, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, max_epochs=epochs, batch_size=BATCH,
        iterator_train__shuffle=True, train_split=None, verbose=0, torch_load_kwargs={"weights_only": True},
    )  # fmt: skip
    grids = [
        {"neuralnetclassifier__lr": [r], "neuralnetclassifier__optimizer__weight_decay": [d]} for r, d in FEW
    ]
    return _grid_search(make_pipeline(StandardScaler(), network), grids, FEW, rows()[0].astype(np.float32))


def by_lightning(epochs: int) -> Accuracies:
    """Run a part of it with Lightning."""
    import lightning
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)

    class Classifier(lightning.LightningModule):
        def __init__(self, rate: float, decay: float) -> None:
            super().__init__()
            self.network, self.rate, self.decay = perceptron(), rate, decay

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return F.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.rate, weight_decay=self.decay)

    def accuracy(rate: float, decay: float, train: np.ndarray, scored: np.ndarray) -> float:
        X, y = rows()
        scale = StandardScaler().fit(X[train])
        x, labels = torch.from_numpy(scale.transform(X).astype("f4")), torch.from_numpy(y)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        model = Classifier(rate, decay)
        data = DataLoader(TensorDataset(x[train], labels[train]), batch_size=BATCH, shuffle=True)
        trainer.fit(model, data)
        with torch.no_grad():
            return float((model.network(x[scored]).argmax(1) == labels[scored]).float().mean())

    return {
        (rate, decay): float(np.mean([accuracy(rate, decay, *fold) for fold in FOLDS.split(*rows())]))
        for rate, decay in FEW
    }


def by_pytabkit(epochs: int) -> Accuracies:
    """Train the folds of one setting with RealMLP, all at once."""
    from pytabkit import RealMLP_TD_Classifier

    torch.set_num_threads(CORES)
    X, y = rows()
    network = RealMLP_TD_Classifier(
        device="cpu", n_cv=5, n_refit=0, n_epochs=epochs, batch_size=BATCH, hidden_sizes=[*HIDDEN],
        n_threads=CORES, random_state=0, verbosity=0,
    )  # fmt: skip
    network.fit(X, y)
    return {}


def by_warm_sklearn(epochs: int) -> Accuracies:
    """Train little, so that worker processes are there and have imported what they need."""
    return by_sklearn(epochs, SETTINGS[:1])


PEERS = {
    "scikit-learn": (by_sklearn, by_warm_sklearn, 1.0),
    "skorch": (by_skorch, by_skorch, len(SETTINGS) / len(FEW)),
    "Lightning": (by_lightning, by_lightning, len(SETTINGS) / len(FEW)),
    "pytabkit": (by_pytabkit, by_pytabkit, float(len(SETTINGS))),
}
"""How to train, how to warm up (for one epoch), and by what the time is multiplied."""
PACKAGES = {"scikit-learn": "sklearn", "skorch": "skorch", "Lightning": "lightning", "pytabkit": "pytabkit"}


def differs(peer: Accuracies, ours: Accuracies) -> float | None:
    """Compare mean accuracies over the settings that both trained; None when they are not the same networks."""
    if not peer:
        return None
    return float(np.mean(list(peer.values())) - np.mean([ours[s] for s in peer]))


def against(name: str, epochs: int, pairs: int) -> dict[str, Any]:
    """Measure a peer in pairs with foldwise."""
    train, warm, times = PEERS[name]
    last: dict[str, Accuracies] = {}

    def theirs() -> float:
        return timed(lambda: last.update(peer=train(epochs)), 1 / times)

    def ours() -> float:
        return timed(lambda: last.update(ours=by_foldwise(epochs)))

    first = {"peer": timed(lambda: warm(1)), "foldwise": timed(lambda: by_foldwise(1))}
    found = alternate(theirs, ours, pairs)
    difference = differs(last["peer"], last["ours"])
    if difference is not None and abs(difference) > TOLERANCE and epochs >= 30:
        raise AssertionError(f"{name}: mean accuracy differs by {difference:+.4f}")
    return {**found, "warm_up": first, "times": times, "accuracy_differs": difference}


def run(quick: bool) -> dict[str, Any]:
    """Measure against all peers that are installed."""
    found = {}
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name} is not installed", flush=True)
            continue
        found[name] = against(name, epochs=2 if quick else 30, pairs=1 if quick else 3)
        print(name, ratio(found[name]), flush=True)
    if not found:
        raise Missing("no peer is installed")
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out seconds, ratios, warm-up and what the results differ by."""
    rows = [
        (
            name,
            f"{f['peer']:.1f} s",
            "all" if f["times"] == 1 else f"{f['peer'] / f['times']:.1f} s × {f['times']:g}",
            f"{f['foldwise']:.2f} s",
            ratio(f),
            f"{f['warm_up']['peer']:.1f} s",
            "–" if f["accuracy_differs"] is None else f"{f['accuracy_differs']:+.4f}",
        )
        for name, f in figures.items()
    ]
    heads = (
        "peer",
        "takes",
        "measured",
        "foldwise takes",
        "ratio",
        "peer's warm-up",
        "mean accuracy, peer − foldwise",
    )
    return grid(heads, rows)


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show every peer, with its goal."""
    what = "a search on digits, 5 folds × 20 settings × 30 epochs"
    return [
        Line(
            what,
            name,
            f"{ratio(f)} as fast",
            f"≥ {goal:g}×" if (goal := GOALS[name]) else "",
            goal is None or f["ratio"] >= goal,
        )
        for name, f in figures.items()
    ]
