"""Metrics of classifiers, and of those that tell outliers from the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.metrics

from mantik.integrations.sklearn.measurements import Measurements
from mantik.integrations.sklearn.outputs import as_outputs, in_order, is_missing

if TYPE_CHECKING:
    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["classifier_metrics", "outlier_metrics"]

_MOST_CLASSES = 1000
"""Of more, a table of all pairs of them takes too much memory."""

_MOST_CELLS = 20_000_000
"""Rows times classes for the logarithmic loss, which makes a dense matrix of them."""

_MOST_OPPOSED = 50
"""Classes for the area under the curve, which is computed for every two of them: a second for so many."""

_MOST_PAIRED = 200_000_000
"""Rows times pairs of classes for the same."""


@dataclass(frozen=True, slots=True)
class _Classes:
    """Classes as whole numbers, in the order of their names: so no metric minds what they are called.

    Attributes:
        targets: Of shape (rows,).
        predictions: Of shape (rows,); None where nothing is predicted.
        probabilities: Of shape (rows, columns), the columns in the order of the classes; None where there are none.
        columns: The class of each column, in increasing order.
        decisions: Of shape (rows,), where there are two classes and no probabilities; more is more likely the greater.
        weights: Of shape (rows,), or None.
        positive: The class that the user calls positive; None where there is no such class among two.
    """

    targets: np.ndarray
    predictions: np.ndarray | None
    probabilities: np.ndarray | None
    columns: np.ndarray
    decisions: np.ndarray | None
    weights: np.ndarray | None
    positive: int | None


def classifier_metrics(evaluation: Evaluation) -> Measurements:
    """Return the metrics of a classifier, by MLflow's names. Samples without a target do not count."""
    if evaluation.targets is None:
        return Measurements()
    if evaluation.is_multilabel:
        return _of_labels(evaluation)
    if evaluation.is_multioutput:
        return _of_outputs(evaluation)
    classes = _classes_of(evaluation)
    if classes is None:
        return Measurements()
    return Measurements(_of_predictions(classes) | _of_probabilities(classes))


def outlier_metrics(evaluation: Evaluation) -> Measurements:
    """Return the metrics of what tells outliers; with targets also how well it tells them.

    Targets are -1 for outliers and 1 for others, as scikit-learn has it, or 1 for outliers and 0 for others.
    """
    found = Measurements()
    predictions, targets = evaluation.predictions, evaluation.targets
    if predictions is not None:
        found.add("outlier_fraction", lambda: np.mean(predictions == -1))
    names = [] if targets is None or targets.ndim != 1 else np.unique(targets[~is_missing(targets)]).tolist()
    if targets is None or names not in ([-1, 1], [0, 1]):
        return found
    known = ~is_missing(targets)
    is_outlier = (targets == (-1 if -1 in names else 1)).astype(int)
    decisions = evaluation.decisions
    weights = evaluation.weights
    classes = _Classes(
        targets=is_outlier[known],
        predictions=None if predictions is None else (predictions == -1).astype(int)[known],
        probabilities=None,
        columns=np.array([0, 1]),
        decisions=None if decisions is None else -decisions[known],
        weights=None if weights is None else weights[known],
        positive=1,
    )
    return Measurements(found | _of_predictions(classes) | _of_probabilities(classes))


def _of_predictions(classes: _Classes) -> Measurements:
    found = Measurements()
    targets, predicted, weights = classes.targets, classes.predictions, classes.weights
    if predicted is None or not len(targets):
        return found
    averaged: dict[str, Any] = {"average": "weighted"}
    if classes.positive is not None:
        averaged = {"average": "binary", "pos_label": classes.positive}
    for name in ("precision_score", "recall_score", "f1_score"):
        measure = getattr(sklearn.metrics, name)
        found.add(name, measure, targets, predicted, sample_weight=weights, zero_division=0, **averaged)
    found.add("accuracy_score", sklearn.metrics.accuracy_score, targets, predicted, sample_weight=weights)
    there = np.unique(targets if weights is None else targets[weights > 0])
    # What this is by definition. The function of its name warns of classes that are only predicted.
    found.add(
        "balanced_accuracy_score",
        sklearn.metrics.recall_score,
        targets,
        predicted,
        sample_weight=weights,
        labels=there,
        average="macro",
        zero_division=0,
    )
    if 1 < len(np.union1d(targets, predicted)) <= _MOST_CLASSES:
        found.add("matthews_corrcoef", sklearn.metrics.matthews_corrcoef, targets, predicted, sample_weight=weights)
    return found


def _of_probabilities(classes: _Classes) -> Measurements:
    found = Measurements()
    targets, weights, columns = classes.targets, classes.weights, classes.columns
    if len(columns) < 2 or not np.isin(targets, columns).all() or not len(targets):  # noqa: PLR2004
        # What is unknown to the estimator has no probability.
        return found
    probabilities = classes.probabilities
    weighted = {"sample_weight": weights}
    if probabilities is not None and len(targets) * len(columns) <= _MOST_CELLS and _sum_to_one(probabilities):
        found.add("log_loss", sklearn.metrics.log_loss, targets, probabilities, labels=columns, **weighted)
    if len(columns) == 2:  # noqa: PLR2004
        scores = classes.decisions if probabilities is None else probabilities[:, 1]
        if scores is None or scores.ndim != 1:
            return found
        positive = classes.positive if classes.positive in columns else columns[1]
        is_there = targets == positive
        towards = scores if positive == columns[1] else -scores
        if is_there.any() and not is_there.all():
            found.add("roc_auc", sklearn.metrics.roc_auc_score, is_there, towards, average="weighted", **weighted)
        if is_there.any():
            found.add("average_precision", sklearn.metrics.average_precision_score, is_there, towards, **weighted)
        if probabilities is not None:
            likely = probabilities[:, int(positive == columns[1])]
            found.add(
                "brier_score_loss", sklearn.metrics.brier_score_loss, is_there, likely, pos_label=True, **weighted
            )
    elif (
        probabilities is not None
        and weights is None
        and len(np.unique(targets)) == len(columns)
        and len(columns) <= _MOST_OPPOSED
        and len(targets) * len(columns) ** 2 / 2 <= _MOST_PAIRED
    ):
        how = {"average": "weighted", "multi_class": "ovo", "labels": columns}
        found.add("roc_auc", sklearn.metrics.roc_auc_score, targets, probabilities, **how)
    return found


def _of_labels(evaluation: Evaluation) -> Measurements:
    """Return the metrics where a sample has any number of labels."""
    found = Measurements()
    targets, predicted, weights = evaluation.targets, evaluation.predictions, evaluation.weights
    if targets is None:
        return found
    targets = targets.astype(int)
    weighted = {"sample_weight": weights}
    if predicted is not None and predicted.shape == targets.shape and np.isin(predicted, (0, 1)).all():
        predicted = predicted.astype(int)
        for name in ("precision_score", "recall_score", "f1_score", "jaccard_score"):
            measure = getattr(sklearn.metrics, name)
            found.add(name, measure, targets, predicted, average="weighted", zero_division=0, **weighted)
        for name in ("accuracy_score", "hamming_loss"):
            found.add(name, getattr(sklearn.metrics, name), targets, predicted, **weighted)
    probabilities = evaluation.probabilities
    if probabilities is not None and probabilities.shape == targets.shape and targets.shape[1] <= _MOST_CLASSES:
        there = targets.any(axis=0)
        if there.all() and not targets.all(axis=0).any():
            measure = sklearn.metrics.roc_auc_score
            found.add("roc_auc", measure, targets, probabilities, average="weighted", **weighted)
        if there.any():
            measure = sklearn.metrics.average_precision_score
            shown = targets[:, there], probabilities[:, there]
            found.add("average_precision", measure, *shown, average="weighted", **weighted)
    return found


def _of_outputs(evaluation: Evaluation) -> Measurements:
    """Return the metrics where a sample has several classes, which scikit-learn's functions refuse."""
    found = Measurements()
    targets, predicted, weights = evaluation.targets, evaluation.predictions, evaluation.weights
    if targets is None or predicted is None or predicted.shape != targets.shape:
        return found
    known = ~is_missing(targets).any(axis=1)
    wrong = (targets != predicted)[known]
    weights = None if weights is None else weights[known]
    found.add("accuracy_score", lambda: np.average(~wrong.any(axis=1), weights=weights))
    found.add("hamming_loss", lambda: np.average(wrong.mean(axis=1), weights=weights))
    return found


def _classes_of(evaluation: Evaluation) -> _Classes | None:
    """Return the classes of an evaluation; None if they cannot be compared."""
    targets, predicted, weights = evaluation.targets, evaluation.predictions, evaluation.weights
    # As objects first: numpy would make texts of numbers that are among texts.
    labels = as_outputs(np.fromiter(evaluation.labels, dtype=object, count=len(evaluation.labels)))
    if targets is None or targets.ndim != 1 or labels is None:
        return None
    known = ~is_missing(targets)
    if predicted is None or predicted.ndim != 1 or is_missing(predicted).any():
        predicted = targets[:0]
    coded = _coded([targets[known], predicted[known[: len(predicted)]], labels])
    if coded is None:
        return None
    names, (true, outcome, columns) = coded
    order = np.argsort(columns)
    probabilities, decisions = evaluation.probabilities, None
    if probabilities is not None:
        fits = probabilities.shape[1] == len(columns)
        probabilities = probabilities[known][:, order] if fits else None
    elif len(columns) == 2 and evaluation.decisions is not None and evaluation.decisions.ndim == 1:  # noqa: PLR2004
        # They are about the second label.
        decisions = evaluation.decisions[known] if order[1] == 1 else -evaluation.decisions[known]
    asked = evaluation.pos_label
    is_positive_known = asked is not None and asked in names and len(names) <= 2  # noqa: PLR2004
    return _Classes(
        targets=true,
        predictions=outcome if len(predicted) else None,
        probabilities=probabilities,
        columns=columns[order],
        decisions=decisions,
        weights=None if weights is None else weights[known],
        positive=names.index(asked) if is_positive_known else None,
    )


def _coded(arrays: list[np.ndarray]) -> tuple[list[Any], list[np.ndarray]] | None:
    """Return the names that there are in arrays, sorted, and for each array the places of its values among them."""
    ends = np.cumsum([len(array) for array in arrays])[:-1]
    kinds = {array.dtype.kind for array in arrays if len(array)}
    if len({kind == "U" for kind in kinds - {"O"}}) > 1:
        # Texts and numbers are equal nowhere, and numpy would compare them as texts.
        return None
    if "O" not in kinds:
        names, places = np.unique(np.concatenate([array for array in arrays if len(array)]), return_inverse=True)
        return names.tolist(), np.split(places, ends)
    values = [value for array in arrays for value in array.tolist()]
    ordered = in_order(values)
    at = {name: place for place, name in enumerate(ordered)}
    return ordered, np.split(np.array([at[value] for value in values]), ends)


def _sum_to_one(probabilities: np.ndarray) -> bool:
    # As closely as scikit-learn wants it, which would warn.
    tolerance = math.sqrt(np.finfo(probabilities.dtype).eps) if probabilities.dtype.kind == "f" else 0
    return bool(np.allclose(probabilities.sum(axis=1), 1, rtol=tolerance, atol=0))
