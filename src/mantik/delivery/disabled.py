"""``MANTIK_MODE=disabled``: nothing is kept and nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantik.delivery.budget import Losses
from mantik.delivery.ids import Identities, Identity
from mantik.delivery.open_runs import OpenRuns
from mantik.delivery.outbox import Outbox
from mantik.delivery.overlay import Overlay
from mantik.delivery.spool import Outgoing
from mantik.delivery.staged import StagedFiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mantik.delivery.records import Call, MetricItem, RunUpdate, TextItem

__all__ = ["DisabledOutbox"]


class DisabledOutbox(Outbox):
    """Takes everything and does nothing with it; runs exist in memory alone, and forget what is logged to them.

    Args:
        uri: The tracking URI.
        spool: Where nothing is written.
    """

    def __init__(self, uri: str, spool: Path) -> None:  # the real one makes folders and threads
        self.uri = uri
        self.ships = False
        self.strict = False
        self.exit_timeout = 0.0
        self.overlay = Overlay()
        self.identities = Identities(None)
        self.losses = Losses(spool)
        self.staged = StagedFiles()
        self.spool = spool
        self.runs = {}
        self.models = {}
        self.open_runs = OpenRuns(Outgoing(spool), self.identities)

    @property
    def is_quiet(self) -> bool:
        """Always."""
        return True

    @property
    def is_disabled(self) -> bool:
        """Always."""
        return True

    @property
    def problem(self) -> str | None:
        """Why nothing is delivered."""
        return "tracking is disabled"

    @property
    def is_down(self) -> bool:
        """Always: nobody is asked."""
        return True

    def note_down(self) -> None:
        """Do nothing."""

    def record_points(self, run_id: str, items: Sequence[MetricItem], texts: Sequence[str]) -> None:
        """Do nothing."""

    def record_batch(
        self, run_id: str, metrics: Sequence[MetricItem], params: Sequence[TextItem], tags: Sequence[TextItem]
    ) -> None:
        """Do nothing."""

    def record_update(self, update: RunUpdate) -> bool:  # noqa: ARG002  # nothing is kept
        """Do nothing."""
        return True

    def record_create(self, identity: Identity, asked_at: float | None) -> bool:  # noqa: ARG002  # nobody was asked
        """Remember what the id stands for, so that it can be read."""
        return self.note(identity)

    def record_call(self, call: Call, *, after_uploads: bool = False) -> None:
        """Do nothing."""

    def record_spans(self, experiment_id: str, request: str) -> None:
        """Do nothing."""

    def record_artifact(self, uri: str, source: Path) -> None:
        """Do nothing."""

    def record_removal(self, uri: str) -> None:
        """Do nothing."""

    def introduce(self, run_id: str, name: str | None, experiment_id: str | None) -> None:
        """Do nothing."""

    def note_open(self, run_id: str) -> None:
        """Do nothing."""

    def note_closed(self, run_id: str) -> None:
        """Do nothing."""

    def hand_over(self, run_id: str) -> None:
        """Do nothing: nobody ends the run anyway."""

    def flush(self, timeout: float, *, give_up_when_down: bool = False) -> bool:  # noqa: ARG002  # nothing to wait for
        """Nothing waits."""
        return True

    def close(self, timeout: float, *, give_up_when_down: bool = False) -> bool:  # noqa: ARG002  # nothing to wait for
        """Nothing waits."""
        return True
