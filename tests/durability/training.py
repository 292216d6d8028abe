"""A training in a process of its own, and what has to be there when it is over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mantik.delivery.creation import OPERATION_TAG
from mantik.delivery.ids import is_provisional, operation_of
from tests.forked import fork_script
from tests.forked import run_mantik as mantik

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

__all__ = ["STEPS", "TRAINING", "Training", "assert_complete", "mantik", "server_id", "spool_of"]

TRAINING = """
    import json, sys, time
    import mantik, mlflow

    began = time.perf_counter()
    mantik.init_tracking()
    longest = 0.0

    def timed(call, *arguments, **options):
        global longest
        started = time.perf_counter()
        call(*arguments, **options)
        longest = max(longest, time.perf_counter() - started)

    with mlflow.start_run() as run:
        print("RUN", run.info.run_id, time.perf_counter() - began, flush=True)
        sys.stdin.readline()
        timed(mlflow.log_params, {f"param-{number}": number for number in range(150)})
        timed(mlflow.set_tag, "kind", "first")
        for step in range(STEPS):
            timed(mlflow.log_metrics, {"loss": 1.0 / (step + 1), "accuracy": step / STEPS}, step=step)
            if step == STEPS // 2:
                timed(mlflow.log_text, "weights " * 1000, "checkpoint/weights.txt")
        timed(mlflow.set_tag, "kind", "last")
        print("LOGGED", longest, flush=True)
        sys.stdin.readline()
    print("ENDED", flush=True)
    """

STEPS = 550
"""Of a training: with two points each, more than one request takes."""

WEIGHTS = b"weights " * 1000


class Training:
    """A training in a process of its own that waits for leave at two places.

    Attributes:
        process: The process.
        run_id: The id under which it knows its run, provisional or not.
        start_seconds: How long it took from `init_tracking()` to the run.
    """

    def __init__(self, environment: dict[str, str], folder: Path, *, code: str = TRAINING, steps: int = STEPS) -> None:
        self.process = fork_script(code.replace("STEPS", str(steps)), environment, folder)
        self.run_id, _, seconds = self.expect("RUN ").partition(" ")
        self.start_seconds = float(seconds or 0)

    def expect(self, word: str) -> str:
        """Read what it prints up to a word, and return what follows on that line."""
        seen = ""
        for line in self.process.stdout:
            seen += line
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"{word!r} never came:\n{seen}")

    def go_on(self) -> None:
        """Let it pass the place where it waits."""
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
    run_id = server_id(platform, run_id)
    run = held.run(run_id)
    assert run.status == status
    assert run.end_time is not None
    assert run.end_time >= run.start_time
    assert run.params == {f"param-{number}": str(number) for number in range(150)}
    assert run.tags["kind"] == "last"
    for key, value in (("loss", lambda step: 1.0 / (step + 1)), ("accuracy", lambda step: step / STEPS)):
        history = held.metric_history(run_id, key)
        assert [(point.step, point.value) for point in history] == [(step, value(step)) for step in range(STEPS)]
    assert held.artifacts(run_id) == ["checkpoint/weights.txt"]
    assert held.download(run_id, "checkpoint/weights.txt") == WEIGHTS


def server_id(platform: Platform, run_id: str) -> str:
    """Return the platform's id of a run; one that began without the platform is there exactly once."""
    if not is_provisional(run_id):
        return run_id
    (run,) = [run for run in platform.read_back.runs("0") if run.tags.get(OPERATION_TAG) == operation_of(run_id)]
    return run.run_id


def spool_of(environment: dict[str, str]) -> list[str]:
    """Return the folders of processes that are left in the spool."""
    folder = environment.get("MANTIK_SPOOL") or f"{environment['MANTIK_HOME']}/spool"
    names = os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208  # names are enough
    return [name for name in names if name != "ids"]
