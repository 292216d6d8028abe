"""``mantik status``: would tracking work, and if not, why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
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
from mantik.cli.folders import all_folders, plain, quickly_counted
from mantik.delivery.budget import usage_of
from mantik.delivery.compatibility import client_version, shortcomings, version_in
from mantik.delivery.contents import Reason, Waiting, reasons_of
from mantik.delivery.ledger import in_words, size_in_words
from mantik.exceptions import MantikError
from mantik.settings import Settings
from mantik.tracking import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.tracking import Environment

__all__ = ["Report", "SpoolReport", "status"]

_SHOWN_REASONS = 3
_WIDE = 10_000


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """What waits on disk.

    Attributes:
        path: ``MANTIK_SPOOL``.
        used_bytes: What mantik takes there.
        limit_bytes: ``MANTIK_SPOOL_LIMIT``; None is no limit.
        folders: How many processes have something there.
        running: How many of them are running.
        waits: What waits of processes that are gone or offline, in words; None if nothing does.
        waiting_bytes: Its records, in bytes.
        refused: How many records were refused, by the platform or because they cannot be read.
        reasons: Why, the most frequent reason first.
        problems: Why folders cannot be sent, by their names.
        problem: Why the spool cannot be looked into.
    """

    path: str
    used_bytes: int = 0
    limit_bytes: int | None = None
    folders: int = 0
    running: int = 0
    waits: str | None = None
    waiting_bytes: int = 0
    refused: int = 0
    reasons: tuple[Reason, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


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
        mode: ``MANTIK_MODE``.
        spool: What waits on disk; None where the settings do not even tell where that is.
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
    mode: str | None = None
    spool: SpoolReport | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def status(*, as_json: bool) -> None:
    """Show whether tracking works, and why not.

    Who is logged in where, until when the token is good, and whether the platform answers; what waits on disk, and what
    was refused. The exit code is 1 if a training that starts now would not be tracked.
    """
    report = _with_spool(_report())
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _show(report)
    sys.exit(0 if report.works else 1)


def _report() -> Report:
    client = client_version()
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
        hint=" ".join(shortcomings(client, server)) or None,
    )


def _with_spool(report: Report) -> Report:
    try:
        settings = Settings.from_environment()
    except MantikError:
        return report
    return replace(report, mode=settings.mode, spool=_spool(settings))


def _spool(settings: Settings) -> SpoolReport:
    path = str(settings.spool)
    try:
        states = all_folders(settings)
    except MantikError as error:
        return SpoolReport(path, limit_bytes=settings.spool_limit, problem=str(error))
    # What a running process has just recorded is on its way.
    left = [state for state in states if not state.live or (state.owner is not None and not state.owner.ships)]
    waiting = Waiting()
    for part in quickly_counted(left):
        waiting.add(part)
    reasons = reasons_of(refusal for state in states for refusal in state.outgoing.quarantine.refusals())
    return SpoolReport(
        path,
        usage_of(settings.spool),
        settings.spool_limit,
        len(states),
        sum(state.live for state in states),
        str(waiting) if waiting else None,
        sum(state.waiting for state in left),
        sum(state.refused for state in states),
        tuple(reasons),
        {state.outgoing.path.name: state.problem for state in states if state.problem is not None},
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
    server = version_in(said)
    if not found.ok or "json" not in found.headers.get("Content-Type", ""):
        return server, f"{uri} gave a token but does not answer as an MLflow server (HTTP {found.status_code})."
    return server, None


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
    rows |= _spool_rows(report)
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    # A file or a pipe has no width in which a path would have to be broken.
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    if report.works:
        console.print(Text("Tracking works.", style="green"))
    if report.hint:
        console.print(Text(report.hint, style="yellow"))
    if report.problem:
        console.print(Text(f"Tracking would not work: {report.problem}", style="red"))
    if report.spool is not None:
        for line in _advice(report.spool):
            console.print(Text(plain(line), style="yellow"))


def _spool_rows(report: Report) -> dict[str, str | None]:
    spool = report.spool
    if spool is None:
        return {}
    of = f" of {size_in_words(spool.limit_bytes)}" if spool.limit_bytes is not None else ""
    running = f", {spool.running} of running processes" if spool.running else ""
    holds = f"{in_words(spool.folders, 'folder')}{running}, {size_in_words(spool.used_bytes)}{of}"
    return {
        "mode": report.mode,
        "spool": f"{spool.path} ({holds})" if spool.folders or of else spool.path,
        "waits": spool.waits,
        "refused": in_words(spool.refused, "record") if spool.refused else None,
    }


def _advice(spool: SpoolReport) -> Iterator[str]:
    if spool.problem is not None:
        yield spool.problem
    if spool.waits is not None and len(spool.problems) < spool.folders:
        yield "Send what waits with: mantik sync"
    for name, problem in spool.problems.items():
        yield f"{name}: {problem}."
    for reason in spool.reasons[:_SHOWN_REASONS]:
        yield f"Refused: {', '.join(reason.examples)} ({in_words(reason.count, 'record')}): {reason.reason}"
    if spool.refused:
        yield "See what was refused with 'mantik spool show'; send it again with 'mantik spool retry'."
