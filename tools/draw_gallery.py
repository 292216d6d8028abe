"""Draw the pictures of the documentation, docs/images/sklearn, from the data that come with scikit-learn.

Run it where mantik is installed with the extra ``sklearn``, after a change of `mantik.integrations.sklearn.pictures`::

    .venv/bin/python tools/draw_gallery.py            # all of them
    .venv/bin/python tools/draw_gallery.py roc_curve  # one
"""

# ruff: noqa: INP001, T201, ANN401  # a script; what scikit-learn takes has no types

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # scikit-learn wants it imported
from sklearn.feature_selection import SelectKBest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from mantik.integrations.sklearn.data import TRAINING, Data
from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.pictures import (
    picture_of_curve,
    picture_of_folds,
    picture_of_permutation_importance,
    pictures_of_estimator,
    pictures_of_evaluation,
    pictures_of_search,
)
from mantik.integrations.sklearn.pictures.wording import estimator_title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mantik.integrations.sklearn.pictures import Picture

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "sklearn"
COLORS = 128
"""Of a file, which takes half as much room so."""


def split(load: Callable[..., Any], columns: int | None = None, **options: Any) -> list[Any]:
    """Return training features, held-out features, and the targets of both; classes by their names."""
    data = load(as_frame=True, **options)
    names = getattr(data, "target_names", None)
    is_named = names is not None and data.target.dtype.kind == "i" and isinstance(names[0], str)
    targets = data.target.map(dict(enumerate(names))) if is_named else data.target
    return train_test_split(data.data.iloc[:, :columns], targets, test_size=0.4, random_state=0)


def logistic() -> Pipeline:
    """Return a logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def of_evaluation(name: str, estimator: Any, data: list[Any], pos_label: Any = None) -> Picture:
    """Return a picture of what an estimator, once fitted, makes of held-out data."""
    train, test, train_targets, test_targets = data
    estimator.fit(train, train_targets)
    held_out = Data(test, test_targets, None, "X_test", len(test), len(test))
    return named(name, pictures_of_evaluation(Evaluation(estimator, held_out, pos_label=pos_label)))


def of_training(name: str, estimator: Any, features: Any) -> Picture:
    """Return a picture of what an estimator makes of the data that it is fitted to."""
    data = Data(features, None, None, TRAINING, len(features), len(features))
    return named(name, pictures_of_evaluation(Evaluation(estimator.fit(features), data)))


def of_estimator(name: str, estimator: Any, data: list[Any]) -> Picture:
    """Return a picture of what an estimator has learned."""
    return named(name, pictures_of_estimator(estimator.fit(data[0], data[2]), list(data[0].columns)))


def of_search(name: str, search: Any, data: list[Any]) -> Picture:
    """Return a picture of what a search has found."""
    return named(name, pictures_of_search(search.fit(data[0], data[2])))


def named(name: str, pictures: Iterable[Picture]) -> Picture:
    """Return one of several pictures."""
    return next(picture for picture in pictures if picture.name == name)


def machine() -> Pipeline:
    """Return a support vector machine, of which two params are worth a search."""
    return make_pipeline(StandardScaler(), SVC())


def boosting() -> HistGradientBoostingRegressor:
    """Return what has more than two of them."""
    return HistGradientBoostingRegressor(max_iter=40, random_state=0)


def folds() -> Picture:
    """Return the scores of a cross-validation."""
    train, _, targets, _ = split(load_wine, 4)
    found = cross_validate(logistic(), train, targets, cv=8, scoring=("accuracy", "f1_macro"), return_train_score=True)
    scores = {name: values for name, values in found.items() if not name.endswith("_time")}
    return picture_of_folds(scores, estimator_title(logistic()))


def curve_of_sizes() -> Picture:
    """Return a learning curve."""
    train, _, targets, _ = split(load_digits)
    sizes, *scores = learning_curve(GaussianNB(), train, targets, cv=5, train_sizes=[0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
    return picture_of_curve("learning_curve", sizes, *scores, "Training samples", log_x=False, subject="GaussianNB")


def curve_of_values() -> Picture:
    """Return a validation curve."""
    train, _, targets, _ = split(load_breast_cancer)
    values = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    scores = validation_curve(machine(), train, targets, param_name="svc__gamma", param_range=values, cv=5)
    title = estimator_title(machine())
    return picture_of_curve("validation_curve", values, *scores, "svc__gamma", log_x=True, subject=title)


def importance() -> Picture:
    """Return permutation importances on held-out data."""
    train, test, train_targets, test_targets = split(load_wine)
    model = logistic().fit(train, train_targets)
    found = permutation_importance(model, test, test_targets, scoring="neg_log_loss", n_repeats=20, random_state=0)
    return picture_of_permutation_importance(found, list(train.columns), estimator_title(model))


def diabetes() -> Pipeline:
    """Return a regression on numbers and a category."""
    encoded = make_column_transformer((OneHotEncoder(drop="if_binary"), ["sex"]), remainder=StandardScaler())
    return make_pipeline(encoded, RidgeCV())


GALLERY: dict[str, Callable[[], Picture]] = {
    "confusion_matrix": lambda: of_evaluation("confusion_matrix", GaussianNB(), split(load_digits)),
    "roc_curve": lambda: of_evaluation("roc_curve", logistic(), split(load_breast_cancer, 2), "malignant"),
    "roc_curve_classes": lambda: of_evaluation("roc_curve", GaussianNB(), split(load_wine, 3)),
    "precision_recall_curve": lambda: of_evaluation(
        "precision_recall_curve", logistic(), split(load_breast_cancer, 2), "malignant"
    ),
    "calibration_curve": lambda: of_evaluation(
        "calibration_curve", RandomForestClassifier(50, random_state=0), split(load_digits)
    ),
    "predicted_vs_true": lambda: of_evaluation("predicted_vs_true", diabetes(), split(load_diabetes, scaled=False)),
    "residuals": lambda: of_evaluation("residuals", diabetes(), split(load_diabetes, scaled=False)),
    "cv_results": lambda: of_search(
        "cv_results",
        GridSearchCV(machine(), {"svc__C": [0.1, 1.0, 10.0, 100.0], "svc__gamma": [0.0001, 0.001, 0.01, 0.1, 1.0]}),
        split(load_breast_cancer),
    ),
    "cv_results_line": lambda: of_search(
        "cv_results",
        GridSearchCV(logistic(), {"logisticregression__C": [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]}),
        split(load_breast_cancer),
    ),
    "cv_results_parallel": lambda: of_search(
        "cv_results",
        RandomizedSearchCV(
            boosting(),
            {
                "learning_rate": [0.01, 0.03, 0.1, 0.3],
                "max_leaf_nodes": [3, 7, 15, 31],
                "l2_regularization": [0.0, 1.0, 10.0],
                "loss": ["squared_error", "absolute_error"],
            },
            n_iter=15,
            cv=3,
            random_state=0,
        ),
        split(load_diabetes),
    ),
    "cv_results_by_iteration": lambda: of_search(
        "cv_results_by_iteration",
        HalvingGridSearchCV(
            machine(), {"svc__C": [0.1, 1, 10, 100], "svc__gamma": [0.001, 0.01, 0.1]}, min_resources=80, random_state=0
        ),
        split(load_digits),
    ),
    "cross_validation": folds,
    "learning_curve": curve_of_sizes,
    "validation_curve": curve_of_values,
    "permutation_importance": importance,
    "feature_importance": lambda: of_estimator(
        "feature_importance", RandomForestClassifier(100, random_state=0), split(load_wine)
    ),
    "coefficients": lambda: of_estimator(
        "coefficients",
        make_pipeline(StandardScaler(), SelectKBest(k=12), LogisticRegression(max_iter=1000)),
        split(load_breast_cancer),
    ),
    "training_curve": lambda: of_estimator(
        "training_curve",
        make_pipeline(StandardScaler(), MLPClassifier(early_stopping=True, max_iter=100, random_state=0)),
        split(load_digits),
    ),
    "explained_variance": lambda: of_estimator("explained_variance", PCA(20), split(load_digits)),
    "cluster_projection": lambda: of_training(
        "cluster_projection", make_pipeline(StandardScaler(), KMeans(3, n_init=5, random_state=0)), split(load_wine)[0]
    ),
    "cluster_sizes": lambda: of_training(
        "cluster_sizes", make_pipeline(StandardScaler(), KMeans(6, n_init=5, random_state=0)), split(load_digits)[0]
    ),
    "silhouette": lambda: of_training(
        "silhouette", make_pipeline(StandardScaler(), KMeans(3, n_init=5, random_state=0)), split(load_wine)[0]
    ),
    "outlier_scores": lambda: of_training("outlier_scores", IsolationForest(random_state=0), split(load_wine)[0]),
}
"""What each file shows, by its name without ending."""


def main(names: list[str]) -> None:
    """Draw pictures, all unless some are named."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or GALLERY:
        path = FOLDER / f"{name}.png"
        GALLERY[name]().save(path)
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
        print(f"{path.relative_to(FOLDER.parents[2])}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
