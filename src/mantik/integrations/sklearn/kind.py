"""What sort of estimator one is, which decides what is worth recording of it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import sklearn.base

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["Kind", "kind_of"]


class Kind(Enum):
    """What an estimator is for."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    CLUSTERER = "clusterer"
    OUTLIER_DETECTOR = "outlier_detector"
    DENSITY_ESTIMATOR = "density_estimator"
    TRANSFORMER = "transformer"
    OTHER = "other"


def kind_of(estimator: BaseEstimator) -> Kind:
    """Return the kind of an estimator; of a pipeline and of a search that of what they end in."""
    if sklearn.base.is_classifier(estimator):
        return Kind.CLASSIFIER
    if sklearn.base.is_regressor(estimator):
        return Kind.REGRESSOR
    if sklearn.base.is_outlier_detector(estimator):
        return Kind.OUTLIER_DETECTOR
    kind = _declared(estimator)
    if kind in {"clusterer", "density_estimator"}:
        return Kind(kind)
    return Kind.TRANSFORMER if hasattr(estimator, "transform") else Kind.OTHER


def _declared(estimator: BaseEstimator) -> str | None:
    """Return what an estimator says of itself: by its tags, or, before scikit-learn 1.6, by its attribute."""
    try:
        from sklearn.utils import get_tags
    except ImportError:
        return getattr(estimator, "_estimator_type", None)
    declared: str | None = get_tags(estimator).estimator_type
    return declared
