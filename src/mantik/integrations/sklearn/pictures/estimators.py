"""Which pictures there are of a fitted estimator by itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mantik.integrations.sklearn.pictures.importances import coefficients, feature_importance
from mantik.integrations.sklearn.pictures.iterations import explained_variance, training_curve
from mantik.integrations.sklearn.pictures.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pictures_of_estimator"]


def pictures_of_estimator(estimator: Any, feature_names: list[str] | None) -> Iterator[Picture]:  # noqa: ANN401
    """Yield what can be drawn of an estimator without data.

    These are ``feature_importance``, ``coefficients``, ``training_curve`` (losses and scores by iteration) and
    ``explained_variance``. Nothing is predicted for them, and most estimators have but one or two.

    Args:
        estimator: A fitted one; of a pipeline or a search what it ends in is looked at.
        feature_names: Of the features that it was fitted to; None where they have no names.
    """
    yield Picture("feature_importance", partial(feature_importance, estimator, feature_names))
    yield Picture("coefficients", partial(coefficients, estimator, feature_names))
    yield Picture("training_curve", partial(training_curve, estimator))
    yield Picture("explained_variance", partial(explained_variance, estimator))
