"""What a fitted estimator says of its fit: numbers among its attributes."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.evaluation import last_of
from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.measurements import Measurements

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["fitted_metrics"]

_ATTRIBUTES = {
    "best_loss_": "best_loss",
    "best_validation_score_": "best_validation_score",
    "inertia_": "inertia",
    "kl_divergence_": "kl_divergence",
    "log_marginal_likelihood_value_": "log_marginal_likelihood",
    "loss_": "loss",
    "lower_bound_": "lower_bound",
    "oob_score_": "oob_score",
    "reconstruction_err_": "reconstruction_error",
    "reconstruction_error_": "reconstruction_error",
    "stress_": "stress",
}
"""Attributes with one number, and what the metrics are called."""

_ALSO_A_CURVE = {"loss_": "loss_curve_", "oob_score_": "oob_scores_"}
"""Of what is recorded as a curve, the last value is no metric of its own."""


def fitted_metrics(estimator: BaseEstimator, kind: Kind) -> Measurements:
    """Return the numbers of a fit: of a pipeline and of a search those of what they end in.

    Nothing is transformed or predicted for it.

    Args:
        estimator: The fitted estimator.
        kind: What it is for.
    """
    found = Measurements()
    last = last_of(estimator)
    # Of several, such as one of each class, the fit took as long as the longest.
    found.add("n_iter", lambda: np.max(last.n_iter_))
    for attribute, name in _ATTRIBUTES.items():
        curve = _ALSO_A_CURVE.get(attribute)
        if curve is None or not hasattr(last, curve):
            found.add(name, getattr, last, attribute)
    ratios = attempted(lambda: np.asarray(last.explained_variance_ratio_, dtype=float))
    if ratios is not None and ratios.ndim == 1:
        found.add("explained_variance_ratio_sum", ratios.sum)
    if kind is Kind.TRANSFORMER:
        found.add("n_features_out", _features_out, estimator, last)
    return found


def _features_out(estimator: Any, last: Any) -> float:  # noqa: ANN401
    """Return how many features a transformer makes."""
    for name in ("_n_features_out", "n_output_features_", "n_components_"):
        count = getattr(last, name, None)
        if isinstance(count, Integral):
            return int(count)
    return len(estimator.get_feature_names_out())
