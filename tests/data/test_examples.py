"""The built-in tables equal scikit-learn's and can be learned from."""

import numpy as np
import pytest
from sklearn import datasets

from foldwise.data.columns import plan_columns
from foldwise.data.examples import EXAMPLES, load_example
from foldwise.data.target import plan_target
from foldwise.errors import DataError


@pytest.mark.parametrize("name", EXAMPLES)
def test_cells_are_those_of_scikit_learn(name):
    frame, target = load_example(name)
    bunch = getattr(datasets, f"load_{name}")()
    assert np.array_equal(frame.drop(target).to_numpy(), bunch.data)
    assert frame.null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(
    ("name", "kind", "outputs"),
    [
        ("digits", "multiclass", 10),
        ("breast_cancer", "binary", 1),
        ("diabetes", "regression", 1),
        ("wine", "multiclass", 3),
        ("iris", "multiclass", 3),
    ],
)
def test_task(name, kind, outputs):
    frame, target = load_example(name)
    task = plan_target(frame, [target])
    assert (task.kind, task.outputs) == (kind, outputs)
    assert not task.log
    assert plan_columns(frame, targets=[target]).encode(frame).shape[0] == frame.height


def test_labels_have_names():
    frame, target = load_example("breast_cancer")
    assert frame[target].value_counts().sort("count").rows() == [("malignant", 212), ("benign", 357)]


def test_unknown_example():
    with pytest.raises(DataError, match="no example `irsi`") as caught:
        load_example("irsi")
    assert caught.value.hint == "Did you mean `iris`?"
