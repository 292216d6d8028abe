"""The receipt: what of a process's tracking was sent, what waits and where, what was refused and why."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mantik.delivery.ids import UnresolvedError, is_provisional
from mantik.delivery.ledger import Counts, in_words

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.delivery.outbox import Outbox
    from mantik.delivery.quarantine import Refusal

__all__ = ["Receipt", "RunReceipt", "empty_receipt", "receipt_of"]

_SHOWN_RUNS = 5
_SHOWN_REFUSALS = 3
_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class RunReceipt:
    """What became of one run.

    Attributes:
        run_id: The id under which training knows the run.
        server_id: The platform's id; None while the run is not there.
        name: The run's name, where it is known.
        status: The last status that was recorded, as MLflow names it; None if none was.
        link: Page of the run on the platform; None while it is not there.
        sent: What the platform has confirmed.
        waiting: What waits on disk.
        refused: How many records are in quarantine.
    """

    run_id: str
    server_id: str | None
    name: str | None
    status: str | None
    link: str | None
    sent: Counts
    waiting: Counts
    refused: int

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [f"{self.sent} sent"]
        if self.waiting.total:
            parts.append(f"{self.waiting} waiting")
        if self.refused:
            parts.append(f"{self.refused} refused")
        title = f"run {self.name or self.run_id}" + (f" ({self.status})" if self.status else "")
        return f"{title}: {'; '.join(parts)}" + (f"\n  {self.link}" if self.link else "")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of everything that this process recorded for one platform.

    Attributes:
        tracking_uri: The platform.
        runs: One entry a run, in the order in which they were first written to.
        others: What belongs to no run: traces, experiments.
        folder: Where the rest waits; None if nothing waits and nothing was refused.
        problem: Why the rest waits; None if nothing does or all is well.
        refusals: The first of what the platform refused, with its reasons.
        refused: How many things it refused.
        lost: What could not be written to disk.
        command: The command that sends the rest; None if nothing waits.
    """

    tracking_uri: str
    runs: tuple[RunReceipt, ...]
    others: RunReceipt
    folder: Path | None = None
    problem: str | None = None
    refusals: tuple[Refusal, ...] = ()
    refused: int = 0
    lost: Counts = field(default_factory=Counts)
    command: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything that was recorded is on the platform."""
        return self.command is None and not self.refused and not self.lost.total

    def __str__(self) -> str:
        """Say it as the console does, without colours."""
        lines = [str(run) for run in self.runs[:_SHOWN_RUNS]]
        if len(self.runs) > _SHOWN_RUNS:
            rest = Counts()
            waiting = Counts()
            for run in self.runs[_SHOWN_RUNS:]:
                rest.add(run.sent)
                waiting.add(run.waiting)
            more = f"{in_words(len(self.runs) - _SHOWN_RUNS, 'more run')}: {rest} sent"
            lines.append(more + (f"; {waiting} waiting" if waiting.total else ""))
        if self.others.sent.total or self.others.waiting.total:
            waits = f"; {self.others.waiting} waiting" if self.others.waiting.total else ""
            lines.append(f"outside of runs: {self.others.sent} sent{waits}")
        if self.command is not None:
            why = f" ({self.problem})" if self.problem else ""
            lines += [f"Not everything has reached {self.tracking_uri}{why}.", f"  The rest is safe in {self.folder}"]
            lines.append(f"  To send it: {self.command}")
        if self.refused:
            number = in_words(self.refused, "record")
            lines.append(f"{self.tracking_uri} did not take {number} as recorded. Kept in {self.folder}/quarantine:")
            lines += [f"  {refusal.what}: {_short(refusal.reason)}" for refusal in self.refusals[:_SHOWN_REFUSALS]]
            if self.refused > _SHOWN_REFUSALS:
                lines.append("  … all of them: mantik spool show")
        if self.lost.total:
            lines.append(f"Lost, because the disk did not take it: {self.lost}.")
        return "\n".join(f"mantik: {line}" if not line.startswith(" ") else line for line in lines)


def receipt_of(outbox: Outbox) -> Receipt:
    """Return the receipt of an outbox as of now.

    Raises:
        OSError: The spool cannot be read.
    """
    sent, settled, refused = outbox.progress()
    entries = [
        _entry(outbox, run_id, sent.get(run_id, Counts()), settled.get(run_id, Counts()), refused.get(run_id, 0))
        for run_id in list(outbox.runs)
    ]
    runs = tuple(entry for entry in entries if entry.run_id)
    others = next((entry for entry in entries if not entry.run_id), _nothing())
    number = sum(refused.values())
    waits = any(entry.waiting.total for entry in entries)
    return Receipt(
        outbox.uri,
        runs,
        others,
        outbox.outgoing.path if waits or number else None,
        outbox.problem if waits else None,
        tuple(outbox.outgoing.quarantine.refusals())[:_SHOWN_REFUSALS] if number else (),
        number,
        outbox.losses.counts,
        sync_command(outbox.spool, runs) if waits else None,
    )


def empty_receipt(uri: str) -> Receipt:
    """Return the receipt of a process that logged nothing."""
    return Receipt(uri, (), _nothing())


def sync_command(spool: Path, runs: tuple[RunReceipt, ...]) -> str:
    """Return the command that sends what waits, as it is to be typed into a shell."""
    waiting = [run.run_id for run in runs if run.waiting.total]
    where = f"MANTIK_SPOOL={shlex.quote(str(spool))} mantik sync"
    return f"{where} {waiting[0]}" if len(waiting) == 1 else where


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_CHARACTERS else f"{reason[:_REASON_CHARACTERS]}…"


def _nothing() -> RunReceipt:
    return RunReceipt("", None, None, None, None, Counts(), Counts(), 0)


def _entry(outbox: Outbox, run_id: str, sent: Counts, settled: Counts, refused: int) -> RunReceipt:
    facts = outbox.runs[run_id]
    server_id = experiment_id = None
    try:
        server_id = outbox.identities.server_id(run_id) if run_id else None
        experiment_id = outbox.identities.server_id(facts.experiment_id) if facts.experiment_id else None
    except UnresolvedError:
        pass
    link = None
    if server_id and experiment_id and not is_provisional(server_id):
        link = f"{outbox.uri}/#/experiments/{experiment_id}/runs/{server_id}"
    return RunReceipt(run_id, server_id, facts.name, facts.status, link, sent, facts.recorded.minus(settled), refused)
