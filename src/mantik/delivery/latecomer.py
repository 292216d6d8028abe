"""What a process has left behind of a run that has gone on in another one since, such as a requeued job's.

Its points and params are as good as ever. What there is one of in a run, its status, a tag, a file at a path, the later
process has decided already.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mantik.delivery.ids import UnresolvedError
from mantik.delivery.ledger import entity_of
from mantik.delivery.records import Artifact, Batch, RunUpdate
from mantik.delivery.rest import RefusedError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from mantik.delivery.ids import Identities
    from mantik.delivery.records import Record
    from mantik.delivery.rest import MlflowApi

__all__ = ["Latecomer"]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the server says of a run."""

    is_open_elsewhere: bool
    end_time: int
    tags: dict[str, str]
    artifacts: str


class Latecomer:
    """Looks through the records of a process that is gone. One thread at a time may use it.

    Args:
        api: The server.
        identities: What provisional ids stand for.
        last_moment: When the process recorded something for the last time, in milliseconds since 1970.
        elsewhere: Runs that living processes have open.
    """

    def __init__(self, api: MlflowApi, identities: Identities, last_moment: int, elsewhere: AbstractSet[str]) -> None:
        self._api = api
        self._identities = identities
        self._last_moment = last_moment
        self._elsewhere = elsewhere
        self._runs: dict[str, _Known] = {}
        self._listed: dict[str, frozenset[str]] = {}

    def without_the_outdated(self, record: Record) -> Record | None:
        """Return what of a record is still to be sent; None for nothing.

        Raises:
            UnavailableError: The server cannot be asked now.
        """
        if isinstance(record, RunUpdate) and record.status is not None:
            known = self._run(record.run_id)
            if known is not None and self._has_gone_on(known, record):
                return None if record.run_name is None else replace(record, status=None, end_time=None)
        elif isinstance(record, Batch) and record.tags:
            known = self._run(record.run_id)
            if known is not None and self._has_gone_on(known):
                return replace(record, tags=[tag for tag in record.tags if tag[0] not in known.tags])
        elif isinstance(record, Artifact):
            run_id = entity_of(record)
            known = self._run(run_id)
            if known is not None and self._has_gone_on(known) and self._has_file(record.uri, run_id, known):
                return None
        return record

    def _has_gone_on(self, known: _Known, update: RunUpdate | None = None) -> bool:
        if known.is_open_elsewhere:
            return update is None or update.status != "RUNNING"
        moment = update.end_time if update is not None and update.end_time is not None else self._last_moment
        return known.end_time > moment

    def _run(self, run_id: str) -> _Known | None:
        """Return what the server said of a run when it was first asked; None where it has none yet."""
        if run_id not in self._runs:
            try:
                server_id = self._identities.server_id(run_id)
                run: dict[str, Any] = self._api.call("GET", "runs/get", {"run_id": server_id})["run"]
            except (RefusedError, UnresolvedError):
                # Not there yet, or not any more: what becomes of the record is for the server to say.
                return None
            tags = {tag["key"]: tag.get("value", "") for tag in run.get("data", {}).get("tags", ())}
            is_open = bool(self._elsewhere & {run_id, server_id})
            info = run["info"]
            self._runs[run_id] = _Known(is_open, int(info.get("end_time") or 0), tags, info.get("artifact_uri", ""))
        return self._runs[run_id]

    def _has_file(self, uri: str, run_id: str, known: _Known) -> bool:
        """Tell whether a run has a file at an artifact URI already."""
        _, found, path = self._identities.translate(uri).partition(f"/{self._identities.server_id(run_id)}/artifacts/")
        _, _, root = known.artifacts.partition(":")
        if not found:
            return False
        folder = posixpath.dirname(path)
        if folder not in self._listed:
            query = {"path": posixpath.join(root.strip("/"), folder)}
            try:
                content = self._api.call("GET", "/api/2.0/mlflow-artifacts/artifacts", query)
            except RefusedError:
                content = {}
            files = content.get("files", ())
            self._listed[folder] = frozenset(file["path"] for file in files if not file.get("is_dir"))
        return posixpath.basename(path) in self._listed[folder]
