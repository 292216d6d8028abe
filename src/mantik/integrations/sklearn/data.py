"""The data that an estimator is fitted to or tried on: found in the arguments of a call, and kept as they were."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["TRAINING", "Data", "data_of_call", "rows_of"]

TRAINING = "training"
"""The name of the data that an estimator was fitted to."""

_MOST_BYTES = 64 * 2**20
"""Of data that are copied: so much takes a few hundredths of a second. Of more, some rows are copied."""


@dataclass(frozen=True, slots=True)
class Data:
    """Samples, and what is known of them.

    Attributes:
        features: What `fit` calls ``X``: array of shape (rows, features), data frame, sparse matrix or list.
        targets: What `fit` calls ``y``, of shape (rows,) or (rows, outputs); None where there is none.
        weights: The ``sample_weight``, of shape (rows,); None where there is none.
        name: ``training``, or what the caller's variable with the features is called.
        rows: How many samples the caller has; None where they cannot be counted.
        kept: How many of them are here, chosen at random with a fixed seed; the same as `rows` unless they are many.
    """

    features: Any
    targets: Any = None
    weights: Any = None
    name: str = TRAINING
    rows: int | None = None
    kept: int | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether only some of the caller's samples are here."""
        return self.kept != self.rows

    @property
    def size(self) -> int:
        """About how many bytes they take."""
        return _bytes_of(self.features) + _bytes_of(self.targets)

    @property
    def feature_names(self) -> list[str] | None:
        """The names of the features, where a data frame has them."""
        columns = getattr(self.features, "columns", None)
        return None if columns is None else [str(name) for name in columns]

    def kept_as_is(self) -> Data:
        """Return a copy that stays as it is, whatever the caller does with theirs; of many samples, some.

        Raises:
            Exception: The data are of a type that cannot be copied.
        """
        size = self.size
        if size <= _MOST_BYTES or self.rows is None or self.rows < 2:  # noqa: PLR2004  # nothing to choose from
            return replace(
                self,
                features=_copied(self.features),
                targets=_copied(self.targets),
                weights=_copied(self.weights),
            )
        keep = max(1, int(self.rows * _MOST_BYTES / size))
        return replace(self._at(np.sort(np.random.default_rng(0).choice(self.rows, keep, replace=False))), kept=keep)

    def first(self, rows: int) -> Data:
        """Return the first samples alone."""
        if self.rows is None or self.rows <= rows:
            return self
        return replace(self._at(np.arange(rows)), rows=rows, kept=rows)

    def head(self, rows: int) -> Any:  # noqa: ANN401  # whatever the features are
        """Return the first samples' features, in the type that they have."""
        there = [count for count in (self.rows, self.kept) if count is not None]
        return _taken(self.features, np.arange(min([rows, *there])))

    def _at(self, chosen: Any) -> Data:  # noqa: ANN401  # numpy's array of row numbers
        """Return some of the samples."""
        return replace(
            self,
            features=_taken(self.features, chosen),
            targets=_taken(self.targets, chosen),
            weights=_taken(self.weights, chosen),
        )


def data_of_call(method: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Data | None:
    """Return the data among the arguments of a method such as `fit` or `score`; None where there are none.

    Whatever the estimator calls them, the first argument is the features and the second one the targets, if it is one
    of those that estimators call so.

    Args:
        method: The bound method.
        arguments: Positional ones, without ``self``.
        keywords: Those by name.
    """
    try:
        bound = inspect.signature(method).bind_partial(*arguments, **keywords)
    except (TypeError, ValueError):
        # The call itself will say what is wrong with it.
        return None
    values = dict(bound.arguments)
    names = [
        name
        for name, parameter in bound.signature.parameters.items()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    for parameter in bound.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            values |= values.pop(parameter.name, {})
    if not names or names[0] not in values:
        return None
    targets = next((values[name] for name in _TARGETS if values.get(name) is not None), None)
    features = values[names[0]]
    rows = rows_of(features)
    return Data(features, targets, values.get("sample_weight"), TRAINING, rows, rows)


_TARGETS = ("y", "Y", "y_true", "target", "targets", "labels")


def rows_of(values: Any) -> int | None:  # noqa: ANN401
    """Return how many samples something holds; None where they cannot be counted."""
    shape = getattr(values, "shape", None)
    if isinstance(shape, tuple) and shape:
        return int(shape[0])
    try:
        return len(values)
    except TypeError:
        return None


def _bytes_of(values: Any) -> int:  # noqa: ANN401
    """Return about how much memory values take; of Python's own objects not what they refer to."""
    data: Any = getattr(values, "data", None)
    if hasattr(values, "nnz") and hasattr(data, "nbytes"):
        # A sparse matrix: values, and two indices at most for each.
        return 3 * int(data.nbytes)
    size = getattr(values, "nbytes", None)
    if isinstance(size, int):
        return size
    usage = getattr(values, "memory_usage", None)
    if callable(usage):
        used = usage()
        return int(used.sum() if hasattr(used, "sum") else used)
    rows = rows_of(values)
    return 0 if rows is None else rows * 100


def _copied(values: Any) -> Any:  # noqa: ANN401
    copied = getattr(values, "copy", None)
    return copied() if callable(copied) and hasattr(values, "shape") else copy.copy(values)


def _taken(values: Any, rows: Any) -> Any:  # noqa: ANN401
    """Return some rows of anything that has them."""
    from sklearn.utils import _safe_indexing

    return None if values is None else _safe_indexing(values, rows)
