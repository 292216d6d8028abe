"""The scikit-learn example, and what it leaves on a platform: read back, loaded back, and seen in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_browser import CHROMIUM, keep, page  # noqa: F401  # a fixture
from tests.e2e.test_demo import picture_size
from tests.e2e.test_lightning_example import assert_loaded
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPERIMENT = "breast-cancer"
CANDIDATES = 15
"""Three numbers of features, five strengths of the regularization."""

TRAIN = f"""
    import sys
    sys.path.insert(0, {str(EXAMPLES)!r})
    import sklearn_pipeline as it
    print("RUN", it.main())
    """

LOAD = f"""
    import json, sys
    sys.path.insert(0, {str(EXAMPLES)!r})
    import sklearn_pipeline as it
    import mantik, mlflow
    mantik.init_tracking()
    measurements, diagnosis = it.load_data()
    model = mlflow.sklearn.load_model("runs:/RUN/model")
    served = mlflow.pyfunc.load_model("runs:/RUN/model")
    print("SAME", (model.predict(measurements) == served.predict(measurements)).all())
    print("RIGHT", (model.predict(measurements) == diagnosis).mean())
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of the example, which is its home too."""
    return tmp_path_factory.mktemp("sklearn")


@pytest.fixture(scope="module")
def environment(mantik_platform: Platform, folder: Path) -> dict[str, str]:
    """Return the environment in which the example runs."""
    return clean_environment(mantik_platform.environment(), folder)


@pytest.fixture(scope="module")
def output(folder: Path, environment: dict[str, str]) -> str:
    """Run the example, once for all tests here, and return what is printed."""
    return run_script(TRAIN, environment, folder)


@pytest.fixture(scope="module")
def run(output: str, mantik_platform: Platform) -> Run:
    """Return the run of the example."""
    return mantik_platform.read_back.run(output.partition("RUN ")[2].split()[0])


@pytest.fixture(scope="module")
def children(run: Run, mantik_platform: Platform) -> list[Run]:
    """Return the runs of the candidates."""
    runs = mantik_platform.read_back.runs(EXPERIMENT)
    return [one for one in runs if one.tags.get("mlflow.parentRunId") == run.run_id]


def test_the_example_says_what_it_has_to_say(output: str) -> None:
    """It prints its report, the links and a receipt without losses, and no warning of anybody."""
    assert "malignant" in output
    assert "F2 of malignant tumours" in output
    assert "mantik: run logistic-regression (FINISHED)" in output
    assert "waiting" not in output
    assert "Warning" not in output
    assert "WARNING" not in output


def test_the_example_is_tracked_whole(run: Run, mantik_platform: Platform) -> None:
    """Search, cross-validation, held-out data and importances are in one run, each under its names."""
    held = mantik_platform.read_back
    assert (run.name, run.status) == ("logistic-regression", "FINISHED")
    assert run.tags["estimator_name"] == "GridSearchCV"
    assert run.tags["data"] == "sklearn.datasets.load_breast_cancer"
    assert (run.params["best_select__k"], run.params["best_classify__C"]) == ("20", "1.0")
    assert run.params["cross_validate/n_splits"] == "15"
    assert run.params["permutation_importance/n_repeats"] == "10"
    assert run.metrics["n_candidates"] == CANDIDATES
    assert -0.1 < run.metrics["best_cv_score"] < 0
    assert run.metrics["training_recall_score"] > 0.95
    assert run.metrics["cross_validate/test_roc_auc_mean"] > 0.98
    assert len(held.metric_history(run.run_id, "cross_validate/test_roc_auc")) == 15
    # Of the positive class that the example names, and no means over both.
    precision, recall = (run.metrics[f"{name}_score_test"] for name in ("precision", "recall"))
    assert recall > 0.85
    assert run.metrics["f1_score_test"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert run.metrics["fbeta_score_test"] == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert "permutation_importance/worst texture" in run.metrics
    calls = json.loads(held.download(run.run_id, "metric_info.json"))
    assert calls["fbeta_score_test"].startswith("fbeta_score(")


def test_candidates_of_the_example_are_runs(run: Run, children: list[Run], mantik_platform: Platform) -> None:
    """Each candidate is a child run with its params and score, and the table has all of them."""
    assert len(children) == CANDIDATES
    assert {child.status for child in children} == {"FINISHED"}
    best = max(children, key=lambda child: child.metrics["mean_test_score"])
    assert (best.name, best.params["select__k"], best.params["classify__C"]) == ("C=1, k=20", "20", "1.0")
    assert best.metrics["mean_test_score"] == run.metrics["best_cv_score"]
    table = mantik_platform.read_back.download(run.run_id, "cv_results.csv").decode()
    assert len(list(csv.DictReader(io.StringIO(table)))) == CANDIDATES


def test_pictures_of_the_example_are_there(run: Run, mantik_platform: Platform) -> None:
    """Training and held-out data have the same pictures, and search, folds and importances one each."""
    held = mantik_platform.read_back
    evaluations = ("confusion_matrix", "roc_curve", "precision_recall_curve", "calibration_curve")
    wanted = {f"training_{name}.png" for name in evaluations} | {f"{name}_test.png" for name in evaluations}
    wanted |= {"cv_results.png", "coefficients.png", "cross_validate/cross_validation.png"}
    wanted |= {"permutation_importance/permutation_importance.png"}
    pictures = {path for path in held.artifacts(run.run_id) if path.endswith(".png")}
    assert pictures == wanted
    assert {picture_size(held.download(run.run_id, path))[0] for path in pictures} == {960}


def test_the_model_of_the_example_loads_back(run: Run, environment: dict[str, str], folder: Path) -> None:
    """In another process, by scikit-learn's flavour and as a served model, it is the best pipeline."""
    output = run_script(LOAD.replace("RUN", run.run_id), environment, folder)
    assert "SAME True" in output
    assert float(output.partition("RIGHT ")[2].split()[0]) > 0.95


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package 'chromium')")
def test_the_example_is_seen_in_the_browser(
    run: Run,
    children: list[Run],
    page: Page,  # noqa: F811
    mantik_platform: Platform,
) -> None:
    """Metrics of held-out data, child runs, pictures and the drawing of the pipeline can be looked at."""
    assert children
    experiment = f"{mantik_platform.url}/#/experiments/{run.experiment_id}"
    link = f"{experiment}/runs/{run.run_id}"
    page.goto(link)
    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill(mantik_platform.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("best_cv_score").first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 2400})
    page.get_by_role("link", name="C=1, k=20").wait_for()
    keep(page, "30-sklearn-run")
    for name in ("roc_auc_test", "cross_validate/test_roc_auc_mean", "permutation_importance/worst texture"):
        page.get_by_placeholder("Search metrics").fill(name)
        page.get_by_role("link", name=name, exact=True).wait_for()
    page.get_by_placeholder("Search metrics").fill("_test")
    page.get_by_role("link", name="roc_auc_test", exact=True).wait_for()
    page.set_viewport_size({"width": 1280, "height": 900})
    keep(page, "30-sklearn-test-metrics")

    for number, picture in enumerate(("cv_results", "roc_curve_test", "calibration_curve_test", "coefficients")):
        page.goto(f"{link}/artifacts/{picture}.png")
        page.reload()
        assert_loaded(page, "blob:")
        keep(page, f"31-sklearn-{number}-{picture}")

    page.goto(f"{link}/artifacts/estimator.html")
    page.reload()
    page.frame_locator("iframe").locator("label:visible", has_text="ColumnTransformer").wait_for()
    keep(page, "32-sklearn-estimator")

    page.goto(f"{experiment}/runs")
    page.reload()
    # The run of the search has a button before its name, and its candidates below it.
    page.get_by_role("gridcell").filter(has_text="logistic-regression").get_by_role("button").first.click()
    page.get_by_role("link", name="C=1, k=20").wait_for()
    keep(page, "33-sklearn-runs")
