"""Images and tables of a run as a person sees them, in a real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest

import mantik
from mantik.training.pictures import log_images
from mantik.training.tables import log_table
from tests.e2e.test_browser import CHROMIUM, keep, page  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from mantik.testing import FaultProxy, Platform

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package 'chromium')")


def tracked_run() -> tuple[str, str]:
    """Log images with captions at two steps, and a table with images; return the ids of experiment and run."""
    client = mlflow.MlflowClient()
    pixels = np.random.default_rng(0)
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        for step in (0, 10):
            images = [pixels.random((28, 28)) for _ in range(3)]
            log_images(client, run_id, "val/digits", images, step=step, captions=[f"{step}-{n}" for n in range(3)])
        client.log_metric(run_id, "val/loss", 0.5)
        rows = [[pixels.random((28, 28)), f"digit {n}", n / 10] for n in range(2)]
        log_table(client, run_id, "val/predictions", ["image", "label", "val.loss"], rows, step=10)
    assert mantik.flush(30)
    return run.info.experiment_id, run_id


def loaded(page: Page, part: str, number: int = 1) -> list[int]:  # noqa: F811  # a fixture's name
    """Wait for so many images of which the address has a part; return the widths of all."""
    page.locator(f"img[src*='{part}']").nth(number - 1).wait_for()
    page.wait_for_function(
        "part => [...document.querySelectorAll(`img[src*='${part}']`)].every(image => image.naturalWidth > 0)", arg=part
    )
    images = page.locator(f"img[src*='{part}']")
    widths: list[int] = images.evaluate_all("images => images.map(image => image.naturalWidth)")
    return widths


def test_images_and_tables_are_seen(page: Page, tracked: FaultProxy, mantik_platform: Platform) -> None:  # noqa: F811
    """All images of a call are charts with a slider under one heading; tables show images, captions and values."""
    experiment_id, run_id = tracked_run()
    run_link = f"{mantik_platform.url}/#/experiments/{experiment_id}/runs/{run_id}"
    page.goto(f"{run_link}/model-metrics")
    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill(mantik_platform.password)
    page.get_by_role("button", name="Sign in").click()

    page.get_by_text("val/digits/00", exact=True).wait_for()
    page.get_by_test_id("experiment-view-compare-runs-section-header").filter(has_text="val/digits").wait_for()
    for number in range(3):
        page.get_by_text(f"val/digits/{number:02d}", exact=True).wait_for()
        assert loaded(page, f"val~digits~{number:02d}%2Bstep%2B0%2B") == [256]
    chart = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="val/digits/00")
    chart.get_by_role("slider").press("ArrowRight")
    assert loaded(page, "val~digits~00%2Bstep%2B10%2B") == [256]
    keep(page, "7-images")

    page.goto(f"{run_link}/artifacts/captions/images/val/digits/step-00000010.json")
    page.reload()
    page.get_by_role("cell", name="10-0").wait_for()
    assert page.get_by_role("columnheader").all_inner_texts() == ["image", "caption"]
    assert loaded(page, "val~digits", 3) == [256] * 3
    keep(page, "8-captions")

    page.goto(f"{run_link}/artifacts/tables/val/predictions/step-00000010.json")
    page.reload()
    page.get_by_role("cell", name="digit 0").wait_for()
    assert page.get_by_role("columnheader").all_inner_texts() == ["image", "label", "val_loss"]
    assert page.get_by_role("cell", name="0.1").count() == 1
    assert loaded(page, "table_images", 2) == [256, 256]
    keep(page, "9-table")
