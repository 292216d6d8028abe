"""What the tests of pictures share: figures by their names, and what is written and drawn in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import QuadMesh
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.pictures import pictures_of_evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.pictures import Picture

BREAST = load_breast_cancer(as_frame=True)
DIABETES = load_diabetes(as_frame=True)
IRIS = load_iris(as_frame=True)
WINE = load_wine(as_frame=True)

BLUE, ORANGE = "#0072B2", "#D55E00"


def evaluation(estimator: Any, x: Any, y: Any = None, weights: Any = None, **more: Any) -> Evaluation:  # noqa: ANN401
    """Return what an estimator makes of data, which are called ``X_test`` unless told otherwise."""
    rows = x.shape[0] if hasattr(x, "shape") else len(x)
    return Evaluation(estimator, Data(x, y, weights, more.pop("data", "X_test"), rows, rows), **more)


def names_of(pictures: Iterable[Picture]) -> list[str]:
    """Return what the pictures are called that show something."""
    return [picture.name for picture in pictures if picture.draw() is not None]


def figure_of(pictures: Iterable[Picture], name: str) -> Figure:
    """Return one of several pictures as a figure."""
    (picture,) = (picture for picture in pictures if picture.name == name)
    figure = picture.draw()
    assert figure is not None, f"{name} shows nothing"
    return figure


def drawn(name: str, *arguments: Any, **keywords: Any) -> Figure:  # noqa: ANN401
    """Return a picture of an evaluation as a figure."""
    return figure_of(pictures_of_evaluation(evaluation(*arguments, **keywords)), name)


def title_of(figure: Figure) -> str:
    """Return all lines above the axes."""
    return "\n".join(text.get_text() for text in figure.texts)


def texts_of(axes: Axes) -> list[str]:
    """Return what is written at places of the data."""
    return [text.get_text() for text in axes.texts]


def ticks_of(axes: Axes, axis: str) -> list[str]:
    """Return the names along an axis."""
    found = getattr(axes, f"{axis}axis")
    return [found.get_major_formatter()(place) for place in found.get_majorticklocs()]


def line(axes: Axes, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of one of the lines."""
    x, y = axes.lines[at].get_data()
    return np.asarray(x), np.asarray(y)


def legend_of(figure: Figure) -> list[str]:
    """Return the names in all legends."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def mesh(axes: Axes) -> np.ndarray:
    """Return the numbers that the cells of a matrix have as colours."""
    (found,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    return np.ma.getdata(found.get_array())


def bars(axes: Axes) -> np.ndarray:
    """Return how long horizontal bars are, with their signs."""
    return np.array([bar.get_width() for bar in axes.patches])


def pixels(picture: Picture, folder: Path) -> np.ndarray:
    """Save a picture and read its file."""
    path = folder / "picture.png"
    assert picture.save(path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)
