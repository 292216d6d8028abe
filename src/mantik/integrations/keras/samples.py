"""The first samples of a dataset, taken without using it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.keras.structure import leaves, mapped
from mantik.training.arrays import as_array

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mantik.integrations.keras.kinds import Array, Data

__all__ = ["are_arrays", "first_of_arrays", "first_samples", "kind_of"]

_FEATURE = "MantikCallback"


def kind_of(data: Data) -> str:
    """Return what a dataset is: ``arrays``, ``DataLoader``, ``PyDataset``, ``tf.data``, or another's type."""
    for base in type(data).__mro__:
        if base.__name__ == "DataLoader" and base.__module__.startswith("torch.utils.data"):
            return "DataLoader"
        if base.__name__ in {"PyDataset", "Sequence"} and base.__module__.startswith("keras."):
            return "PyDataset"
        if base.__name__ == "DatasetV2" and base.__module__.startswith("tensorflow."):
            return "tf.data"
    return "arrays" if are_arrays(data) else type(data).__name__


def are_arrays(data: Data) -> bool:
    """Tell whether something is an array, a tensor, a table of pandas, or a structure of such."""
    found = [hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") for leaf in leaves(data)]
    return bool(found) and all(found)


def first_of_arrays(data: Data, count: int) -> Array:
    """Return the first samples of arrays, as arrays of numpy."""
    return mapped(lambda leaf: as_array(leaf[:count], _FEATURE), data)


def first_samples(x: Data, y: Data, count: int) -> tuple[Array, Array] | None:
    """Return the first samples and their targets, as arrays of numpy; None of what can be gone through only once.

    Args:
        x: The data.
        y: The targets; None where they are within the data.
        count: The most samples.
    """
    kind = kind_of(x)
    if kind == "arrays":
        return first_of_arrays(x, count), first_of_arrays(y, count)
    batches: Iterable[Any]
    if kind == "PyDataset":
        number = getattr(x, "num_batches", None)
        batches = (x[at] for at in range(count if number is None else number))
    elif kind == "tf.data" or (kind == "DataLoader" and not _is_stream(x.dataset)):
        batches = x
    else:
        return None
    parts: list[tuple[Array, Array]] = []
    found = 0
    for features, targets in map(_unpacked, batches):
        parts.append((first_of_arrays(features, count), first_of_arrays(targets, count)))
        found += max((len(leaf) for leaf in leaves(parts[-1][0])), default=0)
        if found >= count:
            break
    if not parts:
        return None

    def joined(*arrays: Array) -> Array:
        return np.concatenate(arrays)[:count]

    return mapped(joined, *(one for one, _ in parts)), mapped(joined, *(one for _, one in parts))


def _is_stream(dataset: object) -> bool:
    return any(base.__name__ == "IterableDataset" for base in type(dataset).__mro__)


def _unpacked(batch: Data) -> tuple[Data, Data]:
    """Return data and targets of a batch, without the weights of its samples."""
    if not isinstance(batch, (tuple, list)):
        return batch, None
    return batch[0], batch[1] if len(batch) > 1 else None
