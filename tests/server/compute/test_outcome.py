from __future__ import annotations

import pytest

from mantik.server.compute.jobs import State
from mantik.server.compute.outcome import Outcome


@pytest.mark.parametrize(
    ("state", "present", "was_left_open", "expected"),
    [
        (State.SUCCEEDED, "RUNNING", False, "FINISHED"),
        (State.SUCCEEDED, "SCHEDULED", False, "FINISHED"),
        (State.SUCCEEDED, "FINISHED", False, None),
        # What the program itself has made of it.
        (State.SUCCEEDED, "FAILED", False, None),
        (State.SUCCEEDED, "KILLED", False, None),
        # What only the delivery of its leftovers has made of it.
        (State.SUCCEEDED, "KILLED", True, "FINISHED"),
        # A job that was cut short has not finished, whatever its program has said before.
        (State.FAILED, "FINISHED", False, "FAILED"),
        (State.FAILED, "FAILED", False, None),
        (State.TIMED_OUT, "FINISHED", False, "FAILED"),
        (State.LOST, "KILLED", True, "FAILED"),
        (State.CANCELLED, "FINISHED", False, "KILLED"),
        (State.CANCELLED, "KILLED", True, None),
    ],
)
def test_status_of_the_run_follows_from_the_end_of_the_job(
    state: State,
    present: str,
    was_left_open: bool,  # noqa: FBT001 - named by the parameters
    expected: str | None,
) -> None:
    """None where it stays as it is."""
    assert Outcome(state).run_status(present, was_left_open=was_left_open) == expected
