"""The front door: log in, and point MLflow at the platform."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mantik.auth.bearer import BearerAuth
from mantik.auth.conflicts import conflicting_files
from mantik.auth.login import token_source
from mantik.auth.urls import is_local, normalise_tracking_uri, platform_origin
from mantik.delivery import aside
from mantik.exceptions import MantikError, MissingSettingsError, PlatformUnreachableError, UnexpectedAnswerError
from mantik.settings import Settings

if TYPE_CHECKING:
    from mantik.delivery.receipt import Receipt

__all__ = ["Environment", "flush", "init_tracking", "prepare", "receipt"]

_logger = logging.getLogger(__name__)
_said: set[str] = set()

_LOGIN_SECONDS = 6.0
"""How long a training waits for its first token; then it begins without, and the login goes on beside it."""

_FLUSH_SECONDS = 3600.0

_NOBODY = "https://disabled.mantik.invalid"
"""The tracking URI where tracking is disabled and none is set: a name that never resolves (RFC 2606)."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What ``init_tracking()`` set up.

    Attributes:
        tracking_uri: Where MLflow tracks to: the platform's normalised base URL, or the local URI as it was given.
        token: The access token that is good now; empty with a local URI. Masked in the repr.
        username: The platform user; None with a local URI, or where a given token does not tell.
        api_url: ``MANTIK_API_URL``, where it is in use.
        can_renew: Whether the token can be renewed; the one that a compute job was given cannot.
        overridden: Variables that would have won over the token and were taken away.
    """

    tracking_uri: str
    token: str = field(default="", repr=False)
    username: str | None = None
    api_url: str | None = None
    can_renew: bool = True
    overridden: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Return the environment variables for a child process or another shell.

        With them, MLflow authenticates without another login, and renews the token where mantik is installed and the
        login is cached. Variables that would win over the token are there with an empty value.
        """
        variables = {"MLFLOW_TRACKING_URI": self.tracking_uri}
        if is_local(self.tracking_uri):
            return variables
        variables["MLFLOW_TRACKING_AUTH"] = "mantik"
        if self.token:
            variables["MLFLOW_TRACKING_TOKEN"] = self.token
        variables["MANTIK_TRACKING_CLAIM"] = self.tracking_uri
        # In a compute job nobody can log in; a user name there would say that somebody can.
        if self.username is not None and self.can_renew:
            variables["MANTIK_USERNAME"] = self.username
        if self.api_url is not None:
            variables["MANTIK_API_URL"] = self.api_url
        return variables | dict.fromkeys(self.overridden, "")

    def to_bash_statement(self, no_export: bool = False) -> str:  # noqa: FBT001, FBT002  # the contract's
        """Return one line per variable for a POSIX shell, each value quoted where it needs to be.

        Args:
            no_export: Leave out ``export``, for ``env $(mantik init --no-export) command``.
        """
        prefix = "" if no_export else "export "
        return "\n".join(
            f"{prefix}{name}={shlex.quote(value) if value else ''}" for name, value in self.to_dict().items()
        )

    def __repr__(self) -> str:
        """Show everything but the token."""
        token = "'***'" if self.token else "''"
        return f"Environment(tracking_uri={self.tracking_uri!r}, username={self.username!r}, token={token})"


def init_tracking(*, strict: bool = False) -> Environment:
    """Log in to the platform and point MLflow at it.

    Reads ``MLFLOW_TRACKING_URI``, ``MANTIK_USERNAME`` and ``MANTIK_PASSWORD`` (or what ``mantik login`` remembered),
    gets a token, and sets the variables that MLflow reads, in this process and so for its children. From then on
    ``mlflow.*`` works as MLflow documents it; the token is renewed by itself for as long as the login lasts.

    Call it as often as you like: while the token is good it sends no request and changes nothing. It may be called
    before or after ``import mlflow``. In a compute job (``MLFLOW_TRACKING_TOKEN`` set, no ``MANTIK_USERNAME``) the
    given token is used and nobody logs in. With a local tracking URI (a path, ``file:`` or a database) nobody logs in
    either.

    Where the platform does not answer within about 5 s, a warning says so and the training begins without it: what it
    logs waits on disk and is sent once the platform answers. With ``MANTIK_MODE=offline`` nobody is asked and nothing
    is sent before ``mantik sync``; with ``MANTIK_MODE=disabled`` MLflow's calls do nothing.

    Args:
        strict: Raise what goes wrong with tracking, here and in the calls of MLflow, instead of letting the training go
            on; as ``MANTIK_STRICT=1``.

    Returns:
        What was set up, with a token that is good now, or without one where the platform does not answer.

    Raises:
        MissingSettingsError: Settings are missing; the error names all of them.
        ConfigurationError: A setting is malformed, or the URL is none that credentials may be sent to.
        AuthenticationError: The platform refused the login.
        UnexpectedAnswerError: Something answers there that is no platform.
        PlatformUnreachableError: The platform does not answer, and tracking is strict.
    """
    if strict and os.environ.get("MANTIK_STRICT") != "1":
        os.environ["MANTIK_STRICT"] = "1"
        _choose_outbox_again()
    settings = Settings.from_environment()
    _keep_warnings()
    environment = _begin(settings)
    if settings.mode != "disabled" and is_local(environment.tracking_uri):
        _leave_local(environment, settings)
    else:
        _claim(environment, settings)
        _check_versions(environment, settings)
    return environment


def _keep_warnings() -> None:
    """Let warnings be seen whatever MLflow does: to import ``mlflow.pytorch`` silences all that are not errors."""
    logger, root = logging.getLogger("mantik"), logging.getLogger()
    if logger.level == logging.NOTSET and root.level >= logging.WARNING:
        logger.setLevel(logging.WARNING)


def flush(timeout: float | None = None) -> bool:
    """Wait until everything that this process has logged so far is on the platform.

    Args:
        timeout: Seconds to wait at most. Default: as long as it takes.

    Returns:
        Whether it is. Where nothing was logged it is; in offline mode it is not, and nothing is waited for.
    """
    registry: Any = sys.modules.get("mantik.delivery.registry")
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    done = aside.wait_for(timeout=_FLUSH_SECONDS if timeout is None else timeout)
    for outbox in registry.all_outboxes() if registry is not None else ():
        left = max(0.0, deadline - time.monotonic())
        while not outbox.flush(min(left, _FLUSH_SECONDS)):
            left = deadline - time.monotonic()
            if left <= 0 or not outbox.ships:
                done = False
                break
    return done


def receipt() -> Receipt:
    """Return what became of everything that this process has logged: what was sent, what waits, what was refused.

    ``str()`` of it is what a process prints at its end.

    Returns:
        The receipt for the claimed platform; an empty one where nothing was logged.

    Raises:
        OSError: The spool cannot be read.
    """
    from mantik.delivery.receipt import empty_receipt, receipt_of

    registry: Any = sys.modules.get("mantik.delivery.registry")
    claim = Settings.from_environment().claim or ""
    for outbox in registry.all_outboxes() if registry is not None else ():
        if outbox.uri == claim and not outbox.is_quiet:
            return receipt_of(outbox)
    return empty_receipt(claim)


def _begin(settings: Settings) -> Environment:
    """Do what the mode asks for up to the token."""
    if settings.mode == "disabled":
        uri = settings.tracking_uri or ""
        usable = uri.startswith(("https://", "http://"))
        return Environment(tracking_uri=uri.rstrip("/") if usable else _NOBODY, username=settings.username)
    if settings.tracking_uri is not None and is_local(settings.tracking_uri):
        return Environment(tracking_uri=settings.tracking_uri)
    if settings.mode == "offline":
        return _without_login(settings)
    try:
        return _in_time(settings)
    except (PlatformUnreachableError, UnexpectedAnswerError) as error:
        # Anything else that answers is no outage but a wrong address.
        answered = isinstance(error, UnexpectedAnswerError) and error.status < 500 and error.status != 429  # noqa: PLR2004
        if settings.strict or answered:
            raise
        _logger.warning("%s Training begins without it: what is logged waits on disk and is sent later.", error)
    return _without_login(settings)


def _in_time(settings: Settings) -> Environment:
    """Log in, but do not wait for a platform that takes the request and keeps silent.

    Raises:
        MantikError: As ``prepare``, or because it took too long; then the login goes on in the background.
    """
    _require(settings)
    uri = normalise_tracking_uri(settings.tracking_uri or "", allow_http=settings.allow_http)
    source = token_source(settings)
    if settings.strict or source.is_at_hand:
        return prepare(settings)
    outcome: list[Environment | MantikError] = []

    def log_in() -> None:
        try:
            outcome.append(prepare(settings))
        except MantikError as error:
            outcome.append(error)

    thread = threading.Thread(target=log_in, name="mantik-login", daemon=True)
    thread.start()
    thread.join(_LOGIN_SECONDS)
    if not outcome:
        raise PlatformUnreachableError(f"The platform at {uri} gave no token within {_LOGIN_SECONDS:g} s.", uri)
    if isinstance(outcome[0], MantikError):
        raise outcome[0].with_traceback(None)
    return outcome[0]


def _without_login(settings: Settings) -> Environment:
    _require(settings)
    return Environment(
        tracking_uri=normalise_tracking_uri(settings.tracking_uri or "", allow_http=settings.allow_http),
        username=token_source(settings).username,
        api_url=settings.api_url,
        can_renew=settings.given_token is None,
        overridden=settings.overriding,
    )


def prepare(settings: Settings) -> Environment:
    """Do what ``init_tracking()`` does up to the token, and change nothing in the process.

    Args:
        settings: What is configured.

    Raises:
        MantikError: As ``init_tracking()``.
    """
    if settings.tracking_uri is not None and is_local(settings.tracking_uri):
        return Environment(tracking_uri=settings.tracking_uri)
    _require(settings)
    uri = normalise_tracking_uri(settings.tracking_uri or "", allow_http=settings.allow_http)
    source = token_source(settings)
    return Environment(
        tracking_uri=uri,
        token=source.token().reveal(),
        username=source.username,
        api_url=settings.api_url,
        can_renew=settings.given_token is None,
        overridden=settings.overriding,
    )


def _require(settings: Settings) -> None:
    """Name everything that is missing, in one error."""
    missing = []
    if settings.tracking_uri is None:
        missing.append(("MLFLOW_TRACKING_URI", "the platform's base URL, e.g. https://test.cloud.mantik.ai"))
    if settings.username is None and settings.given_token is None:
        missing.append(("MANTIK_USERNAME", "your user name on the platform"))
    if missing and settings.password is None and settings.given_token is None:
        missing.append(("MANTIK_PASSWORD", "your password there; not needed after 'mantik login'"))
    if missing:
        lines = "".join(f"\n  export {name}=...   # {meaning}" for name, meaning in missing)
        raise MissingSettingsError(
            f"mantik cannot log in, because settings are missing. Set them, or run 'mantik login' once:{lines}",
            tuple(name for name, _ in missing),
        )


def _claim(environment: Environment, settings: Settings) -> None:
    for name, value in environment.to_dict().items():
        # Writing a variable while another thread reads one is not safe in C, so nothing is written that is there
        # already.
        if value and os.environ.get(name) != value:
            os.environ[name] = value
            _choose_outbox_again()
    for name in environment.overridden:
        os.environ.pop(name, None)
        _say_once(f"{name} was removed from this process: MLflow would have used it instead of the platform's token.")
    if settings.claim != environment.tracking_uri:
        # Only at the first claim: later calls are to cost microseconds, and files are not read in those.
        for sentence in conflicting_files(urlsplit(environment.tracking_uri).hostname or "", settings.netrc):
            _say_once(f"{sentence} mlflow in this process is not affected; remove it if another client is refused.")
        # Whoever made a trace before has made MLflow's tracing keep the store of that time.
        reset_tracing = getattr(sys.modules.get("mlflow.tracing.provider"), "reset", None)
        if reset_tracing is not None:
            reset_tracing()
    _point_mlflow(environment.tracking_uri)


def _check_versions(environment: Environment, settings: Settings) -> None:
    """Warn of what MLflow here and on the platform cannot do together; once per process and platform."""
    # Where the platform gave no token, or nobody is to ask it, there is no answer to wait for.
    if settings.mode != "online" or not environment.token:
        return
    from mantik.delivery.compatibility import learn

    origin = platform_origin(environment.tracking_uri, allow_http=settings.allow_http)
    learn(environment.tracking_uri, BearerAuth(origin, token_source(settings)))


def _leave_local(environment: Environment, settings: Settings) -> None:
    scheme, separator, _ = environment.tracking_uri.partition("://")
    # A database URL may hold a password.
    shown = f"a {scheme} store" if separator else environment.tracking_uri
    _say_once(f"MLFLOW_TRACKING_URI is local ({shown}): nobody was logged in, and nothing is sent to a platform.")
    if settings.claim is None:
        return
    _choose_outbox_again()
    os.environ.pop("MANTIK_TRACKING_CLAIM", None)
    if os.environ.get("MLFLOW_TRACKING_AUTH") == "mantik":
        del os.environ["MLFLOW_TRACKING_AUTH"]
    if settings.given_token is None:
        os.environ.pop("MLFLOW_TRACKING_TOKEN", None)
    _point_mlflow(environment.tracking_uri)


def _choose_outbox_again() -> None:
    """Let the next write look at the settings again, where anything was written in this process before."""
    registry: Any = sys.modules.get("mantik.delivery.registry")
    if registry is not None:
        registry.choose_again()
    # MLflow keeps the store that it made for a URI; one that it made before the claim is not the durable one.
    for service, stores in (
        ("_tracking_service", "_tracking_store_registry"),
        ("_model_registry", "_model_registry_store_registry"),
    ):
        utils: Any = sys.modules.get(f"mlflow.tracking.{service}.utils")
        store_of = getattr(getattr(utils, stores, None), "_get_store_with_resolved_uri", None)
        forget = getattr(store_of, "cache_clear", None)
        if forget is not None:
            forget()


def _point_mlflow(uri: str) -> None:
    """Tell mlflow where to track to, if it is imported already; otherwise it reads the environment when it is."""
    mlflow: Any = sys.modules.get("mlflow")
    set_tracking_uri = getattr(mlflow, "set_tracking_uri", None)
    # Setting it resets MLflow's tracing, so it is set only where it changes something.
    if set_tracking_uri is not None and mlflow.get_tracking_uri() != uri:
        set_tracking_uri(uri)


def _say_once(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        _logger.warning(sentence)
