"""``mantik login`` and ``mantik logout``."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import click

from mantik.auth.cache import write_private
from mantik.auth.login import login_for
from mantik.auth.urls import normalise_tracking_uri, token_endpoint
from mantik.exceptions import ConfigurationError, MissingSettingsError
from mantik.secret import Secret
from mantik.settings import Profile, Settings

__all__ = ["login", "logout"]


@click.command()
@click.option("--uri", help="Base URL of the platform.  [default: MLFLOW_TRACKING_URI, else asked for]")
@click.option("--username", help="User name on the platform.  [default: MANTIK_USERNAME, else asked for]")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, for scripts.")
def login(*, uri: str | None, username: str | None, password_stdin: bool) -> None:
    """Log in once, for all trainings to come.

    Afterwards no password is needed until the login ends. What is kept is a pair of tokens, readable by you alone,
    never the password.
    """
    settings = Settings.from_environment()
    uri = (
        uri
        or settings.tracking_uri
        or _asked("Platform (e.g. https://test.cloud.mantik.ai)", needs_terminal=password_stdin)
    )
    settings = replace(settings, tracking_uri=normalise_tracking_uri(uri.strip(), allow_http=settings.allow_http))
    token_endpoint(settings)  # a URL that must not get a password is refused before a password is asked for
    username = (username or settings.username or _asked("User name", needs_terminal=password_stdin)).strip()
    settings = replace(settings, username=username, password=_password(password_stdin=password_stdin))
    session = login_for(settings)
    token = session.log_in()
    if session.cache.load() is None:
        raise ConfigurationError(
            f"The login succeeded but cannot be kept: {session.cache.path.parent} cannot be written. "
            "Set MANTIK_HOME to a folder of yours that can, or go on with MANTIK_PASSWORD in the environment."
        )
    profile = Profile(settings.tracking_uri or "", username, settings.api_url)
    write_private(settings.home / "profile.json", profile.to_json())
    click.echo(f"Logged in to {profile.tracking_uri} as {username}.", err=True)
    if token.refresh is None:
        click.echo("The platform gave no means of renewal: the login ends with its token.", err=True)


@click.command()
def logout() -> None:
    """Forget the login on this machine."""
    settings = Settings.from_environment()
    profile = settings.home / "profile.json"
    removed = False
    if settings.username is not None and (settings.tracking_uri is not None or settings.api_url is not None):
        removed = login_for(settings).cache.remove()
    if Profile.load(settings.home) is not None:
        with contextlib.suppress(FileNotFoundError):
            Path(profile).unlink()
        removed = True
    click.echo("Logged out." if removed else "Nobody was logged in.", err=True)


def _asked(question: str, *, needs_terminal: bool) -> str:
    if needs_terminal:
        raise MissingSettingsError(
            "With --password-stdin nothing can be asked for: give --uri and --username, or set MLFLOW_TRACKING_URI and "
            "MANTIK_USERNAME.",
            ("MLFLOW_TRACKING_URI", "MANTIK_USERNAME"),
        )
    return str(click.prompt(question, err=True))


def _password(*, password_stdin: bool) -> Secret:
    if password_stdin:
        # Bound to no name in the open: a traceback may show a frame's variables.
        secret = Secret(sys.stdin.readline().rstrip("\r\n"))
    else:
        secret = Secret(str(click.prompt("Password", hide_input=True, err=True)))
    if not secret:
        raise MissingSettingsError("The password is empty: nothing was sent.", ("MANTIK_PASSWORD",))
    return secret
