"""What comes after a fit: scores, predictions and metrics of data, which are recorded in the run of the fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn import pictures as gallery
from mantik.integrations.sklearn.afterwards import Job
from mantik.integrations.sklearn.data import Data, data_of_call
from mantik.integrations.sklearn.dataset import log_dataset
from mantik.integrations.sklearn.evaluation import Evaluation, attempted
from mantik.integrations.sklearn.fits import draw
from mantik.integrations.sklearn.held_out_data import Datasets
from mantik.integrations.sklearn.kind import kind_of
from mantik.integrations.sklearn.metric_calls import call_text, is_number, kept, named_arguments
from mantik.integrations.sklearn.metrics import metrics_of
from mantik.integrations.sklearn.notes import Notes
from mantik.integrations.sklearn.parts import identities_of
from mantik.integrations.sklearn.predictions import Found, Prediction, find, remember

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.held_out_data import Dataset
    from mantik.integrations.sklearn.options import Options
    from mantik.integrations.sklearn.record import Record

__all__ = ["HeldOut", "metric_called"]

_GIVEN = {
    "predict": "predictions",
    "predict_proba": "probabilities",
    "decision_function": "decisions",
}
"""What an `Evaluation` calls the results of methods."""

_TARGETS = ("y_true", "labels_true")
"""What metric functions call them."""


class HeldOut:
    """What an estimator is tried on after one fit. Any thread may call.

    Numbers that `score` and metric functions return become metrics of the run, named as MLflow names them:
    ``accuracy_score_X_test``, ``accuracy_score-2_X_test`` for the second call, ``LogisticRegression_score_X_test``.
    Other results become artifacts: ``classification_report_X_test.txt``, ``confusion_matrix_X_test.json``. The file
    ``metric_info.json`` says how each metric has come about.

    Data that the estimator was not fitted to are evaluated once their targets are known, for all metrics and pictures
    that suit the estimator; the first ten of a fit.

    Predictions, data and the estimator belong to the user: they are held weakly, and what the user lets go of is gone.
    Of data that are evaluated there is a copy until that is done. In the calling thread names are found and data are
    copied; everything else is handed over.

    Args:
        record: Where the fit is recorded.
        reference: Returns the estimator as long as there is one.
        training: What it was fitted to, as the user has it; None where there is nothing. It is looked at now.
        options: What the user asked for.
        later: Takes what is to be done in the background; may block.
    """

    def __init__(
        self,
        record: Record,
        reference: Callable[[], BaseEstimator | None],
        training: Data | None,
        options: Options,
        later: Callable[[Job], None],
    ) -> None:
        self._reference = reference
        self._options = options
        self._later = later
        self._notes = Notes(record, later)
        self._datasets = Datasets()
        self._learn()
        if training is not None:
            self.trained_on(training)

    @property
    def record(self) -> Record:
        """Where the fit is recorded."""
        return self._notes.record

    def is_of(self, estimator: object) -> bool:
        """Tell whether this is about an estimator, and not about one that has come to lie at its address."""
        return self._reference() is estimator

    def also_of(self, reference: Callable[[], BaseEstimator | None]) -> HeldOut:
        """Return the same for another estimator of the fit, such as the best one of a search.

        Both give names to data and count calls together.
        """
        other = copy.copy(self)
        other._reference = reference  # noqa: SLF001  # of the same class
        other._learn()  # noqa: SLF001
        return other

    def trained_on(self, data: Data) -> None:
        """Take data for training data, as of one more `partial_fit`."""
        self._datasets.train(data)

    def scored(
        self,
        call: Callable[..., Any],
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
        value: object,
        frame: FrameType | None,
    ) -> None:
        """Record what `score` has returned.

        Args:
            call: The bound method.
            arguments: Its positional arguments.
            keywords: Its arguments by name.
            value: What it has returned.
            frame: Of the user's code that has called it.
        """
        data = data_of_call(call, arguments, keywords)
        dataset = None if data is None else self._datasets.find(data, frame)
        if data is None or dataset is None:
            return
        if is_number(value):
            text = call_text(f"{self._name}.score", named_arguments(call, arguments, keywords), frame)
            self._notes.metric(f"{self._name}_score", value, dataset.name, text)
        if data.targets is not None:
            self._evaluate(dataset, data, {})

    def predicted(  # noqa: PLR0913, PLR0917  # what there is to a call
        self,
        method: str,
        call: Callable[..., Any],
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
        result: object,
        frame: FrameType | None,
    ) -> None:
        """Know from now on what an estimator has returned.

        Args:
            method: The name of the method: ``predict``, ``predict_proba``, ``transform``.
            call: The bound method.
            arguments: Its positional arguments.
            keywords: Its arguments by name.
            result: What it has returned.
            frame: Of the user's code that has called it.
        """
        data = data_of_call(call, arguments, keywords)
        dataset = None if data is None else self._datasets.find(data, frame)
        if data is not None and dataset is not None:
            size = result.size if isinstance(result, np.ndarray) else 0
            remember(result, data.features, Prediction(self, dataset, method, size))

    def measured(
        self, name: str, found: Found, arguments: Mapping[str, Any], value: object, frame: FrameType | None
    ) -> None:
        """Record what a metric function has returned.

        Args:
            name: Of the function.
            found: The prediction of this estimator that is among its arguments.
            arguments: Its arguments by name.
            value: What it has returned.
            frame: Of the user's code that has called it.
        """
        dataset = found.prediction.dataset
        if is_number(value):
            self._notes.metric(name, value, dataset.name, call_text(name, arguments, frame))
        else:
            content = kept(value)
            if content is not None:
                self._notes.file(name, content, dataset.name)
        targets = next((arguments[name] for name in _TARGETS if arguments.get(name) is not None), None)
        given = self._given(found, targets)
        if targets is not None and targets is not found.value and given is not None:
            rows = dataset.rows
            data = Data(dataset.features(), targets, arguments.get("sample_weight"), dataset.name, rows, rows)
            self._evaluate(dataset, data, given)

    def _learn(self) -> None:
        """Learn what has to be known of the estimator when it is gone."""
        estimator = self._reference()
        self._name = type(estimator).__name__
        self._kind = None if estimator is None else attempted(lambda: kind_of(estimator))
        self._classes = attempted(lambda: np.asarray(getattr(estimator, "classes_", ())))

    def _given(self, found: Found, targets: object) -> dict[str, Any] | None:
        """Return what an evaluation is given of a prediction; None where that cannot be one of the targets."""
        role = _GIVEN.get(found.prediction.method)
        if role is None:
            return None
        if found.is_whole:
            return {role: found.value}
        # Of two classes, the second column alone says as much as both.
        is_enough = role == "probabilities" and not found.is_first and found.value.ndim == 1
        return {role: found.value} if is_enough and self._are_classes(targets) else None

    def _are_classes(self, targets: object) -> bool:
        """Tell whether targets are those of a classifier of two classes, and no comparison with one of the classes."""
        classes = self._classes
        if classes is None or classes.shape != (2,):
            return False
        return classes.dtype.kind == "b" or getattr(getattr(targets, "dtype", None), "kind", None) != "b"

    def _evaluate(self, dataset: Dataset, data: Data, given: Mapping[str, Any]) -> None:
        """Have data evaluated that are new."""
        if not self._datasets.claim(dataset):
            return
        estimator = self._reference()
        data = replace(data, name=dataset.name).kept_as_is()
        if data.is_sampled:
            # What is given is about all rows.
            given = {}
        evaluation = Evaluation(
            estimator,
            data,
            pos_label=self._options.pos_label,
            kind=self._kind,
            **{role: Data(value).kept_as_is().features for role, value in given.items()},
        )
        name = f"{self._name} on {dataset.name}"
        steps: list[tuple[str, Callable[[], None]]] = [
            (f"The metrics of {name} are not recorded", lambda: self._measure(evaluation))
        ]
        if self._options.log_plots:
            form = f"{{}}_{dataset.name}"
            steps.append(
                (f"{name} is not drawn", lambda: draw(gallery.pictures_of_evaluation(evaluation), self.record, form))
            )
        if self._options.log_datasets and data.features is not None:
            steps.append(
                (
                    f"The data {dataset.name} are not described",
                    lambda: log_dataset(data, self.record.run_id, "eval", self.record.client),
                )
            )
        touches = frozenset() if estimator is None else identities_of(estimator)
        self._later(Job(self.record.run_id, steps, touches=touches, size=data.size))

    def _measure(self, evaluation: Evaluation) -> None:
        data = evaluation.data
        if data.is_sampled:
            self.record.tags({f"mantik.evaluated_rows.{data.name}": f"{data.kept} of {data.rows}"})
        self._notes.evaluated(metrics_of(evaluation), data.name)


def metric_called(  # noqa: PLR0913, PLR0917  # what there is to a call
    name: str,
    call: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    value: object,
    frame: FrameType | None,
) -> None:
    """Record what a function of `sklearn.metrics` has returned, if a prediction of a fit is among its arguments.

    Args:
        name: Of the function.
        call: The function.
        arguments: Its positional arguments.
        keywords: Its arguments by name.
        value: What it has returned.
        frame: Of the user's code that has called it.
    """
    found = find([*arguments, *keywords.values()])
    if found is not None:
        found.prediction.held_out.measured(name, found, named_arguments(call, arguments, keywords), value, frame)
