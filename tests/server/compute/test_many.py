from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from .projects import FILES, archive

if TYPE_CHECKING:
    from .intake import Intake

UPLOAD = 24 * 1024 * 1024
UPLOADS = 8


def peak_memory(intake: Intake) -> int:
    """Return the most bytes that the server's processes have had in memory, together."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in intake.processes()]
    peaks = [re.search(r"VmHWM:\s+(\d+) kB", text) for text in status]
    return sum(int(peak[1]) * 1024 for peak in peaks if peak)


def test_submissions_at_once_are_all_taken(intake: Intake) -> None:
    """Each becomes a job and a run of its own."""
    before = len(intake.runs())
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: intake.submit(), range(40)))
    assert [answer.status_code for answer in answers] == [201] * 40
    assert len({answer.json()["job_id"] for answer in answers}) == 40
    assert len({answer.json()["run_id"] for answer in answers}) == 40
    assert len(intake.runs()) == before + 40


def test_large_projects_at_once_are_not_kept_in_memory(intake: Intake) -> None:
    """They go to the disk while they arrive: the server needs a fraction of what is sent to it."""
    assert intake.submit().status_code == 201
    zipped = archive({**FILES, "noise": os.urandom(UPLOAD)}, method=0)
    before = peak_memory(intake)
    with ThreadPoolExecutor(UPLOADS) as pool:
        answers = list(pool.map(lambda _: intake.submit(zipped), range(UPLOADS)))
    assert [answer.status_code for answer in answers] == [201] * UPLOADS
    assert peak_memory(intake) - before < UPLOAD * UPLOADS // 3
