"""Trainings that start in a second: forked from a process that has imported a framework and MLflow already.

Each is a real process with an environment, a folder and an end of its own: its exit code is what Python and the
framework make of it, and it can be sent any signal. It ends as soon as Python has called the last handler for that:
to take the imported modules apart then would take longer than most of the trainings.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import textwrap
from typing import TYPE_CHECKING

from mantik.testing import wait_until
from tests.scripts import clean_environment, start_script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from mantik.testing import Platform
    from mantik.testing.holdings import Run

__all__ = ["BEGINNING", "Training", "Trainings", "ended"]

_SECONDS = 120.0

BEGINNING = '''
import json, os, signal, subprocess, sys, time
from pathlib import Path


def send(number):
    return lambda: os.kill(os.getpid(), number)


def wait(name):
    """Say that this place is reached, and go on once the test says so."""
    Path(f"at-{name}").touch()
    end = time.monotonic() + 60
    while not Path(f"go-{name}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)

'''
"""What every script begins with."""

_WARM = """
    import atexit, gc, json, os, signal, sys

    code = None


    def leave():
        if code == -signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


    # The first to be registered is the last to be called.
    atexit.register(leave)
    exec(SCRIPT)
    exec(IMPORTS)
    import mantik.cli.commands, mantik.delivery.sync

    # Otherwise each child would look through all of that when it ends, and copy it for that.
    gc.collect()
    gc.freeze()
    print("WARM", flush=True)
    order = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "ask" in order:
            gone, status = os.waitpid(order["ask"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if gone else "", flush=True)
            continue
        child = os.fork()
        if child == 0:
            break
        print(child, flush=True)
    else:
        sys.exit()

    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["arguments"]
    try:
        exec(compile(order["code"], sys.argv[0], "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:
        code = -signal.SIGINT
        raise
    except BaseException:
        code = 1
        raise
    """


class Training:
    """One process."""

    def __init__(self, warm: Trainings, pid: int, folder: Path, home: Path, output: Path) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self._warm = warm
        self._folder = folder
        self._home = home
        self._output = output

    @property
    def output(self) -> str:
        """What it has printed so far, errors among it."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def run_id(self) -> str:
        """The run, as the line at the start names it, or the receipt, or the spool where the platform came later."""
        found = re.search(r"/runs/([0-9a-f]{32})", self.output)
        if found is not None:
            return found[1]
        kept = [json.loads(file.read_text()) for file in self._home.glob(".mantik/**/ids/*.json")]
        run_ids = [str(identity["server_id"]) for identity in kept if identity["kind"] == "run"]
        assert len(run_ids) == 1, (run_ids, self.output)
        return run_ids[0]

    def reach(self, name: str) -> None:
        """Wait until it waits at a place."""
        wait_until(lambda: self._is_gone() or (self._folder / f"at-{name}").exists(), deadline=_SECONDS, what=name)
        assert self.exit_code is None, self.output

    def go_on(self, name: str) -> None:
        """Let it pass that place."""
        (self._folder / f"go-{name}").touch()

    def end(self, exit_code: int | None = 0) -> str:
        """Wait for its end and return what it has printed; another exit code fails the test, unless any is fine."""
        wait_until(self._is_gone, deadline=_SECONDS, what="the end of the training")
        assert exit_code is None or self.exit_code == exit_code, f"exit code {self.exit_code}\n{self.output}"
        return self.output

    def kill(self) -> None:
        """Make an end of it, if it has none yet."""
        if self.exit_code is None:
            # ProcessLookupError: it was quicker.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _is_gone(self) -> bool:
        if self.exit_code is None:
            self.exit_code = self._warm.exit_code_of(self.pid)
        return self.exit_code is not None


class Trainings:
    """The warmed-up process. What was started is killed at the latest when this ends.

    Args:
        folder: Its home.
        script: What each training begins with.
        imports: Code that imports what a training would import on its way.
        settings: Variables beside the usual ones, of the process and its trainings.
    """

    def __init__(self, folder: Path, script: str, imports: str, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._script = script
        self._started: list[Training] = []
        outside = {name: value for name, value in clean_environment({}, folder).items() if "SLURM" not in name}
        self._outside = {**outside, "OMP_NUM_THREADS": "1", **(settings or {})}
        code = f"SCRIPT, IMPORTS = {script!r}, {imports!r}\n" + textwrap.dedent(_WARM)
        self._process = start_script(code, self._outside, folder)
        said = ""
        while not said.endswith("WARM\n"):
            line = self._said()
            assert line, said
            said += line

    def __enter__(self) -> Self:
        """Return it; it is warm."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything that is left."""
        for training in self._started:
            training.kill()
        self._process.kill()
        self._process.communicate(timeout=60)

    def start(
        self, code: str, settings: Mapping[str, str], folder: Path, *arguments: str, home: Path | None = None
    ) -> Training:
        """Start a training.

        Args:
            code: What the script does.
            settings: Variables beside the usual ones.
            folder: Its working directory, which is made where it is not there.
            *arguments: What the script is called with.
            home: Its home. Default: `folder`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        home = home or folder
        own = {"HOME": str(home), "MANTIK_HOME": str(home / ".mantik"), "MPLCONFIGDIR": str(home / "matplotlib")}
        output = self._folder / f"output-{len(self._started)}"
        order = {
            "code": self._script + textwrap.dedent(code),
            "environment": {**self._outside, **own, **settings},
            "folder": str(folder),
            "arguments": ["train.py", *arguments],
            "output": str(output),
        }
        training = Training(self, int(self._ask(order)), folder, home, output)
        self._started.append(training)
        return training

    def run(
        self,
        code: str,
        settings: Mapping[str, str],
        folder: Path,
        *arguments: str,
        home: Path | None = None,
        exit_code: int | None = 0,
    ) -> Training:
        """Start a training and wait for its end; an exit code of None stands for any."""
        training = self.start(code, settings, folder, *arguments, home=home)
        training.end(exit_code)
        return training

    def sync(self, settings: Mapping[str, str], home: Path) -> None:
        """Run `mantik sync` for a home."""
        self.run("from mantik.cli import main\nmain()", settings, home, "sync")

    def exit_code_of(self, pid: int) -> int | None:
        """Return how a process has ended; None while it has not."""
        said = self._ask({"ask": pid}).strip()
        return int(said) if said else None

    def _ask(self, order: Mapping[str, object]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def ended(platform: Platform, run_id: str, status: str) -> Run:
    """Return a run after checking its status and its times."""
    run = platform.read_back.run(run_id)
    assert run.status == status
    assert run.end_time is not None
    assert run.end_time >= run.start_time
    return run
