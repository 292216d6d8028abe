"""What a platform needs to know, and how the command tells it to the processes that it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TOKEN_LIFETIME: Final = 3600.0
HEALTH_PATH: Final = "/api/mantik/health"
# The health check's answer carries `ServerConfig.instance` in this header.
INSTANCE_HEADER: Final = "Mantik-Instance"

_DATA = "MANTIK_SERVER_DATA"
_TOKEN_LIFETIME = "MANTIK_SERVER_TOKEN_LIFETIME"  # noqa: S105 - the name of a variable
_LIFELINE = "MANTIK_SERVER_LIFELINE"
_INSTANCE = "MANTIK_SERVER_INSTANCE"


def default_data() -> Path:
    """Return the directory of a platform for which nobody named one: ``$MANTIK_HOME/server``."""
    return Path(os.environ.get("MANTIK_HOME") or "~/.mantik").expanduser() / "server"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One platform.

    Attributes:
        data: The directory that holds users, signing key, log, and by default runs and artifacts.
        token_lifetime: Seconds for which an access token is valid.
        lifeline: A file descriptor that reports end of file when the command that started the platform is gone.
            ``None`` if the platform was not started by the command.
        instance: A random text that is different for each start. The health check repeats it, so that the command
            does not take another platform on the same port for its own.
    """

    data: Path
    token_lifetime: float = DEFAULT_TOKEN_LIFETIME
    lifeline: int | None = None
    instance: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ServerConfig:
        """Read what `to_environment` wrote. What is missing has its default.

        Raises:
            ConfigurationError: A variable is not a number.
        """
        try:
            lifetime = float(environ.get(_TOKEN_LIFETIME, DEFAULT_TOKEN_LIFETIME))
            lifeline = int(environ[_LIFELINE]) if _LIFELINE in environ else None
        except ValueError as error:
            raise ConfigurationError(f"{_TOKEN_LIFETIME} and {_LIFELINE} must be numbers: {error}") from error
        data = environ.get(_DATA)
        return cls(Path(data) if data else default_data(), lifetime, lifeline, environ.get(_INSTANCE, ""))

    def to_environment(self) -> dict[str, str]:
        """Return the variables that carry this platform to its worker processes."""
        variables = {_DATA: str(self.data), _TOKEN_LIFETIME: repr(self.token_lifetime), _INSTANCE: self.instance}
        if self.lifeline is not None:
            variables[_LIFELINE] = str(self.lifeline)
        return variables

    @property
    def database(self) -> Path:
        """Users, ended sign-ins and failed attempts."""
        return self.data / "platform.db"

    @property
    def signing_key(self) -> Path:
        """The secret that signs every token."""
        return self.data / "signing.key"

    @property
    def log(self) -> Path:
        """What the server processes write."""
        return self.data / "server.log"

    @property
    def compute(self) -> Path:
        """Jobs and their projects: `mantik.server.compute.config.ComputeConfig.folder`."""
        return self.data / "compute"

    @property
    def lock(self) -> Path:
        """Held by the command while its platform runs."""
        return self.data / "server.lock"

    def prepare_data(self) -> None:
        """Create the data directory, readable by its owner only.

        An existing directory keeps its mode; the secret files in it have their own.

        Raises:
            ConfigurationError: The directory cannot be made.
        """
        try:
            for path in reversed([self.data, *self.data.parents]):
                if not path.exists():
                    path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"The data directory {self.data} cannot be made: {error.strerror}.") from error
        if not self.data.is_dir():
            raise ConfigurationError(
                f"{self.data} is not a directory. --data needs a directory for the platform's files."
            )
