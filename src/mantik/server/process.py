"""The server processes: started, watched, and stopped together."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mantik.auth.urls import Origin
from mantik.exceptions import ConfigurationError, PlatformError
from mantik.server.config import HEALTH_PATH, INSTANCE_HEADER
from mantik.server.group import LIFELINE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.server.compute.config import ComputeConfig
    from mantik.server.config import ServerConfig

STARTUP_SECONDS: Final = 120.0

_POLL_SECONDS: Final = 0.05
_PORT_ATTEMPTS: Final = 5
_LOG_LINES: Final = 15
_MAX_LOG: Final = 10 * 1024 * 1024
# Requests that are being answered when the platform stops get this many seconds.
_UVICORN_OPTIONS: Final = "--timeout-graceful-shutdown 5"

# Variables that a user of a platform has set and that would turn this server into something else: a client of another
# platform, a server under another path, a server of another kind.
_FOREIGN_VARIABLES: Final = frozenset(
    {
        "MLFLOW_ARTIFACTS_ONLY",
        "MLFLOW_ENV_FILE",
        "MLFLOW_EXPERIMENT_ID",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_GUNICORN_OPTS",
        "MLFLOW_REGISTRY_URI",
        "MLFLOW_RUN_ID",
        "MLFLOW_STATIC_PREFIX",
        "MLFLOW_UVICORN_OPTS",
        "MLFLOW_WORKSPACE",
    }
)
_FOREIGN_PREFIXES: Final = ("MANTIK_", "MLFLOW_TRACKING_")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What MLflow's own command is told.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        backend_store_uri: Where MLflow keeps experiments and runs.
        artifacts_destination: Where MLflow keeps artifacts.
        workers: How many worker processes answer requests.
        allowed_hosts: The values of the Host header that are served, as MLflow takes them; empty for MLflow's default.
        compute: The compute backend beside it, if there is one.
    """

    host: str
    port: int
    backend_store_uri: str
    artifacts_destination: str
    workers: int
    allowed_hosts: str = ""
    compute: ComputeConfig | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return Origin("http", self.host, self.port).is_loopback


class ServerProcess:
    """The running server: MLflow's command, uvicorn, and its workers."""

    def __init__(self, config: ServerConfig, options: ServerOptions) -> None:
        """Start the processes. They are not ready yet."""
        self.config = replace(config, lifeline=LIFELINE, instance=secrets.token_hex(8))
        self.options = options
        self._log_start = _open_log(config.log)
        self._group = ProcessGroup(_command(options), environment(self.config, options), config.log)

    @property
    def url(self) -> str:
        """The address under which this machine reaches the server."""
        host = _reachable(self.options.host)
        return f"http://[{host}]:{self.options.port}" if ":" in host else f"http://{host}:{self.options.port}"

    def is_running(self) -> bool:
        """Tell whether the server has not ended."""
        return self._group.is_running()

    def is_ready(self) -> bool:
        """Tell whether this very server answers requests."""
        connection = http.client.HTTPConnection(_reachable(self.options.host), self.options.port, timeout=5)
        try:
            connection.request("GET", HEALTH_PATH)
            answer = connection.getresponse()
            return answer.getheader(INSTANCE_HEADER) == self.config.instance
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log_tail(self) -> str:
        """Return the last lines that the server wrote since this start."""
        with self.config.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def lost_its_port(self) -> bool:
        """Tell whether the server ended because another program has its port."""
        return not self.is_running() and "address already in use" in self.log_tail().lower()

    def stop(self) -> None:
        """Stop every process of the server, gently and then firmly. Returns when none is left."""
        self._group.stop()


def start(config: ServerConfig, options: ServerOptions, is_cancelled: Callable[[], bool]) -> ServerProcess | None:
    """Start the server and return it when it answers requests; return ``None`` if cancelled before.

    Raises:
        ConfigurationError: The port is taken.
        PlatformError: The server ended or did not answer in time. The text ends with the last lines of its log.
    """
    for attempt in range(_PORT_ATTEMPTS):
        process = ServerProcess(config, replace(options, port=_free_port(options.host, options.port)))
        if _wait_until_ready(process, is_cancelled):
            return process
        lost_its_port = process.lost_its_port()
        process.stop()
        if is_cancelled():
            return None
        if lost_its_port and options.port == 0 and attempt < _PORT_ATTEMPTS - 1:
            continue
        break
    raise PlatformError(f"The server did not start. The last lines of {config.log}:\n{process.log_tail()}", process.url)


def _wait_until_ready(process: ServerProcess, is_cancelled: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.is_running() and not is_cancelled():
        if process.is_ready():
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _command(options: ServerOptions) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "mantik", "--serve-artifacts"]
    command += ["--host", options.host, "--port", str(options.port), "--workers", str(options.workers)]
    command += ["--artifacts-destination", options.artifacts_destination, "--uvicorn-opts", _UVICORN_OPTIONS]
    if options.allowed_hosts:
        command += ["--allowed-hosts", options.allowed_hosts]
    return command


def environment(config: ServerConfig, options: ServerOptions) -> dict[str, str]:
    """Return all variables of the platform's processes."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN_VARIABLES and not name.startswith(_FOREIGN_PREFIXES)
    }
    return {
        **inherited,
        **config.to_environment(),
        **(options.compute.to_environment() if options.compute is not None else {}),
        # Not as an argument: a database's URI holds its password, and every user of the machine can list arguments.
        "MLFLOW_BACKEND_STORE_URI": options.backend_store_uri,
        # Jobs would run in processes that call the server back without a token.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _open_log(path: Path) -> int:
    """Make the log, readable by its owner only, put an old one aside that grew large, and return its length."""
    if path.exists() and path.stat().st_size > _MAX_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _reachable(host: str) -> str:
    """Return an address to connect to for an address to listen on."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound to


def _free_port(host: str, port: int) -> int:
    """Return ``port`` if it can be listened on, or a free one for 0.

    Raises:
        ConfigurationError: It cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As uvicorn does: connections of an earlier server that still linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"The server cannot listen on {host} port {port}: {error.strerror}. "
                "Choose another address with --host and --port."
            ) from error
        return int(probe.getsockname()[1])
