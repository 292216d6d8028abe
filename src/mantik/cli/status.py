"""``mantik status``: would tracking work, and if not, why."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click
import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import Login, token_source
from mantik.auth.transport import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, reason_of
from mantik.auth.urls import platform_origin
from mantik.exceptions import MantikError
from mantik.settings import Settings
from mantik.tracking import prepare

if TYPE_CHECKING:
    from mantik.tracking import Environment

__all__ = ["Report", "status"]


@dataclass(frozen=True, slots=True)
class Report:
    """What ``mantik status`` found out.

    Attributes:
        works: Whether a training that starts now would be tracked.
        tracking_uri: Where it would be tracked.
        username: As whom.
        token_valid_until: When the present token ends (ISO 8601, UTC); it is renewed by itself before.
        platform_answers: Whether the platform answered and accepted the token; None where nobody asked.
        platform_mlflow: MLflow version of the platform.
        client_mlflow: MLflow version installed here.
        problem: Why tracking would not work.
        hint: What works but deserves a look.
    """

    works: bool
    tracking_uri: str | None = None
    username: str | None = None
    token_valid_until: str | None = None
    platform_answers: bool | None = None
    platform_mlflow: str | None = None
    client_mlflow: str | None = None
    problem: str | None = None
    hint: str | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def status(*, as_json: bool) -> None:
    """Show whether tracking works, and why not.

    Who is logged in where, until when the token is good, and whether the platform answers. The exit code is 1 if a
    training that starts now would not be tracked.
    """
    report = _report()
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _show(report)
    sys.exit(0 if report.works else 1)


def _report() -> Report:
    client = _client_version()
    try:
        settings = Settings.from_environment()
        environment = prepare(settings)
    except MantikError as error:
        uri, username = _configured()
        return Report(works=False, tracking_uri=uri, username=username, client_mlflow=client, problem=str(error))
    if not environment.token:
        return Report(
            works=True,
            tracking_uri=environment.tracking_uri,
            client_mlflow=client,
            hint="The store is local: nobody logs in.",
        )
    source = token_source(settings)
    until = source.known if isinstance(source, Login) else None
    server, problem = _ask(
        environment, BearerAuth(platform_origin(environment.tracking_uri, allow_http=settings.allow_http), source)
    )
    return Report(
        works=problem is None,
        tracking_uri=environment.tracking_uri,
        username=environment.username,
        token_valid_until=_iso(until.expires_at) if until is not None else None,
        platform_answers=problem is None,
        platform_mlflow=server,
        client_mlflow=client,
        problem=problem,
        hint=_version_hint(client, server),
    )


def _configured() -> tuple[str | None, str | None]:
    """Return tracking URI and user as far as they are configured, even where they do not work."""
    try:
        settings = Settings.from_environment()
    except MantikError:
        return None, None
    # As written, it may hold a password in its user information.
    shown = settings.tracking_uri if settings.tracking_uri and "@" not in settings.tracking_uri else None
    return shown, settings.username


def _ask(environment: Environment, auth: BearerAuth) -> tuple[str | None, str | None]:
    """Ask the platform for its version, then for one experiment as any training does.

    Returns:
        The MLflow version, and what is wrong.
    """
    uri = environment.tracking_uri
    with requests.Session() as session:
        session.trust_env = not auth.origin.is_loopback
        session.auth = auth
        timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        try:
            said = session.get(f"{uri}/version", timeout=timeout, allow_redirects=False)
            found = session.get(
                f"{uri}/api/2.0/mlflow/experiments/search",
                params={"max_results": "1"},
                timeout=timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return None, f"The platform at {uri} cannot be reached: {reason_of(error)}."
    text = said.text.strip()
    server = text if said.ok and re.fullmatch(r"\d[\w.+-]{0,40}", text) else None
    if not found.ok or "json" not in found.headers.get("Content-Type", ""):
        return server, f"{uri} gave a token but does not answer as an MLflow server (HTTP {found.status_code})."
    return server, None


def _client_version() -> str | None:
    try:
        return version("mlflow-skinny")
    except PackageNotFoundError:
        return None


def _version_hint(client: str | None, server: str | None) -> str | None:
    if client is None or server is None or client.split(".")[0] <= server.split(".")[0]:
        return None
    return (
        f"The platform runs MLflow {server}, older than the {client} here: metrics and artifacts work, logging models "
        f"does not. "
        f"Install 'mlflow<{int(server.split('.')[0]) + 1}' to log models."
    )


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, tz=timezone.utc).isoformat(timespec="seconds")


def _show(report: Report) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    rows = {
        "platform": report.tracking_uri,
        "user": report.username,
        "token": f"valid until {report.token_valid_until}, renewed by itself" if report.token_valid_until else None,
        "MLflow": " · ".join(
            text
            for text in (
                f"{report.client_mlflow} here" if report.client_mlflow else "",
                f"{report.platform_mlflow} on the platform" if report.platform_mlflow else "",
            )
            if text
        ),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    console = Console(soft_wrap=True)
    console.print(table)
    if report.works:
        console.print(Text("Tracking works.", style="green"))
    if report.hint:
        console.print(Text(report.hint, style="yellow"))
    if report.problem:
        console.print(Text(f"Tracking would not work: {report.problem}", style="red"))
