"""What the processes of a job have logged and not delivered: sent by ``mantik sync`` when they are gone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mantik.delivery.spool import outgoing_in
from mantik.exceptions import MantikError
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.server.compute.folders import JobFolders

_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of it.

    Attributes:
        is_complete: Whether all of it is on the platform now.
        ended_runs: Runs that processes had left running, ended now.
        problem: Why not all of it is there.
    """

    is_complete: bool = True
    ended_runs: tuple[str, ...] = ()
    problem: str = ""


def deliver(folders: JobFolders, environment: Mapping[str, str], seconds: float) -> Delivery:
    """Send what a job has left, in a process of its own: it is ended where the platform keeps silent.

    Args:
        folders: The job's folders.
        environment: The variables that the job's own processes track with.
        seconds: How long it may take.
    """
    try:
        return _deliver(folders, environment, seconds)
    except subprocess.TimeoutExpired:
        return Delivery(is_complete=False, problem=f"it was not delivered within {seconds:g} s")
    except (MantikError, OSError, ValueError) as error:
        # Settings of the user's own that make no sense, a full disk.
        return Delivery(is_complete=False, problem=str(error))


def _deliver(folders: JobFolders, environment: Mapping[str, str], seconds: float) -> Delivery:
    if next(outgoing_in(Settings.from_environment(environment).spool), None) is None:
        return Delivery()
    done = subprocess.run(
        [sys.executable, "-E", "-m", "mantik", "sync", "--json"],
        env=dict(environment),
        # Python looks for modules where it is started, and the project has files of all names.
        cwd=folders.state,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    problems = [str(report["problem"]) for report in reports if report["problem"]]
    if done.returncode != 0 and not problems:
        words = done.stderr.decode(errors="replace").strip()[-_WORDS:]
        problems = [f"mantik sync ended with {done.returncode}: {words}"]
    return Delivery(
        is_complete=done.returncode == 0,
        ended_runs=tuple(run for report in reports for run in report["closed_runs"]),
        problem="; ".join(problems),
    )
