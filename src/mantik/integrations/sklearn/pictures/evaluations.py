"""Which pictures there are of what an estimator makes of data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.pictures.calibration import calibration_curve
from mantik.integrations.sklearn.pictures.clusters import cluster_projection, cluster_sizes, silhouette
from mantik.integrations.sklearn.pictures.matrices import confusion_matrices, confusion_matrix
from mantik.integrations.sklearn.pictures.outliers import outlier_scores
from mantik.integrations.sklearn.pictures.picture import Picture
from mantik.integrations.sklearn.pictures.ranking import precision_recall_curve, roc_curve
from mantik.integrations.sklearn.pictures.regression import predicted_vs_true, residuals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["pictures_of_evaluation"]


def pictures_of_evaluation(evaluation: Evaluation) -> Iterator[Picture]:
    """Yield what can be drawn of an estimator's predictions.

    Of classifiers these are ``confusion_matrix``, ``roc_curve``, ``precision_recall_curve`` and ``calibration_curve``,
    of regressors ``predicted_vs_true`` and ``residuals``, of clusterers ``cluster_sizes``, ``cluster_projection`` and
    ``silhouette``, of outlier detectors ``outlier_scores``. What the data do not allow draws nothing.

    Args:
        evaluation: On training or held-out data.
    """
    for name, draw in _OF.get(evaluation.kind, {}).items():
        yield Picture(name, partial(draw, evaluation))


def _confusion(evaluation: Evaluation) -> Figure | None:
    several = evaluation.is_multilabel or evaluation.is_multioutput
    return confusion_matrices(evaluation) if several else confusion_matrix(evaluation)


_OF_CLUSTERS: dict[str, Callable[[Evaluation], Figure | None]] = {
    "cluster_sizes": cluster_sizes,
    "cluster_projection": cluster_projection,
    "silhouette": silhouette,
}

_OF: dict[Kind, dict[str, Callable[[Evaluation], Figure | None]]] = {
    Kind.CLASSIFIER: {
        "confusion_matrix": _confusion,
        "roc_curve": roc_curve,
        "precision_recall_curve": precision_recall_curve,
        "calibration_curve": calibration_curve,
    },
    Kind.REGRESSOR: {"predicted_vs_true": predicted_vs_true, "residuals": residuals},
    Kind.CLUSTERER: _OF_CLUSTERS,
    Kind.DENSITY_ESTIMATOR: _OF_CLUSTERS,
    Kind.OUTLIER_DETECTOR: {"outlier_scores": outlier_scores},
}
