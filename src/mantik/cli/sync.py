"""``mantik sync``: ship what processes left behind."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mantik.delivery.sync import survey, sync
from mantik.settings import Settings

if TYPE_CHECKING:
    from mantik.delivery.sync import Report, State

__all__ = ["sync_command"]


@click.command("sync")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per folder, for scripts.")
def sync_command(*, dry_run: bool, as_json: bool) -> None:
    """Send what waits on disk: records of processes that ended before all was delivered.

    Live processes send their records themselves and are left alone. Runs that a vanished process left RUNNING are
    ended. It can be repeated and interrupted at any time. The exit code is 1 if something could not be sent.
    """
    settings = Settings.from_environment()
    if dry_run:
        for state in survey(settings):
            click.echo(json.dumps(_state(state)) if as_json else _line(state))
        return
    failed = False
    found = False
    for report in sync(settings):
        found = True
        failed = failed or report.problem is not None
        click.echo(json.dumps(_report(report)) if as_json else _text(report))
    if not found and not as_json:
        click.echo("Nothing waits.", err=True)
    sys.exit(1 if failed else 0)


def _state(state: State) -> dict[str, object]:
    return {
        "path": str(state.outgoing.path),
        "platform": state.owner.tracking_uri if state.owner else None,
        "user": state.owner.username if state.owner else None,
        "live": state.live,
        "waiting_bytes": state.waiting,
        "refused": state.refused,
    }


def _report(report: Report) -> dict[str, object]:
    sent = asdict(report.tally)
    return {**_state(report.state), "sent": sent, "closed_runs": list(report.closed), "problem": report.problem}


def _line(state: State) -> str:
    owner = state.owner
    who = f"{owner.host} process {owner.pid} for {owner.tracking_uri}" if owner else str(state.outgoing.path)
    doing = "is running and sends by itself" if state.live else "is gone"
    refused = f", {state.refused} refused" if state.refused else ""
    return f"{who}: {doing}; {state.waiting} bytes wait{refused}"


def _text(report: Report) -> str:
    tally = report.tally
    sent = f"{tally.metrics} points, {tally.params} params, {tally.tags} tags"
    parts = [f"{report.state.outgoing.path.name}: sent {sent}"]
    if report.closed:
        parts.append(f"ended {len(report.closed)} run(s) that were left running")
    refused = report.state.refused + tally.refused
    if refused:
        parts.append(f"{refused} refused, see {report.state.outgoing.quarantine.path}")
    if report.problem:
        parts.append(f"not finished: {report.problem}")
    return "; ".join(parts)
