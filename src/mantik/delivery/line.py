"""One lane as a process writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantik.delivery.journal import JournalWriter
from mantik.delivery.rest import MlflowApi
from mantik.delivery.shipper import Shipper
from mantik.delivery.worker import Worker

if TYPE_CHECKING:
    from mantik.delivery.outbox import Outbox
    from mantik.delivery.overlay import LaneName

__all__ = ["Line"]


class Line:
    """A journal and the thread that ships it.

    Args:
        outbox: Whose.
        name: Which of its lanes.

    Raises:
        OSError: The journal cannot be made.
    """

    def __init__(self, outbox: Outbox, name: LaneName) -> None:
        lane = outbox.outgoing.points if name == "points" else outbox.outgoing.uploads
        self.writer = JournalWriter(lane.journal)

        def make_shipper() -> Shipper:
            api = MlflowApi(outbox.uri, outbox.auth)
            return Shipper(outbox.outgoing, lane, api, outbox.identities, tail="open")

        self.worker = Worker(
            "mantik-shipper" if name == "points" else "mantik-uploader",
            self.writer,
            make_shipper if outbox.ships else None,
            delivered=lambda position: outbox.forget(name, position),
            keep_safe=outbox.keep_uploads_safe if name == "uploads" else lambda: None,
            beat=outbox.outgoing.beat,
        )
