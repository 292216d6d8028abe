"""Who draws random numbers that others would miss."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the imputer importable
from sklearn.impute import IterativeImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.integrations.sklearn.measured import CLASSIFIER, LIKELY, TWO, X, of

GENERATOR = np.random.default_rng(0)


class Drawing(ClassifierMixin, BaseEstimator):
    """Draws random numbers, from a generator of its own or not."""

    def __init__(self, generator: np.random.Generator | None = None) -> None:
        self.generator = generator


class NumpyDrawing(Drawing):
    """Draws from numpy's generator."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return np.random.randint(0, 2, len(X))  # noqa: NPY002


class PythonDrawing(Drawing):
    """Draws from Python's generator, in another method."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return [self.one() for _ in X]

    def one(self) -> int:
        """Return a random class."""
        return random.choice([0, 1])  # noqa: S311


class ModuleDrawing(Drawing):
    """Draws from the generator of its module, in a function."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return drawn(len(X))


class HeldDrawing(Drawing):
    """Draws from a generator that it was given."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return self.generator.integers(0, 2, len(X))  # type: ignore[union-attr]


class OwnDrawing(Drawing):
    """Draws from a new generator."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        return np.random.default_rng(0).integers(0, 2, len(X))


def drawn(count: int) -> Any:  # noqa: ANN401
    """Return random classes."""
    return GENERATOR.integers(0, 2, count)


@pytest.mark.parametrize("kind", [NumpyDrawing, PythonDrawing, ModuleDrawing, HeldDrawing])
def test_random_numbers_of_others_are_not_drawn(kind: type[Drawing]) -> None:
    """A class that draws from a generator which the training draws from, too, is not asked to predict."""
    given = np.random.default_rng(0)
    before = [generator.bit_generator.state for generator in (GENERATOR, given)]
    assert of(kind(given if kind is HeldDrawing else None), X, TWO) == {}
    assert [generator.bit_generator.state for generator in (GENERATOR, given)] == before


def test_random_numbers_of_ones_own_are_drawn() -> None:
    """A class that begins a generator of its own takes nothing from anybody."""
    assert set(of(OwnDrawing(), X, TWO)) == CLASSIFIER


def test_estimators_that_draw_when_they_predict() -> None:
    """Those of scikit-learn that draw from the global generator are not asked, with a seed they are."""
    guess = DummyClassifier(strategy="stratified").fit(X, TWO)
    assert of(guess, X, TWO) == {}
    assert of(make_pipeline(StandardScaler(), guess).fit(X, TWO), X, TWO) == {}
    assert set(of(guess.set_params(random_state=1), X, TWO)) == CLASSIFIER | LIKELY
    machine = BernoulliRBM(2, n_iter=1).fit(abs(X) / abs(X).max())
    assert of(machine, X) == {"n_features_out": 2}
    imputer = IterativeImputer(sample_posterior=True, max_iter=2, tol=1e9, random_state=0)
    imputing = make_pipeline(imputer, GaussianNB()).fit(X, TWO)
    assert of(imputing, X, TWO) == {}
