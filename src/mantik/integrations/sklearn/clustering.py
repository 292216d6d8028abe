"""Metrics of clusterers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.metrics
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.evaluation import last_of
from mantik.integrations.sklearn.measurements import Measurements
from mantik.integrations.sklearn.outputs import is_missing
from mantik.integrations.sklearn.randomness import draws

if TYPE_CHECKING:
    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["SILHOUETTE_ROWS", "clusterer_metrics"]

SILHOUETTE_ROWS = 2000
"""Of more samples so many are compared with each other, chosen by scikit-learn with the seed 0."""

_MOST_CLUSTERS = 1000
"""Of more, comparing all of them takes too long."""

_COMPARED = (
    "adjusted_rand_score",
    "normalized_mutual_info_score",
    "homogeneity_score",
    "completeness_score",
    "v_measure_score",
)


def clusterer_metrics(evaluation: Evaluation) -> Measurements:
    """Return the metrics of a clusterer.

    What it takes for noise, by negative labels, is no cluster: it counts for `noise_fraction` only, and where clusters
    are compared with targets. The features are those that the clusterer itself is given, at the end of a pipeline.
    """
    found = Measurements()
    clusters = evaluation.predictions
    last = last_of(evaluation.estimator)
    if clusters is None or clusters.ndim != 1 or clusters.dtype.kind not in "iu":
        if evaluation.is_of_training:
            found.add("n_clusters", lambda: last.n_clusters_)
        return found
    inside = clusters >= 0
    count = len(np.unique(clusters[inside]))
    found["n_clusters"] = float(count)
    if not inside.all():
        found.add("noise_fraction", lambda: np.mean(~inside))
    if 1 < count < inside.sum():
        _add_shapes(found, evaluation, clusters, inside, count)
    _add_comparisons(found, evaluation, clusters)
    return found


def _add_shapes(
    found: Measurements, evaluation: Evaluation, clusters: np.ndarray, inside: np.ndarray, count: int
) -> None:
    """Add how compact clusters are and how far from each other."""
    last = last_of(evaluation.estimator)
    if any(getattr(last, name, None) == "precomputed" for name in ("affinity", "metric")):
        # The features are distances.
        return
    features = attempted(lambda: _features_of(evaluation))
    if features is None:
        return
    if not inside.all():
        features = attempted(lambda: _safe_indexing(features, np.flatnonzero(inside)))
        clusters = clusters[inside]
    sampled = {"sample_size": SILHOUETTE_ROWS, "random_state": 0} if len(clusters) > SILHOUETTE_ROWS else {}
    found.add("silhouette_score", sklearn.metrics.silhouette_score, features, clusters, **sampled)
    if count <= _MOST_CLUSTERS:
        for name in ("calinski_harabasz_score", "davies_bouldin_score"):
            found.add(name, getattr(sklearn.metrics, name), features, clusters)


def _add_comparisons(found: Measurements, evaluation: Evaluation, clusters: np.ndarray) -> None:
    """Add how well clusters go with targets, where those are classes."""
    targets = evaluation.targets
    if targets is None or targets.ndim != 1:
        return
    known = ~is_missing(targets)
    values = targets[known]
    if not len(values) or (values.dtype.kind == "f" and (values % 1 != 0).any()):
        return
    classes = attempted(
        lambda: np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)[1]
    )
    for name in _COMPARED:
        found.add(name, getattr(sklearn.metrics, name), classes, clusters[known])


def _features_of(evaluation: Evaluation) -> Any:  # noqa: ANN401
    """Return the features as the clusterer itself is given them."""
    estimator: Any = evaluation.estimator
    features = evaluation.data.features
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline) or len(estimator.steps) < 2:  # noqa: PLR2004  # nothing before it
        return features
    return None if draws(estimator, "transform") else estimator[:-1].transform(features)
