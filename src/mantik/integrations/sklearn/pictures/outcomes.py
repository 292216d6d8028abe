"""What pictures compare: targets and predictions of the same rows, classes as numbers, one class against the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.outputs import is_missing
from mantik.integrations.sklearn.pictures.wording import data_title, estimator_title, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["Outcome", "Ranking", "drawn_rows", "outcome_of", "output_names", "rankings_of", "subject_of", "weights_of"]

_MOST_CELLS = 2_000_000
"""Rows times classes whose scores are sorted; of more, some rows are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Classes that samples have and those they were taken for, as numbers.

    Rows without one of both, or without weight, are left out.

    Attributes:
        true: The place of each row's class in `names`.
        predicted: That of the predicted one.
        names: The classes: those known, and then others that there are.
        weights: Of shape (rows,); None: all count the same.
    """

    true: np.ndarray
    predicted: np.ndarray
    names: list[Any]
    weights: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """How samples are ranked by how likely they are of one class.

    Attributes:
        name: The class.
        is_true: Whether a row is of that class, of shape (rows,). There are rows of both kinds.
        scores: More is likelier.
        weights: Of shape (rows,); None: all count the same.
    """

    name: Any
    is_true: np.ndarray
    scores: np.ndarray
    weights: np.ndarray | None


def subject_of(evaluation: Evaluation) -> str:
    """Return what a picture of an evaluation is of: the estimator, the data and how many rows they have."""
    return joined(estimator_title(evaluation.estimator), data_title(evaluation.data))


def weights_of(evaluation: Evaluation) -> np.ndarray | None:
    """Return the weights of samples as floats of which none is less than zero; None where all count the same."""
    weights = evaluation.weights
    return None if weights is None else np.nan_to_num(np.clip(weights.astype(float), 0, None), posinf=0.0)


def output_names(evaluation: Evaluation, count: int, what: str) -> list[str]:
    """Return the names of several targets: those of the columns, where the user's targets have them."""
    columns = getattr(evaluation.data.targets, "columns", None)
    if columns is not None and len(columns) == count:
        return [str(name) for name in columns]
    return [f"{what} {at}" for at in range(count)]


def drawn_rows(rows: int, most: int) -> np.ndarray:
    """Return the numbers of rows that are drawn, in their order: all, or some of many, always the same."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def outcome_of(
    targets: np.ndarray | None, predictions: np.ndarray | None, known: Sequence[Any], weights: np.ndarray | None
) -> Outcome | None:
    """Return what samples were taken for; None where there is nothing to compare.

    Args:
        targets: Of shape (rows,).
        predictions: Of shape (rows,).
        known: The classes in their order; others that there are come after them.
        weights: Of shape (rows,), or None.
    """
    if targets is None or predictions is None or targets.ndim != 1 or targets.shape != predictions.shape:
        return None
    there = ~(is_missing(targets) | is_missing(predictions))
    if weights is not None:
        there &= weights > 0
    if not there.any():
        return None
    true_values, true = _distinct(targets[there])
    predicted_values, predicted = _distinct(predictions[there])
    names = list(known)
    places = {name: at for at, name in enumerate(names)}
    for value in (*true_values, *predicted_values):
        if value not in places:
            places[value] = len(names)
            names.append(value)
    return Outcome(
        np.array([places[value] for value in true_values])[true],
        np.array([places[value] for value in predicted_values])[predicted],
        names,
        None if weights is None else weights[there],
    )


def rankings_of(evaluation: Evaluation) -> tuple[list[Ranking], str]:
    """Return how well classes or labels are ranked, each against the rest, and a note on what is left out.

    Of two classes there is one ranking: of the positive class.
    """
    targets, scores = evaluation.targets, _scores_of(evaluation)
    if targets is None or scores is None or evaluation.is_multioutput or len(targets) != len(scores):
        return [], ""
    labels: list[Any] = list(evaluation.labels)
    weights = weights_of(evaluation)
    rows = drawn_rows(len(targets), max(1, _MOST_CELLS // max(1, scores.shape[1])) if len(labels) > 2 else len(targets))  # noqa: PLR2004  # of two, one is sorted
    note = f"from {len(rows):,} rows" if len(rows) < len(targets) else ""
    targets, scores, weights = targets[rows], scores[rows], None if weights is None else weights[rows]
    if evaluation.is_multilabel:
        names = output_names(evaluation, len(labels), "label")
        columns = [(name, targets[:, at] == 1, at) for at, name in enumerate(names) if at < scores.shape[1]]
    elif targets.ndim != 1:
        return [], ""
    else:
        outcome = outcome_of(targets, targets, labels, None)
        if outcome is None:
            return [], ""
        there = ~is_missing(targets)
        targets, scores, weights = outcome.true, scores[there], None if weights is None else weights[there]
        columns = [(label, targets == at, at) for at, label in enumerate(labels) if at < scores.shape[1]]
        if evaluation.is_binary:
            columns = [columns[_positive(evaluation)]]
    return [
        ranking
        for name, is_true, at in columns
        if (ranking := _ranking(name, is_true, scores[:, at], weights)) is not None
    ], note


def _scores_of(evaluation: Evaluation) -> np.ndarray | None:
    """Return scores of shape (rows, classes)."""
    count = len(evaluation.labels)
    if evaluation.probabilities is not None and evaluation.probabilities.shape[1] == count:
        return evaluation.probabilities
    decisions = evaluation.decisions
    if decisions is None or decisions.dtype.kind not in "biuf":
        return None
    if decisions.ndim == 1:
        return np.column_stack([-decisions, decisions]) if evaluation.is_binary else None
    return decisions if decisions.shape[1] == count else None


def _positive(evaluation: Evaluation) -> int:
    """Return which of two classes is the positive one."""
    given = evaluation.pos_label
    return evaluation.labels.index(given) if given is not None and given in evaluation.labels else 1


def _ranking(name: object, is_true: np.ndarray, scores: np.ndarray, weights: np.ndarray | None) -> Ranking | None:
    counted = np.isfinite(scores) if weights is None else np.isfinite(scores) & (weights > 0)
    is_true = is_true[counted]
    if not is_true.any() or is_true.all():
        return None
    return Ranking(name, is_true, scores[counted], None if weights is None else weights[counted])


def _distinct(values: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return the values that there are, and the place of each row's among them."""
    if values.dtype != object:
        found, places = np.unique(values, return_inverse=True)
        return found.tolist(), np.ravel(places)
    # Objects need not have an order.
    numbers: dict[Any, int] = {}
    coded = np.array([numbers.setdefault(value, len(numbers)) for value in values.tolist()])
    return list(numbers), coded
