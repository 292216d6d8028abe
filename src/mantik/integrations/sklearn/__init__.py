"""Autologging of scikit-learn, and plain functions for those who want none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantik.integrations.sklearn.autologging import sklearn_autolog as autolog

if TYPE_CHECKING:
    from mantik.integrations.sklearn.functions import log_classifier_evaluation as log_classifier_evaluation
    from mantik.integrations.sklearn.functions import log_estimator as log_estimator
    from mantik.integrations.sklearn.functions import log_regressor_evaluation as log_regressor_evaluation

__all__ = ["autolog", "log_classifier_evaluation", "log_estimator", "log_regressor_evaluation"]


def __getattr__(name: str) -> object:
    """Load the functions that need scikit-learn when they are first used: autologging waits for the user's import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mantik.integrations.sklearn import functions

    return getattr(functions, name)
