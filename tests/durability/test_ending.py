"""How processes end: the status of their runs, their exit codes, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.testing import Hang, Refuse, wait_until
from tests.forked import fork_script, run_forked
from tests.scripts import clean_environment

from .training import mantik, server_id, spool_of

if TYPE_CHECKING:
    from mantik.testing import FaultProxy, Platform

BEGIN = """
import os, signal, sys, time
import mantik, mlflow

def wait():
    print("READY", flush=True)
    sys.stdin.readline()

"""


@dataclass(frozen=True)
class Ending:
    """A way to end.

    Attributes:
        code: The script, after `BEGIN`.
        status: The run's status on the platform afterwards.
        exit_code: The process's exit code.
        sent: The signal that is sent when the script waits.
        says: What it prints.
    """

    code: str
    status: str
    exit_code: int = 0
    sent: signal.Signals | None = None
    says: tuple[str, ...] = field(default=())


OPEN = """
mantik.init_tracking()
run = mlflow.start_run()
print("RUN", run.info.run_id, flush=True)
mlflow.log_metric("loss", 0.5)
"""
INSIDE = """
mantik.init_tracking()
with mlflow.start_run() as run:
    print("RUN", run.info.run_id, flush=True)
    mlflow.log_metric("loss", 0.5)
    """
OWN_HANDLER = """
def own(number, frame):
    print("OWN", flush=True)
    sys.exit(3)

signal.signal(signal.SIGTERM, own)
"""
LATER_HANDLER = """
earlier = signal.getsignal(signal.SIGTERM)

def later(number, frame):
    print("LATER", flush=True)
    earlier(number, frame)
    print("STILL HERE", flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, later)
wait()
"""
CHILDREN = """
def status():
    assert mantik.flush(30)
    return mlflow.MlflowClient().get_run(run.info.run_id).info.status

for end in ("signal", "error", "exit"):
    child = os.fork()
    if child == 0:
        if end == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif end == "error":
            raise ValueError("the child's own")
        sys.exit(4)
    print("CHILD", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), status(), flush=True)
mlflow.log_metric("loss", 0.25)
"""
ENDINGS = {
    "end-of-with": Ending(INSIDE, "FINISHED"),
    "end-of-script": Ending(OPEN, "FINISHED"),
    "error-outside": Ending(OPEN + "raise ValueError('mine')", "FAILED", 1, says=("ValueError: mine",)),
    "error-in-with": Ending(INSIDE + "raise ValueError('mine')", "FAILED", 1, says=("ValueError: mine",)),
    "exit-in-with": Ending(INSIDE + "sys.exit(3)", "FAILED", 3),
    "ctrl-c-outside": Ending(OPEN + "wait()", "KILLED", -signal.SIGINT, signal.SIGINT, ("KeyboardInterrupt",)),
    "ctrl-c-in-with": Ending(INSIDE + "wait()", "KILLED", -signal.SIGINT, signal.SIGINT, ("KeyboardInterrupt",)),
    "sigterm-outside": Ending(OPEN + "wait()", "KILLED", -signal.SIGTERM, signal.SIGTERM),
    "sigterm-in-with": Ending(INSIDE + "wait()", "KILLED", -signal.SIGTERM, signal.SIGTERM),
    "handler-before": Ending(OWN_HANDLER + OPEN + "wait()", "KILLED", 3, signal.SIGTERM, ("OWN",)),
    "handler-after": Ending(OPEN + LATER_HANDLER, "KILLED", 7, signal.SIGTERM, ("LATER", "STILL HERE")),
    "ignored": Ending(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + OPEN + "wait()", "FINISHED", 0, signal.SIGTERM
    ),
    "children": Ending(
        OPEN + CHILDREN, "FINISHED", 0, None, ("CHILD -15 RUNNING", "CHILD 1 RUNNING", "CHILD 4 RUNNING")
    ),
}


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    run_id: str
    exit_code: int
    output: str


def end(ending: Ending, environment: dict[str, str], folder: Path) -> Ended:
    """Run a script to its end, with the signal it is to be sent."""
    process = fork_script(BEGIN + ending.code, environment, folder)
    seen = ""
    if ending.sent is not None:
        for line in process.stdout:
            seen += line
            if line == "READY\n":
                break
        process.send_signal(ending.sent)
    output, _ = process.communicate("\n", timeout=120)
    seen += output
    assert "RUN " in seen, seen
    return Ended(seen.partition("RUN ")[2].split()[0], process.returncode, seen)


@pytest.fixture(scope="module")
def ended(mantik_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Let all the scripts end, a few at a time."""

    def go(name: str) -> Ended:
        folder = tmp_path_factory.mktemp(name)
        return end(ENDINGS[name], clean_environment(mantik_platform.environment(), folder), folder)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(ENDINGS, pool.map(go, ENDINGS), strict=True))


@pytest.mark.parametrize("name", ENDINGS)
def test_a_run_ends_as_its_process_does(name: str, ended: dict[str, Ended], mantik_platform: Platform) -> None:
    """The platform holds the true status when the process is gone, whose exit code is what it is without mantik."""
    expected, found = ENDINGS[name], ended[name]
    run = mantik_platform.read_back.run(found.run_id)
    assert run.status == expected.status, found.output
    assert found.exit_code == expected.exit_code, found.output
    assert run.end_time is not None
    assert run.end_time >= run.start_time
    for text in expected.says:
        assert text in found.output
    # All that was logged is there, and the receipt says so.
    assert "loss" in run.metrics
    assert f"({expected.status}): " in found.output
    assert f"/runs/{found.run_id}" in found.output
    assert "Not everything" not in found.output


HAND_OVER = """
from mantik.delivery.registry import outbox_for

def hand_over(*_):
    outbox_for(mlflow.get_tracking_uri()).hand_over(run.info.run_id)
"""
OWN_HAND_OVER = """
def own(number, frame):
    hand_over()
    sys.exit(3)

signal.signal(signal.SIGTERM, own)
"""
HANDED_OVER = {
    "end-of-script": Ending(HAND_OVER + OPEN + "hand_over()", "RUNNING"),
    "end-of-with": Ending(HAND_OVER + INSIDE + "hand_over()", "RUNNING"),
    "error": Ending(HAND_OVER + INSIDE + "hand_over(); raise ValueError('mine')", "RUNNING", 1),
    "sigterm": Ending(HAND_OVER + OPEN + "hand_over()\nwait()", "RUNNING", -signal.SIGTERM, signal.SIGTERM),
    "sigterm-in-with": Ending(HAND_OVER + INSIDE + "hand_over(); wait()", "RUNNING", -signal.SIGTERM, signal.SIGTERM),
    "in-a-handler": Ending(HAND_OVER + OWN_HAND_OVER + OPEN + "wait()", "RUNNING", 3, signal.SIGTERM),
}


@pytest.mark.parametrize(
    "case",
    [*((name, False) for name in HANDED_OVER), ("sigterm", True), ("end-of-script", True)],
    ids=lambda case: f"{case[0]}-{'away' if case[1] else 'there'}",
)
def test_a_run_that_is_handed_over_outlives_its_process(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path, case: tuple[str, bool]
) -> None:
    """However a process ends, the run goes on, also after a sync, and its next process ends it."""
    expected, away = HANDED_OVER[case[0]], case[1]
    if away:
        environment["MANTIK_EXIT_TIMEOUT"] = "1"
        proxy.fault(Refuse())
    found = end(expected, environment, tmp_path)
    assert found.exit_code == expected.exit_code, found.output
    assert "(RUNNING): " in found.output
    proxy.clear()
    synced = mantik("sync", environment=environment)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert "left running" not in synced.stdout
    assert ("Nothing waits." in synced.stderr) is not away
    held = mantik_platform.read_back
    run_id = server_id(mantik_platform, found.run_id)
    assert (held.run(run_id).status, held.run(run_id).metrics) == ("RUNNING", {"loss": 0.5})
    goes_on = OPEN.replace("start_run()", f"start_run(run_id={found.run_id!r})").replace("0.5", "0.25")
    assert "(FINISHED): " in end(Ending(goes_on, "FINISHED"), environment, tmp_path).output
    assert (held.run(run_id).status, held.run(run_id).metrics) == ("FINISHED", {"loss": 0.25})


def test_the_receipt_has_the_command_that_sends_the_rest(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """What waits is counted in the receipt on stderr, whose command delivers it when it is typed into a shell."""
    environment["MANTIK_EXIT_TIMEOUT"] = "1"
    switch = proxy.fault(Refuse(), path="/api/2.0/mlflow/runs/log-batch")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN + OPEN)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    run_id = done.stdout.partition("RUN ")[2].split()[0]
    assert "mantik: " not in done.stdout
    assert "nothing sent; 1 point, 1 status change waiting" in done.stderr
    assert f"Not everything has reached {proxy.url}" in done.stderr
    (folder,) = spool_of(environment)
    assert f"  The rest is safe in {environment['MANTIK_HOME']}/spool/{folder}\n" in done.stderr
    switch.clear()
    command = done.stderr.partition("To send it: ")[2].splitlines()[0]
    assert command.endswith(f" mantik sync {run_id}")
    # As in a shell of the user, where mantik is installed and the login is remembered.
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    shell = subprocess.run(
        ["/bin/sh", "-c", command],
        env={**environment, "PATH": path},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    run = mantik_platform.read_back.run(run_id)
    assert (run.status, run.metrics) == ("FINISHED", {"loss": 0.5})
    assert spool_of(environment) == []


def test_flush_and_receipt_tell_what_is_there(proxy: FaultProxy, environment: dict[str, str], tmp_path: Path) -> None:
    """`flush` tells within its time whether all has arrived, and `receipt` what has, what waits, where and why."""
    code = """
        import json, sys
        import mantik, mlflow

        def tell(text):
            receipt = mantik.receipt()
            (run,) = receipt.runs
            fields = [run.sent.metrics, run.waiting.metrics, run.refused, run.status, run.link is not None]
            known = [receipt.folder is not None, receipt.problem is not None, receipt.command is not None]
            print(json.dumps([text, fields, known, receipt.is_complete]), flush=True)
            sys.stdin.readline()

        assert mantik.flush() is True
        mantik.init_tracking()
        assert mantik.flush(0) is True
        assert mantik.receipt().runs == ()
        run = mlflow.start_run()
        mlflow.log_metric("loss", 0.5, step=1)
        tell(mantik.flush(30))
        mlflow.log_metric("loss", 0.25, step=2)
        tell(mantik.flush(2))
        tell(mantik.flush(30))
        """
    process = fork_script(code, {**environment, "MANTIK_EXIT_TIMEOUT": "10"}, tmp_path)

    def told() -> object:
        return json.loads(next(line for line in process.stdout if line.startswith("[")))

    assert told() == [True, [1, 0, 0, None, True], [False, False, False], True]
    switch = proxy.fault(Refuse())
    process.stdin.write("\n")
    process.stdin.flush()
    assert told() == [False, [1, 1, 0, None, True], [True, True, True], False]
    switch.clear()
    process.stdin.write("\n")
    process.stdin.flush()
    assert told() == [True, [2, 0, 0, None, True], [False, False, False], True]
    output, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0, output


def test_the_wait_at_the_end_can_be_forbidden(proxy: FaultProxy, environment: dict[str, str], tmp_path: Path) -> None:
    """With MANTIK_EXIT_TIMEOUT=0 a process ends at once, whatever waits, and the receipt says what does."""
    environment["MANTIK_EXIT_TIMEOUT"] = "0"
    proxy.fault(Hang(), path="/api/2.0/mlflow/runs/log-batch")
    output = run_forked(BEGIN + OPEN, environment, tmp_path, timeout=30)
    assert "waiting up to" not in output
    assert "1 point, 1 status change waiting" in output
    assert len(spool_of(environment)) == 1


@pytest.mark.parametrize("fault", [Refuse(), Hang()], ids=["refused", "silent"])
def test_ctrl_c_skips_the_wait_and_loses_nothing(
    fault: Refuse | Hang, mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], tmp_path: Path
) -> None:
    """Away from a terminal one line says that a process waits; Ctrl-C ends that, and a sync delivers the rest."""
    switch = proxy.fault(fault, path="/api/2.0/mlflow/runs/log-batch")
    process = fork_script(BEGIN + OPEN, environment, tmp_path)
    seen = ""
    for line in process.stdout:
        seen += line
        if "waiting up to" in line:
            break
    assert f"for {proxy.url} to take 2 records" in seen
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert "Traceback" not in output
    assert "To send it: " in output
    switch.clear()
    done = mantik("sync", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    run = mantik_platform.read_back.run(seen.partition("RUN ")[2].split()[0])
    assert (run.status, run.metrics) == ("FINISHED", {"loss": 0.5})


def test_a_terminal_shows_a_progress_bar(proxy: FaultProxy, environment: dict[str, str], tmp_path: Path) -> None:
    """On a terminal a bar shows what is waited for, and it is gone when everything has arrived."""
    switch = proxy.fault(Refuse(), path="/api/2.0/mlflow/runs/log-batch")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        seen = {**environment, "TERM": "xterm", "COLUMNS": "150"}
        process = fork_script(BEGIN + OPEN, seen, tmp_path, errors=terminal)
    shown = bytearray()

    def sees(text: bytes) -> bool:
        with contextlib.suppress(OSError):
            # OSError: the other side is closed.
            shown.extend(os.read(ours, 4096))
        return text in shown

    try:
        wait_until(lambda: sees(b"Ctrl-C skips this and loses nothing"), deadline=60, what="the bar")
        switch.clear()
        wait_until(lambda: sees(b"1 point, 1 status change sent"), deadline=60, what="the receipt")
        process.wait(60)
    finally:
        process.kill()
        os.close(ours)
    assert process.returncode == 0
    assert b"waiting up to" not in shown
