"""``mantik sync``: ship what processes left behind."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from mantik.delivery.ledger import in_words, size_in_words
from mantik.delivery.sync import Sync, survey
from mantik.settings import Settings

if TYPE_CHECKING:
    from mantik.delivery.spool import Outgoing
    from mantik.delivery.sync import Report, State

__all__ = ["line_of", "state_of", "sync_command"]

_WATCH_SECONDS = 10.0


@click.command("sync")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, also with what offline processes are still recording.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per folder, for scripts.")
@click.option("--keep", is_flag=True, help="Leave what was sent on disk; 'mantik spool drop' deletes it.")
def sync_command(*, runs: tuple[str, ...], watch: bool, dry_run: bool, as_json: bool, keep: bool) -> None:
    """Send what waits on disk: records of processes that ended before all was delivered.

    With RUN, an id of the platform or a provisional one, only what processes left behind that logged to it.

    Live processes send their records themselves and are left alone. Runs that a vanished process left RUNNING are
    ended. It can be repeated and interrupted at any time. The exit code is 1 if something could not be sent.
    """
    settings = Settings.from_environment()
    if dry_run:
        for state in survey(settings, runs):
            click.echo(json.dumps(state_of(state)) if as_json else line_of(state))
        return
    failed = False
    try:
        while True:
            found, failed = _once(settings, runs, watch=watch, as_json=as_json, keep=keep)
            if not watch:
                break
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        if not watch:
            click.echo("Interrupted; what was not sent stays on disk.", err=True)
            sys.exit(130)
        return
    if not found and not as_json:
        click.echo("Nothing waits.", err=True)
    sys.exit(1 if failed else 0)


def _once(settings: Settings, runs: tuple[str, ...], *, watch: bool, as_json: bool, keep: bool) -> tuple[bool, bool]:
    """Ship what there is; tell whether there was anything, and whether something failed."""
    found = failed = False
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal or watch) as progress:
        tasks = {}
        for state in survey(settings, runs):
            if state.waiting:
                total = state.waiting + state.files
                tasks[state.outgoing.path] = progress.add_task(state.outgoing.path.name, total=total)

        def shipped(outgoing: Outgoing) -> None:
            task = tasks.get(outgoing.path)
            if task is not None:
                total = progress.tasks[task].total or 0
                left = sum(lane.waiting() for lane in outgoing.lanes) + outgoing.staging.size()
                progress.update(task, completed=max(0, total - left))

        for report in Sync(settings, runs, keep=keep, follow=watch, shipped=shipped).once():
            if watch and report.problem is None and not report.sent.total and not report.closed:
                continue
            found = True
            failed = failed or report.problem is not None
            progress.console.file.flush()
            click.echo(json.dumps(_report(report)) if as_json else _text(report))
    return found, failed


def state_of(state: State) -> dict[str, object]:
    """Return what a folder holds, for scripts."""
    return {
        "path": str(state.outgoing.path),
        "platform": state.owner.tracking_uri if state.owner else None,
        "user": state.owner.username if state.owner else None,
        "live": state.live,
        "waiting_bytes": state.waiting,
        "waiting_file_bytes": state.files,
        "refused": state.refused,
        "problem": state.problem,
    }


def line_of(state: State) -> str:
    """Return what a folder holds, in one line."""
    owner = state.owner
    who = f"{owner.host} process {owner.pid} for {owner.tracking_uri}" if owner else str(state.outgoing.path)
    if not state.live:
        doing = "is gone"
    elif owner is not None and not owner.ships:
        doing = "is running in offline mode"
    else:
        doing = "is running and sends by itself"
    refused = f", {state.refused} refused" if state.refused else ""
    files = f" and {size_in_words(state.files)} of files" if state.files else ""
    waits = state.problem or f"{state.waiting:,} bytes{files} wait"
    return f"{who}: {doing}; {waits}{refused}"


def _report(report: Report) -> dict[str, object]:
    sent = {**asdict(report.sent), "refused": report.refused}
    closed = list(report.closed)
    return {**state_of(report.state), "sent": sent, "closed_runs": closed, "problem": report.problem}


def _text(report: Report) -> str:
    parts = [f"{report.state.outgoing.path.name}: sent {report.sent}"]
    if report.closed:
        parts.append(f"ended {in_words(len(report.closed), 'run')} left running")
    refused = report.state.refused + report.refused
    if refused:
        parts.append(f"{refused} refused, see {report.state.outgoing.quarantine.path}")
    if report.problem:
        parts.append(f"not finished: {report.problem}")
    return "; ".join(parts)
