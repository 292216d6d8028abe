"""How runs end whose processes were started by a launcher, or by `multiprocessing`."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mantik.testing import wait_until
from mantik.testing.processes import end_groups
from tests.forked import run_forked

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")

RANKS = """
import os, signal, sys, time
from pathlib import Path

if os.environ["RANK"] == "1":
    end = time.monotonic() + 60
    while not Path("tracking").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    if sys.argv[1] == "failure":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()

import mantik, mlflow

mantik.init_tracking()
print("RUN", mlflow.start_run().info.run_id, flush=True)
mlflow.log_metric("loss", 0.5)
Path("tracking").touch()
signal.pause()
"""

WORKER = """
import multiprocessing, sys

import mantik, mlflow

def work(code):
    mantik.init_tracking()
    print("RUN", mlflow.start_run().info.run_id, flush=True)
    mlflow.log_metric("loss", 0.5)
    exec(code)

if __name__ == "__main__":
    for code in sys.argv[2:]:
        try:
            # A fork inherits what its parent is dealing with at the moment.
            raise OSError("the parent's own")
        except OSError:
            worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(code,))
            worker.start()
            worker.join(120)
"""
ENDS = {"raise ValueError('mine')": "FAILED", "raise KeyboardInterrupt": "KILLED", "mlflow.end_run()": "FINISHED"}


def run(arguments: list[str], environment: dict[str, str], folder: Path, until: Path | None = None) -> str:
    """Run Python to its end, with SIGTERM when a file is there, and return what was printed."""
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if until is not None:
            wait_until(until.exists, deadline=120, what="the run")
            process.send_signal(signal.SIGTERM)
        process.wait(120)
    finally:
        end_groups([process.pid])
        process.wait()
    return output.read_text()


@pytest.mark.parametrize(("what", "status"), [("failure", "FAILED"), ("signal", "KILLED")])
def test_torchrun_ends_a_run_for_two_reasons(
    what: str, status: str, mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """A SIGTERM that torchrun sends because another process has failed is told from one that it passes on."""
    script = tmp_path / "train.py"
    script.write_text(RANKS)
    sent = tmp_path / "tracking" if what == "signal" else None
    output = run([*TORCHRUN, str(script), what], environment, tmp_path, sent)
    held = mantik_platform.read_back.run(output.partition("RUN ")[2].split()[0])
    assert (held.status, held.metrics) == (status, {"loss": 0.5}), output
    assert f"({status}): 1 point, 1 status change sent" in output


@pytest.mark.parametrize(
    ("method", "ends"),
    [("fork", list(ENDS)), ("spawn", list(ENDS)[:1]), pytest.param("spawn", list(ENDS), marks=pytest.mark.thorough)],
)
def test_a_worker_ends_its_run_as_it_ends(
    method: str, ends: list[str], mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """A process of `multiprocessing` that dies of an error leaves its run with the true status, forked or spawned."""
    script = tmp_path / "train.py"
    script.write_text(WORKER)
    # As a file: a process that is spawned reads it again.
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    output = run_forked(code, environment, tmp_path, method, *ends)
    runs = [mantik_platform.read_back.run(line.split()[1]) for line in output.splitlines() if line.startswith("RUN ")]
    assert [run.status for run in runs] == [ENDS[code] for code in ends], output
    assert [run.metrics for run in runs] == [{"loss": 0.5}] * len(ends)
