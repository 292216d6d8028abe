"""Predictions of tracked estimators: which object is one, of which data, as long as the user has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.identities import Identities

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mantik.integrations.sklearn.held_out import HeldOut
    from mantik.integrations.sklearn.held_out_data import Dataset

__all__ = ["Found", "Prediction", "find", "remember"]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What an estimator has said of data.

    Attributes:
        held_out: The fit that it is about.
        dataset: The data.
        method: What was asked: ``predict``, ``predict_proba``.
        size: How many elements it has, as an array; 0 of anything else.
    """

    held_out: HeldOut = field(repr=False)
    dataset: Dataset
    method: str
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction among other objects.

    Attributes:
        prediction: The prediction.
        value: The object: all of it, or some of its columns.
        is_whole: Whether it is all of it.
        is_first: Whether it begins where all of it begins, as the first column does.
    """

    prediction: Prediction
    value: Any
    is_whole: bool
    is_first: bool


class _Shared:
    """Stands in for a prediction where memory holds several."""


_SHARED = _Shared()

_known: Identities[Prediction] = Identities()

_memory: Identities[Prediction | _Shared] = Identities()
"""Of the arrays that have the memory of predictions."""


def remember(value: object, features: object, prediction: Prediction) -> None:
    """Know from now on that an object is a prediction.

    Args:
        value: What the estimator has returned.
        features: What it was asked about; an estimator may return just that, which is no prediction.
        prediction: What there is to know.
    """
    if value is features or value is None or np.isscalar(value):
        return
    _known.put(value, prediction)
    owner = _owner(value)
    if owner is None or owner is _owner(features):
        return
    before = _memory.get(owner)
    is_shared = isinstance(before, _Shared) or (before is not None and before.dataset is not prediction.dataset)
    _memory.put(owner, _SHARED if is_shared else prediction)


def find(values: Iterable[Any]) -> Found | None:
    """Return the first prediction among some objects.

    Columns of one are one, too: ``predict_proba(X)[:, 1]``. Some rows of one are not, as they are of other data.
    """
    for value in values:
        if value is None or np.isscalar(value):
            continue
        prediction = _known.get(value)
        if prediction is not None:
            return Found(prediction, value, is_whole=True, is_first=True)
        owner = _owner(value)
        part = None if owner is None else _memory.get(owner)
        if isinstance(part, Prediction) and value.shape[:1] == (part.dataset.rows,):
            is_first = _address(value) == _address(owner)
            return Found(part, value, is_whole=is_first and value.size == part.size, is_first=is_first)
    return None


def _owner(value: object) -> np.ndarray | None:
    """Return the array that has the memory of another one, or of itself; None of what is no array."""
    if not isinstance(value, np.ndarray):
        return None
    while isinstance(value.base, np.ndarray):
        value = value.base
    return value


def _address(values: Any) -> int:  # noqa: ANN401  # an array
    return int(values.__array_interface__["data"][0])
