"""`make demo`, and what it leaves on a platform."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from mantik.testing import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_demo_ends_by_itself_where_there_is_no_terminal(tmp_path: Path) -> None:
    """It prints the run with its metrics and a link, leaves no process, and exits 0."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        env=clean_environment({"TMPDIR": str(tmp_path)}, tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("digits (finished)", "test_accuracy", "digits-model", "mistakes.png", "/#/experiments/"):
        assert words in done.stdout
    assert "password" not in done.stdout.lower()
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.glob("mantik-demo-*")) == []


def test_the_demo_stays_up_in_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    """In a terminal the link answers as long as the demo runs; Ctrl-C ends it cleanly."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(  # noqa: S606
            sys.executable, [sys.executable, str(EXAMPLES / "demo.py")], clean_environment({"TERM": "xterm"}, tmp_path)
        )
    screen = ""
    try:
        deadline = time.monotonic() + 200
        while "Press Ctrl-C" not in screen:
            assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], screen
            screen += os.read(terminal, 4096).decode(errors="replace")
        url = re.search(r"http://127\.0\.0\.1:\d+", screen)
        assert url is not None
        import requests

        page = requests.get(f"{url[0]}/", headers={"Accept": "text/html"}, timeout=30)
        assert "/mantik/sign-in" in page.url
        os.write(terminal, b"\x03")
        while "Stopped" not in screen:
            assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], screen
            screen += os.read(terminal, 4096).decode(errors="replace")
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert "Traceback" not in screen


def test_what_the_quickstart_tracks_is_on_the_platform(mantik_platform: Platform, tmp_path: Path) -> None:
    """Run, params, metrics with steps, picture and model are read back from the server, and the model loads."""
    output = run_script(
        f"""
        import json, sys
        sys.path.insert(0, {str(EXAMPLES)!r})
        import mlflow, quickstart
        from sklearn.datasets import load_digits

        run_id = quickstart.main()
        (model,) = mlflow.search_logged_models(
            experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
            filter_string=f"source_run_id = '{{run_id}}'", output_format="list")
        loaded = mlflow.sklearn.load_model(model.model_uri)
        digits = load_digits()
        print("DONE", json.dumps([run_id, model.name, float((loaded.predict(digits.data) == digits.target).mean())]))
        """,
        clean_environment(mantik_platform.environment(), tmp_path),
        tmp_path,
    )
    run_id, model_name, accuracy = json.loads(output.partition("DONE ")[2].splitlines()[0])
    assert (model_name, accuracy > 0.95) == ("digits-model", True)
    held = mantik_platform.read_back
    run = held.run(run_id)
    assert (run.name, run.status) == ("digits", "FINISHED")
    assert run.params["image_size"] == "8x8"
    assert run.params["logisticregression__C"] == "0.05"
    assert run.metrics["test_accuracy"] > 0.9
    assert run.metrics["training_accuracy_score"] > 0.9
    curve = held.metric_history(run_id, "test_top_k_accuracy")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5]
    assert sorted(point.value for point in curve) == [point.value for point in curve]
    assert picture_size(held.download(run_id, "mistakes.png")) > (300, 300)
    (model,) = [model for model in held.logged_models(run.experiment_id) if model.source_run_id == run_id]
    assert model.status == "LOGGED_MODEL_READY"


def picture_size(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG in pixels."""
    from matplotlib.image import imread

    height, width = imread(io.BytesIO(png)).shape[:2]
    return width, height
