"""What the user configured: the one place that reads the environment and the file that ``mantik login`` leaves."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mantik.exceptions import ConfigurationError
from mantik.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Job", "Mode", "Profile", "Settings", "UnicoreLogin", "torchrun_workers"]

Mode: TypeAlias = Literal["online", "offline", "disabled"]

_MODES: tuple[Mode, ...] = ("online", "offline", "disabled")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(?:[iI]?[bB])?")
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TRUE = frozenset({"1", "true", "yes", "on"})
_OVERRIDING = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AWS_SIGV4")
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Profile:
    """Who logged in where: what ``mantik login`` remembers, without any secret.

    Attributes:
        tracking_uri: The normalised tracking URI of the platform.
        username: The platform user.
        api_url: ``MANTIK_API_URL`` at the time of the login, if it was set.
    """

    tracking_uri: str
    username: str
    api_url: str | None = None

    @classmethod
    def load(cls, home: Path) -> Profile | None:
        """Read the profile of a home; an absent, unreadable or foreign file is no profile."""
        try:
            content = json.loads((home / "profile.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("format") != 1:
            return None
        uri, username, api_url = content.get("tracking_uri"), content.get("username"), content.get("api_url")
        if not isinstance(uri, str) or not isinstance(username, str) or not isinstance(api_url, str | None):
            return None
        return cls(tracking_uri=uri, username=username, api_url=api_url)

    def to_json(self) -> str:
        """Write the profile as the text of its file."""
        content = {"format": 1, "tracking_uri": self.tracking_uri, "username": self.username, "api_url": self.api_url}
        return json.dumps(content, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one moment; empty variables count as unset.

    Attributes:
        tracking_uri: ``MLFLOW_TRACKING_URI`` as the user wrote it.
        api_url: ``MANTIK_API_URL`` as the user wrote it.
        username: ``MANTIK_USERNAME``.
        password: ``MANTIK_PASSWORD``.
        exported_token: ``MLFLOW_TRACKING_TOKEN``: given to a compute job, or exported by ``init_tracking()`` for
            clients without the plugin.
        claim: ``MANTIK_TRACKING_CLAIM``: the tracking URI that ``init_tracking()`` claimed, here or in a parent
            process.
        home: ``MANTIK_HOME``, by default ``~/.mantik``.
        allow_http: ``MANTIK_ALLOW_HTTP``: credentials may travel unencrypted to hosts other than loopback.
        overriding: Variables that are set and make MLflow authenticate in another way than with the token.
        netrc: ``NETRC``: where requests looks for logins instead of ``~/.netrc``.
        spool: ``MANTIK_SPOOL``: where records wait for delivery, by default the folder ``spool`` in the home.
        exit_timeout: ``MANTIK_EXIT_TIMEOUT``: how many seconds a process waits for delivery before it ends.
        mode: ``MANTIK_MODE``: ``online``; ``offline`` records and sends nothing; ``disabled`` does neither.
        strict: ``MANTIK_STRICT``: what goes wrong with tracking is raised into the training.
        experiment_id: ``MLFLOW_EXPERIMENT_ID``, for a run that nobody can look up.
        spool_limit: ``MANTIK_SPOOL_LIMIT``: how many bytes the spool may take; None is as many as there are.
    """

    tracking_uri: str | None = None
    api_url: str | None = None
    username: str | None = None
    password: Secret | None = None
    exported_token: Secret | None = None
    claim: str | None = None
    home: Path = Path()
    allow_http: bool = False
    overriding: tuple[str, ...] = ()
    netrc: Path | None = None
    spool: Path = Path()
    exit_timeout: float = 60.0
    mode: Mode = "online"
    strict: bool = False
    spool_limit: int | None = None
    experiment_id: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings: the environment first, then what ``mantik login`` remembered.

        The remembered profile fills gaps only where it cannot contradict: a tracking URI or API URL in the environment
        that differs from it makes it void, so that a user name never goes to a platform that it was not meant for.

        Args:
            environ: The variables to read. Default: those of the process.

        Raises:
            ConfigurationError: A variable holds something that it cannot mean; the text says what it can.
        """
        environ = os.environ if environ is None else environ
        token = _text(environ, "MLFLOW_TRACKING_TOKEN")
        password = environ.get("MANTIK_PASSWORD")
        home = _text(environ, "MANTIK_HOME")
        netrc = _text(environ, "NETRC")
        spool = _text(environ, "MANTIK_SPOOL")
        folder = Path(home).expanduser() if home else Path("~/.mantik").expanduser()
        settings = cls(
            tracking_uri=_text(environ, "MLFLOW_TRACKING_URI"),
            api_url=_text(environ, "MANTIK_API_URL"),
            username=_text(environ, "MANTIK_USERNAME"),
            password=Secret(password) if password else None,
            exported_token=Secret(token) if token else None,
            claim=_text(environ, "MANTIK_TRACKING_CLAIM"),
            home=folder,
            allow_http=_flag(environ, "MANTIK_ALLOW_HTTP"),
            overriding=tuple(name for name in _OVERRIDING if environ.get(name)),
            netrc=Path(netrc).expanduser() if netrc else None,
            spool=Path(spool).expanduser() if spool else folder / "spool",
            exit_timeout=_seconds(environ, "MANTIK_EXIT_TIMEOUT", 60.0),
            mode=_mode(environ, "MANTIK_MODE"),
            strict=_flag(environ, "MANTIK_STRICT"),
            spool_limit=_size(environ, "MANTIK_SPOOL_LIMIT"),
            experiment_id=_text(environ, "MLFLOW_EXPERIMENT_ID"),
        )
        return settings._with_profile()

    @property
    def given_token(self) -> Secret | None:
        """The token that a compute job was given: there is one in the environment, and nobody who could log in."""
        return self.exported_token if self.username is None else None

    def for_claim(self) -> Settings:
        """Return these settings with the claimed platform as the tracking URI, wherever MLflow points by now."""
        return replace(self, tracking_uri=self.claim)

    def _with_profile(self) -> Settings:
        if self.given_token is not None or (self.username is not None and self.tracking_uri is not None):
            return self
        profile = Profile.load(self.home)
        if profile is None:
            return self
        same_uri = self.tracking_uri is None or self.tracking_uri.rstrip("/") == profile.tracking_uri
        same_api = self.api_url is None or self.api_url == profile.api_url
        same_user = self.username is None or self.username == profile.username
        if not (same_uri and same_api and same_user):
            return self
        return replace(
            self,
            tracking_uri=self.tracking_uri or profile.tracking_uri,
            api_url=self.api_url or profile.api_url,
            username=profile.username,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """The Slurm job that this process is a part of.

    Attributes:
        job_id: ``17``, or ``16_3`` for the third task of an array.
        cluster: ``SLURM_CLUSTER_NAME``; empty where Slurm does not say.
        restart: How often the job was requeued before this attempt.
        part: Which of the job's processes this is: step and rank, the same in each attempt.
    """

    job_id: str
    cluster: str
    restart: int
    part: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Job | None:
        """Read what Slurm says of the job; None outside of one.

        Args:
            environ: What to read; by default the process's environment.
        """
        environ = os.environ if environ is None else environ
        job_id = _text(environ, "SLURM_JOB_ID")
        if job_id is None:
            return None
        array, task = _text(environ, "SLURM_ARRAY_JOB_ID"), _text(environ, "SLURM_ARRAY_TASK_ID")
        restart = environ.get("SLURM_RESTART_COUNT", "")
        return cls(
            # A task of an array has a job id of its own besides, which tells its user nothing.
            job_id=f"{array}_{task}" if array is not None and task is not None else job_id,
            cluster=_text(environ, "SLURM_CLUSTER_NAME") or "",
            restart=int(restart) if restart.isdecimal() else 0,
            part=f"{_text(environ, 'SLURM_STEP_ID') or 'batch'}.{_text(environ, 'SLURM_PROCID') or '0'}",
        )


@dataclass(frozen=True, slots=True)
class UnicoreLogin:
    """The login at a computing centre that early platforms pass on with a job; ``mantik server`` has no use for it.

    Attributes:
        username: ``MANTIK_UNICORE_USERNAME``.
        password: ``MANTIK_UNICORE_PASSWORD``.
        project: ``MANTIK_UNICORE_PROJECT``: the account that pays.
    """

    username: str = ""
    password: Secret | None = None
    project: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> UnicoreLogin:
        """Read the login; empty where it is not set.

        Args:
            environ: What to read; by default the process's environment.
        """
        environ = os.environ if environ is None else environ
        password = environ.get("MANTIK_UNICORE_PASSWORD")
        return cls(
            username=_text(environ, "MANTIK_UNICORE_USERNAME") or "",
            password=Secret(password) if password else None,
            project=_text(environ, "MANTIK_UNICORE_PROJECT") or "",
        )


def torchrun_workers(environ: Mapping[str, str] | None = None) -> int | None:
    """Return how many processes ``torchrun`` has started on this machine, this one among them; None if it has not.

    Args:
        environ: What to read; by default the process's environment.
    """
    environ = os.environ if environ is None else environ
    workers = environ.get("LOCAL_WORLD_SIZE", "")
    return int(workers) if _text(environ, "TORCHELASTIC_RUN_ID") is not None and workers.isdecimal() else None


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if not value or value in _FALSE:
        return False
    raise ConfigurationError(f"{name} is {value!r}, which is neither true nor false. Set it to 1 or 0.")


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"{name} is {text!r}, which is no number of seconds. Set it to 0 or more, e.g. 60.")
    return value


def _mode(environ: Mapping[str, str], name: str) -> Mode:
    text = environ.get(name, "").strip().lower()
    for mode in _MODES:
        if text == mode:
            return mode
    if not text:
        return "online"
    raise ConfigurationError(f"{name} is {text!r}, which is no mode. Set it to one of: {', '.join(_MODES)}.")


def _size(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    size = _SIZE.fullmatch(text)
    if size is None:
        raise ConfigurationError(
            f"{name} is {text!r}, which is no size. Set it to a number of bytes, e.g. 500M or 20G."
        )
    return int(float(size[1]) * _SCALE[size[2].lower()])
