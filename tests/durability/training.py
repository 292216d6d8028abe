"""A training in a process of its own, and what has to be there when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.scripts import start_script

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

TRAINING = """
    import json, sys, time
    import mantik, mlflow

    mantik.init_tracking()
    longest = 0.0
    with mlflow.start_run() as run:
        print("RUN", run.info.run_id, flush=True)
        sys.stdin.readline()
        mlflow.log_params({f"param-{number}": number for number in range(150)})
        mlflow.set_tag("kind", "first")
        for step in range(STEPS):
            started = time.perf_counter()
            mlflow.log_metrics({"loss": 1.0 / (step + 1), "accuracy": step / STEPS}, step=step)
            longest = max(longest, time.perf_counter() - started)
        mlflow.set_tag("kind", "last")
        print("LOGGED", longest, flush=True)
        sys.stdin.readline()
    print("ENDED", flush=True)
    """

STEPS = 1500


class Training:
    """A training in a process of its own that waits for leave at two places."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        code = TRAINING.replace("STEPS", str(STEPS))
        self.process = start_script(code, environment, folder)
        self.run_id = self.expect("RUN ")

    def expect(self, word: str) -> str:
        """Read what it prints up to a word, and return what follows on that line."""
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"{word!r} never came:\n{seen}")

    def go_on(self) -> None:
        """Let it pass the place where it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> str:
        """Let it end, and return what else it printed."""
        output, _ = self.process.communicate("\n", timeout=150)
        assert self.process.returncode == 0, output
        return output


def assert_complete(platform: Platform, run_id: str, status: str = "FINISHED") -> None:
    """Check that everything the training recorded is there once, in order, and nothing else."""
    held = platform.read_back
    run = held.run(run_id)
    assert run.status == status
    assert run.params == {f"param-{number}": str(number) for number in range(150)}
    assert run.tags["kind"] == "last"
    for key, value in (("loss", lambda step: 1.0 / (step + 1)), ("accuracy", lambda step: step / STEPS)):
        history = held.metric_history(run_id, key)
        assert [(point.step, point.value) for point in history] == [(step, value(step)) for step in range(STEPS)]


def spool_of(environment: dict[str, str]) -> list[str]:
    """Return the folders that are left in the spool."""
    folder = f"{environment['MANTIK_HOME']}/spool"
    return os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208  # names are enough


def mantik(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "mantik", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
