"""Runs one job: ``python -m mantik.server.compute.wrapper FOLDER``, on whatever machine an executor has chosen.

It says that it has begun, runs the program within its limits, delivers what the program has left undelivered, and says
how it ended. It needs the job's folder and the platform's address, no database, and little memory: MLflow is loaded
beside it, by `mantik.server.compute.entry_point`, and not for long.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mantik.auth.cache import make_private
from mantik.compute.backend_config import BackendConfig
from mantik.compute.quantities import duration_text, size_text
from mantik.server.compute.entry_point import read_answer
from mantik.server.compute.job_environment import JobEnvironment, login_cache, shim_folder
from mantik.server.compute.jobs import now
from mantik.server.compute.leftovers import deliver
from mantik.server.compute.processes import Identity
from mantik.server.compute.program import command_line, shell_variables
from mantik.server.compute.supervisor import Limits, Supervisor
from mantik.server.compute.task import Task, folders_at
from mantik.server.compute.testimony import Cause, Ended, Started

if TYPE_CHECKING:
    from mantik.compute.environment import Environment
    from mantik.server.compute.folders import JobFolders

DELIVERY_SECONDS: Final = 120.0
"""How long a job stays for what it has left undelivered; after that the service sees to it."""

_NOT_STARTED: Final = 125
_SHELL_SIGNALS: Final = 128
_DEADLY: Final = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGINT,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGTERM,
        signal.SIGXCPU,
    }
)
# So that it is a program of a job, and not the platform, that has to go when the machine has no memory left.
_OOM_SCORE: Final = "500"


def main(folder: str) -> int:
    """Run the job of a folder; return its exit code as a shell would."""
    folders = folders_at(Path(folder))
    task = Task.load(folders)
    if not _claim(folders):
        _say("the job was started already")
        return 0
    try:
        ended = Wrapper(task, folders).run()
    except Exception:  # noqa: BLE001 - the one guard: whatever is wrong here, the job's end is told
        traceback.print_exc()
        ended = Ended(Cause.SET_UP, now(), reason="the wrapper of the job failed; the log says why", is_delivered=False)
    ended.store(folders)
    if ended.exit_code is not None:
        return ended.exit_code
    return _SHELL_SIGNALS + ended.signal if ended.signal is not None else _NOT_STARTED


class Wrapper:
    """One job, from its beginning to its end."""

    def __init__(self, task: Task, folders: JobFolders) -> None:
        self._task = task
        self._folders = folders
        config = BackendConfig.from_mapping(task.backend_config)
        self._environment = config.environment
        known = login_cache(folders, task.url, task.username).load()
        self._variables = self._with_token(known.access.reveal() if known is not None else "")

    def run(self) -> Ended:
        """Run it, and return how it ended."""
        share = self._task.share
        with Supervisor(Limits(share.seconds, share.memory, self._task.grace), _say) as supervisor:
            try:
                _settle(self._task)
                ended = self._run(supervisor)
            finally:
                # Nothing is left, unless something went wrong here.
                supervisor.kill()
            delivery = deliver(self._folders, self._variables.for_platform(), DELIVERY_SECONDS)
        if delivery.problem:
            _say(f"not all that was logged is on the platform yet: {delivery.problem}")
        return replace(ended, ended_runs=delivery.ended_runs, is_delivered=delivery.is_complete)

    def _with_token(self, token: str) -> JobEnvironment:
        return JobEnvironment.of(self._task, self._environment, self._folders, token)

    def _run(self, supervisor: Supervisor) -> Ended:
        problem = _problem(self._environment, self._folders)
        if problem is not None:
            return _not_started(problem)
        command = [sys.executable, "-E", "-m", "mantik.server.compute.entry_point", str(self._folders.root)]
        code = supervisor.run(command, self._variables.for_platform(), self._folders.state)
        if supervisor.cause is not None:
            return Ended(supervisor.cause, now(), reason=_reason(self._task, supervisor.cause))
        try:
            answer = read_answer(self._folders)
        except (OSError, ValueError):
            return _not_started(f"MLflow could not prepare the entry point (exit code {code}); the log says why")
        if "command" not in answer:
            return _not_started(f"MLflow cannot run the entry point: {answer.get('problem')}")
        if answer.get("token"):
            self._variables = self._with_token(answer["token"])
        return self._run_program(supervisor, answer["command"])

    def _run_program(self, supervisor: Supervisor, command: str) -> Ended:
        arguments = command_line(self._task, self._environment, self._folders, command)
        variables = shell_variables(self._variables, self._environment)
        try:
            code = supervisor.run(arguments, variables, self._folders.project)
        except OSError as error:
            # There is no bash, or the system takes no arguments of that length.
            return _not_started(f"the program cannot be started: {error}")
        cause = supervisor.cause or Cause.EXIT
        number = _signal_of(code)
        return Ended(
            cause,
            now(),
            exit_code=code if number is None else None,
            signal=number,
            reason=_reason(self._task, cause),
            memory=supervisor.memory,
        )


def _claim(folders: JobFolders) -> bool:
    """Say that the job has begun; tell whether it is this process that runs it."""
    me = Identity.of(os.getpid())
    if me is None:
        raise RuntimeError("a process that runs is there")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    attempt = int(restarts) if restarts.isdecimal() else 0
    return Started(me, os.getsid(0), socket.gethostname(), now(), attempt).claim(folders)


def _settle(task: Task) -> None:
    """Take this process, and with it all of the job, to its place on the machine."""
    with contextlib.suppress(OSError):
        if task.share.cpus:
            os.sched_setaffinity(0, task.share.cpus)
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    # The shell that has started this process made it deaf to it.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _problem(environment: Environment, folders: JobFolders) -> str | None:
    """Say what the job needs and this machine has not; make what is to be made."""
    image = environment.apptainer
    if image is not None and image.is_local and not (folders.project / image.path).is_file():
        return f"the image {image.path} is not in the project"
    if environment.python is None:
        return None
    python = Path(environment.python)
    interpreter = python / "bin" / "python" if python.is_dir() else python
    if not os.access(interpreter, os.X_OK):
        return f"there is no Python {interpreter} on {socket.gethostname()}"
    if python.is_file() and python.name != "python":
        make_private(shim_folder(folders))
        shim = shim_folder(folders) / "python"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n', encoding="utf-8")
        shim.chmod(0o700)
    return None


def _signal_of(code: int) -> int | None:
    """Return the signal that ended a program; a shell that has waited for it says so with an exit code."""
    if code < 0:
        return -code
    return code - _SHELL_SIGNALS if code - _SHELL_SIGNALS in _DEADLY else None


def _reason(task: Task, cause: Cause) -> str:
    share = task.share
    if cause is Cause.TIME_LIMIT and share.seconds is not None:
        return f"time limit: it was ended after {duration_text(int(share.seconds))}"
    if cause is Cause.MEMORY_LIMIT and share.memory is not None:
        return f"memory limit: it held more than {size_text(share.memory)}"
    return ""


def _not_started(reason: str) -> Ended:
    _say(reason)
    return Ended(Cause.SET_UP, now(), reason=reason)


def _say(text: str) -> None:
    """Tell the user, in the job's log."""
    print(f"mantik: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log is a file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
