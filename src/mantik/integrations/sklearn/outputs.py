"""Targets and predictions of any type, as arrays that can be compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["as_outputs", "in_order", "is_missing", "positives_of"]

_MOST_CELLS = 50_000_000
"""A sparse matrix of more is not made a dense one."""


def as_outputs(values: Any, *, keep_columns: bool = False) -> np.ndarray | None:  # noqa: ANN401
    """Return targets, predictions or probabilities as an array of shape (rows,) or (rows, outputs).

    Numbers and texts that are held as objects get a type of their own. What is missing among numbers is NaN, and
    elsewhere None.

    Args:
        values: An array, a list, a column or a frame of pandas or polars, a tensor, a sparse matrix; or None.
        keep_columns: Keep two dimensions where there is only one column.

    Returns:
        The array; None without values, or if they have another number of dimensions.

    Raises:
        Exception: The values cannot become an array.
    """
    if values is None:
        return None
    if hasattr(values, "toarray"):
        if math.prod(values.shape) > _MOST_CELLS:
            return None
        values = values.toarray()
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1 and not keep_columns:  # noqa: PLR2004  # a column
        array = array[:, 0]
    if array.ndim not in {1, 2} or not array.size:
        return None
    return _plain(array) if array.dtype == object else array


def is_missing(values: np.ndarray) -> np.ndarray:
    """Tell of each value whether there is none, as an array of bool of the same shape."""
    if values.dtype != object:
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    return np.array([_is_none(value) for value in values.flat], dtype=bool).reshape(values.shape)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return each of many values once, sorted, or by their texts where they are of types that do not compare."""
    found = set(values)
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=repr)


def positives_of(outputs: Sequence[np.ndarray], classes: Sequence[Any] | None) -> np.ndarray | None:
    """Return the probabilities of labels being there, of shape (rows, labels).

    Args:
        outputs: Of each label the probabilities of its classes, of shape (rows, 2), or (rows, 1) for a label that was
            always or never there.
        classes: The classes of each label; None: unknown.
    """
    columns = []
    for at, output in enumerate(outputs):
        known = [0, 1] if classes is None else [float(name) for name in classes[at]]
        if output.shape[1] != len(known) or not set(known) <= {0, 1}:
            return None
        columns.append(output[:, known.index(1)] if 1 in known else np.zeros(len(output)))
    return np.column_stack(columns)


def _is_none(value: object) -> bool:
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
    )


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array of objects with the type that they have in common, if they have one."""
    missing = is_missing(array)
    known = array[~missing].tolist()
    plain = np.array(known) if all(isinstance(value, str) for value in known) else _numbers(known)
    if plain is None or (plain.dtype.kind == "U" and missing.any()) or not known:
        marked: np.ndarray = array.copy()
        marked[missing] = None
        return marked
    if not missing.any():
        return plain.reshape(array.shape)
    filled: np.ndarray = np.full(array.shape, math.nan)
    filled[~missing] = plain
    return filled


def _numbers(values: list[Any]) -> np.ndarray | None:
    """Return numbers as an array, and None if they are none."""
    if any(isinstance(value, (str, bytes)) for value in values):
        return None
    array = np.array(values)
    return array if array.ndim == 1 and array.dtype.kind in "biuf" else None
