"""Scripts and commands that start in milliseconds: forked from a process that has imported MLflow and mantik already.

Each is a real process with an environment, a folder and an end of its own: its exit code is what Python makes of it, it
can be sent any signal, and nothing of mantik has begun in it. What is about imports or installations takes
`tests.scripts`, which starts Python itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.scripts import clean_environment, output_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

__all__ = ["Forked", "Warm", "end_all", "fork_mantik", "fork_script", "run_forked", "run_mantik"]

_WARM_SECONDS = 120

_WARM = """
import gc, json, os, select, socket, sys

exec(sys.argv[2])
import mlflow, mlflow.pyfunc
import git, IPython
import mantik.cli.spool, mantik.cli.status, mantik.cli.sync
import mantik.delivery.ending, mantik.delivery.outbox, mantik.delivery.receipt, mantik.delivery.sync
import mantik.plugins.artifacts, mantik.plugins.experiment_store, mantik.plugins.model_store, mantik.plugins.run_store


def _next_order():
    control = socket.socket(fileno=int(sys.argv[1]))
    lives = {}
    # Otherwise each child would look through all of that when it ends, and copy it for that.
    gc.collect()
    gc.freeze()
    control.send(b"warm")
    while True:
        ready = set(select.select([control, *lives], [], [])[0])
        for life in ready - {control}:
            child, end = lives.pop(life)
            os.write(end, str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            os.close(end)
            os.close(life)
        if control not in ready:
            continue
        said, descriptors, _, _ = socket.recv_fds(control, 2**20, 4)
        if not said:
            os._exit(0)
        child = os.fork()
        if child == 0:
            break
        control.send(str(child).encode())
        lives[os.pidfd_open(child)] = child, descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)

    for place in range(3):
        os.dup2(descriptors[place], place)
    for descriptor in (control.detach(), *descriptors, *lives, *(end for _, end in lives.values())):
        os.close(descriptor)
    order = json.loads(said)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["arguments"]
    return compile(order["code"], "<string>", "exec")


exec(_next_order())
"""

_COMMAND = """
import os, runpy, sys

try:
    runpy.run_module("mantik", run_name="__main__", alter_sys=True)
except SystemExit as end:
    sys.stdout.flush()
    sys.stderr.flush()
    # What Python does on from here would take as long as all the rest.
    os._exit(end.code or 0)
"""


class Forked:
    """A process, to be used as one of `subprocess`.

    Attributes:
        pid: Its id.
        stdin: Its input.
        stdout: What it prints, what it writes to stderr among it unless that goes into a file.
        returncode: Its exit code, or the negative number of the signal that ended it; None while it is not known.
    """

    def __init__(self, pid: int, stdin: IO[str], stdout: IO[str], errors: IO[str] | None, end: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._errors = errors
        self._end = end

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            # ProcessLookupError: it was quicker.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Make an end of it."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return its exit code; None while it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout or 0)
            self.returncode = int(os.read(self._end, 64))
            os.close(self._end)
        return self.returncode

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Give it a last input, wait for its end, and return what else it printed and what its file of errors has."""
        printed: list[str] = []
        reader = threading.Thread(target=lambda: printed.append(self.stdout.read()), daemon=True)
        reader.start()
        # BrokenPipeError: it has ended without reading.
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(text)
            self.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        reader.join(timeout)
        if reader.is_alive():
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        self.stdout.close()
        self.wait(timeout)
        return printed[0], self._close_errors()

    def _close_errors(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        with self._errors:
            return self._errors.read()


class Warm:
    """The process from which others are forked. What was started is killed at the latest when this ends.

    Args:
        imports: Code that imports what its scripts would import, beside MLflow and mantik.
    """

    def __init__(self, imports: str = "") -> None:
        self._lock = threading.Lock()
        self._forked: list[Forked] = []
        self._home = tempfile.TemporaryDirectory()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_WARM_SECONDS)
        home = Path(self._home.name)
        with theirs, (home / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _WARM, str(theirs.fileno()), imports],
                env=clean_environment({}, home),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
            )
        assert self._control.recv(64), (home / "errors").read_text()

    def __enter__(self) -> Self:
        """Return it; it is warm."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and what is left of what was started."""
        for forked in self._forked:
            forked.kill()
            forked.wait(60)
        self._control.close()
        self.process.wait(60)
        self._home.cleanup()

    def start(
        self,
        code: str,
        environment: Mapping[str, str],
        folder: Path,
        *arguments: str,
        errors: IO[str] | None = None,
    ) -> Forked:
        """Start a script; its output and its errors come through one pipe, its input is another.

        Args:
            code: The script.
            environment: All its variables.
            folder: Its working directory.
            *arguments: What it is called with.
            errors: Where its errors go instead.
        """
        order = {
            "code": textwrap.dedent(code),
            "environment": dict(environment),
            "folder": str(folder),
            "arguments": ["-c", *arguments],
        }
        their_input, our_input = os.pipe()
        our_output, their_output = os.pipe()
        our_end, their_end = os.pipe()
        theirs = [their_input, their_output, their_output if errors is None else errors.fileno(), their_end]
        with self._lock:
            socket.send_fds(self._control, [json.dumps(order).encode()], theirs)
            pid = int(self._control.recv(64))
        for descriptor in (their_input, their_output, their_end):
            os.close(descriptor)
        forked = Forked(pid, os.fdopen(our_input, "w"), os.fdopen(our_output), errors, our_end)
        self._forked.append(forked)
        return forked


_shared: list[Warm] = []
_sharing = threading.Lock()


def fork_script(
    code: str, environment: Mapping[str, str], folder: Path, *arguments: str, errors: IO[str] | None = None
) -> Forked:
    """Start a script with `Warm.start`, from a process that all tests share."""
    with _sharing:
        if not _shared:
            _shared.append(Warm())
    return _shared[0].start(code, environment, folder, *arguments, errors=errors)


def run_forked(code: str, environment: Mapping[str, str], folder: Path, *arguments: str, timeout: float = 180) -> str:
    """Run a script to its end and return what it printed; anything but exit code 0 fails the test with the output."""
    return output_of(fork_script(code, environment, folder, *arguments), timeout)


def fork_mantik(*arguments: str, environment: Mapping[str, str], folder: Path | None = None) -> Forked:
    """Start the command line; its errors go into a file."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by who reads it
    return fork_script(_COMMAND, environment, folder or Path.cwd(), *arguments, errors=errors)


def run_mantik(
    *arguments: str, environment: Mapping[str, str], stdin: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; whatever happens, nobody is shown a traceback."""
    process = fork_mantik(*arguments, environment=environment)
    output, errors = process.communicate(stdin or "", timeout)
    assert process.returncode is not None
    assert "Traceback" not in output + errors, errors
    return subprocess.CompletedProcess(["mantik", *arguments], process.returncode, output, errors)


def end_all() -> None:
    """End the process that all tests share, and what is left of what was forked from it."""
    while _shared:
        _shared.pop().__exit__()
