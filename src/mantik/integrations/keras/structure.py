"""What Keras takes as data: arrays, and dicts, lists and tuples of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mantik.integrations.keras.kinds import Data

__all__ = ["leaves", "mapped", "named_leaves"]


def leaves(data: Data) -> Iterator[Data]:
    """Yield the arrays, or whatever else is there in their place."""
    return (leaf for _, leaf in named_leaves(data))


def named_leaves(data: Data, name: str = "") -> Iterator[tuple[str, Data]]:
    """Yield the arrays with what leads to each: keys and positions, joined by slashes; one alone has no name."""
    front = f"{name}/" if name else ""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from named_leaves(value, f"{front}{key}")
    elif isinstance(data, (list, tuple)):
        for at, value in enumerate(data):
            yield from named_leaves(value, f"{front}{at}")
    elif data is not None:
        yield name, data


def mapped(function: Callable[..., Data], *data: Data) -> Data:
    """Return a structure with what a function makes of the arrays at the same place in each of the structures."""
    first = data[0]
    if isinstance(first, Mapping):
        return {key: mapped(function, *(one[key] for one in data)) for key in first}
    if isinstance(first, (list, tuple)):
        parts = [mapped(function, *part) for part in zip(*data, strict=True)]
        return parts if isinstance(first, list) else tuple(parts)
    return None if first is None else function(*data)
