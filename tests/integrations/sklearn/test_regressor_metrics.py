"""What is measured of regressors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from mlflow.sklearn.utils import _get_regressor_metrics
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeRegressor

from tests.integrations.sklearn.measured import NUMBERS, REGRESSOR, WEIGHTS, XR, near, of

REGRESSIONS = {
    "one output": (LinearRegression(), XR, NUMBERS, None),
    "weights": (Ridge(), XR, NUMBERS, WEIGHTS[:80]),
    "two outputs": (Ridge(), XR, np.column_stack([NUMBERS, 100 - 3 * NUMBERS]), None),
    "weights of two outputs": (Ridge(), XR, np.column_stack([NUMBERS, NUMBERS**2]), WEIGHTS[:80]),
    "data frame": (RandomForestRegressor(3, random_state=0), pd.DataFrame(XR), pd.Series(NUMBERS), None),
    "search": (GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2), XR, NUMBERS, None),
    "whole numbers": (DecisionTreeRegressor(max_depth=2), XR, NUMBERS.astype(int), None),
}


@pytest.mark.parametrize("case", REGRESSIONS)
def test_regressors_have_what_mlflow_measures_and_more(case: str) -> None:
    """Every metric of MLflow's autologging of a regressor is there by its name and value, and three beside."""
    estimator, features, targets, weights = REGRESSIONS[case]
    weighed = {} if weights is None else {"sample_weight": weights}
    estimator.fit(features, targets, **weighed)
    predicted = estimator.predict(features)
    expected = _get_regressor_metrics(estimator, "", features, targets, weights)
    expected["score"] = estimator.score(features, targets, **weighed)
    expected["median_absolute_error"] = skm.median_absolute_error(targets, predicted, **weighed)
    if np.asarray(targets).all():
        expected["mean_absolute_percentage_error"] = skm.mean_absolute_percentage_error(targets, predicted, **weighed)
    if predicted.ndim == 1:
        expected["max_error"] = skm.max_error(targets, predicted)
    assert of(estimator, features, targets, weights) == near(expected)


class Shift(RegressorMixin, BaseEstimator):
    """Predicts the first feature."""

    def fit(self, X: Any, y: Any) -> Shift:  # noqa: ANN401, ARG002, N803
        """Learn nothing."""
        return self

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return list(np.asarray(X)[:, 0])


def test_regression_without_some_targets() -> None:
    """Samples whose target is missing do not count; nor is there a percentage of a target that is zero."""
    features, targets = np.array([[1.0], [2.0], [3.0], [4.0]]), [0.0, np.nan, 2.0, 4.5]
    found = of(Shift(), features, targets)
    assert found["mean_absolute_error"] == pytest.approx(2.5 / 3)
    assert set(found) == REGRESSOR - {"mean_absolute_percentage_error", "score"}


def test_regression_of_one_sample() -> None:
    """One sample has errors, but no determination."""
    found = of(Shift(), np.array([[1.0]]), np.array([3.0]))
    assert found["max_error"] == 2
    assert set(found) == REGRESSOR - {"r2_score", "score"}


@pytest.mark.parametrize("targets", [["a", "b"], [np.inf, 1.0], [[1, 2], [3, 4]], None, [1.0]])
def test_regression_with_targets_that_do_not_fit(targets: Any) -> None:  # noqa: ANN401
    """Targets that cannot be compared with predictions have no metrics."""
    assert of(Shift(), np.array([[1.0], [2.0]]), targets) == {}


def test_enormous_numbers() -> None:
    """What is larger than a float can be is left out."""
    found = of(Shift(), np.array([[1e300], [-1e300]]), np.array([-1e300, 1e300]))
    assert found["mean_absolute_error"] == pytest.approx(2e300)
    assert "mean_squared_error" not in found
    assert "root_mean_squared_error" not in found
