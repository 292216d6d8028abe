"""Trainings and syncs that start in milliseconds: forked from a process that has imported everything already.

Each is a real process, with a spool of its own if it is given one, which can be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mantik.testing import wait_until
from tests.forked import fork_script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

MODEL_EVERY = 20
"""One operation of a training in so many logs a model."""

_SCRIPT = """
    import json, os, signal, sys, tempfile, time, traceback

    import mantik, mantik.cli.commands, mantik.delivery.sync
    import mlflow, mlflow.pyfunc

    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input

    def operate(number):
        kind = number % 5
        if number % MODEL_EVERY == MODEL_EVERY - 1:
            mlflow.pyfunc.log_model(name=f"model-{number}", python_model=Model(), pip_requirements=[])
        elif kind == 0:
            mlflow.log_metric("loss", number / 7, step=number)
        elif kind == 1:
            mlflow.log_param(f"param-{number}", number)
        elif kind == 2:
            mlflow.set_tag("last", number)
        elif kind == 3:
            mlflow.log_text(f"text {number}\\n" * 1000, f"texts/{number}.txt")
        else:
            mlflow.log_metrics({"loss": number / 7, "accuracy": number / 9}, step=number)

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def train(order):
        mantik.init_tracking()
        if order.get("experiment"):
            mlflow.set_experiment(order["experiment"])
        say("READY")
        run = mlflow.start_run()
        say("RUN", run.info.run_id, time.time())
        for number in range(order["operations"]):
            operate(number)
            say("DONE", number, time.time())
        if order["ends"]:
            mlflow.end_run()
        say("LOGGED")
        while True:
            signal.pause()

    def ship(order):
        mantik.cli.commands.mantik(["sync", "--json"])

    def be_born(order):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.update(order["environment"])
        os.dup2(os.open(order["pipe"], os.O_WRONLY), 1)
        os.dup2(os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        try:
            {"train": train, "ship": ship}[order["do"]](order)
        except SystemExit as end:
            sys.stdout.flush()
            say("EXIT", end.code or 0)
        except BaseException:
            traceback.print_exc()
        os._exit(0)

    # The first model costs half a second, later ones ten milliseconds.
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(f"{folder}/model", python_model=Model(), pip_requirements=[])
    # Nobody has to wait for the dead: a process that is not waited for counts as alive.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("WARM", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            be_born(json.loads(line))
        print(child, flush=True)
    """


class Child:
    """One process: what it says, and its end. `errors` is the file with what it writes to stderr."""

    def __init__(self, pid: int, pipe: int, errors: Path) -> None:
        self.pid = pid
        self.errors = errors
        self._pipe = pipe
        self._said = b""
        self._over = False

    def lines(self) -> list[str]:
        """Return the whole lines that it has said so far."""
        return self._said.decode().split("\n")[:-1]

    def read_until(self, word: str, *, deadline: float = 60.0) -> None:
        """Read until it has said a line that begins with a word."""
        end = time.monotonic() + deadline
        while not any(line.startswith(word) for line in self.lines()):
            if self._over or time.monotonic() > end:
                raise AssertionError(f"{word!r} never came: {self.lines()} {self.errors.read_text()}")
            self._read(end - time.monotonic())

    def read_for(self, seconds: float) -> None:
        """Read what it says for some time, or until it is gone."""
        end = time.monotonic() + seconds
        while not self._over and (left := end - time.monotonic()) > 0:
            self._read(left)

    def kill(self) -> None:
        """Kill it, wherever it is, and read what it had said."""
        # ProcessLookupError: it was quicker.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, deadline: float = 60.0) -> list[str]:
        """Wait for its end and return what it has said."""
        end = time.monotonic() + deadline
        while not self._over and time.monotonic() < end:
            gone = not Path(f"/proc/{self.pid}").exists()
            self._read(0.1)
            if gone and not self._over and not select.select([self._pipe], [], [], 0)[0]:
                # Killed before it had opened its end: nobody will ever close it.
                self._over = True
                os.close(self._pipe)
        assert self._over, f"it goes on: {self.lines()} {self.errors.read_text()}"
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), what=f"the end of process {self.pid}")
        return self.lines()

    def _read(self, seconds: float) -> None:
        if select.select([self._pipe], [], [], max(0.0, seconds))[0]:
            said = os.read(self._pipe, 65536)
            self._said += said
            self._over = not said
            if self._over:
                os.close(self._pipe)


class Nursery:
    """The warmed-up process. What is born is killed at the latest when this ends."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._folder = folder
        self._born: list[Child] = []
        code = _SCRIPT.replace("MODEL_EVERY", str(MODEL_EVERY))
        self._process = fork_script(code, environment, folder)
        said = ""
        while not said.endswith("WARM\n"):
            line = self._process.stdout.readline()
            assert line, said
            said += line

    def __enter__(self) -> Self:
        """Return the nursery, which is warm."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything that is left."""
        for child in self._born:
            if not child._over:  # noqa: SLF001  # of the same file
                child.kill()
        self._process.kill()
        self._process.communicate(timeout=60)

    def train(
        self, environment: Mapping[str, str], *, operations: int, experiment: str | None = None, ends: bool = False
    ) -> Child:
        """Start a training that logs some things, one after the other, and then waits to be killed.

        Args:
            environment: Its variables, beside those of the nursery.
            operations: How many things it logs.
            experiment: Name of the experiment.
            ends: End the run before waiting.
        """
        return self._bear(environment, do="train", operations=operations, experiment=experiment, ends=ends)

    def ship(self, environment: Mapping[str, str]) -> Child:
        """Start `mantik sync --json`; its last line is `EXIT` and the exit code."""
        return self._bear(environment, do="ship")

    def _bear(self, environment: Mapping[str, str], **order: object) -> Child:
        number = len(self._born)
        pipe, errors = self._folder / f"pipe-{number}", self._folder / f"errors-{number}"
        os.mkfifo(pipe)
        errors.touch()
        # Without waiting for the writer; until there was one, there is nothing to be read, and no end either.
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        line = json.dumps({"environment": dict(environment), "pipe": str(pipe), "errors": str(errors), **order})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        child = Child(int(self._process.stdout.readline()), reading, errors)
        self._born.append(child)
        return child


def kept_ids(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the server's id of each provisional one that a spool knows."""
    spool = environment.get("MANTIK_SPOOL") or f"{environment['MANTIK_HOME']}/spool"
    files = Path(spool, "ids").glob("*.json")
    return {file.stem: json.loads(file.read_text())["server_id"] for file in files}
