"""Values of metrics: whatever frameworks hand over, as numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mantik.exceptions import InvalidValueError
from mantik.training.names import distinct
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["flat_metrics", "number_of"]

_MOST_CHARACTERS = 100
_TEXTS = (str, bytes, bytearray)
"""What Python's float() would read."""


def flat_metrics(metrics: Mapping[str, object], prefix: str = "", separator: str = "-") -> dict[str, float]:
    """Return numbers by name, with the names of nested mappings joined by slashes.

    ``{"train": {"loss": 0.5}}`` is ``train/loss``. Where two names come out the same, such as with ``{"a": {"b": 1},
    "a/b": 2}``, the first in the mapping's order keeps it, and the next gets a name of its own, as of
    `mantik.training.names.distinct`. Names that MLflow does not hold are not mapped here.

    Args:
        metrics: Plain numbers, tensors and arrays with one element, and mappings of such. Names that are no strings
            are taken by their text.
        prefix: Goes in front of every name, e.g. ``train``.
        separator: Joins the prefix to a name; Lightning's is a hyphen.

    Raises:
        InvalidValueError: A value is no number, or a mapping contains itself.
    """
    front = f"{prefix}{separator}" if prefix else ""
    flat: dict[str, float] = {}
    for name, value in _leaves(metrics, front, (id(metrics),)):
        free = distinct(name, flat) if name in flat else name
        flat[free] = number_of(name, value)
    return flat


def number_of(name: str, value: object) -> float:
    """Return the number that a value of a metric is. NaN and infinities are numbers.

    Args:
        name: The metric, for the error.
        value: A number of any kind, e.g. of numpy or the module decimal, or a tensor or array with one element. A
            tensor may be on any device, which is waited for, and may require a gradient.

    Raises:
        InvalidValueError: It is none, or it is larger than a float can be.
        RuntimeError: The device that holds it has failed; the error is the framework's own.
    """
    # Most are plain, and this is called for every value at every step.
    if type(value) is float:
        return value
    if isinstance(value, _TEXTS):
        raise InvalidValueError(f"{_refusal(name, value)}; texts belong into log_text or tags.", name)
    try:
        return float(_element(value))  # type: ignore[arg-type]  # what is none raises
    except OverflowError as error:
        raise InvalidValueError(
            f"The metric {name!r} is larger than a float can be. Scale it, or log its logarithm.", name
        ) from error
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"{_refusal(name, value)}.", name) from error


def _leaves(metrics: Mapping[str, object], front: str, above: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    for key, value in metrics.items():
        name = front + (key if type(key) is str else text_of(key))
        if type(value) is float or not isinstance(value, Mapping):
            yield name, value
        elif id(value) in above:
            raise InvalidValueError(f"The metrics {name!r} contain themselves. Log numbers by name.", name)
        else:
            yield from _leaves(value, f"{name}/", (*above, id(value)))


def _element(value: object) -> object:
    """Return the one element of a tensor or an array, anything else as it is.

    Raises:
        TypeError, ValueError: There is not exactly one.
    """
    take = getattr(value, "item", None)
    if not callable(take):
        return value
    size = getattr(value, "size", None)
    count = getattr(value, "numel", None) if callable(size) else None
    size = count() if callable(count) else size
    # Asked for here, because torch's own refusal is no other error than that of a failed device.
    if isinstance(size, int) and size != 1:
        raise ValueError(f"it has {size} elements")
    element = take()
    if isinstance(element, _TEXTS):
        raise TypeError("its element is a text")
    return element


def _refusal(name: str, value: object) -> str:
    kind = type(value).__name__
    shown = repr(value) if isinstance(value, _TEXTS) else text_of(value)
    if len(shown) > _MOST_CHARACTERS:
        shown = f"{shown[:_MOST_CHARACTERS]}…"
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    return (
        f"The metric {name!r} is {shown} ({article} {kind}), which is no number. Log a number, or a tensor or array "
        "with one element"
    )
