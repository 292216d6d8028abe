"""What predictions are worth: a table of them, and for classes a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.keras.structure import named_leaves
from mantik.training.arrays import package

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mantik.integrations.keras.kinds import Array

__all__ = ["Classes", "classes_of", "confusion_figure", "table_of"]

_LONGEST_CELL = 32
"""Elements of an array that are shown in a table."""

_MOST_CLASSES = 50


@dataclass(frozen=True, slots=True)
class Classes:
    """Predictions of classes.

    Attributes:
        targets: The number of the right class of each sample.
        predicted: The number of the predicted one.
        confidence: How sure the model is of that, from 0 to 1.
        count: How many classes there are.
    """

    targets: Array
    predicted: Array
    confidence: Array
    count: int


def classes_of(y: Array, predictions: Array, loss: str) -> Classes | None:
    """Return targets and predictions as classes; None where they are none.

    Args:
        y: The targets: numbers of classes, or one of them marked in a row for each sample.
        predictions: What the model says: one value a class and sample, or one alone for yes and no.
        loss: The name of the loss.
    """
    if not isinstance(y, np.ndarray) or not isinstance(predictions, np.ndarray) or len(y) != len(predictions):
        return None
    values = predictions.reshape(len(predictions), -1).astype("float64")
    truth = y.reshape(len(y), -1)
    if values.shape[1] == 1:
        if "binary" not in loss and not (truth.dtype.kind == "b" or loss.endswith("hinge")):
            return None
        # What is no probability is the logarithm of the odds.
        is_probability = bool(((values >= 0) & (values <= 1)).all())
        chance = values[:, 0] if is_probability else 1 / (1 + np.exp(-values[:, 0].clip(-500, 500)))
        predicted = (chance >= 0.5).astype(int)  # noqa: PLR2004  # more likely than not
        right = (truth[:, 0] > 0).astype(int)
        return Classes(right, predicted, np.where(predicted == 1, chance, 1 - chance), 2)
    numbers = _class_numbers(truth, values.shape[1])
    if numbers is None or not (predictions.ndim == 2 and ("crossentropy" in loss or _are_classes(y))):  # noqa: PLR2004
        return None
    if not (values >= 0).all() or not np.allclose(values.sum(axis=1), 1, atol=1e-2):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        values = powers / powers.sum(axis=1, keepdims=True)
    return Classes(numbers, values.argmax(axis=1), values.max(axis=1), values.shape[1])


def table_of(y: Array, predictions: Array, classes: Classes | None, count: int) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table of predictions.

    Args:
        y: The targets; None without.
        predictions: The predictions, of one output or of several.
        classes: The same as classes, where they are that.
        count: The most rows.
    """
    columns: dict[str, list[Any]] = {}
    if classes is not None:
        columns["target"] = classes.targets[:count].tolist()
        columns["prediction"] = classes.predicted[:count].tolist()
        columns["confidence"] = [round(float(value), 4) for value in classes.confidence[:count]]
        columns["correct"] = (classes.targets == classes.predicted)[:count].tolist()
    else:
        for front, data in (("target", y), ("prediction", predictions)):
            for name, leaf in named_leaves(data):
                columns[f"{front} {name}" if name else front] = [_cell(value) for value in leaf[:count]]
    rows = [list(row) for row in zip(*columns.values(), strict=False)]
    return ["sample", *columns], [[at, *row] for at, row in enumerate(rows)]


def confusion_figure(classes: Classes) -> Figure | None:
    """Return a figure that shows how often which class was taken for which; None of too many classes to read.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if classes.count > _MOST_CLASSES:
        return None
    counts = np.zeros((classes.count, classes.count), int)
    np.add.at(counts, (classes.targets, classes.predicted), 1)
    figure: Figure = package("matplotlib.figure", "A confusion matrix").Figure(layout="constrained")
    axes = figure.add_subplot()
    # By rows, so that rare classes are seen, too.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"{int(np.trace(counts))} of {counts.sum()} right")
    every = max(1, classes.count // 20)
    axes.set_xticks(range(0, classes.count, every))
    axes.set_yticks(range(0, classes.count, every))
    for row, column in np.ndindex(*counts.shape) if every == 1 else ():
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004  # half of the scale
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    return figure


def _class_numbers(truth: Array, count: int) -> Array:
    if truth.shape[1] == 1:
        numbers = truth[:, 0]
        whole = numbers.astype(int)
        return whole if (whole == numbers).all() and ((whole >= 0) & (whole < count)).all() else None
    if truth.shape[1] == count and np.isin(truth, (0, 1)).all() and (truth.sum(axis=1) == 1).all():
        return truth.argmax(axis=1)
    return None


def _are_classes(y: Array) -> bool:
    return bool(y.dtype.kind in "biu") or y.ndim > 1


def _cell(value: Array) -> object:
    array = np.asarray(value)
    if array.size == 1:
        return array.reshape(()).item()
    return array.tolist() if array.size <= _LONGEST_CELL else f"array of the shape {array.shape}"
