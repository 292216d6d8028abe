"""The folders of the spool as the command line names and describes them."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import filelock
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mantik.delivery.contents import Waiting, waiting_in
from mantik.delivery.sync import survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mantik.delivery.spool import Outgoing
    from mantik.delivery.sync import State
    from mantik.settings import Settings

__all__ = ["age_of", "all_folders", "chosen", "doing", "held", "plain", "print_rows", "quickly_counted"]

_COUNTED_BYTES = 4 * 1024 * 1024
"""A journal of up to this size is counted for a list: a few tenths of a second. Of a longer one the size is named."""

_ALL_COUNTED_BYTES = 10 * _COUNTED_BYTES
_FRESH_SECONDS = 300.0


def all_folders(settings: Settings) -> list[State]:
    """Return what the spool holds, the oldest first.

    Raises:
        ConfigurationError: The spool cannot be read.
    """
    return list(survey(settings))


def chosen(settings: Settings, names: Sequence[str]) -> list[State]:
    """Return the folders of these names, unambiguous beginnings of names, or paths.

    Raises:
        ClickException: There is none of that name, or more than one.
    """
    states = all_folders(settings)
    found: dict[Path, State] = {}
    for name in names:
        matches = [state for state in states if state.outgoing.path.name == name]
        matches = matches or [state for state in states if name and state.outgoing.path.name.startswith(name)]
        matches = matches or [state for state in states if state.outgoing.path.resolve() == Path(name).resolve()]
        if len(matches) != 1:
            what = f"{len(matches)} folders begin with {name!r}" if matches else f"There is no folder {name!r}"
            raise click.ClickException(f"{what} in the spool {settings.spool}: 'mantik spool list' names all of them.")
        found[matches[0].outgoing.path] = matches[0]
    return list(found.values())


def doing(state: State) -> str:
    """Say what is going on with a folder."""
    if state.live:
        ships = state.owner is None or state.owner.ships
        return "running and sends by itself" if ships else "running in offline mode"
    return "kept" if state.outgoing.is_kept and not state.waiting else "gone"


def quickly_counted(states: Sequence[State]) -> list[Waiting]:
    """Count what waits in folders, and only name the size where counting would take long."""
    left = _ALL_COUNTED_BYTES
    counted = []
    for state in states:
        try:
            waiting = waiting_in(state.outgoing, live=state.live, most_bytes=min(left, _COUNTED_BYTES))
        except OSError:
            # The folder's problem says why.
            waiting = Waiting(uncounted=state.waiting)
        left = max(0, left - state.waiting)
        counted.append(waiting)
    return counted


def age_of(outgoing: Outgoing) -> float | None:
    """Return how many seconds ago something was last recorded; None if that cannot be told."""
    try:
        return max(0.0, time.time() - outgoing.last_moment() / 1000)
    except OSError:
        return None


@contextlib.contextmanager
def held(state: State) -> Iterator[None]:
    """Keep everybody else from a folder whose process is gone.

    Raises:
        ClickException: Its process may still be at work, it belongs to another user, or a sync is shipping it.
    """
    path = state.outgoing.path
    age = age_of(state.outgoing)
    if state.live or (state.owner is None and age is not None and age < _FRESH_SECONDS):
        why = "its process is still running" if state.live else "somebody wrote it less than five minutes ago"
        raise click.ClickException(f"{path.name} is left as it is: {why}. Wait for its end, or end it first.")
    lock = filelock.FileLock(state.outgoing.lock, timeout=0, mode=0o600)
    with contextlib.ExitStack() as held_lock:
        try:
            held_lock.enter_context(lock)
        except filelock.Timeout:
            raise click.ClickException(
                f"{path.name} is left as it is: a sync is shipping it. Try again later."
            ) from None
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
        yield


def plain(text: str) -> str:
    """Return a text without characters that would do something to a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows: as a table on a terminal, else as lines of tab-separated cells."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(plain(cell) for cell in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    Console().print(table)
