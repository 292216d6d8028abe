"""The pictures of estimators, in one style.

None of them touches what the user has set up of matplotlib: there is no pyplot here, and no change to its parameters.
So they can be drawn in a thread beside the user's own plotting. matplotlib is imported when the first one is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.integrations.sklearn.pictures.estimators import pictures_of_estimator as pictures_of_estimator
    from mantik.integrations.sklearn.pictures.evaluations import pictures_of_evaluation as pictures_of_evaluation
    from mantik.integrations.sklearn.pictures.picture import Picture as Picture
    from mantik.integrations.sklearn.pictures.searches import pictures_of_search as pictures_of_search
    from mantik.integrations.sklearn.pictures.validation import picture_of_curve as picture_of_curve
    from mantik.integrations.sklearn.pictures.validation import picture_of_folds as picture_of_folds
    from mantik.integrations.sklearn.pictures.validation import (
        picture_of_permutation_importance as picture_of_permutation_importance,
    )
    from mantik.integrations.sklearn.pictures.wording import estimator_title as estimator_title

_HOMES = {
    "Picture": "picture",
    "estimator_title": "wording",
    "picture_of_curve": "validation",
    "picture_of_folds": "validation",
    "picture_of_permutation_importance": "validation",
    "pictures_of_estimator": "estimators",
    "pictures_of_evaluation": "evaluations",
    "pictures_of_search": "searches",
}

__all__ = [
    "Picture",
    "estimator_title",
    "picture_of_curve",
    "picture_of_folds",
    "picture_of_permutation_importance",
    "pictures_of_estimator",
    "pictures_of_evaluation",
    "pictures_of_search",
]


def __getattr__(name: str) -> object:
    """Load a name from the module that defines it, and matplotlib with it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
