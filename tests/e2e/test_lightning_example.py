"""The Lightning example, and what it leaves on a platform: read back, and seen in a real Chromium."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from mantik.exceptions import MissingSettingsError
from tests.e2e.test_browser import CHROMIUM, keep, page  # noqa: F401  # a fixture
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def run(mantik_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train the example, once for all tests here."""
    folder = tmp_path_factory.mktemp("lightning")
    environment = clean_environment(mantik_platform.environment(), folder)
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import lightning_digits as it; print('RUN', it.main())"
    run_id = run_script(code, environment, folder).partition("RUN ")[2].split()[0]
    return mantik_platform.read_back.run(run_id)


def test_the_example_is_tracked_whole(run: Run, mantik_platform: Platform) -> None:
    """Its run is named, described, tagged and FINISHED, and has params, curves and results."""
    held = mantik_platform.read_back
    assert (run.name, run.status) == ("small-cnn", "FINISHED")
    assert run.params == {"channels": "16", "dropout": "0.2", "learning_rate": "0.02"}
    assert run.tags["data"] == "sklearn.datasets.load_digits"
    assert "two convolutions" in run.tags["mlflow.note.content"]
    assert run.metrics["test/accuracy"] > 0.9
    # 17 batches an epoch; how many epochs is for EarlyStopping to say.
    steps = 17 * len(held.metric_history(run.run_id, "val/loss"))
    assert [point.step for point in held.metric_history(run.run_id, "val/loss")] == list(range(16, steps, 17))
    for name in ("train/loss", "lr-AdamW"):
        assert [point.step for point in held.metric_history(run.run_id, name)] == list(range(4, steps, 5))
    assert yaml.safe_load(held.download(run.run_id, "hparams.yaml"))["learning_rate"] == 0.02
    assert b"Conv2d" in held.download(run.run_id, "model_summary.txt")


def test_the_checkpoint_tagged_best_is_a_checkpoint(run: Run, mantik_platform: Platform) -> None:
    """The checkpoints that are kept locally are on the platform, and the one tagged best has the best score."""
    import torch

    held = mantik_platform.read_back
    index = yaml.safe_load(held.download(run.run_id, "checkpoints/index.yaml"))["checkpoints"]
    assert [aliases for entry in index for aliases in entry["aliases"]] == ["best", "last"]
    (best,) = [entry for entry in index if "best" in entry["aliases"]]
    assert best["file"] == run.tags["mantik.checkpoint.best"]
    losses = {point.step: point.value for point in held.metric_history(run.run_id, "val/loss")}
    assert best["score"] == pytest.approx(min(losses.values()))
    checkpoint = torch.load(io.BytesIO(held.download(run.run_id, best["file"])), weights_only=True)
    assert checkpoint["global_step"] == best["global_step"]
    assert checkpoint["hyper_parameters"]["channels"] == 16


def test_pictures_and_tables_of_the_example_are_there(run: Run, mantik_platform: Platform) -> None:
    """Each image of the table and of the captions is an artifact, and the figure is a PNG."""
    held = mantik_platform.read_back
    artifacts = set(held.artifacts(run.run_id))
    table = json.loads(held.download(run.run_id, "tables/test/least_sure.json"))
    captions = json.loads(held.download(run.run_id, "captions/images/val/mistakes/step-00000000.json"))
    assert table["columns"] == ["image", "digit", "guess", "confidence"]
    assert len(table["data"]) == 20
    assert table["data"][0][3] == min(row[3] for row in table["data"])
    assert {row[0]["filepath"] for row in [*table["data"], *captions["data"]]} <= artifacts
    assert "taken for" in captions["data"][0][1]
    assert held.download(run.run_id, "figures/test/confusion_matrix.png").startswith(b"\x89PNG")


def test_without_settings_the_example_says_which_are_missing(
    blank_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It trains nothing that nobody would find, and names the variables."""
    blank_environment.chdir(tmp_path)
    blank_environment.syspath_prepend(EXAMPLES)
    with pytest.raises(MissingSettingsError, match="MLFLOW_TRACKING_URI"):
        importlib.import_module("lightning_digits").main()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package 'chromium')")
def test_the_example_is_seen_in_the_browser(run: Run, page: Page, mantik_platform: Platform) -> None:  # noqa: F811
    """Curves, pictures with a slider, the table with its pictures, the figure and the checkpoints can be looked at."""
    link = f"{mantik_platform.url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    page.goto(link)
    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill(mantik_platform.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("A network of two convolutions").wait_for()
    page.get_by_text("learning_rate").first.wait_for()
    keep(page, "10-lightning-run")

    # Charts are drawn when they come into view.
    page.set_viewport_size({"width": 1280, "height": 2400})
    page.goto(f"{link}/model-metrics")
    page.get_by_text("small-cnn (val/accuracy)").wait_for()
    # Nobody has moved the slider: it begins at step 0.
    assert_loaded(page, "val~mistakes~00%2Bstep%2B0%2B")
    keep(page, "11-lightning-pictures")
    page.set_viewport_size({"width": 1280, "height": 900})

    page.goto(f"{link}/artifacts/tables/test/least_sure.json")
    page.reload()
    page.get_by_role("columnheader", name="confidence").wait_for()
    assert_loaded(page, "table_images")
    keep(page, "12-lightning-table")

    page.goto(f"{link}/artifacts/figures/test/confusion_matrix.png")
    page.reload()
    assert_loaded(page, "blob:")
    keep(page, "13-lightning-figure")

    page.goto(f"{link}/artifacts/checkpoints/index.yaml")
    page.reload()
    page.get_by_text("monitor: val/loss").first.wait_for()
    page.get_by_text("last", exact=True).first.wait_for()
    keep(page, "14-lightning-checkpoints")


def assert_loaded(page: Page, part: str) -> None:  # noqa: F811
    """Wait until an image is drawn whose address has a part."""
    page.wait_for_function(
        "part => [...document.querySelectorAll('img')].some(image => image.src.includes(part) && image.naturalWidth)",
        arg=part,
    )
