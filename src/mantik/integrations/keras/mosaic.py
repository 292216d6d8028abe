"""One picture of some samples that are images, each with what it is and what it was taken for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]
import numpy as np

from mantik.training.arrays import package
from mantik.training.pixels import gray_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from mantik.integrations.keras.kinds import Array
    from mantik.integrations.keras.predictions import Classes

__all__ = ["images_of", "mosaic", "verdicts"]

_LEAST_PIXELS = 8
_CHANNELS = (1, 3, 4)
_COLUMNS = 8
_INCHES = 1.3


def images_of(x: Array, count: int) -> list[Array] | None:
    """Return the first samples as images, where they are that.

    Args:
        x: The samples.
        count: How many.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "uif":
        return None
    if x.ndim == 3 and min(x.shape[1:]) >= _LEAST_PIXELS:  # noqa: PLR2004  # samples, height and width
        return list(x[:count])
    if x.ndim == 4:  # noqa: PLR2004  # with channels
        images = np.moveaxis(x[:count], 1, -1) if keras.config.image_data_format() == "channels_first" else x[:count]
        if images.shape[-1] in _CHANNELS and min(images.shape[1:3]) >= _LEAST_PIXELS:
            return list(images)
    return None


def verdicts(y: Array, predictions: Array, classes: Classes | None, count: int) -> list[tuple[str, bool]] | None:
    """Return what is said of each of the first samples, what it is and was taken for, and whether the class is wrong.

    None where a sample is not one value.

    Args:
        y: The targets.
        predictions: The predictions.
        classes: The same as classes, where they are that.
        count: How many.
    """
    if classes is not None:
        pairs = zip(classes.targets[:count].tolist(), classes.predicted[:count].tolist(), strict=True)
        return [(f"true {target}\npredicted {predicted}", target != predicted) for target, predicted in pairs]
    values = [_one_each(y, count), _one_each(predictions, count)]
    if values[0] is None or values[1] is None or len(values[0]) != len(values[1]):
        return None
    return [(f"true {target:.4g}\npredicted {predicted:.4g}", False) for target, predicted in zip(*values, strict=True)]


def mosaic(images: Sequence[Array], words: Sequence[tuple[str, bool]] | None) -> Figure:
    """Return a figure with all images in rows.

    Args:
        images: Arrays of the shape height x width, or with channels as the last axis.
        words: What is written above each image, and whether in red; None: nothing.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    height = _INCHES if words is None else 1.4 * _INCHES
    figure: Figure = package("matplotlib.figure", "A picture of samples").Figure(
        (max(columns, 3) * _INCHES, rows * height), layout="constrained", dpi=150
    )
    for at, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, at + 1)
        axes.set_axis_off()
        levels = gray_levels(image, f"sample {at}", "evaluation")
        axes.imshow(levels[..., 0] if levels.shape[2:] == (1,) else levels, cmap="gray", vmin=0, vmax=255)
        if words is not None:
            text, is_wrong = words[at]
            axes.set_title(text, fontsize=7, color="tab:red" if is_wrong else "black")
    return figure


def _one_each(data: Array, count: int) -> Any | None:  # noqa: ANN401  # a list of numbers
    """Return a number for each of the first samples; None where there is not one for each."""
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "biuf" or data.size != len(data):
        return None
    return data.reshape(-1)[:count].tolist()
