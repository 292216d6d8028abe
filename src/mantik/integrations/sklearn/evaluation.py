"""What a fitted estimator makes of data: asked for when it is needed, and at most once."""

from __future__ import annotations

import inspect
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.data import TRAINING, Data
from mantik.integrations.sklearn.kind import Kind, kind_of
from mantik.integrations.sklearn.outputs import as_outputs, in_order, is_missing, positives_of
from mantik.integrations.sklearn.randomness import draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sklearn.base import BaseEstimator

__all__ = ["Evaluation", "attempted", "last_of"]

_MOST_FEATURES = 1000
"""Of more, a likelihood would need a covariance matrix too large for something that nobody asked for."""

_MOST_INSIDE = 20
"""Estimators inside of each other, of which one of somebody's own may be the outermost again."""

_MOST_ROWS = 5000
"""Of more, the likelihood under a `KernelDensity` would take longer than a training: it is quadratic."""


def last_of(estimator: Any) -> Any:  # noqa: ANN401  # whatever a step is
    """Return what a search has found and a pipeline ends in; any other estimator itself."""
    for _ in range(_MOST_INSIDE):
        inner = attempted(partial(getattr, estimator, "best_estimator_", None))
        if inner is None and isinstance(estimator, Pipeline) and estimator.steps:
            inner = estimator.steps[-1][1]
        if inner is None or isinstance(inner, str):
            break
        estimator = inner
    return estimator


class Evaluation:
    """What a fitted estimator makes of data, shared by metrics and pictures. One thread at a time may ask.

    Each attribute is computed when it is first asked for. What an estimator does not have, or fails at, is None, and
    is not tried again. Nothing is asked of an estimator that draws random numbers for it which the training would miss:
    those of numpy's or Python's global generator, or of a generator that the user has given it.

    Args:
        estimator: The fitted estimator; None where there are only arrays.
        data: What it is tried on.
        pos_label: The positive class of two; None: the greater one.
        predictions: What the estimator predicts, of shape (rows,) or (rows, outputs), where that is known already.
        probabilities: Of shape (rows, classes), or (rows,) for the greater of two classes.
        decisions: Of shape (rows,) for two classes, or (rows, classes); more is more likely.
        kind: What the estimator is for; None: as it says.
        labels: The classes, in the order of the columns of probabilities and decisions; None: as estimator or data say.
    """

    def __init__(  # noqa: PLR0913  # arrays of those who have no estimator
        self,
        estimator: BaseEstimator | None,
        data: Data,
        *,
        pos_label: Any = None,  # noqa: ANN401  # a class may be called anything
        predictions: Any = None,  # noqa: ANN401
        probabilities: Any = None,  # noqa: ANN401
        decisions: Any = None,  # noqa: ANN401
        kind: Kind | None = None,
        labels: Sequence[Any] | None = None,
    ) -> None:
        self.estimator = estimator
        self.data = data
        self.pos_label = pos_label
        self._kind = kind
        self._labels = labels
        self._given = {"predict": predictions, "predict_proba": probabilities, "decision_function": decisions}

    @cached_property
    def kind(self) -> Kind:
        """What the estimator is for. Where a class does not say it, targets and predictions may."""
        if self._kind is not None or self.estimator is None:
            return self._kind or Kind.OTHER
        said = attempted(lambda: kind_of(self.estimator)) or Kind.OTHER
        return said if said is not Kind.OTHER else attempted(self._kind_by_outcome) or Kind.OTHER

    @cached_property
    def targets(self) -> np.ndarray | None:
        """The targets, of shape (rows,) or (rows, outputs); a missing one is NaN, or None among texts."""
        return attempted(lambda: as_outputs(self.data.targets))

    @cached_property
    def weights(self) -> np.ndarray | None:
        """The weights of the samples, of shape (rows,)."""
        weights = attempted(lambda: self._checked(as_outputs(self.data.weights)))
        return None if weights is None or weights.ndim != 1 or weights.dtype.kind not in "biuf" else weights

    @cached_property
    def predictions(self) -> np.ndarray | None:
        """What is predicted, of shape (rows,) or (rows, outputs).

        Of clusterers and outlier detectors that cannot predict it is what they made of the data they were fitted to;
        where there are only probabilities, the likeliest classes.
        """
        if self._predicted is not None:
            return self._predicted
        return attempted(self._likeliest if self.estimator is None else self._fitted_outcome)

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """The probabilities of classes, of shape (rows, classes); of each label alone if there can be several."""
        found = self._given["predict_proba"]
        if found is None:
            found = self._raw_answer("predict_proba")
        if isinstance(found, list) and found and getattr(found[0], "ndim", 0) > 1:
            # One array of each output. Of labels that are there or not, the probability of being there says all.
            classes = getattr(self.estimator, "classes_", None)
            return attempted(lambda: self._checked(positives_of(found, classes))) if self.is_multilabel else None
        shaped = attempted(lambda: self._checked(as_outputs(found, keep_columns=True)))
        if shaped is not None and shaped.ndim == 1:
            return np.column_stack([1 - shaped, shaped])
        return shaped

    @cached_property
    def decisions(self) -> np.ndarray | None:
        """How far on which side samples are, of shape (rows,) or (rows, classes); more is likelier.

        The decision function, or the scores of samples, or the probabilities. Of two classes it is about the greater
        one, which is the second one of `labels`.
        """
        for method in ("decision_function", "score_samples"):
            found = self._answer(method)
            if found is not None:
                return found
        scores = attempted(self._fitted_scores)
        if scores is not None or self.probabilities is None:
            return scores
        return self.probabilities[:, 1] if self.is_binary and self.probabilities.shape[1] > 1 else self.probabilities

    @cached_property
    def labels(self) -> list[Any]:
        """The classes, in the order of the columns of probabilities; with several labels or outputs, the columns."""
        if self.kind is not Kind.CLASSIFIER:
            return []
        if self.is_multilabel or self.is_multioutput:
            return list(range(self._shape[1]))
        if self._labels is not None:
            return list(self._labels)
        classes = attempted(lambda: as_outputs(getattr(self.estimator, "classes_", None)))
        if classes is not None and classes.ndim == 1:
            return list(classes.tolist())
        known = [values for values in (self.targets, self._predicted) if values is not None]
        return (
            attempted(lambda: in_order(value for array in known for value in array[~is_missing(array)].tolist())) or []
        )

    @cached_property
    def is_multilabel(self) -> bool:
        """Whether a sample has any number of labels: targets are a matrix of zeros and ones."""
        if self.kind is not Kind.CLASSIFIER or len(self._shape) != 2 or self._shape[1] < 2:  # noqa: PLR2004  # a matrix
            return False
        values = self.targets if self.targets is not None else self._predicted
        return values is not None and bool(attempted(lambda: np.isin(values, (0, 1)).all()))

    @cached_property
    def is_multioutput(self) -> bool:
        """Whether a sample has several targets, which are not just labels that are there or not."""
        return len(self._shape) == 2 and self._shape[1] > 1 and not self.is_multilabel  # noqa: PLR2004  # a matrix

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.labels) == 2 and not (self.is_multilabel or self.is_multioutput)  # noqa: PLR2004

    @property
    def is_of_training(self) -> bool:
        """Whether the data are those that the estimator was fitted to."""
        return self.data.name == TRAINING

    def score(self) -> float | None:
        """Return what the estimator's own `score` says, weighted where it takes weights; None where it says nothing."""
        estimator = self.estimator
        if estimator is None or not attempted(lambda: callable(estimator.score) and not draws(estimator, "score")):
            return None
        needs_targets = self.kind in {Kind.CLASSIFIER, Kind.REGRESSOR, Kind.OUTLIER_DETECTOR}
        if needs_targets and self.targets is None:
            return None
        own: Any = estimator
        while isinstance(own, Pipeline):
            own = own.steps[-1][1]
        inherited = getattr(type(own), "score", None)
        # Those two compare targets with predictions, which need not be made again.
        compare = accuracy_score if inherited is ClassifierMixin.score else r2_score
        if inherited not in (ClassifierMixin.score, RegressorMixin.score):
            return None if self._is_too_much(last_of(estimator)) else attempted(self._own_score)
        if self.predictions is None or (compare is r2_score and len(self.predictions) < 2):  # noqa: PLR2004
            return None
        return attempted(lambda: float(compare(self.targets, self.predictions, sample_weight=self.weights)))

    def _kind_by_outcome(self) -> Kind:
        targets, predicted = self.targets, self._predicted
        if predicted is None and hasattr(self.estimator, "score_samples"):
            return Kind.DENSITY_ESTIMATOR
        if targets is None or predicted is None:
            return Kind.OTHER
        if (
            hasattr(self.estimator, "classes_")
            or hasattr(self.estimator, "predict_proba")
            or targets.dtype.kind in "OU"
        ):
            return Kind.CLASSIFIER
        if any(values.dtype.kind == "f" and (values % 1 != 0).any() for values in (targets, predicted)):
            return Kind.REGRESSOR
        # Whoever predicts numbers hits no whole ones, and certainly not only those that were there.
        return Kind.CLASSIFIER if np.isin(predicted, targets).all() else Kind.OTHER

    @cached_property
    def _predicted(self) -> np.ndarray | None:
        return self._answer("predict")

    def _own_score(self) -> float:
        score = self.estimator.score  # type: ignore[union-attr]  # asked for by the only caller
        data = self.data
        arguments = (data.features,) if data.targets is None else (data.features, data.targets)
        weighs = data.weights is not None and "sample_weight" in inspect.signature(score).parameters
        return float(score(*arguments, **({"sample_weight": data.weights} if weighs else {})))

    def _is_too_much(self, estimator: Any) -> bool:  # noqa: ANN401
        if self.kind in {Kind.CLASSIFIER, Kind.REGRESSOR, Kind.CLUSTERER}:
            return False
        if type(estimator).__name__ == "KernelDensity":
            return (self.data.kept or 0) > _MOST_ROWS
        return getattr(estimator, "n_features_in_", 0) > _MOST_FEATURES

    @property
    def _shape(self) -> tuple[int, ...]:
        values = self.targets if self.targets is not None else self._predicted
        return () if values is None else values.shape

    def _raw_answer(self, method: str) -> Any:  # noqa: ANN401
        """Return what a method says of the features; None where there is none, or it fails."""
        given = self._given.get(method)
        if given is not None:
            return given
        asked = attempted(lambda: getattr(self.estimator, method, None))
        if not callable(asked) or self.data.features is None:
            return None
        if method == "score_samples" and self._is_too_much(last_of(self.estimator)):
            return None
        return attempted(lambda: None if draws(self.estimator, method) else asked(self.data.features))

    def _answer(self, method: str) -> np.ndarray | None:
        raw = self._raw_answer(method)
        return None if raw is None else attempted(lambda: self._checked(as_outputs(raw)))

    def _checked(self, values: np.ndarray | None) -> np.ndarray | None:
        """Return values if there is one of each sample."""
        rows = len(self.targets) if self.targets is not None else self.data.kept
        return values if values is None or rows is None or len(values) == rows else None

    def _likeliest(self) -> np.ndarray | None:
        if self.kind is not Kind.CLASSIFIER or self.probabilities is None:
            return None
        if self.is_multilabel:
            return np.where(self.probabilities >= 0.5, 1, 0)  # noqa: PLR2004  # likelier there than not
        likeliest: np.ndarray = np.asarray(self.labels)[self.probabilities.argmax(axis=1)]
        return likeliest

    def _fitted_outcome(self) -> np.ndarray | None:
        last = last_of(self.estimator)
        if not self.is_of_training or hasattr(last, "predict"):
            return None
        if self.kind is Kind.CLUSTERER and not hasattr(last, "transform"):
            # What clusters features has labels of those.
            return self._checked(as_outputs(getattr(last, "labels_", None)))
        scores = self._fitted_scores()
        return None if scores is None else np.where(scores < 0, -1, 1)

    def _fitted_scores(self) -> np.ndarray | None:
        last = last_of(self.estimator)
        scores = getattr(last, "negative_outlier_factor_", None)
        return None if scores is None or not self.is_of_training else self._checked(as_outputs(scores - last.offset_))
