"""What a wrapper says of its job, in two files: that it has begun, and how it ended.

Each file is there as a whole or not at all. They are all that is known of a job when the service comes back after a
restart, and what a batch system says of it is checked against them.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from mantik.auth.cache import make_private, write_private
from mantik.server.compute.processes import Identity
from mantik.server.compute.task import read_small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.server.compute.folders import JobFolders

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Cause(str, Enum):
    """Why a job came to its end."""

    EXIT = "exit"
    """Its program ended by itself, or by a signal that the wrapper has not sent."""

    SET_UP = "set_up"
    """Its program was never started: what it needs is not there."""

    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"

    STOPPED = "stopped"
    """The wrapper was told to stop."""


@dataclass(frozen=True, slots=True)
class Started:
    """A job that has begun.

    Attributes:
        wrapper: The wrapper's process.
        session: Its session, which is that of the job's processes, unless one of them leaves it.
        host: The machine.
        at: When, as jobs write times.
        attempt: How often the job was begun before: a batch system may put it back into its queue.
    """

    wrapper: Identity
    session: int
    host: str
    at: str
    attempt: int = 0

    @classmethod
    def load(cls, folders: JobFolders) -> Started | None:
        """Read the file; None where it is not there."""
        return _load(folders.started, _started)

    def claim(self, folders: JobFolders) -> bool:
        """Write the file if nobody has, for this or a later attempt; tell whether the job is this wrapper's.

        Of two wrappers, on whatever machines, one gets the job.

        Raises:
            OSError: It cannot be written.
        """
        make_private(folders.state)
        draft = folders.started.with_name(f".{folders.started.name}.{secrets.token_hex(8)}")
        write_private(draft, json.dumps(asdict(self)))
        try:
            os.link(draft, folders.started)
        except FileExistsError:
            known = Started.load(folders)
            if known is not None and known.attempt >= self.attempt:
                return False
            # A batch system starts the next attempt when the last one is over.
            folders.ended.unlink(missing_ok=True)
            draft.replace(folders.started)
        finally:
            draft.unlink(missing_ok=True)
        return True


@dataclass(frozen=True, slots=True)
class Ended:
    """A job of which nothing runs any more.

    Attributes:
        cause: Why.
        at: When, as jobs write times.
        exit_code: What its program returned; None if it was ended by a signal, or never started.
        signal: The number of the signal that ended its program.
        reason: More words, where there are any.
        memory: The most bytes of memory that it held, as `mantik.server.compute.supervisor.Supervisor.memory`; None
            where there was no program.
        ended_runs: Runs that its program had left running, ended when the rest of its records was delivered.
        is_delivered: Whether all that it has logged is on the platform.
    """

    cause: Cause
    at: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    memory: int | None = None
    ended_runs: tuple[str, ...] = ()
    is_delivered: bool = True

    @classmethod
    def load(cls, folders: JobFolders) -> Ended | None:
        """Read the file; None where it is not there."""
        return _load(folders.ended, _ended)

    def store(self, folders: JobFolders) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written.
        """
        write_private(folders.ended, json.dumps(asdict(self)))


def _started(content: dict[str, Any]) -> Started:
    wrapper = Identity(**content.pop("wrapper"))
    _check(content, session=int, host=str, at=str, attempt=int)
    return Started(wrapper, **content)


def _ended(content: dict[str, Any]) -> Ended:
    cause, runs = Cause(content.pop("cause")), content.pop("ended_runs")
    number = (int, type(None))
    _check(content, at=str, exit_code=number, signal=number, reason=str, memory=number, is_delivered=bool)
    return Ended(cause, **content, ended_runs=tuple(str(run) for run in runs))


def _check(content: dict[str, Any], **types: type | tuple[type, ...]) -> None:
    for name, value in content.items():
        if not isinstance(value, types[name]):
            raise TypeError(f"{name} is {value!r}")
    if datetime.fromisoformat(content["at"]).utcoffset() is None:
        raise ValueError(f"at is {content['at']!r}, without a time zone")


def _load(path: Path, read: Callable[[dict[str, Any]], _T]) -> _T | None:
    try:
        return read(json.loads(read_small(path)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        # It is read several times a second; what a job breaks of its own is its own trouble.
        _logger.debug("%s cannot be read: %s", path, error)
        return None
