"""The options of ``mantik server`` that are about jobs, and what they need of the machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from mantik.auth.urls import Origin, normalise_tracking_uri
from mantik.compute.quantities import size_in, size_text
from mantik.exceptions import ConfigurationError
from mantik.server.compute.config import (
    DEFAULT_ARCHIVE_LIMIT,
    DEFAULT_QUEUE_LIMIT,
    EXECUTORS,
    ComputeConfig,
    ExecutorName,
    default_slots,
)
from mantik.server.compute.processes import is_supported

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_R = TypeVar("_R")

# What click calls the options, in the order of the fields.
_NAMES: Final = (
    "compute",
    "compute_slots",
    "compute_archive_limit",
    "compute_queue_limit",
    "compute_keep_days",
    "public_url",
)
_LONGEST_KEEP: Final = 36_500
_SLURM_COMMANDS: Final = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
_SLURM_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """What the command was told about jobs.

    Attributes:
        executor: Who runs them.
        slots: How many slots the local executor has.
        archive_limit: The most bytes of a packed project.
        queue_limit: The most unfinished jobs of a user.
        keep_days: For how many days the folder of a job is kept after its end; ``None`` for ever.
        public_url: The platform's address for everybody else; empty if nobody named it.
    """

    executor: ExecutorName
    slots: int
    archive_limit: int
    queue_limit: int
    keep_days: int | None
    public_url: str

    def config(self, folder: Path, *, has_allowed_hosts: bool) -> ComputeConfig:
        """Return the set-up of the compute backend; its URL is the public one, or empty.

        Args:
            folder: Where jobs are kept.
            has_allowed_hosts: Whether the server answers under certain host names only.

        Raises:
            ConfigurationError: The options contradict each other, or what they need is not there.
        """
        if self.executor != "none" and has_allowed_hosts and not self.public_url:
            raise ConfigurationError(
                "With --allowed-hosts, jobs have to know under which name they reach the platform. Give it with "
                "--public-url, e.g. --public-url https://mlflow.lab.example"
            )
        if self.executor == "local" and not is_supported():
            raise ConfigurationError("--compute local needs Linux: this system has no /proc to find processes in.")
        if self.executor == "slurm":
            missing = [name for name in _SLURM_COMMANDS if shutil.which(name) is None]
            if missing:
                raise ConfigurationError(
                    f"--compute slurm needs Slurm's commands, and there is no {', '.join(missing)} on the PATH."
                )
        return ComputeConfig(
            folder,
            self.executor,
            self.slots,
            self.archive_limit,
            self.queue_limit,
            self.public_url,
            self.keep_days,
        )


def reachable_by_jobs(config: ComputeConfig, url: str) -> ComputeConfig:
    """Return the set-up with the platform's address as jobs reach it: the public one, or else ``url``.

    While Slurm does not say which machines it has, it is only said that jobs may not reach the platform: Slurm being
    away must not keep the platform from coming back.

    Raises:
        ConfigurationError: Jobs on other machines do not reach it.
    """
    config = replace(config, url=config.url or url)
    origin = Origin.of(config.url)
    if config.executor == "slurm" and origin is not None and origin.is_loopback:
        try:
            others = _other_nodes()
        except OSError as error:
            click.echo(
                f"Warning: Slurm does not say which machines it has: {error}\nOnly jobs on this machine reach the "
                f"platform at {config.url}. If there are other machines, name its address with --public-url.",
                err=True,
            )
            return config
        if others:
            raise ConfigurationError(
                f"Jobs on {others[0]} cannot reach the platform at {config.url}, which is this machine only. Name its "
                "address with --public-url, e.g. --public-url https://mlflow.lab.example"
            )
    return config


def compute_options(function: Callable[..., _R]) -> Callable[..., _R]:
    """Give a command the options, as one argument ``compute`` of `ComputeOptions`."""

    @wraps(function)
    def command(*arguments: Any, **others: Any) -> _R:  # noqa: ANN401 - passed on
        values = [others.pop(name) for name in _NAMES]
        return function(*arguments, compute=ComputeOptions(*values), **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _size(_context: click.Context, _option: click.Parameter, value: str) -> int:
    size = size_in(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is no size, expected a number and a unit, e.g. 100MiB.")
    return size


def _url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not value:
        return ""
    try:
        url = normalise_tracking_uri(value, allow_http=True, name="--public-url")
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error
    if urlsplit(url).path:
        raise click.BadParameter(f"{url} has a path. The platform is served at the root of its host.")
    return url


_OPTIONS: Final = (
    click.option(
        "--compute",
        type=click.Choice(EXECUTORS),
        default="none",
        show_default=True,
        help="Run jobs of the users: as processes on this machine, or through Slurm. They run as the account that runs "
        "the platform.",
    ),
    click.option(
        "--compute-slots",
        type=click.IntRange(min=1),
        default=default_slots,
        show_default="number of CPUs",
        help="CPUs for jobs with --compute local; a job takes as many as it asks for, or one.",
    ),
    click.option(
        "--compute-archive-limit",
        callback=_size,
        metavar="SIZE",
        default=size_text(DEFAULT_ARCHIVE_LIMIT),
        show_default=True,
        help="Largest project to be uploaded, packed; unpacked it may be ten times as large.",
    ),
    click.option(
        "--compute-queue-limit",
        type=click.IntRange(min=1),
        default=DEFAULT_QUEUE_LIMIT,
        show_default=True,
        help="Most jobs of one user that have not ended.",
    ),
    click.option(
        "--compute-keep-days",
        type=click.IntRange(1, _LONGEST_KEEP),
        metavar="DAYS",
        help="How long the folder of a job, with its files and its log, is kept after its end.  [default: for ever]",
    ),
    click.option(
        "--public-url",
        callback=_url,
        metavar="URL",
        default="",
        help="Address under which jobs reach the platform, e.g. that of the proxy.  [default: where it listens]",
    ),
)


def _other_nodes() -> list[str]:
    """Return the machines of the Slurm cluster that are not this one.

    Raises:
        OSError: Slurm does not say.
    """
    command = ["sinfo", "--noheader", "--Node", "--format=%n"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SLURM_SECONDS, check=False)  # noqa: S603 - fixed
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command[0]} has not answered within {_SLURM_SECONDS} s") from error
    if done.returncode != 0:
        raise ConnectionError(done.stderr.strip() or f"{command[0]} ended with exit code {done.returncode}")
    here = {socket.gethostname(), socket.gethostname().partition(".")[0], socket.getfqdn(), "localhost"}
    return sorted(set(done.stdout.split()) - here)
