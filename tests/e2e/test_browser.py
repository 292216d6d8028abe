"""The platform as a person sees it, in a real Chromium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from mantik.testing import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = os.environ.get("SCREENSHOTS")
"""A folder to keep the screenshots in, to look at them: `SCREENSHOTS=/tmp/pictures make test`."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package 'chromium')")


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a browser window that has never been anywhere."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.set_default_timeout(60_000)
        yield window
        browser.close()


@pytest.fixture(scope="module")
def run_link(mantik_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Track the quickstart and return the link to its run."""
    folder = tmp_path_factory.mktemp("quickstart")
    environment = clean_environment(mantik_platform.environment(), folder)
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import quickstart; print('RUN', quickstart.main())"
    run_id = run_script(code, environment, folder).partition("RUN ")[2].split()[0]
    run = mantik_platform.read_back.run(run_id)
    return f"{mantik_platform.url}/#/experiments/{run.experiment_id}/runs/{run_id}"


def keep(page: Page, name: str) -> None:
    """Keep a screenshot if somebody wants to look at it."""
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def test_sign_in_see_the_run_sign_out(page: Page, run_link: str, mantik_platform: Platform) -> None:
    """A link to a run asks for the sign-in first, then shows the run; after the sign-out it is closed again."""
    page.goto(run_link)
    page.get_by_label("Password").wait_for()
    assert "/mantik/sign-in" in page.url
    keep(page, "1-sign-in")

    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill("mistyped-password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    keep(page, "2-refused")

    page.get_by_label("User name").fill(mantik_platform.username)
    page.get_by_label("Password").fill(mantik_platform.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("test_accuracy").first.wait_for()
    assert page.url == run_link
    assert page.get_by_text("test_top_k_accuracy").count() >= 1
    assert page.get_by_text("image_size").count() >= 1
    keep(page, "3-run")

    # Charts are drawn when they come into view.
    page.set_viewport_size({"width": 1280, "height": 5000})
    page.goto(f"{run_link}/model-metrics")
    page.get_by_text("test_top_k_accuracy").first.wait_for()
    keep(page, "4-metrics")
    page.set_viewport_size({"width": 1280, "height": 900})

    page.goto(f"{run_link}/artifacts")
    page.get_by_text("mistakes.png").first.click()
    page.locator("img[src^='blob:'], img[src*='artifact']").first.wait_for()
    keep(page, "5-picture")

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Password").wait_for()
    keep(page, "6-signed-out")
    page.goto(run_link)
    page.reload()
    page.get_by_label("Password").wait_for()
    assert page.get_by_text("test_accuracy").count() == 0
