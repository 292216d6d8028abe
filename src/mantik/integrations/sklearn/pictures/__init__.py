"""The pictures of estimators, in one style.

None of them touches what the user has set up of matplotlib: there is no pyplot here, and no change to its parameters.
So they can be drawn in a thread beside the user's own plotting. matplotlib is imported with this package.
"""

from mantik.integrations.sklearn.pictures.estimators import pictures_of_estimator
from mantik.integrations.sklearn.pictures.evaluations import pictures_of_evaluation
from mantik.integrations.sklearn.pictures.picture import Picture
from mantik.integrations.sklearn.pictures.searches import pictures_of_search
from mantik.integrations.sklearn.pictures.validation import (
    picture_of_curve,
    picture_of_folds,
    picture_of_permutation_importance,
)

__all__ = [
    "Picture",
    "picture_of_curve",
    "picture_of_folds",
    "picture_of_permutation_importance",
    "pictures_of_estimator",
    "pictures_of_evaluation",
    "pictures_of_search",
]
