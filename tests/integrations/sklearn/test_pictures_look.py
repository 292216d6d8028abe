"""How pictures look, and that what the user has set of matplotlib neither changes them nor is changed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from mantik.integrations.sklearn.pictures import (
    Picture,
    picture_of_curve,
    picture_of_folds,
    picture_of_permutation_importance,
    pictures_of_estimator,
    pictures_of_evaluation,
    pictures_of_search,
)
from tests.integrations.sklearn.drawings import IRIS, evaluation, pixels, ticks_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = np.random.default_rng(0).normal(size=(40, 3))


@cache
def gallery() -> dict[str, Picture]:
    """Return a picture of each sort, by its name."""
    found: dict[str, Picture] = {}
    for picture in every_picture():
        found[f"{picture.name}-{sum(name.startswith(picture.name) for name in found)}"] = picture
    return found


def every_picture() -> Iterator[Picture]:
    """Yield one picture of each sort at least, of which each shows something."""
    classifier = GradientBoostingClassifier(n_estimators=3).fit(IRIS.data, IRIS.target)
    regressor = LinearRegression().fit(IRIS.data, IRIS.target)
    for estimator in (classifier, regressor, KMeans(3, n_init=1, random_state=0).fit(IRIS.data)):
        yield from pictures_of_evaluation(evaluation(estimator, IRIS.data, IRIS.target))
    yield from pictures_of_evaluation(evaluation(IsolationForest(n_estimators=5, random_state=0).fit(ROWS), ROWS))
    for estimator in (classifier, regressor, PCA().fit(IRIS.data)):
        yield from (picture for picture in pictures_of_estimator(estimator, None) if picture.draw())
    grid = {"max_depth": [1, 2], "criterion": ["gini", "entropy"], "max_features": [1, 2]}
    for params in (1, 2, 3):
        varied = dict(list(grid.items())[:params])
        yield from pictures_of_search(GridSearchCV(DecisionTreeClassifier(), varied, cv=2).fit(IRIS.data, IRIS.target))
    yield picture_of_folds({"test_score": np.arange(3) / 3}, "$Ridge$")
    scores = np.random.default_rng(0).random((3, 2))
    yield picture_of_curve("validation_curve", [0.01, 0.1, 1], scores, scores, "C", log_x=True)
    result = {"importances": scores, "importances_mean": scores.mean(axis=1)}
    yield picture_of_permutation_importance(result, ["a", "b", "c"])


SORTS = {
    "calibration_curve": 1,
    "cluster_projection": 1,
    "cluster_sizes": 1,
    "coefficients": 1,
    "confusion_matrix": 1,
    "cross_validation": 1,
    "cv_results": 3,
    "explained_variance": 1,
    "feature_importance": 1,
    "outlier_scores": 1,
    "permutation_importance": 1,
    "precision_recall_curve": 1,
    "predicted_vs_true": 1,
    "residuals": 1,
    "roc_curve": 1,
    "silhouette": 1,
    "training_curve": 1,
    "validation_curve": 1,
}
ALL = [f"{name}-{at}" for name, count in SORTS.items() for at in range(count)]


@pytest.mark.parametrize("name", ALL)
def test_every_picture_is_a_png_with_a_title_and_labels(name: str, tmp_path: Path) -> None:
    """It is 960 pixels wide, each part of it says what its axes are, and nothing that is written is cut off."""
    figure = gallery()[name].draw()
    assert figure is not None
    image = pixels(Picture(name, lambda: figure), tmp_path)
    assert image.shape[1:] == (960, 3)
    assert 400 < image.shape[0] < 1000
    assert all((edge == 255).all() for edge in (image[0], image[-1], image[:, 0], image[:, -1]))
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = min(text.get_window_extent(renderer).y0 for text in figure.texts)
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        assert axes.get_xlabel() or axes.get_ylabel() or len(ticks_of(axes, "x")) > 1
        box = axes.get_tightbbox(renderer)
        assert box is not None
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= title + 1
    assert figure.texts[0].get_weight() == "bold"
    assert all(text.get_window_extent(renderer).x1 <= figure.bbox.x1 for text in figure.texts)


WILD = {
    "axes.autolimit_mode": "round_numbers",
    "axes.formatter.use_mathtext": True,
    "axes.titlelocation": "right",
    "axes.unicode_minus": False,
    "axes.xmargin": 0.4,
    "figure.autolayout": True,
    "figure.dpi": 30,
    "font.family": ["cursive"],
    "font.size": 30,
    "font.style": "italic",
    "font.weight": "bold",
    "legend.borderpad": 4,
    "legend.shadow": True,
    "lines.marker": "x",
    "patch.force_edgecolor": True,
    "path.effects": [withStroke(linewidth=5, foreground="g")],
    "path.sketch": (3, 80, 2),
    "pcolor.shading": "gouraud",
    "savefig.bbox": "tight",
    "savefig.dpi": 30,
    "savefig.transparent": True,
    "text.usetex": True,
    "xtick.alignment": "right",
    "xtick.labelbottom": False,
    "xtick.minor.visible": True,
    "xtick.top": True,
    "ytick.alignment": "top",
}


@pytest.mark.parametrize(
    "name", ["roc_curve-0", "residuals-0", "confusion_matrix-0", "cv_results-0", "cv_results-2", "silhouette-0"]
)
def test_what_the_user_has_set_of_matplotlib_changes_nothing(name: str, tmp_path: Path) -> None:
    """A picture is the same to the pixel, whatever style is in use."""
    expected = pixels(gallery()[name], tmp_path)
    with mpl.style.context(["dark_background", WILD]):
        np.testing.assert_array_equal(pixels(gallery()[name], tmp_path), expected)


def test_pictures_are_drawn_in_threads_beside_each_other(tmp_path: Path) -> None:
    """What comes of four threads at once is what comes of one."""
    pictures = [gallery()[name] for name in ALL[:3]]
    expected = [pixels(picture, tmp_path) for picture in pictures]

    def draw(at: int) -> np.ndarray:
        folder = tmp_path / str(at)
        folder.mkdir()
        return pixels(pictures[at % 3], folder)

    with ThreadPoolExecutor(4) as threads:
        for at, image in enumerate(threads.map(draw, range(6))):
            np.testing.assert_array_equal(image, expected[at % 3])


def test_pyplot_is_not_imported_and_no_parameter_is_changed(tmp_path: Path) -> None:
    """Drawing leaves no trace in matplotlib, nor in the random numbers of numpy."""
    program = """
        import sys
        from pathlib import Path
        import matplotlib
        import numpy as np
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        from mantik.integrations.sklearn.data import Data
        from mantik.integrations.sklearn.evaluation import Evaluation
        from mantik.integrations.sklearn.pictures import pictures_of_estimator, pictures_of_evaluation

        before, state = dict(dict.items(matplotlib.rcParams)), np.random.get_state()[1].tolist()
        x, y = load_iris(return_X_y=True)
        model = LogisticRegression(max_iter=500).fit(x, y)
        shown = 0
        evaluation = Evaluation(model, Data(x, y, None, "x", 150, 150))
        for picture in [*pictures_of_evaluation(evaluation), *pictures_of_estimator(model, None)]:
            shown += picture.save(Path(sys.argv[1]))
        assert shown == 5, shown
        assert "matplotlib.pyplot" not in sys.modules
        assert dict(dict.items(matplotlib.rcParams)) == before
        assert np.random.get_state()[1].tolist() == state
    """
    run = subprocess.run(  # noqa: PLW1510  # the exit status is looked at below
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(tmp_path / "picture.png")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr
