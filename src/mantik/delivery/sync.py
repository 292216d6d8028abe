"""Ships what processes left behind: journals whose writer is gone.

Safe at any time and any number of times: a journal that a live process writes is never touched, one at a time ships a
journal, and whoever is interrupted leaves everything so that the next one goes on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import filelock

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.history import waiting_records
from mantik.delivery.journal import waiting_bytes
from mantik.delivery.records import Batch, RunUpdate
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError
from mantik.delivery.shipper import Shipper, Tally
from mantik.delivery.spool import outgoing_in
from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.delivery.spool import Outgoing, Owner
    from mantik.settings import Settings

__all__ = ["Report", "State", "survey", "sync"]

_logger = logging.getLogger(__name__)

_LEFT_OPEN = "KILLED"
"""Status of a run whose process vanished: an exception or an ordinary end would have been recorded."""


@dataclass(frozen=True, slots=True)
class State:
    """What a folder of the spool holds.

    Attributes:
        outgoing: The folder.
        owner: Who writes it; None if that cannot be told.
        live: Whether the writer may still be at work.
        waiting: Bytes of records that were not delivered.
        refused: How many records were refused.
    """

    outgoing: Outgoing
    owner: Owner | None
    live: bool
    waiting: int
    refused: int


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one folder.

    Attributes:
        state: The folder before.
        tally: What was delivered now.
        closed: Runs that were left open and have been ended.
        problem: Why not everything was delivered; None if it was.
    """

    state: State
    tally: Tally
    closed: tuple[str, ...] = ()
    problem: str | None = None


def survey(settings: Settings) -> Iterator[State]:
    """Yield what waits in the spool, the oldest first, without changing anything."""
    for outgoing in outgoing_in(settings.spool):
        owner = outgoing.owner()
        yield State(
            outgoing,
            owner,
            owner is not None and outgoing.is_live(owner),
            waiting_bytes(outgoing.journal, outgoing.cursor.load()),
            sum(1 for _ in outgoing.quarantine.refusals()),
        )


def sync(settings: Settings) -> Iterator[Report]:
    """Ship every folder whose writer is gone, and yield what became of each.

    Args:
        settings: Where the spool is, and with which password to log in should the cached login be over. Platform and
            user are those of the folder.
    """
    states = list(survey(settings))
    # A run that went on in another process is that one's to end.
    elsewhere = {run_id for state in states if state.live for run_id in state.outgoing.open_runs()}
    for state in states:
        if state.live:
            continue
        if state.owner is None:
            yield Report(state, Tally(), problem="it does not say which platform it is for (owner.json is damaged)")
            continue
        lock = filelock.FileLock(state.outgoing.lock, timeout=0, mode=0o600)
        try:
            with lock:
                yield _ship(state, state.owner, settings, elsewhere)
        except filelock.Timeout:
            yield Report(state, Tally(), problem="another sync is shipping it")
        except OSError as error:
            yield Report(state, Tally(), problem=f"it cannot be read or written: {error.strerror}")


def _ship(state: State, owner: Owner, settings: Settings, elsewhere: set[str]) -> Report:
    outgoing = state.outgoing
    try:
        api = _api_for(owner, settings)
    except MantikError as error:
        return Report(state, Tally(), problem=str(error))
    open_runs = outgoing.open_runs()
    for run_id, last in _last_moments(outgoing).items():
        # Kept before it is shipped: a sync that goes on after this one was killed does not find these points any more.
        if run_id in open_runs:
            outgoing.open_run(run_id, last)
    shipper = Shipper(outgoing.journal, outgoing.cursor, outgoing.quarantine, api, tail="closed")
    closed: list[str] = []
    try:
        while shipper.ship():
            pass
        for run_id in open_runs:
            if run_id not in elsewhere and _close(api, run_id, outgoing.last_point(run_id), outgoing.last_sign()):
                closed.append(run_id)
            outgoing.close_run(run_id)
    except UnavailableError as error:
        return Report(state, shipper.tally, tuple(closed), f"the platform cannot take it now ({error})")
    finally:
        api.close()
    if not any(outgoing.quarantine.refusals()):
        outgoing.remove()
    return Report(state, shipper.tally, tuple(closed))


def _api_for(owner: Owner, settings: Settings) -> MlflowApi:
    mine = replace(settings, tracking_uri=owner.tracking_uri, api_url=owner.api_url)
    if owner.username is not None and settings.given_token is None:
        # The password of the settings is that of their own user, and goes to nobody else's login.
        password = settings.password if settings.username == owner.username else None
        mine = replace(mine, username=owner.username, password=password)
    origin = platform_origin(owner.tracking_uri, allow_http=settings.allow_http)
    return MlflowApi(owner.tracking_uri, BearerAuth(origin, token_source(mine)))


def _last_moments(outgoing: Outgoing) -> dict[str, int]:
    """Return for each run the time of the last point that waits, in milliseconds since 1970."""
    last: dict[str, int] = {}
    for record in waiting_records(outgoing, tail="closed"):
        if isinstance(record, Batch) and record.metrics:
            last[record.run_id] = max(last.get(record.run_id, 0), *(item[2] for item in record.metrics))
    return last


def _close(api: MlflowApi, run_id: str, end: int, latest: int) -> bool:
    """End a run that its process left open, at its last point but not after a time; tell whether it had to be ended.

    Raises:
        UnavailableError: The server cannot be asked now.
    """
    try:
        info = api.call("GET", "runs/get", {"run_id": run_id})["run"]["info"]
        if info.get("status") != "RUNNING":
            return False
        # Points may carry any time that the user gave them; a run ends neither before its start nor in the future.
        start = int(info.get("start_time", 0))
        api.update_run(RunUpdate(run_id, _LEFT_OPEN, max(start, min(end, latest)), None))
    except RefusedError as error:
        # Deleted meanwhile: nothing is left to end.
        _logger.debug("The run %s cannot be ended: %s", run_id, error)
        return False
    return True
