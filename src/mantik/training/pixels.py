"""Whatever shows a picture, as an image of Pillow."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.training.arrays import as_array, has_channels_first, package

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_picture", "channels_last", "figure_of", "gray_levels", "is_image", "is_picture"]

_CHANNELS = (1, 3, 4)
_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_ALPHA_MODES = frozenset({"PA", "La", "RGBa"})
_DEEP_MODES = ("I", "F")
_FEATURE = "To log images"

_EXPECTED = (
    "Expected is height x width, or that with 1, 3 or 4 channels: an array has them last, a tensor of torch first"
)


def is_picture(value: object) -> bool:
    """Tell whether a value shows a picture: an image, a figure, or an array or tensor with two axes or more."""
    if is_image(value) or figure_of(value) is not None:
        return True
    axes = getattr(value, "ndim", None)
    return isinstance(axes, int) and axes > 1 and not hasattr(value, "columns")


def is_image(value: object) -> bool:
    """Tell whether a value is an image of Pillow or of MLflow."""
    return _is_pillow(value) or callable(getattr(value, "to_pil", None))


def figure_of(value: object) -> Any | None:  # noqa: ANN401  # matplotlib is optional
    """Return a figure of matplotlib: itself, or the one of given axes; None where the value is neither."""
    if callable(getattr(value, "savefig", None)):
        return value
    owner = getattr(value, "get_figure", None)
    return owner() if callable(owner) else None


def as_picture(value: object, what: str, key: str) -> Image:
    """Return what shows a picture as an image that can be written as PNG.

    Args:
        value: The path of an image file, an image of Pillow or of MLflow, a figure or axes of matplotlib, or an array
            or tensor as of `channels_last` and `gray_levels`.
        what: Which one it is, for the error, e.g. ``image 3``.
        key: What the training calls it, for the error.

    Raises:
        InvalidValueError: It shows none.
        MissingExtraError: pillow or numpy is not installed.
    """
    pil = package("PIL.Image", _FEATURE)
    if callable(getattr(value, "to_pil", None)):
        value = value.to_pil()  # type: ignore[attr-defined]  # asked for above
    figure = figure_of(value)
    if figure is not None:
        content = io.BytesIO()
        figure.savefig(content, format="png")
        value = content
    if isinstance(value, (str, os.PathLike, io.BytesIO)) or _is_pillow(value):
        return _read(value, what, key)
    array = as_array(value, _FEATURE)
    if array is None:
        raise InvalidValueError(
            f"{what} of {key!r} is of the type {type(value).__name__}. Expected is the path of an image file, an image "
            "of Pillow, a figure of matplotlib, an array or a tensor.",
            key,
        )
    levels = gray_levels(channels_last(array, what, key, first=has_channels_first(value)), what, key)
    image: Image = pil.fromarray(levels[:, :, 0] if levels.shape[2:] == (1,) else levels)
    return image


def channels_last(array: Any, what: str, key: str, *, first: bool) -> Any:  # noqa: ANN401  # numpy is optional
    """Return an image's array with its channels, if there are any, as the last of its axes.

    The channels are the last axis, of tensors of torch the first. Where that one's length is not 1, 3 or 4, and the
    other's is, they are the other.

    Args:
        array: Two or three axes.
        what: Which one it is, for the error.
        key: What the training calls it, for the error.
        first: Whether it is a tensor of torch.

    Raises:
        InvalidValueError: The shape is not that of an image.
    """
    if 0 not in array.shape:
        if array.ndim == 2:  # noqa: PLR2004  # height and width
            return array
        for axis in (0, 2) if first else (2, 0):
            if array.ndim == 3 and array.shape[axis] in _CHANNELS:  # noqa: PLR2004  # with channels
                return package("numpy", _FEATURE).moveaxis(array, axis, -1)
    raise InvalidValueError(f"{what} of {key!r} has the shape {tuple(array.shape)}. {_EXPECTED}.", key)


def gray_levels(array: Any, what: str, key: str) -> Any:  # noqa: ANN401  # numpy is optional
    """Return the values of an array as levels from 0 to 255.

    Whole numbers from 0 to 255 are taken as they are; other numbers from 0 to 1, and bool, are multiplied by 255. Where
    one of the values lies outside of that, all are stretched: the lowest becomes 0 and the highest 255. NaN becomes 0.
    What the values are is never an error: a model that diverges must not end its training.

    Args:
        array: Any shape but an empty one.
        what: Which one it is, for the error.
        key: What the training calls it, for the error.

    Raises:
        InvalidValueError: The values are no numbers.
    """
    numpy = package("numpy", _FEATURE)
    if array.dtype == numpy.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(numpy.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise InvalidValueError(f"{what} of {key!r} has values of the type {array.dtype}. Expected are numbers.", key)
    top = 1.0 if array.dtype.kind == "f" else 255.0
    values = array.astype(numpy.result_type(array.dtype, numpy.float32))
    finite = values[numpy.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, top)
    with numpy.errstate(invalid="ignore"):
        if low >= 0 and high <= top:
            values = values / top
        elif low < high:
            # By halves: the difference of two floats may be too large for a float.
            values = (values / 2 - low / 2) / (high / 2 - low / 2)
        else:
            # One value alone cannot be stretched.
            values = numpy.where(values > 0, 1.0, 0.0)
        return (numpy.nan_to_num(values, nan=0.0).clip(0.0, 1.0) * 255).round().astype(numpy.uint8)


def _is_pillow(value: object) -> bool:
    # Who has an image of Pillow has imported it.
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)


def _read(source: Any, what: str, key: str) -> Image:  # noqa: ANN401  # a path, an open file or an image
    """Read an image, which is in a mode that PNG knows then, with levels of 8 bits."""
    pil = package("PIL.Image", _FEATURE)
    try:
        if _is_pillow(source):
            # One that was opened is read from its file only now.
            source.load()
            image: Image = source
        else:
            with pil.open(source) as opened:
                # Cameras write down how they were held.
                image = package("PIL.ImageOps", _FEATURE).exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        # SyntaxError, ValueError: what Pillow says of files that are damaged.
        raise InvalidValueError(f"{what} of {key!r} cannot be read as an image: {error}.", key) from error
    if image.mode.startswith(_DEEP_MODES):
        levels = gray_levels(package("numpy", _FEATURE).asarray(image), what, key)
        plain: Image = pil.fromarray(levels)
        return plain
    if image.mode in _PLAIN_MODES:
        return image
    return image.convert("RGBA" if image.mode in _ALPHA_MODES else "RGB")
