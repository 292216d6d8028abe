"""Targets and what was predicted of them, as users hand them over: arrays that fit together, or what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.exceptions import InvalidValueError
from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.outputs import as_outputs, in_order, is_missing, positives_of
from mantik.training.arrays import as_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["classes_compared", "numbers_compared", "untracked"]

_TOLERANCE = 1e-3
"""By which a probability of a network with 16 bits may be beyond 0 or 1."""

_SHOWN = 8
"""Classes in an error."""


def classes_compared(  # noqa: PLR0913  # what there is to a comparison
    y_true: Any,  # noqa: ANN401
    outcomes: Mapping[str, Any],
    *,
    labels: Sequence[Any] | None,
    sample_weight: Any,  # noqa: ANN401
    pos_label: Any,  # noqa: ANN401
    name: str,
) -> Evaluation:
    """Return the evaluation of a classifier of which there are only arrays.

    Args:
        y_true: The classes, of shape (rows,), or labels that are there or not, of shape (rows, labels).
        outcomes: ``y_pred``, ``y_proba`` and ``y_score``; None is what there is not.
        labels: The classes in the order of columns; None: as in the data.
        sample_weight: Of shape (rows,), or None.
        pos_label: The positive class of two, or None.
        name: Of the data.

    Raises:
        InvalidValueError: They do not fit together.
    """
    given = {what: untracked(values) for what, values in outcomes.items() if values is not None}
    if not given:
        raise InvalidValueError(
            "There is nothing to compare y_true with. Hand over y_pred (the classes that were predicted), y_proba "
            "(probabilities of classes) or y_score (what decision_function returns)."
        )
    plain = untracked(y_true)
    targets = _array(plain, "y_true")
    arrays = {what: _array(values, what) for what, values in given.items()}
    weights = _checked(targets, arrays, sample_weight)
    predicted, probabilities = arrays.get("y_pred"), arrays.get("y_proba")
    _check_classes(targets, predicted)
    if probabilities is not None:
        _check_probabilities(probabilities)
    classes = None
    if targets.ndim == 1:
        columns = {what: array for what, array in arrays.items() if what != "y_pred"}
        classes = _classes(targets, predicted, labels, columns)
        if pos_label is not None and (len(classes) > 2 or (len(classes) == 2 and pos_label not in classes)):  # noqa: PLR2004
            raise InvalidValueError(
                f"pos_label is {pos_label!r}. It is the positive one of two classes, and the classes are "
                f"{_shown(classes)}. Name one of two, or leave it out."
            )
    elif labels is not None:
        raise InvalidValueError(
            f"labels is given and y_true has the shape {targets.shape}. Labels that a sample can have several of are "
            f"named by the columns of a data frame: hand over y_true as one, and leave out labels."
        )
    scores = arrays.get("y_score")
    if classes is not None and scores is not None and scores.ndim == len(classes) == 2:  # noqa: PLR2004
        # One number says as much: how much likelier the greater one is.
        scores = scores[:, 1] - scores[:, 0]
    rows = len(targets)
    return Evaluation(
        None,
        Data(None, plain, weights, name, rows, rows),
        pos_label=pos_label,
        predictions=predicted,
        probabilities=probabilities,
        decisions=scores,
        kind=Kind.CLASSIFIER,
        labels=classes,
    )


def numbers_compared(y_true: Any, y_pred: Any, *, sample_weight: Any, name: str) -> Evaluation:  # noqa: ANN401
    """Return the evaluation of a regressor of which there are only arrays.

    Args:
        y_true: Numbers, of shape (rows,) or (rows, outputs); NaN is one that is not known.
        y_pred: Numbers, of the same shape.
        sample_weight: Of shape (rows,), or None.
        name: Of the data.

    Raises:
        InvalidValueError: They do not fit together.
    """
    plain = untracked(y_true)
    targets, predicted = _array(plain, "y_true"), _array(untracked(y_pred), "y_pred")
    for what, array in (("y_true", targets), ("y_pred", predicted)):
        if array.dtype.kind not in "biuf":
            raise InvalidValueError(
                f"{what} has values of the type {array.dtype}, and numbers are expected. Classes are for "
                "log_classifier_evaluation."
            )
    weights = _checked(targets, {"y_pred": predicted}, sample_weight)
    if targets.shape != predicted.shape:
        raise InvalidValueError(
            f"y_pred has the shape {predicted.shape} and y_true {targets.shape}. Hand over one number for each of "
            "y_true, in the same shape."
        )
    rows = len(targets)
    return Evaluation(None, Data(None, plain, weights, name, rows, rows), predictions=predicted, kind=Kind.REGRESSOR)


def untracked(values: Any) -> Any:  # noqa: ANN401  # whatever a user has
    """Return a tensor of torch as an array, wherever it is and whether it has a gradient; anything else as it is."""
    return as_array(values, "log_evaluation") if callable(getattr(values, "detach", None)) else values


def _array(values: Any, what: str) -> np.ndarray:  # noqa: ANN401
    expected = "an array, a list, a column or a frame, of shape (rows,) or (rows, columns), with at least one row"
    try:
        if what == "y_proba" and isinstance(values, list) and values and getattr(values[0], "ndim", 0) > 1:
            # What `predict_proba` returns where a sample can have several labels.
            array = positives_of([np.asarray(each) for each in values], None)
        else:
            array = as_outputs(values)
        shape = () if array is not None else np.shape(values)
    except Exception as error:  # whatever the conversion of a stranger's type raises
        raise InvalidValueError(
            f"{what} is a {type(values).__name__} that cannot become an array: {error}. Expected is {expected}."
        ) from error
    if array is None:
        raise InvalidValueError(f"{what} is a {type(values).__name__} of shape {shape}. Expected is {expected}.")
    return array


def _checked(targets: np.ndarray, arrays: Mapping[str, np.ndarray], weights: Any) -> np.ndarray | None:  # noqa: ANN401
    """Return the weights of samples, when there is one of everything for each sample."""
    found = None if weights is None else _array(untracked(weights), "sample_weight")
    for what, array in {**arrays, **({} if found is None else {"sample_weight": found})}.items():
        if len(array) != len(targets):
            raise InvalidValueError(
                f"{what} has {len(array)} rows and y_true has {len(targets)}. Hand over one row for each of y_true."
            )
    if found is not None and (found.ndim != 1 or found.dtype.kind not in "biuf" or not np.isfinite(found).all()):
        raise InvalidValueError(
            f"sample_weight has the shape {found.shape} and the type {found.dtype}. Expected is a finite number for "
            "each row."
        )
    return found


def _check_classes(targets: np.ndarray, predicted: np.ndarray | None) -> None:
    for what, array in (("y_true", targets), ("y_pred", predicted)):
        if array is None or array.dtype.kind != "f":
            continue
        broken = array[np.isfinite(array) & (array % 1 != 0)]
        if len(broken):
            where = "numbers are for log_regressor_evaluation" if what == "y_true" else "probabilities go to y_proba"
            raise InvalidValueError(f"{what} has {broken[0]:g}, which is no class: {where}.")
    if predicted is None:
        return
    if predicted.shape != targets.shape:
        raise InvalidValueError(
            f"y_pred has the shape {predicted.shape} and y_true {targets.shape}. Both hold classes, in the same shape: "
            "make classes of one column for each by argmax(axis=1). Probabilities go to y_proba."
        )
    kinds = {array.dtype.kind == "U" for array in (targets, predicted) if array.dtype.kind != "O"}
    if len(kinds) > 1:
        raise InvalidValueError(
            f"y_true has values of the type {targets.dtype} and y_pred of {predicted.dtype}: texts and numbers are "
            "never equal. Hand over both as they are called, or both as numbers."
        )


def _check_probabilities(probabilities: np.ndarray) -> None:
    if probabilities.dtype.kind not in "biuf":
        raise InvalidValueError(f"y_proba has values of the type {probabilities.dtype}, and numbers are expected.")
    beyond = probabilities[(probabilities < -_TOLERANCE) | (probabilities > 1 + _TOLERANCE)]
    if len(beyond):
        raise InvalidValueError(
            f"y_proba has {beyond[0]:g}, which is no probability: those are from 0 to 1. Other scores go to y_score."
        )


def _classes(
    targets: np.ndarray, predicted: np.ndarray | None, labels: Sequence[Any] | None, columns: Mapping[str, np.ndarray]
) -> list[Any]:
    """Return the classes in the order of the columns, when there are as many of both."""
    arrays = [targets] if predicted is None else [targets, predicted]
    seen = in_order(value for array in arrays for value in set(array[~is_missing(array)].tolist()))
    classes = seen if labels is None else list(_array(untracked(labels), "labels").tolist())
    unknown = [value for value in seen if value not in classes]
    if unknown or len(set(classes)) < len(classes):
        raise InvalidValueError(
            f"labels is {_shown(classes)}, and the classes in y_true and y_pred are {_shown(seen)}. Name each class "
            "once, in the order of the columns of y_proba or y_score."
        )
    for what, array in columns.items():
        count = 2 if array.ndim == 1 else array.shape[1]
        if labels is None and count > len(classes) and _are_numbered(seen, count):
            classes = [False, True] if targets.dtype.kind == "b" else list(range(count))
        if count != len(classes):
            has = "one number for each row, as of two classes" if array.ndim == 1 else f"{count} columns"
            raise InvalidValueError(
                f"{what} has {has}, and the classes are {_shown(classes)}. Name all classes in the order of the "
                "columns: labels=[...], which a classifier has as classes_."
            )
    return classes


def _are_numbered(seen: Sequence[Any], count: int) -> bool:
    """Tell whether classes are some of the numbers of the columns, as networks have them."""
    return all(isinstance(value, int | float) and value in range(count) for value in seen)


def _shown(classes: Sequence[Any]) -> str:
    more = f", … {len(classes)} in all" if len(classes) > _SHOWN else ""
    return ", ".join(map(repr, classes[:_SHOWN])) + more
