"""What tells data from other data, at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import _safe_indexing

from mantik.integrations.sklearn.evaluation import attempted

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mantik.integrations.sklearn.data import Data

__all__ = ["fingerprint"]

_MOST_BYTES = 2**16
"""That are looked at, which takes less than a tenth of a millisecond."""

_MOST_OBJECTS = 256
"""Of those that are no numbers."""

_LONGEST_TEXT = 100

_LEAST_ROWS = 16


def fingerprint(data: Data) -> int | None:
    """Return what is the same for equal features, whatever holds them, and most likely differs for others.

    Of small data everything is looked at, of larger ones some rows from the first to the last. The same features have
    another number in another process.

    Returns:
        A number; None of features that cannot be looked at, or that are not there.
    """
    if data.features is None or not data.rows:
        return None
    return attempted(lambda: _number(data.features, int(data.rows or 0)))


def _number(features: Any, rows: int) -> int:  # noqa: ANN401  # whatever estimators take
    most = max(_LEAST_ROWS, _MOST_BYTES // _bytes_of_row(features))
    some = features if rows <= most else _safe_indexing(features, _spread(rows, most))
    if hasattr(some, "nnz") and hasattr(some, "indices"):
        parts = [some.data, some.indices]
    elif isinstance(some, (list, tuple)) and isinstance(some[0], (str, bytes, dict)):
        # In an array each would take as much memory as the longest one.
        parts = [np.fromiter(some, dtype=object, count=len(some))]
    else:
        parts = [np.asarray(some)]
    return hash((rows, parts[0].shape, *(_content(part.ravel()) for part in parts)))


def _bytes_of_row(features: Any) -> int:  # noqa: ANN401
    shape = getattr(features, "shape", None)
    if shape is None:
        first = features[0]
        return 32 * (len(first) if isinstance(first, (list, tuple, np.ndarray)) else 1) or 32
    # Frames have a type for each column.
    size = getattr(getattr(features, "dtype", None), "itemsize", 8)
    return int(np.prod(shape[1:], dtype=np.int64)) * size or 8


def _content(values: np.ndarray) -> Hashable:
    is_object = values.dtype.hasobject
    most = _MOST_OBJECTS if is_object else max(1, _MOST_BYTES // max(1, values.dtype.itemsize))
    some = values if len(values) <= most else values[_spread(len(values), most)]
    if is_object:
        return tuple(value[:_LONGEST_TEXT] if isinstance(value, str) else repr(value)[:_LONGEST_TEXT] for value in some)
    return values.dtype.str, some.tobytes()


def _spread(count: int, most: int) -> np.ndarray:
    """Return indices from the first to the last."""
    return np.linspace(0, count - 1, most).astype(np.int64)
