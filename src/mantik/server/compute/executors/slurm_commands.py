"""Slurm's commands, and what they print: any version since 20.11, with accounting or without."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from mantik.exceptions import MantikError
from mantik.server.compute.job_environment import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

_logger = logging.getLogger(__name__)

GONE: Final = "GONE"
"""The state of a job of which Slurm knows nothing any more."""

_SECONDS: Final = 120.0
# Nothing was done: nobody heard the command.
_UNHEARD: Final = "connect failure"
# What Slurm says when it cannot answer now, in all of its versions. Everything else that fails is refused for good.
_AWAY: Final = (
    _UNHEARD,
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Transport endpoint",
    "Connection refused",
    "Connection timed out",
    "controller not responding",
    "Resource temporarily unavailable",
    "temporarily unable to accept job",
    "in standby mode",
    "authentication",
    "Munge",
    "munge",
    "configuration source",
    "configuration file",
    "in state transition",
    # How many jobs one account may have submitted: the next one is accepted when one of them has ended.
    "MaxSubmitJob",
)
_QUEUE_FORMAT: Final = "%i|%j|%T|%N|%S|%e|%r"
_RECORD_FORMAT: Final = "JobID,JobName,State,NodeList,Start,End"
_RECORD_COLUMNS: Final = 6
_WAITING: Final = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"},
)
_OVER: Final = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        GONE,
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)


class SlurmRefusedError(MantikError):
    """Slurm does not do it; the text is its own."""


class SlurmAwayError(MantikError):
    """Slurm gives no answer now.

    Attributes:
        is_heard: Whether it may have done what it was told nevertheless.
    """

    def __init__(self, message: str, *, is_heard: bool = True) -> None:
        """Keep the fact beside the text."""
        super().__init__(message)
        self.is_heard = is_heard


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """What Slurm says of a job.

    Attributes:
        number: Slurm's id of it.
        name: Its name.
        state: Its state in one word, such as ``PENDING``.
        nodes: The machines that it has, as Slurm writes them.
        started_at: When it began, as jobs write times.
        ended_at: When it ended, or will at the latest.
        detail: Why it is in this state, one word of Slurm's; empty where there is none.
    """

    number: str
    name: str
    state: str
    nodes: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    detail: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun."""
        return self.state in _WAITING

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in _OVER

    @property
    def words(self) -> str:
        """Its state, with the detail."""
        return f"{self.state}, {self.detail}" if self.detail else self.state


class Slurm:
    """The commands, run as this account. Any thread may use it. It says once in the log when Slurm does not answer.

    They get no environment of the service but ``SLURM_CONF`` and what every program needs; `submit` gets the variables
    of ``sbatch``, such as ``SBATCH_ACCOUNT``, as well.
    """

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._is_away = False

    def submit(self, script: str, options: Sequence[str]) -> str:
        """Submit a batch script and return the number of its job.

        Raises:
            SlurmRefusedError: Slurm does not take it.
            SlurmAwayError: It gives no answer now.
        """
        printed = self._ask("sbatch", "--parsable", *options, stdin=script)
        return printed.strip().partition(";")[0]

    def find(self, name: str) -> SlurmJob | None:
        """Return the job of a name, if the controller knows one.

        Raises:
            SlurmAwayError: Slurm gives no answer now.
        """
        return next((job for job in self._list(f"--name={name}") if job.name == name), None)

    def jobs(self) -> dict[str, SlurmJob]:
        """Return by its number each job of this account that the controller knows: it forgets them after minutes.

        Raises:
            SlurmAwayError: Slurm gives no answer now.
        """
        return {job.number: job for job in self._list(f"--user={os.geteuid()}")}

    def record(self, number: str, name: str) -> SlurmJob | None:
        """Return what was recorded of a job, by the accounting or else in the file of completed jobs.

        None where there is nothing, and where nobody keeps records or can be asked now.
        """
        for source in ((), ("--completion",)):
            options = ["--noheader", "--parsable2", f"--jobs={number}", f"--format={_RECORD_FORMAT}"]
            try:
                printed = self._run("sacct", *source, *options)
            except (SlurmAwayError, SlurmRefusedError) as error:
                _logger.debug("There is no record of the Slurm job %s: %s", number, error)
                continue
            # The steps of a job have numbers of their own; and a number is used again, after a new beginning.
            found = [job for job in _parsed(printed) if (job.number, job.name) == (number, name)]
            if found:
                return found[-1]
        return None

    def cancel(self, number: str, name: str) -> None:
        """Ask for the end of a job, if it has this name.

        Raises:
            SlurmRefusedError: Slurm does not do it: the job may be over.
            SlurmAwayError: It gives no answer now.
        """
        self._ask("scancel", f"--name={name}", number)

    def _list(self, which: str) -> list[SlurmJob]:
        try:
            return _parsed(self._ask("squeue", "--noheader", "--states=all", which, f"--format={_QUEUE_FORMAT}"))
        except SlurmRefusedError as error:
            # There is nothing in the question that could be wrong.
            raise SlurmAwayError(str(error)) from error

    def _ask(self, *command: str, stdin: str = "") -> str:
        """Run a command of the controller, and keep account of whether it answers."""
        try:
            printed = self._run(*command, stdin=stdin)
        except SlurmRefusedError:
            self._answers()
            raise
        except SlurmAwayError as error:
            if not self._is_away:
                self._is_away = True
                _logger.warning("Slurm does not answer; it is asked again: %s", error)
            raise
        self._answers()
        return printed

    def _answers(self) -> None:
        if self._is_away:
            self._is_away = False
            _logger.warning("Slurm answers again.")

    def _run(self, *command: str, stdin: str = "") -> str:
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments
                command,
                input=stdin,
                env=_environment(command[0]),
                cwd="/",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                # What ends the service does not end it halfway.
                start_new_session=True,
                umask=0o077,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SlurmAwayError(f"{command[0]} did not end within {_SECONDS:g} s") from error
        except OSError as error:
            raise SlurmAwayError(f"{command[0]} cannot be run: {error.strerror}", is_heard=False) from error
        if done.returncode == 0:
            return done.stdout
        words = " ".join(done.stderr.split()) or f"{command[0]} ended with {done.returncode}"
        if done.returncode < 0 or any(sign in words for sign in _AWAY):
            raise SlurmAwayError(words, is_heard=_UNHEARD not in words)
        raise SlurmRefusedError(words)


def _environment(command: str) -> dict[str, str]:
    variables = clean(os.environ)
    if "SLURM_CONF" in os.environ:
        variables["SLURM_CONF"] = os.environ["SLURM_CONF"]
    if command == "sbatch":
        return variables | {name: value for name, value in os.environ.items() if name.startswith("SBATCH_")}
    # Times are printed as it is here.
    return variables | {"TZ": "UTC"}


def _parsed(printed: str) -> list[SlurmJob]:
    rows = (line.split("|", 6) for line in printed.splitlines())
    return [_job(*row[:6], detail="".join(row[6:])) for row in rows if len(row) >= _RECORD_COLUMNS]


def _job(number: str, name: str, state: str, *place: str, detail: str) -> SlurmJob:
    nodes, start, end = place
    # Accounting writes: CANCELLED by 1000. Names of nodes: (null), None assigned.
    named = nodes if nodes and nodes[0] != "(" and nodes != "None assigned" else None
    known = "" if detail == "None" else detail
    return SlurmJob(number, name, state.partition(" ")[0].rstrip("+"), named, _time(start), _time(end), known)


def _time(text: str) -> str | None:
    """Return a time as jobs write it; None for N/A, Unknown and the like."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=timezone.utc).isoformat(timespec="milliseconds")
