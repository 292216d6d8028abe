"""A real Slurm on this machine, for as long as a test needs it: one controller, one node, one partition.

It stands in a folder of its own and touches nothing of a Slurm that the machine may be part of. It needs root, and
Debian's package `slurm-wlm`, which brings munge (`tools/ensure-slurm`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from mantik.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Slurm", "why_no_slurm"]

_CONTROLLER = ("slurmctld", "-D")
_DAEMONS = ("munged", "slurmctld", "slurmd")
_COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
_PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
_LOOKS = 10
"""Looks at a job until the controller is asked once: to ask is a process of its own."""
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0

_CONFIGURATION = """
ClusterName=machine
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str | None:
    """Return why there can be no Slurm on this machine; None where there can."""
    missing = [name for name in (*_DAEMONS, *_COMMANDS) if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"Slurm is not installed (Debian's package 'slurm-wlm'; missing: {', '.join(missing)})"
    return None if os.geteuid() == 0 else "Slurm starts jobs as root alone"


class Slurm:
    """Slurm, with the daemons as children of this process. One thread at a time may use an object.

    Promises: when it is entered, a job that is submitted starts at once, if there is a free processor; when it is left,
    no daemon and no job of it lives. Jobs run as root, with the environment that they were submitted with.

    Args:
        folder: Where everything is kept, the daemons' logs among it. Its path must be short: a socket is in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variable by which Slurm's commands find this one."""
        return {"SLURM_CONF": str(self._folder / "slurm.conf")}

    def __enter__(self) -> Self:
        """Start the daemons and wait for the node."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._stop)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End all jobs, then the daemons."""
        with contextlib.suppress(RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            # Whatever a job or a daemon does, the daemons are ended.
            self._command("scancel", "--user", "root")
            wait_until(lambda: not self._command("squeue", "--noheader"), deadline=_STOP_SECONDS, what="the last job")
        self._stop()

    def submit(self, code: str, environment: Mapping[str, str], folder: Path, *options: str) -> str:
        """Submit a batch script and return the job's id.

        Args:
            code: The script; its first line is added.
            environment: The job's environment, beside what Slurm adds.
            folder: The job's working directory. What it prints is in `output` there, that of all attempts.
            *options: Options of `sbatch`.
        """
        file = folder / "job.sh"
        file.write_text(f"#!/bin/bash\n{code}\n")
        usual = ["--parsable", "--ntasks=1", "--open-mode=append", f"--output={folder}/output", f"--chdir={folder}"]
        return self._command("sbatch", *usual, *options, str(file), environment=environment)

    def facts(self, job: str) -> dict[str, str]:
        """Return what the controller knows of a job: `JobState`, `Restarts`, `ExitCode` and so on."""
        shown = self._command("scontrol", "--oneliner", "show", "job", job)
        return dict(item.split("=", 1) for item in shown.split() if "=" in item)

    def wait(self, job: str, *states: str, deadline: float = 120.0) -> dict[str, str]:
        """Wait until a job is in one of some states, such as `COMPLETED`, and return what `facts` does."""
        looks = itertools.count()

        def reached() -> dict[str, str] | None:
            if next(looks) % _LOOKS:
                return None
            facts = self.facts(job)
            return facts if facts["JobState"] in states else None

        return wait_until(reached, deadline=deadline, what=f"job {job} in {' or '.join(states)}") or {}

    def send(self, job: str, signal: str) -> None:
        """Send a signal to the job's steps, as `--signal` does before the time limit."""
        self._command("scancel", f"--signal={signal}", job)

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        self._command("scancel", job)

    def requeue(self, job: str) -> None:
        """Let a job start again, as a preemption or a node that fails does."""
        self._command("scontrol", "requeue", job)

    def start_again(self, job: str) -> None:
        """Start a requeued job without the two minutes that Slurm lets it wait."""
        self.wait(job, "PENDING")
        self.update(f"JobId={job}", "StartTime=now")

    def update(self, *changes: str) -> None:
        """Change a job, the partition or the node, as an administrator does with `scontrol update`."""
        self._command("scontrol", "update", *changes)

    def stop_controller(self) -> None:
        """End the controller; jobs that run go on."""
        (controller,) = (daemon for daemon in self._daemons if daemon.args == _CONTROLLER)
        self._daemons.remove(controller)
        controller.terminate()
        controller.wait(_STOP_SECONDS)

    def start_controller(self) -> None:
        """Start the controller again and wait until it answers; it knows all jobs."""
        self._launch(*_CONTROLLER)
        wait_until(self._answers, deadline=_START_SECONDS, what="the controller")

    def _start(self) -> None:
        folder, host = self._folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        controller_port, node_port = _free_ports()
        (folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                host=host,
                folder=folder,
                controller_port=controller_port,
                node_port=node_port,
                processors=os.cpu_count(),
            )
        )
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
        # --force: root may run it, and others may see the folder.
        self._launch("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        wait_until((folder / "munge.socket").exists, deadline=_START_SECONDS, what="munge's socket")
        self._launch(*_CONTROLLER)
        self._launch("slurmd", "-D")
        wait_until(self._is_ready, deadline=_START_SECONDS, what="the node")

    def _is_ready(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, f"{daemon.args} has ended: {self._logs()}"
        try:
            return "idle" in self._command("sinfo", "--noheader", "--format=%T")
        except RuntimeError:
            return False

    def _answers(self) -> bool:
        try:
            self._command("squeue")
        except RuntimeError:
            return False
        return True

    def _launch(self, *command: str) -> None:
        with (self._folder / f"{command[0]}.out").open("wb") as output:
            daemon = subprocess.Popen(
                command,
                env={**_outside(), "PATH": _PATH, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches whoever uses this first, and ends the daemons in order.
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _stop(self) -> None:
        while self._daemons:
            daemon = self._daemons.pop()
            daemon.terminate()
            try:
                daemon.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _command(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        base = _outside() if environment is None else environment
        done = subprocess.run(
            command, env={**base, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(self._folder.glob("*.*o[ug]*")))


def _outside() -> dict[str, str]:
    """Return this process's environment, without the Slurm that it may be a job of."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
