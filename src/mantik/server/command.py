"""``mantik server``: run a platform and manage its users."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

from mantik.exceptions import ConfigurationError, MissingExtraError, PlatformError
from mantik.server.compute.options import compute_options, reachable_by_jobs
from mantik.server.config import DEFAULT_TOKEN_LIFETIME, ServerConfig, default_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mantik.server.compute.options import ComputeOptions
    from mantik.server.process import ServerOptions, ServerProcess
    from mantik.server.store import Store

_P = ParamSpec("_P")
_R = TypeVar("_R")

# What is not there if a package of the extra is missing, and the package that brings it. mlflow itself may be there as
# mlflow-skinny, which has no server.
_FOR_USERS: Final = {"argon2": "argon2-cffi"}
_FOR_SERVER: Final = {
    "mlflow": "mlflow",
    "fastapi": "mlflow",
    "flask": "mlflow",
    "sqlalchemy": "mlflow",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "joserfc": "joserfc",
    **_FOR_USERS,
}
_POLL_SECONDS: Final = 0.1
_UNENCRYPTED: Final = (
    "Other machines can reach it, unencrypted: put a proxy with TLS in front of it, or clients refuse to log in."
)


def _data_option(function: Callable[_P, _R]) -> Callable[_P, _R]:
    return click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Directory of the platform.  [default: $MANTIK_HOME/server, that is ~/.mantik/server]",
    )(function)


@click.group(invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free port.")
@_data_option
@click.option(
    "--backend-store-uri",
    envvar="MLFLOW_BACKEND_STORE_URI",
    show_envvar=True,
    help="Database for experiments and runs.  [default: SQLite in the data directory]",
)
@click.option("--artifacts-destination", help="Where artifacts are kept.  [default: in the data directory]")
@click.option(
    "--token-lifetime",
    default=DEFAULT_TOKEN_LIFETIME,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long an access token is valid.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Worker processes.")
@click.option("--allowed-hosts", default="", help="Host names under which clients may reach the platform, with commas.")
@compute_options
@click.pass_context
def server(  # noqa: PLR0913 - one argument for each option
    context: click.Context,
    *,
    host: str,
    port: int,
    data: Path | None,
    backend_store_uri: str | None,
    artifacts_destination: str | None,
    token_lifetime: float,
    workers: int,
    allowed_hosts: str,
    compute: ComputeOptions,
) -> None:
    """Run a platform on this machine, in the foreground.

    Prints one line, "ready URL", when it answers requests. Ctrl-C stops it. Add a user first, or while it runs:

        mantik server users add NAME
    """
    if context.invoked_subcommand is not None:
        return
    _require("mantik server", _FOR_SERVER)
    from mantik.server.process import ServerOptions

    config = replace(_config(data), token_lifetime=token_lifetime)
    options = ServerOptions(
        host=host,
        port=port,
        backend_store_uri=backend_store_uri or f"sqlite:///{config.data / 'mlflow.db'}",
        artifacts_destination=artifacts_destination or str(config.data / "artifacts"),
        workers=workers,
        allowed_hosts=allowed_hosts,
        compute=compute.config(config.compute, has_allowed_hosts=bool(allowed_hosts)),
    )
    _run(config, options)


def _run(config: ServerConfig, options: ServerOptions) -> None:
    """Run the platform until it is told to stop."""
    from mantik.server.process import start
    from mantik.server.store import Store
    from mantik.server.tokens import load_signing_key

    config.prepare_data()
    store = Store(config.database)
    load_signing_key(config.signing_key)
    with _only_one(config), _stop_signals() as is_stopped:
        process = start(config, options, is_stopped)
        if process is None:
            return
        with contextlib.ExitStack() as running:
            running.callback(process.stop)
            tend = _start_dispatcher(process, running)
            click.echo(f"ready {process.url}")
            click.echo(_welcome(config, process, has_users=bool(store.users())), err=True)
            while process.is_running() and not is_stopped():
                tend()
                time.sleep(_POLL_SECONDS)
            if not is_stopped():
                raise PlatformError(
                    f"The server ended unexpectedly. The last lines of {config.log}:\n{process.log_tail()}", process.url
                )


def _start_dispatcher(process: ServerProcess, running: contextlib.ExitStack) -> Callable[[], None]:
    """Start what runs the jobs, if there is a compute backend, and return what keeps it running.

    Raises:
        ConfigurationError: Jobs could not reach the server.
    """
    options = process.options
    if options.compute is None or options.compute.executor == "none":
        return lambda: None
    from mantik.server.compute.process import DispatcherProcess
    from mantik.server.process import environment

    options = replace(options, compute=reachable_by_jobs(options.compute, process.url))
    dispatcher = DispatcherProcess(environment(process.config, options), process.config.log)
    # Before the server, so that it can say what becomes of runs to the last.
    running.callback(dispatcher.stop)
    return dispatcher.tend


def _welcome(config: ServerConfig, process: ServerProcess, *, has_users: bool) -> str:
    lines = [
        f"The platform answers at {process.url} (open it in a browser, or use it as MLFLOW_TRACKING_URI).",
        *([] if process.options.is_local else [_UNENCRYPTED]),
        f"  data  {config.data}",
        f"  log   {config.log}",
        *_about_jobs(process.options),
    ]
    if not has_users:
        named = "" if config.data == default_data() else f" --data {shlex.quote(str(config.data))}"
        lines.append(f"  users none yet; in another terminal: mantik server users add NAME{named}")
    return "\n".join([*lines, "Ctrl-C stops it."])


def _about_jobs(options: ServerOptions) -> list[str]:
    if options.compute is None or options.compute.executor == "none":
        return []
    where = f"on {options.compute.slots} CPUs here" if options.compute.executor == "local" else "through Slurm"
    return [f"  jobs  run {where}, as this account: whoever may log in may run programs as it"]


@contextlib.contextmanager
def _only_one(config: ServerConfig) -> Iterator[None]:
    """Hold the data directory for this command.

    Raises:
        ConfigurationError: Another platform runs on it.
    """
    import filelock

    try:
        with filelock.FileLock(config.lock, timeout=0, mode=0o600):
            yield
    except filelock.Timeout as error:
        raise ConfigurationError(
            f"Another platform is running on {config.data}. Stop it, or choose another directory with --data."
        ) from error


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that the caller asks, so that they interrupt no start or stop halfway."""
    stopped: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    earlier = [signal.signal(number, lambda received, _frame: stopped.append(received)) for number in numbers]
    try:
        yield lambda: bool(stopped)
    finally:
        for number, handler in zip(numbers, earlier, strict=True):
            signal.signal(number, handler)


@server.group()
@_data_option
def users(*, data: Path | None) -> None:
    """Manage who may use the platform. Changes hold at once, also for a running platform."""


_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line, instead of asking for it."
)


@users.command()
@click.argument("name")
@_password_option
@_data_option
def add(name: str, *, data: Path | None, password_stdin: bool) -> None:
    """Add the user NAME with a new password."""
    store = _open_store(_config(data), create=True)
    from mantik.server.passwords import NAME_RULE, is_good_name, normal_form
    from mantik.server.store import user_exists

    name = normal_form(name)
    if not is_good_name(name):
        raise ConfigurationError(f"{name!r} is no good user name. {NAME_RULE}")
    if store.user_named(name) is not None:
        raise user_exists(name)
    store.add_user(name, _new_password_hash(name, from_stdin=password_stdin))
    click.echo(f"Added the user {name!r}.", err=True)


@users.command(name="list")
@_data_option
def list_(*, data: Path | None) -> None:
    """List the users: one line each, the name and when it was added."""
    found = _open_store(_config(data)).users()
    for user in found:
        click.echo(f"{user.name}\t{user.created_at}")
    if not found:
        click.echo("No users yet. To add one: mantik server users add NAME", err=True)


@users.command()
@click.argument("name")
@_data_option
def remove(name: str, *, data: Path | None) -> None:
    """Remove the user NAME and end all of its tokens and sign-ins. Its runs stay."""
    store = _open_store(_config(data))
    from mantik.server.passwords import normal_form

    store.remove_user(normal_form(name))
    click.echo(f"Removed the user {name!r}.", err=True)


@users.command()
@click.argument("name")
@_password_option
@_data_option
def passwd(name: str, *, data: Path | None, password_stdin: bool) -> None:
    """Give the user NAME a new password and end all of its tokens and sign-ins."""
    store = _open_store(_config(data))
    from mantik.server.passwords import normal_form
    from mantik.server.store import no_such_user

    name = normal_form(name)
    if store.user_named(name) is None:
        raise no_such_user(name)
    store.change_password(name, _new_password_hash(name, from_stdin=password_stdin))
    click.echo(f"Changed the password of {name!r}.", err=True)


def _config(data: Path | None) -> ServerConfig:
    """Return the platform in ``data``, or in the ``--data`` of a command further left, or in the default place."""
    context: click.Context | None = click.get_current_context()
    while data is None and context is not None:
        data = context.params.get("data")
        context = context.parent
    return ServerConfig((data or default_data()).expanduser().absolute())


def _open_store(config: ServerConfig, *, create: bool = False) -> Store:
    """Open the users of a platform.

    Raises:
        MissingExtraError: The package that hashes passwords is missing.
        ConfigurationError: There is no platform in the directory, and none is to be made.
    """
    _require("mantik server users", _FOR_USERS)
    from mantik.server.store import Store

    if create:
        config.prepare_data()
    elif not config.database.exists():
        raise ConfigurationError(f"There is no platform in {config.data}. Choose its directory with --data.")
    return Store(config.database)


def _new_password_hash(name: str, *, from_stdin: bool) -> str:
    """Read a new password and return its hash.

    Raises:
        ConfigurationError: It breaks the rule for passwords.
    """
    from mantik.server.passwords import PASSWORD_RULE, PasswordHasher, is_good_password, normal_form

    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt(f"New password for {name}", hide_input=True, confirmation_prompt=True, err=True)
    if not is_good_password(normal_form(password), name):
        raise ConfigurationError(f"This password is not good enough. {PASSWORD_RULE}")
    return PasswordHasher().hash(password)


def _require(feature: str, modules: Mapping[str, str]) -> None:
    """Make sure that optional packages are there, without importing them.

    Raises:
        MissingExtraError: One is not.
    """
    for module, package in modules.items():
        if find_spec(module) is None:
            raise MissingExtraError(feature, package, "server")
