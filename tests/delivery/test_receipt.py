"""The receipt's words."""

from __future__ import annotations

import shlex
from pathlib import Path

from mantik.delivery.ledger import Counts
from mantik.delivery.quarantine import Refusal
from mantik.delivery.receipt import Receipt, RunReceipt, empty_receipt, sync_command

URI = "https://platform.example"
FOLDER = Path("/spool/host-1")


def run(number: int = 1, sent: Counts | None = None, waiting: Counts | None = None, refused: int = 0) -> RunReceipt:
    """Return what is said of a run."""
    link = None if waiting else f"{URI}/#/experiments/0/runs/r{number}"
    return RunReceipt(
        f"r{number}", f"r{number}", f"name-{number}", "FINISHED", link, sent or Counts(), waiting or Counts(), refused
    )


NOTHING = RunReceipt("", None, None, None, None, Counts(), Counts(), 0)


def test_a_complete_receipt_is_one_line_and_a_link() -> None:
    """Where all is well it says what was sent and where to look, and nothing else."""
    receipt = Receipt(URI, (run(sent=Counts(metrics=3)),), NOTHING)
    assert receipt.is_complete
    assert str(receipt) == f"mantik: run name-1 (FINISHED): 3 points sent\n  {URI}/#/experiments/0/runs/r1"


def test_a_run_without_a_name_is_called_by_its_id() -> None:
    """What was never learned is left out."""
    entry = RunReceipt("r1", None, None, None, None, Counts(tags=1), Counts(), 0)
    assert str(entry) == "run r1: 1 tag sent"


def test_what_waits_is_said_with_its_reason_place_and_command() -> None:
    """Whoever reads it knows what is not there, why, where it is safe, and what to type."""
    runs = (run(1, Counts(metrics=1), Counts(artifacts=1, size=5)),)
    receipt = Receipt(URI, runs, NOTHING, FOLDER, problem="HTTP 503", command="MANTIK_SPOOL=/spool mantik sync r1")
    assert not receipt.is_complete
    said = str(receipt)
    assert said.startswith("mantik: run name-1 (FINISHED): 1 point sent; 1 artifact (5 B) waiting\n")
    for fact in (URI, "(HTTP 503)", f"safe in {FOLDER}\n", ": MANTIK_SPOOL=/spool mantik sync r1"):
        assert fact in said


def test_refusals_are_said_with_their_reasons_and_the_rest_is_counted() -> None:
    """The first three refusals stand there, then how to see all."""
    refusals = tuple(Refusal(f"reason {number}", "r1", f"param 'p{number}'", [], 1.0) for number in range(3))
    receipt = Receipt(URI, (run(refused=4),), NOTHING, FOLDER, refusals=refusals, refused=4)
    assert not receipt.is_complete
    lines = str(receipt).splitlines()[2:]
    assert all(fact in lines[0] for fact in (URI, "4 records", str(FOLDER)))
    assert lines[1:4] == [f"  param 'p{number}': reason {number}" for number in range(3)]
    assert "all of them: mantik spool show" in lines[4]
    assert "; 4 refused" in str(receipt)
    assert "all of them" not in str(Receipt(URI, (), NOTHING, FOLDER, refusals=refusals, refused=3))


def test_losses_are_said_as_losses() -> None:
    """What is on no disk is not called waiting, and makes a receipt incomplete."""
    receipt = Receipt(URI, (), NOTHING, lost=Counts(metrics=2, artifacts=1, size=1))
    assert not receipt.is_complete
    assert str(receipt) == "mantik: Lost, because the disk did not take it: 2 points, 1 artifact (1 B)."


def test_many_runs_are_summed_up() -> None:
    """Five runs are named, the others are one line with all that they have."""
    runs = tuple(run(number, Counts(metrics=number), Counts(tags=1)) for number in range(1, 8))
    lines = str(Receipt(URI, runs, NOTHING, FOLDER, command="mantik sync")).splitlines()
    assert [line for line in lines if "run name-" in line] == lines[:5]
    assert lines[5] == "mantik: 2 more runs: 13 points sent; 2 tags waiting"


def test_what_belongs_to_no_run_is_said_beside_them() -> None:
    """Traces and experiments have a line of their own, if there are any."""
    others = RunReceipt("", None, None, None, None, Counts(others=2), Counts(others=1), 0)
    assert "2 other records sent; 1 other record waiting" in str(Receipt(URI, (), others))
    assert str(empty_receipt(URI)) == ""
    assert empty_receipt(URI).is_complete


def test_the_command_can_be_typed_into_a_shell() -> None:
    """A folder with blanks and quotes stays one word, and a single run is named."""
    spool = Path("/data/my spool's")
    waits = run(1, waiting=Counts(metrics=1))
    words = shlex.split(sync_command(spool, (waits, run(2))))
    assert words == [f"MANTIK_SPOOL={spool}", "mantik", "sync", "r1"]
    assert shlex.split(sync_command(spool, (waits, run(2, waiting=Counts(tags=1))))) == words[:3]
