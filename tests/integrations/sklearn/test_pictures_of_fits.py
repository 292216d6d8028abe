"""Pictures of fitted estimators, of searches and of validation: what is drawn is what they hold."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from scipy.stats import loguniform
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # allows the import below
from sklearn.feature_selection import RFE
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mantik.integrations.sklearn.pictures import (
    picture_of_curve,
    picture_of_folds,
    picture_of_permutation_importance,
    pictures_of_estimator,
    pictures_of_search,
)
from tests.integrations.sklearn.drawings import (
    BLUE,
    BREAST,
    DIABETES,
    IRIS,
    ORANGE,
    bars,
    figure_of,
    legend_of,
    line,
    mesh,
    names_of,
    ticks_of,
    title_of,
)

INSIDE = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
NAMES = list(DIABETES.data.columns)


def of_fit(name: str, estimator: Any, names: list[str] | None = None) -> Any:  # noqa: ANN401
    """Return a picture of a fitted estimator as a figure."""
    return figure_of(pictures_of_estimator(estimator, names), name)


def test_coefficients_are_bars_with_their_signs() -> None:
    """Each is as long as it is large, the largest first, and those below zero have another colour."""
    model = LinearRegression().fit(DIABETES.data, DIABETES.target)
    axes = of_fit("coefficients", model, NAMES).axes[0]
    order = np.argsort(-np.abs(model.coef_))
    np.testing.assert_allclose(bars(axes), model.coef_[order])
    assert ticks_of(axes, "y") == [NAMES[at] for at in order]
    colors = [to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
    assert colors == [BLUE if model.coef_[at] >= 0 else ORANGE for at in order]


def test_coefficients_of_several_classes_have_a_panel_each() -> None:
    """Up to four classes are side by side, with the same features in the same order."""
    model = LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target_names[IRIS.target])
    figure = of_fit("coefficients", model, list(IRIS.data.columns))
    order = np.argsort(-np.abs(model.coef_).mean(axis=0))
    for axes, name, row in zip(figure.axes, model.classes_, model.coef_, strict=True):
        assert axes.get_title(loc="left") == name
        np.testing.assert_allclose(bars(axes), row[order])


def test_coefficients_of_many_classes_are_summed_up() -> None:
    """Of more than four the mean size is drawn, which the title says."""
    features = np.random.default_rng(0).normal(size=(300, 6))
    model = LogisticRegression().fit(features, np.arange(300) % 9)
    figure = of_fit("coefficients", model)
    np.testing.assert_allclose(bars(figure.axes[0]), np.sort(np.abs(model.coef_).mean(axis=0))[::-1])
    assert "mean of 9 classes" in title_of(figure)


def test_of_many_features_the_thirty_most_important_are_drawn() -> None:
    """The title says how many there are."""
    features = np.random.default_rng(0).normal(size=(100, 80))
    model = RandomForestClassifier(5, random_state=0).fit(features, features[:, 3] > 0)
    figure = of_fit("feature_importance", model)
    np.testing.assert_allclose(bars(figure.axes[0]), np.sort(model.feature_importances_)[::-1][:30])
    assert ticks_of(figure.axes[0], "y")[0] == "feature 3"
    assert title_of(figure) == "Feature importance\nRandomForestClassifier · 30 of 80 features"


def test_features_have_the_names_that_pipelines_give_them() -> None:
    """Names go through the steps before, and through a search and a target's transformation around them."""
    frame = pd.DataFrame({"age": np.arange(60.0), "city": ["Bern", "Rome", "Oslo"] * 20, "empty": [0.0] * 60})
    columns = ColumnTransformer([("number", StandardScaler(), ["age"]), ("place", OneHotEncoder(), ["city"])])
    pipeline = Pipeline([("columns", columns), ("model", Ridge())])
    target = frame["age"] * 2 + (frame["city"] == "Rome")
    expected = {"number__age", "place__city_Bern", "place__city_Rome", "place__city_Oslo"}
    search = GridSearchCV(TransformedTargetRegressor(pipeline), {"regressor__model__alpha": [1, 2]}).fit(frame, target)
    for fitted in (pipeline.fit(frame, target), search):
        figure = of_fit("coefficients", fitted, list(frame.columns))
        assert set(ticks_of(figure.axes[0], "y")) == expected
    assert f"Pipeline {INSIDE} model: Ridge" in title_of(of_fit("coefficients", pipeline, list(frame.columns)))


def test_an_elimination_names_the_features_that_are_left() -> None:
    """The bars are of the features that it has kept."""
    elimination = RFE(LinearRegression(), n_features_to_select=3).fit(DIABETES.data, DIABETES.target)
    axes = of_fit("coefficients", make_pipeline("passthrough", elimination), NAMES).axes[0]
    assert set(ticks_of(axes, "y")) == set(np.array(NAMES)[elimination.support_])


def test_boosting_of_others_says_what_importances_are() -> None:
    """XGBoost's are gains, LightGBM's numbers of splits."""
    for model, meaning in (
        (xgboost.XGBClassifier(n_estimators=3), "Importance (gain)"),
        (lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), "Importance (number of splits)"),
    ):
        axes = of_fit("feature_importance", model.fit(BREAST.data, BREAST.target), list(BREAST.data.columns)).axes[0]
        importances = model.feature_importances_.astype(float)
        np.testing.assert_allclose(bars(axes), np.sort(importances)[::-1])
        assert axes.get_xlabel() == meaning


def test_losses_and_scores_of_networks_are_curves() -> None:
    """Loss and score are in a panel each, by iteration."""
    model = MLPClassifier((4,), early_stopping=True, n_iter_no_change=2, random_state=0)
    figure = of_fit("training_curve", model.fit(IRIS.data, IRIS.target))
    steps = range(1, model.n_iter_ + 1)
    np.testing.assert_allclose(line(figure.axes[0], 0), (steps, model.loss_curve_))
    np.testing.assert_allclose(line(figure.axes[1], 0), (steps, model.validation_scores_))
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Score"]
    assert legend_of(figure) == ["training", "validation"]


def test_boosting_shows_training_and_validation_together() -> None:
    """What is of the same sort is in the same panel, from the iteration that it was measured at."""
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=True, random_state=0)
    figure = of_fit("training_curve", model.fit(BREAST.data, BREAST.target))
    np.testing.assert_allclose(line(figure.axes[0], 0), (range(6), model.train_score_))
    np.testing.assert_allclose(line(figure.axes[0], 1), (range(6), model.validation_score_))
    subsampled = GradientBoostingRegressor(n_estimators=4, subsample=0.5, random_state=0)
    figure = of_fit("training_curve", subsampled.fit(DIABETES.data, DIABETES.target))
    np.testing.assert_allclose(line(figure.axes[0], 0)[1], subsampled.train_score_)
    np.testing.assert_allclose(line(figure.axes[0], 1)[1], subsampled.oob_scores_)


def test_evaluation_sets_of_xgboost_are_curves_with_the_best_iteration() -> None:
    """Each metric has a panel, each set a line in it."""
    model = xgboost.XGBClassifier(n_estimators=40, eval_metric=["logloss", "error"], early_stopping_rounds=3)
    sets = [(BREAST.data[::2], BREAST.target[::2]), (BREAST.data[1::2], BREAST.target[1::2])]
    model.fit(*sets[0], eval_set=sets, verbose=False)
    figure = of_fit("training_curve", model)
    for axes, metric in zip(figure.axes, ("logloss", "error"), strict=True):
        for at, name in enumerate(("validation_0", "validation_1")):
            np.testing.assert_allclose(line(axes, at)[1], model.evals_result()[name][metric])
        assert line(axes, 2)[0].tolist() == [model.best_iteration + 1] * 2
    assert f"best iteration {model.best_iteration + 1}" in title_of(figure)


def test_components_have_the_variance_that_they_explain() -> None:
    """Bars are the shares of each component, the line their sum, which the title has too."""
    model = make_pipeline(StandardScaler(), PCA(3)).fit(IRIS.data)
    figure = of_fit("explained_variance", model)
    ratios = model[-1].explained_variance_ratio_
    np.testing.assert_allclose([bar.get_height() for bar in figure.axes[0].patches], ratios)
    np.testing.assert_allclose(line(figure.axes[0], 0)[1], np.cumsum(ratios))
    assert f"{ratios.sum():.1%} of the variance in 3 components" in title_of(figure)


def test_what_says_nothing_of_features_has_no_pictures() -> None:
    """A model of neighbours has neither importances nor coefficients, and a tree without splits none to show."""
    assert names_of(pictures_of_estimator(KNeighborsClassifier().fit(IRIS.data, IRIS.target), None)) == []
    assert names_of(pictures_of_estimator(DecisionTreeClassifier().fit(IRIS.data, [0] * 150), None)) == []


def test_a_search_over_one_param_is_a_line_with_deviations() -> None:
    """Means are points, deviations lines through them, and the best is marked."""
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [9, 1, 5]}, scoring="accuracy", cv=3)
    figure = figure_of(pictures_of_search(search.fit(IRIS.data, IRIS.target)), "cv_results")
    means, deviations = search.cv_results_["mean_test_score"], search.cv_results_["std_test_score"]
    np.testing.assert_allclose(line(figure.axes[0], 0), ([1, 5, 9], means[[1, 2, 0]]))
    np.testing.assert_allclose(line(figure.axes[0], 1), ([search.best_params_["n_neighbors"]], [search.best_score_]))
    segments = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose([bar[1][1] - bar[0][1] for bar in segments], 2 * deviations[[1, 2, 0]])
    assert figure.axes[0].get_ylabel() == "Mean accuracy of 3 folds, ± their deviation"
    assert f"with n_neighbors {search.best_params_['n_neighbors']}" in title_of(figure)


def test_a_grid_of_two_params_is_a_heat_map() -> None:
    """Cells are means, numbers grow upwards, and what was not tried stays empty."""
    model = make_pipeline(StandardScaler(), KNeighborsClassifier())
    grid = {"kneighborsclassifier__n_neighbors": [1, 5, 9], "kneighborsclassifier__p": [1, 2]}
    search = GridSearchCV(model, grid, cv=3).fit(IRIS.data, IRIS.target)
    figure = figure_of(pictures_of_search(search), "cv_results")
    np.testing.assert_allclose(mesh(figure.axes[0]), search.cv_results_["mean_test_score"].reshape(3, 2).T[::-1])
    assert ticks_of(figure.axes[0], "x") == ["1", "5", "9"]
    assert ticks_of(figure.axes[0], "y") == ["2", "1"]
    assert [figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()] == ["n_neighbors", "p"]
    assert f"GridSearchCV {INSIDE} Pipeline {INSIDE} KNeighborsClassifier" in title_of(figure)


def test_random_values_of_two_params_are_points() -> None:
    """Where no grid was tried, each candidate is a point with the colour of its score."""
    values = {"C": loguniform(1e-3, 1e3), "tol": loguniform(1e-5, 1e-1)}
    search = RandomizedSearchCV(LogisticRegression(), values, n_iter=7, cv=2, random_state=0)
    figure = figure_of(pictures_of_search(search.fit(IRIS.data[:100], IRIS.target[:100])), "cv_results")
    (points,) = (each for each in figure.axes[0].collections if isinstance(each, PathCollection))
    names = figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    tried = sorted([params[name] for name in names] for params in search.cv_results_["params"])
    np.testing.assert_allclose(sorted(map(tuple, points.get_offsets())), tried)
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")


def test_a_search_over_many_params_has_parallel_axes() -> None:
    """Each candidate is a line over an axis for each param to its score."""
    grid = {"max_depth": [1, 2, None], "criterion": ["gini", "entropy"], "max_features": [1, 2]}
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3).fit(IRIS.data, IRIS.target)
    figure = figure_of(pictures_of_search(search), "cv_results")
    assert ticks_of(figure.axes[0], "x")[:3] == ["criterion", "max_depth", "max_features"]
    (lines,) = (each for each in figure.axes[0].collections if isinstance(each, LineCollection))
    scores = search.cv_results_["mean_test_score"]
    ends = np.sort([segment[-1][1] for segment in lines.get_segments()])
    shown = np.clip(np.sort(scores), lines.norm.vmin, None)
    np.testing.assert_allclose(ends, (shown - shown.min()) / (shown.max() - shown.min()))


def test_a_halving_search_is_drawn_by_iteration_too() -> None:
    """Candidates are lines over the iterations that they lasted, and the results are those of the last one."""
    grid = {"max_depth": [1, 2, 3, 4, 5, 6]}
    search = HalvingGridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=2, factor=2, random_state=0)
    search.fit(IRIS.data, IRIS.target)
    figure = figure_of(pictures_of_search(search), "cv_results_by_iteration")
    scores, iterations = search.cv_results_["mean_test_score"], search.cv_results_["iter"]
    drawn = sorted(point for each in figure.axes[0].lines for point in zip(*each.get_data(), strict=True))
    np.testing.assert_allclose(drawn, sorted(zip(iterations, scores, strict=True)))
    assert ticks_of(figure.axes[0], "x")[0].split("\n")[1] == "6 candidates"
    assert len(line(figure_of(pictures_of_search(search), "cv_results").axes[0], 0)[0]) == 6


@pytest.mark.parametrize("grid", [{"random_state": [1]}, {}])
def test_a_search_that_varies_nothing_has_no_picture(grid: dict[str, Any]) -> None:
    """One candidate is no comparison."""
    search = GridSearchCV(DummyClassifier(), grid, cv=2).fit(IRIS.data, IRIS.target)
    assert names_of(pictures_of_search(search)) == []


def test_folds_have_their_scores_mean_and_deviation() -> None:
    """Each score has a panel with a point for each fold of test and of training."""
    rng = np.random.default_rng(0)
    scores = {f"{kind}_{name}": rng.random(5) for name in ("f1", "auc") for kind in ("test", "train")}
    figure = picture_of_folds(scores, "Ridge").draw()
    assert figure is not None
    for axes, name in zip(figure.axes, ("f1", "auc"), strict=True):
        test, train = scores[f"test_{name}"], scores[f"train_{name}"]
        drawn = {tuple(each.get_ydata()) for each in axes.lines}
        assert {tuple(test), tuple(train), (test.mean(),) * 2, (train.mean(),) * 2} == drawn
        assert axes.get_title(loc="left") == f"{name} · {test.mean():.3f} ± {test.std():.2f}"
    assert "Ridge · 5 folds" in title_of(figure)
    assert legend_of(figure) == ["training", "test", "mean", "± deviation"]


@pytest.mark.parametrize("kind", ["learning_curve", "validation_curve"])
def test_curves_have_means_and_deviations(kind: Any) -> None:  # noqa: ANN401
    """The lines are means over the folds, in the order of the values, and the axis may be logarithmic."""
    train, test = np.random.default_rng(0).random((2, 3, 4))
    picture = picture_of_curve(kind, [100, 1, 10], train, test, "samples", log_x=True, subject="Ridge")
    figure = picture.draw()
    assert figure is not None
    assert picture.name == kind
    for at, scores in enumerate((train, test)):
        np.testing.assert_allclose(line(figure.axes[0], at), ([1, 10, 100], scores.mean(axis=1)[[1, 2, 0]]))
        edges = figure.axes[0].collections[at].get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx((scores.mean(axis=1) + scores.std(axis=1)).max())
    assert figure.axes[0].get_xscale() == "log"
    assert title_of(figure).splitlines()[1].startswith("Ridge · 4 folds")


def test_values_that_are_no_numbers_are_names() -> None:
    """A curve over texts has them along its axis."""
    figure = picture_of_curve(
        "validation_curve", ["rbf", None, "poly"], np.ones((3, 2)), np.eye(3)[:, :2], "kernel", log_x=False
    ).draw()
    assert figure is not None
    assert ticks_of(figure.axes[0], "x") == ["rbf", "None", "poly"]
    assert "best 0.500 at rbf" in title_of(figure)


def test_permutation_importances_have_their_repetitions() -> None:
    """Bars are means, sorted, and dots the single ones."""
    model = LinearRegression().fit(DIABETES.data, DIABETES.target)
    result = permutation_importance(model, DIABETES.data, DIABETES.target, n_repeats=4, random_state=0)
    figure = picture_of_permutation_importance(result, NAMES, "LinearRegression").draw()
    assert figure is not None
    order = np.argsort(-result.importances_mean)
    np.testing.assert_allclose(bars(figure.axes[0]), result.importances_mean[order])
    np.testing.assert_allclose(line(figure.axes[0], 0)[0], result.importances[order].ravel())
    assert ticks_of(figure.axes[0], "y") == [NAMES[at] for at in order]
