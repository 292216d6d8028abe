"""Data, and what is measured of estimators on them without anything being noticed of it."""

from __future__ import annotations

import logging
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_classification, make_multilabel_classification, make_regression

from mantik.integrations.sklearn.data import TRAINING, Data
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.metrics import metrics_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BLOBS",
    "CLASSIFIER",
    "FEW",
    "GROUPS",
    "LABELLED",
    "LABELS",
    "LIKELY",
    "NAMED",
    "NUMBERS",
    "RANKED",
    "REGRESSOR",
    "THREE",
    "TWO",
    "WEIGHTS",
    "X3",
    "XR",
    "X",
    "data_of",
    "measured",
    "near",
    "of",
    "parts",
]

X, TWO = make_classification(120, 6, n_informative=4, flip_y=0.3, random_state=0)
"""Two classes that no line separates."""

X3, THREE = make_classification(120, 6, n_informative=4, n_classes=3, flip_y=0.3, random_state=0)

LABELLED, LABELS = make_multilabel_classification(80, 6, n_classes=4, random_state=0)

XR, NUMBERS = make_regression(80, 5, noise=20, random_state=0)

BLOBS, GROUPS = make_blobs(90, centers=3, random_state=0)

WEIGHTS = np.random.default_rng(0).random(120)

NAMED = np.array(["ham", "spam"])[TWO]

FEW = ["b", "a", "c", "a"]

CLASSIFIER = {
    *("precision_score", "recall_score", "f1_score", "accuracy_score", "balanced_accuracy_score", "matthews_corrcoef"),
    "score",
}

RANKED = {"roc_auc", "average_precision"}

LIKELY = {"log_loss", "brier_score_loss"} | RANKED

REGRESSOR = {
    *("mean_squared_error", "mean_absolute_error", "root_mean_squared_error", "r2_score", "median_absolute_error"),
    *("max_error", "mean_absolute_percentage_error", "score"),
}


def data_of(X: Any, y: Any = None, weights: Any = None, name: str = TRAINING) -> Data:  # noqa: ANN401, N803
    """Return samples as they come from a call of `fit`, or under another name."""
    rows = X.shape[0] if hasattr(X, "shape") else len(X)
    return Data(X, y, weights, name, rows, rows)


def measured(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics; assert that no warning was given, nothing logged, and no random number drawn."""
    logged: list[logging.LogRecord] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = logged.append  # type: ignore[method-assign]
    before = _random_state()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = metrics_of(evaluation)
            # What pictures ask for.
            assert evaluation.decisions is None or len(evaluation.decisions)
    finally:
        logging.getLogger().removeHandler(handler)
    assert [str(warning.message) for warning in warned] == []
    assert [record.getMessage() for record in logged] == []
    assert _random_state() == before
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    return found


def of(estimator: Any, X: Any, y: Any = None, weights: Any = None, **options: Any) -> dict[str, float]:  # noqa: ANN401, N803
    """Return what is measured of an estimator on the data that it was fitted to."""
    return measured(Evaluation(estimator, data_of(X, y, weights), **options))


def near(expected: Mapping[str, float]) -> Any:  # noqa: ANN401
    """Return numbers that compare equal to their like."""
    return pytest.approx(dict(expected), rel=1e-9, abs=1e-12)


def parts(found: Mapping[str, float], names: Mapping[str, float]) -> dict[str, float]:
    """Return those of some numbers that have given names."""
    return {name: found[name] for name in names}


def _random_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # the one that users draw from
    return (name, keys.tobytes(), *rest, random.getstate())  # type: ignore[union-attr]
