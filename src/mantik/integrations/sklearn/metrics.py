"""Metrics of what an estimator makes of data, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import sklearn.metrics

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.classification import classifier_metrics, outlier_metrics
from mantik.integrations.sklearn.clustering import clusterer_metrics
from mantik.integrations.sklearn.fitted import fitted_metrics
from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.measurements import Measurements
from mantik.integrations.sklearn.outputs import is_missing

if TYPE_CHECKING:
    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["metrics_of"]


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of an evaluation, all of them finite, by MLflow's names without prefix.

    Each is computed for itself, and is left out where it cannot be: nothing is raised, and no warning given. What a
    fitted estimator says of its fit, such as ``n_iter``, is among them for the data that it was fitted to.

    Args:
        evaluation: The estimator and the data.
    """
    measured = {
        Kind.CLASSIFIER: classifier_metrics,
        Kind.REGRESSOR: _regressor_metrics,
        Kind.CLUSTERER: clusterer_metrics,
        Kind.OUTLIER_DETECTOR: outlier_metrics,
        Kind.DENSITY_ESTIMATOR: _density_metrics,
    }.get(evaluation.kind)
    found = Measurements()
    if measured is not None:
        found.update(attempted(lambda: measured(evaluation)) or {})
    estimator = evaluation.estimator
    if estimator is not None and evaluation.is_of_training:
        found.update(attempted(lambda: fitted_metrics(estimator, evaluation.kind)) or {})
    score = attempted(evaluation.score)
    if score is not None:
        found.add("score", lambda: score)
    return dict(found)


def _regressor_metrics(evaluation: Evaluation) -> Measurements:
    """Return the metrics of a regressor; of several outputs their plain mean. Samples without a target do not count."""
    found = Measurements()
    targets, predicted, weights = evaluation.targets, evaluation.predictions, evaluation.weights
    if targets is None or predicted is None or targets.shape != predicted.shape:
        return found
    known = ~is_missing(targets.reshape(len(targets), -1)).any(axis=1)
    targets, predicted = targets[known].astype(float), predicted[known].astype(float)
    weighted = {"sample_weight": None if weights is None else weights[known]}
    for name in ("mean_squared_error", "mean_absolute_error", "median_absolute_error"):
        found.add(name, getattr(sklearn.metrics, name), targets, predicted, **weighted)
    if len(targets) > 1:
        found.add("r2_score", sklearn.metrics.r2_score, targets, predicted, **weighted)
    if "mean_squared_error" in found:
        # As MLflow has it: the root of the mean over outputs.
        found.add("root_mean_squared_error", np.sqrt, found["mean_squared_error"])
    if targets.ndim == 1:
        found.add("max_error", sklearn.metrics.max_error, targets, predicted)
    if targets.all():
        measure = sklearn.metrics.mean_absolute_percentage_error
        found.add("mean_absolute_percentage_error", measure, targets, predicted, **weighted)
    return found


def _density_metrics(evaluation: Evaluation) -> Measurements:
    """Return the mean log likelihood, which not every `score` is, and criteria that weigh it against size."""
    found = Measurements()
    found.add("mean_log_likelihood", lambda: np.mean(evaluation.decisions))  # type: ignore[arg-type]  # or it is left out
    found.add("aic", lambda: evaluation.estimator.aic(evaluation.data.features))  # type: ignore[union-attr]
    found.add("bic", lambda: evaluation.estimator.bic(evaluation.data.features))  # type: ignore[union-attr]
    return found
