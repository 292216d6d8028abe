"""What iterative estimators remember of their training, as curves."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sklearn.base import BaseEstimator

__all__ = ["curves_of"]

_REMEMBERED = {
    "loss_curve_": "training_loss",
    "validation_scores_": "validation_score",
    "train_score_": "training_loss",
    "validation_score_": "validation_score",
    "oob_scores_": "oob_score",
}
"""What scikit-learn's estimators call them, and what the metrics are called."""

_MOST_POINTS = 10_000


def curves_of(estimator: BaseEstimator) -> dict[str, list[float]]:
    """Return values by metric and iteration: of a pipeline those of its last step.

    For XGBoost and LightGBM the metrics have the names that MLflow's autologging of them gives.

    Args:
        estimator: A fitted estimator.
    """
    while hasattr(estimator, "steps") and estimator.steps:
        estimator = estimator.steps[-1][1]
    curves = {}
    for attribute, metric in _REMEMBERED.items():
        values = _numbers(getattr(estimator, attribute, None))
        if attribute == "train_score_" and hasattr(estimator, "validation_score_"):
            # Histogram-based boosting: scores, not losses.
            metric = "training_score_curve"  # noqa: PLW2901
        if values:
            curves[metric] = values
    for data, metrics in _evaluations(estimator).items():
        for name, recorded in metrics.items():
            values = _numbers(recorded)
            if values:
                curves[f"{data}-{name}"] = values
    return curves


def _evaluations(estimator: Any) -> Mapping[str, Mapping[str, Any]]:  # noqa: ANN401
    """Return what XGBoost and LightGBM measured on the data of `eval_set`."""
    if not type(estimator).__module__.startswith(("lightgbm.", "xgboost.")):
        return {}
    # Not XGBoost's method, which raises where there was none.
    found = getattr(estimator, "evals_result_", None)
    return found if isinstance(found, dict) else {}


def _numbers(values: Any) -> list[float]:  # noqa: ANN401
    """Return the values of a curve; none where it is no curve of numbers."""
    try:
        listed = list(values)[:_MOST_POINTS]
    except TypeError:
        return []
    return [float(value) for value in listed] if all(isinstance(value, Real) for value in listed) else []
