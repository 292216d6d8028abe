"""``mantik spool``: look into what waits on disk, and put it right."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mantik.cli.folders import age_of, all_folders, chosen, doing, held, plain, print_rows, quickly_counted
from mantik.cli.sync import state_of
from mantik.delivery.contents import reasons_of, waiting_in
from mantik.delivery.export import export
from mantik.delivery.ids import is_provisional
from mantik.delivery.ledger import in_words
from mantik.delivery.requeue import requeue
from mantik.delivery.spool import foreign_in, identities_of
from mantik.settings import Settings

if TYPE_CHECKING:
    from mantik.delivery.contents import Waiting
    from mantik.delivery.ids import Identities
    from mantik.delivery.quarantine import Refusal
    from mantik.delivery.sync import State

__all__ = ["spool"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per folder, for scripts.")


@click.group()
def spool() -> None:
    """Look into what waits on disk, and put it right.

    A FOLDER is what one process recorded for one platform. It is given by its name, by the beginning of its name, or by
    its path.
    """


@spool.command("list")
@_json_option
def list_command(*, as_json: bool) -> None:
    """Show one line for each folder: whose it is, what waits in it, and what was refused."""
    settings = Settings.from_environment()
    states = all_folders(settings)
    counted = quickly_counted(states)
    if as_json:
        for state, waiting in zip(states, counted, strict=True):
            click.echo(json.dumps(_described(state, waiting)))
        return
    rows = [_row(state, waiting) for state, waiting in zip(states, counted, strict=True)]
    print_rows(("folder", "process", "platform", "user", "state", "waits", "refused", "last record"), rows)
    for state in states:
        if state.problem is not None:
            click.echo(f"{state.outgoing.path.name}: {plain(state.problem)}.", err=True)
    foreign = foreign_in(settings.spool)
    if foreign:
        names = plain(", ".join(foreign[:3])) + (", …" if len(foreign) > 3 else "")  # noqa: PLR2004
        click.echo(f"Not mantik's, and never touched: {in_words(len(foreign), 'other thing')} ({names}).", err=True)
    if not states:
        click.echo(f"Nothing is in the spool {settings.spool}.", err=True)


@spool.command()
@click.argument("folders", metavar="[FOLDER]...", nargs=-1)
@_json_option
def show(*, folders: tuple[str, ...], as_json: bool) -> None:
    """Show what waits by run, what provisional ids became, and what was refused and why."""
    settings = Settings.from_environment()
    identities = identities_of(settings.spool)
    for state in chosen(settings, folders) if folders else all_folders(settings):
        try:
            waiting = waiting_in(state.outgoing, live=state.live)
        except OSError as error:
            raise click.ClickException(f"{state.outgoing.path} cannot be read: {error.strerror}.") from None
        refusals = list(state.outgoing.quarantine.refusals())
        if as_json:
            runs = {
                entity: {**asdict(counts), "became": _fate(entity, identities)}
                for entity, counts in waiting.by_entity.items()
            }
            click.echo(
                json.dumps(
                    {
                        **_described(state, waiting),
                        "by_run": runs,
                        "open_runs": state.outgoing.open_runs(),
                        "refusals": [asdict(refusal) for refusal in refusals],
                    }
                )
            )
        else:
            _show(state, waiting, refusals, identities)


@spool.command()
@click.argument("folders", metavar="[FOLDER]...", nargs=-1)
def retry(*, folders: tuple[str, ...]) -> None:
    """Take refused records back into delivery: 'mantik sync' sends them again.

    For when what was wrong has been put right on the platform. Without FOLDER, all that was refused. What could not be
    read at all stays where it is.
    """
    settings = Settings.from_environment()
    states = chosen(settings, folders) if folders else [s for s in all_folders(settings) if s.refused and not s.live]
    identities = identities_of(settings.spool)
    taken = 0
    for state in states:
        name = state.outgoing.path.name
        if state.owner is None or state.problem is not None:
            raise click.ClickException(f"{name} is left as it is: {state.problem}.")
        with held(state):
            try:
                done = requeue(state.outgoing, state.owner, identities)
            except OSError as error:
                raise click.ClickException(f"{name} is left as it is: {error.strerror}.") from None
        taken += done.taken
        left = f"; {done.left} stay, because they cannot be read or their file is gone" if done.left else ""
        click.echo(f"{name}: {in_words(done.taken, 'record')} taken back{left}.")
    click.echo("Send them with: mantik sync" if taken else "Nothing was refused that can be sent again.", err=True)


@spool.command("export")
@click.argument("folder")
@click.argument("target", type=click.Path(path_type=Path))
def export_command(*, folder: str, target: Path) -> None:
    """Copy a FOLDER to TARGET in a form that people can read without a platform.

    TARGET gets records.jsonl and quarantine.jsonl, one JSON object a line, and the files below artifacts. Nothing is
    overwritten, and the folder stays as it is.
    """
    (state,) = chosen(Settings.from_environment(), (folder,))
    try:
        done = export(state.outgoing, target, live=state.live)
    except FileExistsError:
        raise click.ClickException(f"{target} is there already: name a folder that is not, or an empty one.") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or target}: {error.strerror}.") from None
    parts = [in_words(done.records, "record"), in_words(done.artifacts, "artifact"), f"{done.refused} refused"]
    if done.unreadable:
        parts.append(f"{done.unreadable} unreadable")
    if done.gone:
        parts.append(f"{in_words(done.gone, 'artifact')} whose files are not here any more")
    click.echo(f"{target}: {', '.join(parts)}.")


@spool.command()
@click.argument("folders", metavar="[FOLDER]...", nargs=-1)
@click.option("--delivered", is_flag=True, help="Only folders of which everything is on the platform.")
@click.option("--refused", is_flag=True, help="Only what the platform refused; what waits stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(*, folders: tuple[str, ...], delivered: bool, refused: bool, yes: bool) -> None:
    """Delete a FOLDER, all that were delivered, or what was refused.

    What has not been delivered is lost. Folders of running processes are never deleted.
    """
    if not folders and not delivered and not refused:
        raise click.UsageError("Name a FOLDER, or give --delivered or --refused.")
    if delivered and refused:
        raise click.UsageError("--delivered and --refused exclude each other.")
    states = _to_drop(Settings.from_environment(), folders, delivered=delivered, refused=refused)
    if not states:
        click.echo("There is nothing to delete.", err=True)
        return
    with ExitStack() as all_held:
        for state in states:
            if state.problem is not None and state.owner is not None:
                raise click.ClickException(f"{state.outgoing.path.name} is left as it is: {state.problem}.")
            all_held.enter_context(held(state))
        for state, waiting in zip(states, quickly_counted(states), strict=True):
            click.echo(f"{state.outgoing.path.name}: {_loss(state, waiting, refused=refused)}", err=True)
        if not yes:
            click.confirm(f"Delete this from {in_words(len(states), 'folder')}?", abort=True, err=True)
        for state in states:
            _drop(state, refused=refused)


def _to_drop(settings: Settings, folders: tuple[str, ...], *, delivered: bool, refused: bool) -> list[State]:
    states = chosen(settings, folders) if folders else [state for state in all_folders(settings) if not state.live]
    if delivered:
        return [s for s in states if not s.waiting and not s.refused and s.problem is None and s.outgoing.is_kept]
    return [state for state in states if state.refused] if refused else states


def _drop(state: State, *, refused: bool) -> None:
    outgoing = state.outgoing
    if refused:
        outgoing.drop_refused()
    if not refused or (not state.waiting and outgoing.is_only_refused() and state.problem is None):
        outgoing.remove()
        if outgoing.path.exists():
            raise click.ClickException(f"{outgoing.path} could not be deleted as a whole.")


def _loss(state: State, waiting: Waiting, *, refused: bool) -> str:
    lost = [] if refused or not waiting else [f"{waiting} that the platform does not have"]
    if state.refused:
        lost.append(f"{in_words(state.refused, 'refused record')}")
    return f"{' and '.join(lost)} will be lost" if lost else "everything in it was delivered"


def _described(state: State, waiting: Waiting) -> dict[str, object]:
    owner = state.owner
    age = age_of(state.outgoing)
    return {
        "name": state.outgoing.path.name,
        **state_of(state),
        "host": owner.host if owner else None,
        "pid": owner.pid if owner else None,
        "state": doing(state),
        "waiting": asdict(waiting.total),
        "uncounted_bytes": waiting.uncounted,
        "seconds_since_last_record": round(age) if age is not None else None,
    }


def _row(state: State, waiting: Waiting) -> tuple[str, ...]:
    owner = state.owner
    age = age_of(state.outgoing)
    return (
        state.outgoing.path.name,
        f"{owner.pid} on {owner.host}" if owner else "?",
        owner.tracking_uri if owner else "?",
        (owner.username or "of the job's token") if owner else "?",
        doing(state),
        str(waiting),
        f"{state.refused} refused",
        f"{_ago(age)} ago" if age is not None else "?",
    )


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _fate(entity: str, identities: Identities) -> str | None:
    """Say what a provisional id became; None for any other id."""
    if not is_provisional(entity):
        return None
    identity = identities.get(entity)
    if identity is None:
        return "nobody in this spool knows it"
    if identity.server_id is not None:
        return identity.server_id
    return f"refused: {identity.refused}" if identity.refused is not None else "not on the platform yet"


def _show(state: State, waiting: Waiting, refusals: list[Refusal], identities: Identities) -> None:
    _, process, platform, user, state_now, _, _, last = _row(state, waiting)
    click.echo(f"{state.outgoing.path.name}")
    click.echo(f"  process {plain(process)}, {state_now}; last record {last}")
    click.echo(f"  for {plain(platform)} as {plain(user)}")
    click.echo(f"  files in {state.outgoing.path}")
    if state.problem is not None:
        click.echo(f"  Problem: {plain(state.problem)}.")
    click.echo(f"  Waits: {waiting}" + ("" if not waiting or state.live else "; send it with: mantik sync"))
    rows = []
    for entity in dict.fromkeys((*waiting.by_entity, *(r.run_id for r in refusals), *state.outgoing.open_runs())):
        fate = _fate(entity, identities)
        counts = waiting.by_entity.get(entity)
        became = f"provisional: {fate}" if fate else ""
        rows.append((f"  {entity or 'of no run'}", str(counts) if counts else "nothing waits", became))
    print_rows(("  run or other", "waits", "id"), rows)
    if state.refused:
        click.echo(f"  Refused: {in_words(state.refused, 'record')}, kept in {state.outgoing.quarantine.path}")
        reasons = reasons_of(refusals)
        rows = [(f"  {reason.count}", reason.reason, ", ".join(reason.examples)) for reason in reasons]
        print_rows(("  how many", "why", "such as"), rows)
        unreadable = state.refused - len(refusals)
        if unreadable > 0:
            click.echo(f"  {in_words(unreadable, 'line')} of that file cannot be read: it was changed by hand.")
        if not state.live:
            click.echo(
                "  Once the cause is put right: mantik spool retry. To give them up: mantik spool drop --refused"
            )
