"""Who writes a folder of the spool, and whether that process lives."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes a folder, and for which platform.

    Attributes:
        tracking_uri: The platform's normalised tracking URI.
        username: The platform user; None where a compute job's token does not tell.
        api_url: ``MANTIK_API_URL``, where it was set.
        host: Name of the machine.
        pid: Process id there.
        started: When that process started, in clock ticks since the machine's boot; tells two processes of one id
            apart.
        boot: The machine's boot, which changes when it is restarted; empty where the system has no such thing.
        created_at: Seconds since 1970.
        ships: Whether the process sends its records itself; one in offline mode leaves that to ``mantik sync``.
    """

    tracking_uri: str
    username: str | None
    api_url: str | None
    host: str
    pid: int
    started: int
    boot: str
    created_at: float
    ships: bool = True

    @classmethod
    def here(cls, tracking_uri: str, username: str | None, api_url: str | None, *, ships: bool = True) -> Owner:
        """Describe this process."""
        pid = os.getpid()
        start = _start_of(pid) or 0
        return cls(tracking_uri, username, api_url, socket.gethostname(), pid, start, _boot(), time.time(), ships)

    def lives_here(self) -> bool | None:
        """Tell whether the process lives on this machine; None if it belongs to another one."""
        if self.host != socket.gethostname():
            return None
        if self.boot != _boot():
            return False
        started = _start_of(self.pid)
        return started is not None and started == self.started


def _start_of(pid: int) -> int | None:
    """Return when a process of this machine started; None if it is gone."""
    try:
        # The command, in parentheses, may contain anything; the start time is the 20th field behind it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        # A zombie is gone: its parent, such as the first process of a container, may never wait for it.
        return int(fields[19]) if fields[0] not in {"Z", "X"} else None
    except FileNotFoundError:
        return _start_without_proc(pid)
    except (OSError, ValueError, IndexError):
        return None


def _start_without_proc(pid: int) -> int | None:
    """As far as a system without /proc tells: 0 for any process of this id that exists."""
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
