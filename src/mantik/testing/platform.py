"""A real platform as a child process."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from mantik.exceptions import PlatformError
from mantik.testing.processes import end_groups, end_users_of, family
from mantik.testing.waiting import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

    from mantik.testing.readback import ReadBack

__all__ = ["Platform"]

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_COMMAND_SECONDS = 60.0
_TAIL_BYTES = 4000
_CLIENT_VARIABLES = ("MANTIK_", "MLFLOW_", "_MLFLOW_")


class Platform:
    """A self-hosted mantik platform in a process of its own, with one user, for as long as a test needs it.

    Promises: when `start` returns, requests are answered; the server sees none of the caller's `MANTIK_*` and
    `MLFLOW_*` variables; `stop` takes at most about 25 s and leaves no process of the server behind; the port stays the
    same over `kill` and `restart`; data written before `kill` is still there after `restart`.

    Not promised: a Python process that itself dies by SIGKILL or SIGTERM leaves the platform running.

    It needs the extra `mantik[server]`. One thread at a time may use an object.

    Args:
        data: The folder with everything the platform keeps. Default: a new temporary folder, which `stop` removes. A
            given folder stays.
        username: The user who is added at the first start, unless a given folder has the user already.
        password: The user's password. Default: a random one. For a user whom the folder has already it must be given,
            and is not changed.
        token_lifetime: Seconds for which an access token is valid.
        workers: Number of server processes.
        port: The port on 127.0.0.1. Default: a free one, chosen at the first start.
        compute: Who runs jobs: ``local`` as processes of this machine, which go on over `kill` and `restart` and are
            ended by `stop`, or ``slurm``. Default: nobody, and submissions are refused.
        compute_slots: How many CPUs jobs have with ``local``. Default: those of the machine.
    """

    def __init__(  # noqa: PLR0913  # a platform's settings; all but the folder are keywords
        self,
        data: Path | None = None,
        *,
        username: str = "ada",
        password: str | None = None,
        token_lifetime: float = 3600.0,
        workers: int = 1,
        port: int = 0,
        compute: Literal["none", "local", "slurm"] = "none",
        compute_slots: int | None = None,
    ) -> None:
        self._given_data = data
        self._temporary: Path | None = None
        self._username = username
        self._password = password or _random_password(username)
        self._token_lifetime = token_lifetime
        self._workers = workers
        self._port = port
        self._compute = compute
        self._compute_slots = compute_slots
        self._has_user = False
        self._process: subprocess.Popen[bytes] | None = None
        self._read_back: ReadBack | None = None

    def __repr__(self) -> str:
        """Show where and who, not the password."""
        return f"Platform(url={self._address()!r}, username={self._username!r}, password='***', running={self.running})"

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """The base URL; it stays valid while the platform is down after `kill`.

        Raises:
            RuntimeError: The platform was never started, so its port is not known.
        """
        if not self._port:
            raise RuntimeError("the platform has no address yet: use it in a with statement or call start()")
        return self._address()

    @property
    def username(self) -> str:
        """The first user."""
        return self._username

    @property
    def password(self) -> str:
        """The first user's password."""
        return self._password

    @property
    def data(self) -> Path:
        """The folder with everything the platform keeps; `server.log` in it is the log.

        Raises:
            RuntimeError: The folder is a temporary one and does not exist, before `start` or after `stop`.
        """
        folder = self._given_data or self._temporary
        if folder is None:
            raise RuntimeError("the platform has no data folder: it is made by start() and removed by stop()")
        return folder

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the server's first process, the parent of all others.

        Raises:
            RuntimeError: The platform was not started, or was ended.
        """
        if self._process is None:
            raise RuntimeError("the platform has no process: it is started by start() and ended by stop() and kill()")
        return self._process.pid

    @property
    def read_back(self) -> ReadBack:
        """A reader of what the platform holds, logged in as the first user; the same object each time."""
        if self._read_back is None:
            from mantik.testing.readback import ReadBack

            self._read_back = ReadBack(self.url, self._username, self._password)
        return self._read_back

    def environment(self) -> dict[str, str]:
        """Return the variables that make a client use this platform as its first user; one of them is the password."""
        return {
            "MANTIK_USERNAME": self._username,
            "MANTIK_PASSWORD": self._password,
            "MLFLOW_TRACKING_URI": self.url,
        }

    def start(self) -> Self:
        """Start the server and return when requests are answered.

        Raises:
            PlatformError: It ended early or did not get ready within 120 s; the text shows the end of the log.
            RuntimeError: It is running already.
        """
        if self.running:
            raise RuntimeError("the platform is running already")
        fresh = self._given_data is None and self._temporary is None
        if fresh:
            self._temporary = Path(tempfile.mkdtemp(prefix="mantik-platform-"))
        with contextlib.ExitStack() as undo:
            # A restart that fails keeps the data.
            undo.callback(self.stop if fresh else self.kill)
            if not self._has_user:
                if not self._knows_user():
                    self.add_user(self._username, self._password)
                self._has_user = True
            self._launch()
            undo.pop_all()
        return self

    def stop(self) -> None:
        """End the server with all its children, and remove the data folder if it is a temporary one.

        Stopping twice is harmless.
        """
        self._end(signal.SIGTERM)
        if self._compute == "local" and (self._given_data or self._temporary):
            end_users_of(self.data.absolute() / "compute" / "jobs")
        if self._read_back is not None:
            self._read_back.close()
            self._read_back = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
            self._has_user = False

    def kill(self) -> None:
        """End the server and all its children at once with SIGKILL, as an outage would; data and port are kept."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Start again on the same port with the same data, after an orderly end if the platform is running.

        Raises:
            PlatformError: As for `start`, for example because another process took the port in between.
        """
        self._end(signal.SIGTERM)
        return self.start()

    def add_user(self, name: str, password: str) -> None:
        """Add a user; the platform may be running or not.

        Raises:
            PlatformError: The platform refused, for example because the user exists; the text says why.
        """
        done = self._users("add", name, "--password-stdin", password=password)
        if done.returncode != 0:
            reason = done.stderr[-_TAIL_BYTES:].decode(errors="replace").strip()
            raise PlatformError(f"the user {name!r} was not added to the platform in {self.data}: {reason}")

    def _knows_user(self) -> bool:
        """Tell whether a given folder has the user already, from an earlier platform."""
        if self._given_data is None:
            return False
        lines = self._users("list").stdout.decode().splitlines()
        return self._username in {line.partition("\t")[0] for line in lines}

    def _users(self, *arguments: str, password: str = "") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603  # our own command
                [*_MANTIK, "server", "users", *arguments, "--data", str(self.data)],
                input=f"{password}\n".encode(),
                capture_output=True,
                env=_server_environment(),
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            message = f"`mantik server users {arguments[0]}` did not end within {_COMMAND_SECONDS:g} s"
            raise PlatformError(message) from error

    def _address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _launch(self) -> None:
        command = [*_MANTIK, "server", "--host", "127.0.0.1", "--port", str(self._port), "--data", str(self.data)]
        command += ["--token-lifetime", str(self._token_lifetime), "--workers", str(self._workers)]
        command += ["--compute", self._compute]
        if self._compute_slots is not None:
            command += ["--compute-slots", str(self._compute_slots)]
        # A file and not a pipe: nobody has to read along, so the server can never block on what it prints.
        with tempfile.TemporaryFile() as output:
            self._process = process = subprocess.Popen(  # noqa: S603  # our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_server_environment(),
                # A group of its own, so that all its children can be ended with it and Ctrl-C does not reach it first.
                start_new_session=True,
            )
            try:
                line = wait_until(
                    lambda: _READY.search(_content(output)) or process.poll() is not None,
                    deadline=_START_SECONDS,
                    what="the platform's ready line",
                )
            except TimeoutError as error:
                raise PlatformError(self._failure(f"was not ready within {_START_SECONDS:g} s", output)) from error
            if not isinstance(line, re.Match):
                raise PlatformError(self._failure(f"ended with status {process.returncode}", output))
            self._port = int(line.group("port"))

    def _failure(self, what: str, output: IO[bytes]) -> str:
        log = self.data / "server.log"
        printed = _content(output)[-_TAIL_BYTES:].decode(errors="replace").strip()
        logged = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
        return (
            f"the platform {what}.\nIt printed:\n{printed or '(nothing)'}\nIts log {log} ends:\n{logged or '(nothing)'}"
        )

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # Listed before the end: the server keeps its children in a session of their own, and orphans have no family.
        groups = {process.pid, *(member.group for member in family(process.pid))}
        if first is signal.SIGTERM:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        end_groups(groups)
        process.wait()


_MANTIK = (sys.executable, "-m", "mantik")
_READY = re.compile(rb"^ready http://127\.0\.0\.1:(?P<port>\d+)\s*$", re.MULTILINE)


def _random_password(username: str) -> str:
    """Return a password that the platform accepts: it has not the user's name in it, not even by chance."""
    password = secrets.token_urlsafe(16)
    return _random_password(username) if username and username.lower() in password.lower() else password


def _content(output: IO[bytes]) -> bytes:
    """Read the whole file without moving the position at which the server writes."""
    return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0)


def _server_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_CLIENT_VARIABLES)}
