"""Ships what processes left behind: journals whose writer is gone.

Safe at any time and any number of times: a journal that a live process ships is never touched, one at a time ships a
journal, and whoever is interrupted leaves everything so that the next one goes on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import filelock

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.creation import WaitingError
from mantik.delivery.history import waiting_records
from mantik.delivery.ids import UnresolvedError
from mantik.delivery.latecomer import Latecomer
from mantik.delivery.ledger import Counts, entity_of
from mantik.delivery.records import RunUpdate
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError
from mantik.delivery.shipper import STUBBORN_ATTEMPTS, NewerFormatError, Shipper
from mantik.delivery.spool import identities_of, outgoing_in, remove_halves, require_readable
from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mantik.delivery.ids import Identities
    from mantik.delivery.journal import Tail
    from mantik.delivery.owner import Owner
    from mantik.delivery.spool import Outgoing
    from mantik.settings import Settings

__all__ = ["Report", "State", "Sync", "survey"]

_logger = logging.getLogger(__name__)

_INTERNAL_ERROR = 500
_PAUSE_SECONDS = 1.0
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
        files: Bytes of the files that wait with them.
        refused: How many records were refused.
        problem: Why nothing of the folder can be sent by this user with this version of mantik, if so.
    """

    outgoing: Outgoing
    owner: Owner | None
    live: bool
    waiting: int
    refused: int
    problem: str | None = None
    files: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one folder.

    Attributes:
        state: The folder before.
        sent: What was delivered now, of all runs together.
        refused: How many records were refused now.
        closed: Runs that were left open and have been ended.
        problem: Why not everything was delivered; None if it was.
    """

    state: State
    sent: Counts = field(default_factory=Counts)
    refused: int = 0
    closed: tuple[str, ...] = ()
    problem: str | None = None


class _BlockedError(Exception):
    """Something that another folder holds has to be delivered first."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.problem)
        self.report = report


def survey(settings: Settings, runs: Sequence[str] = ()) -> Iterator[State]:
    """Yield what waits in the spool, the oldest first, without changing anything.

    Args:
        settings: Where the spool is.
        runs: Ids of runs, provisional or not: only folders that hold something about one of them. Default: all.

    Raises:
        ConfigurationError: The spool is no folder, or one that this user cannot read.
    """
    require_readable(settings.spool)
    identities = identities_of(settings.spool)
    for outgoing in outgoing_in(settings.spool):
        owner = outgoing.owner()
        live = owner is not None and outgoing.is_live(owner)
        try:
            if runs and not _speaks_of(outgoing, runs, identities):
                continue
            waiting = sum(lane.waiting() for lane in outgoing.lanes)
            files = outgoing.staging.size() if outgoing.uploads.waiting() else 0
        except OSError as error:
            yield State(outgoing, owner, live, 0, 0, f"it cannot be read: {error.strerror}")
        else:
            yield State(outgoing, owner, live, waiting, outgoing.quarantine.count(), outgoing.problem(), files)


class Sync:
    """Ships the folders of a spool whose writers are gone.

    Args:
        settings: Where the spool is, and with which password to log in should the cached login be over. Platform and
            user are those of the folder.
        runs: Ids of runs: only folders that hold something about one of them. Default: all.
        keep: Leave what was delivered on disk.
        follow: Also ship what processes in offline mode have recorded so far, while they go on.
        shipped: Called after each stretch with what was sent of it.
    """

    def __init__(
        self,
        settings: Settings,
        runs: Sequence[str] = (),
        *,
        keep: bool = False,
        follow: bool = False,
        shipped: Callable[[Outgoing], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._keep = keep
        self._follow = follow
        self._shipped = shipped
        self._identities = identities_of(settings.spool)

    def once(self) -> Iterator[Report]:
        """Ship what there is, and yield what became of each folder."""
        everything = list(survey(self._settings))
        # A run that went on in another process is that one's to end.
        elsewhere = {run_id for state in everything if state.live for run_id in state.outgoing.open_runs()}
        todo = [state for state in survey(self._settings, self._runs) if self._is_ours(state)]
        while todo:
            blocked: list[tuple[State, Report]] = []
            for state in todo:
                try:
                    yield self._folder(state, elsewhere)
                except _BlockedError as error:  # noqa: PERF203  # one folder's trouble is not the next one's
                    blocked.append((state, error.report))
            if len(blocked) == len(todo):
                yield from (report for _, report in blocked)
                break
            # Some were waited for, and are done now.
            todo = [state for state, _ in blocked]
        self._identities.forget_old()
        remove_halves(self._settings.spool)

    def _is_ours(self, state: State) -> bool:
        if state.live:
            # Nobody ships for a process in offline mode; one that ships itself is never touched.
            return self._follow and state.owner is not None and not state.owner.ships
        # A folder that was kept, or of which only refusals are left, is not mentioned each time.
        return bool(state.waiting) or state.owner is None or not state.outgoing.is_kept

    def _folder(self, state: State, elsewhere: set[str]) -> Report:
        if state.problem is not None or state.owner is None:
            return Report(state, problem=state.problem)
        lock = filelock.FileLock(state.outgoing.lock, timeout=0, mode=0o600)
        try:
            with lock:
                return self._ship(state, state.owner, elsewhere)
        except filelock.Timeout:
            return Report(state, problem="another sync is shipping it")
        except OSError as error:
            return Report(state, problem=f"it cannot be read or written: {error.strerror}")

    def _ship(self, state: State, owner: Owner, elsewhere: set[str]) -> Report:
        outgoing = state.outgoing
        if not (outgoing.path / "owner.json").exists():
            # Another sync was quicker; the folder that there is was made for the lock.
            outgoing.remove()
            return Report(state)
        try:
            api = _api_for(owner, self._settings)
        except MantikError as error:
            return Report(state, problem=str(error))
        tail: Tail = "live" if state.live else "closed"
        # A process that goes on may still read its own artifacts.
        keep = self._keep or state.live
        latecomer = None if state.live else Latecomer(api, self._identities, outgoing.last_moment(), elsewhere)
        shippers = [
            Shipper(outgoing, lane, api, self._identities, tail=tail, keep=keep, latecomer=latecomer)
            for lane in outgoing.lanes
        ]
        closed: list[str] = []
        newer: str | None = None
        try:
            for shipper in shippers:
                newer = self._drain(shipper, outgoing) or newer
            if not state.live and newer is None:
                closed += self._end_runs(api, outgoing, elsewhere)
        except WaitingError as error:
            report = _report(state, shippers, closed, newer or str(error))
            raise _BlockedError(report) from None
        except UnavailableError as error:
            return _report(state, shippers, closed, f"the platform cannot take it now ({error})")
        finally:
            api.close()
        if not state.live and newer is None:
            self._clean_up(outgoing)
        return _report(state, shippers, closed, newer)

    def _drain(self, shipper: Shipper, outgoing: Outgoing) -> str | None:
        """Ship a lane as far as it can be read; tell why no further, if so."""
        while True:
            try:
                if not shipper.ship():
                    return None
                self._shipped(outgoing)
            except NewerFormatError as error:  # noqa: PERF203  # waits for the network, not for the interpreter
                return str(error)
            except UnavailableError as error:
                # A shipper sets aside what a server that is well fails on again and again.
                if error.status != _INTERNAL_ERROR or shipper.failures >= STUBBORN_ATTEMPTS:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _clean_up(self, outgoing: Outgoing) -> None:
        if self._keep or outgoing.quarantine.count():
            outgoing.mark_kept("refused" if not self._keep else "delivered")
        else:
            outgoing.remove()
            self._identities.save()

    def _end_runs(self, api: MlflowApi, outgoing: Outgoing, elsewhere: set[str]) -> Iterator[str]:
        """End the runs that a process left open; yield those that had to be ended."""
        for run_id in outgoing.open_runs():
            if run_id not in elsewhere and self._close(api, run_id, outgoing.last_moment()):
                yield run_id
            outgoing.close_run(run_id)

    def _close(self, api: MlflowApi, run_id: str, end: int) -> bool:
        """End a run that its process left open, at a time; tell whether it had to be ended.

        Raises:
            UnavailableError: The server cannot be asked now.
        """
        try:
            server_id = self._identities.server_id(run_id)
            info = api.call("GET", "runs/get", {"run_id": server_id})["run"]["info"]
            if info.get("status") != "RUNNING":
                return False
            start = int(info.get("start_time", 0))
            api.update_run(RunUpdate(server_id, _LEFT_OPEN, max(start, end), None))
        except (RefusedError, UnresolvedError) as error:
            # Deleted meanwhile, or never created: nothing is left to end.
            _logger.debug("The run %s cannot be ended: %s", run_id, error)
            return False
        return True


def _report(state: State, shippers: list[Shipper], closed: list[str], problem: str | None) -> Report:
    sent = Counts()
    refused = 0
    for shipper in shippers:
        for counts in shipper.sent.values():
            sent.add(counts)
        refused += sum(shipper.refused.values())
    return Report(state, sent, refused, tuple(closed), problem)


def _api_for(owner: Owner, settings: Settings) -> MlflowApi:
    mine = replace(settings, tracking_uri=owner.tracking_uri, api_url=owner.api_url)
    if owner.username is not None and settings.given_token is None:
        # The password of the settings is that of their own user, and goes to nobody else's login.
        password = settings.password if settings.username == owner.username else None
        mine = replace(mine, username=owner.username, password=password)
    origin = platform_origin(owner.tracking_uri, allow_http=settings.allow_http)
    return MlflowApi(owner.tracking_uri, BearerAuth(origin, token_source(mine)))


def _speaks_of(outgoing: Outgoing, runs: Sequence[str], identities: Identities) -> bool:
    """Tell whether a folder holds anything about one of these runs."""
    wanted = set(runs)
    for local_id in identities.known():
        identity = identities.get(local_id)
        if identity is not None and identity.server_id in wanted:
            wanted.add(local_id)
    if wanted & set(outgoing.open_runs()):
        return True
    if any(
        True
        for lane in outgoing.lanes
        for run_id in wanted
        for _ in waiting_records(lane, tail="open", about=run_id.encode())
    ):
        return True
    models = {entity_of(record) for _, record in waiting_records(outgoing.uploads, tail="open", about=b"m-")}
    return any(_may_be_of(model_id, wanted, identities) for model_id in models if model_id.startswith("m-"))


def _may_be_of(model_id: str, runs: set[str], identities: Identities) -> bool:
    """Tell whether a model may be of one of these runs; where the spool does not tell, better sent than forgotten."""
    identity = identities.get(model_id)
    return identity is None or identity.body.get("source_run_id") in runs
