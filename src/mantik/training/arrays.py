"""Tensors and arrays of all frameworks as arrays of numpy."""

from __future__ import annotations

import importlib
from typing import Any

from mantik.exceptions import MissingExtraError

__all__ = ["as_array", "has_channels_first", "package"]

_EXTRA = "media"


def package(name: str, feature: str) -> Any:  # noqa: ANN401  # a module, or what a checker makes of one
    """Import an optional package.

    Args:
        name: The module, e.g. ``PIL.Image``.
        feature: What needs it, e.g. ``log_image``.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:
            raise
        raise MissingExtraError(feature, {"PIL": "pillow"}.get(top, top), _EXTRA) from error


def as_array(value: object, feature: str) -> Any | None:  # noqa: ANN401  # numpy is optional
    """Return a tensor or an array of any framework as an array of numpy; None where it is neither.

    Args:
        value: Anything. A tensor may be on any device, which is waited for, and may require a gradient.
        feature: What needs it, for the error.

    Raises:
        MissingExtraError: numpy is not installed.
    """
    if callable(getattr(value, "detach", None)):
        tensor: Any = value.detach().cpu()  # type: ignore[attr-defined]  # asked for above
        try:
            return tensor.numpy()
        except TypeError:
            # numpy has no numbers of 8 bits or of bfloat16.
            return tensor.float().numpy()
    if not hasattr(value, "__array__"):
        return None
    array = package("numpy", feature).asarray(value)
    # What jax and TensorFlow call bfloat16 is unknown to numpy's own functions.
    return array.astype("float32") if array.dtype.kind == "V" and array.dtype.names is None else array


def has_channels_first(value: object) -> bool:
    """Tell whether a value is a tensor of torch, whose convention is channels before height and width."""
    return callable(getattr(value, "detach", None))
