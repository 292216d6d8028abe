from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.settings import Job
from mantik.training.attempts import Attempts
from mantik.training.identity import RunIdentity

if TYPE_CHECKING:
    from pathlib import Path

URI = "https://platform.example"
FIRST = Job(job_id="17", cluster="maia", restart=0, part="batch.0")
SECOND = replace(FIRST, restart=1)
DAY = 24 * 3600.0


def run(run_id: str, uri: str = URI) -> RunIdentity:
    """Return a run of an experiment."""
    return RunIdentity(run_id, "7", uri)


def test_the_next_attempt_gets_the_run(tmp_path: Path) -> None:
    """What an attempt tracks is what the next one goes on with, and the one after that."""
    Attempts(tmp_path, FIRST).note(run("a"))
    for restart in (1, 2, 5):
        assert Attempts(tmp_path, replace(FIRST, restart=restart)).take(URI) == run("a")


def test_an_attempt_takes_each_run_once(tmp_path: Path) -> None:
    """Several runs of one script are taken in the order in which they were begun, each by one process alone."""
    for name in ("a", "b", "c"):
        Attempts(tmp_path, FIRST).note(run(name))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: Attempts(tmp_path, SECOND).take(URI), range(8)))
    assert sorted(str(one.run_id) for one in taken if one is not None) == ["a", "b", "c"]
    assert Attempts(tmp_path, replace(FIRST, restart=2)).take(URI) == run("a")


def test_a_run_that_is_noted_again_stays_taken(tmp_path: Path) -> None:
    """An attempt that notes the run that it goes on with does not offer it to itself."""
    Attempts(tmp_path, FIRST).note(run("a"))
    second = Attempts(tmp_path, SECOND)
    assert second.take(URI) == run("a")
    second.note(run("a"))
    second.note(run("b"))
    assert second.take(URI) is None
    third = Attempts(tmp_path, replace(FIRST, restart=2))
    assert [third.take(URI), third.take(URI), third.take(URI)] == [run("a"), run("b"), None]


def test_the_first_attempt_takes_nothing(tmp_path: Path) -> None:
    """A job that was never requeued goes on with nothing, though another had its id before."""
    Attempts(tmp_path, FIRST).note(run("a"))
    assert Attempts(tmp_path, FIRST).take(URI) is None


@pytest.mark.parametrize(
    "other", [replace(SECOND, job_id="18"), replace(SECOND, cluster="juwels"), replace(SECOND, part="0.3")]
)
def test_another_job(tmp_path: Path, other: Job) -> None:
    """Another job, cluster or part of the job has runs of its own."""
    Attempts(tmp_path, FIRST).note(run("a"))
    assert Attempts(tmp_path, other).take(URI) is None
    assert Attempts(tmp_path, SECOND).take(URI) == run("a")


def test_another_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another script, other arguments, another folder or another platform have runs of their own."""
    Attempts(tmp_path, FIRST).note(run("a"))
    attempts = Attempts(tmp_path, SECOND)
    assert attempts.take("https://elsewhere.example") is None
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [*sys.argv, "--more"])
        assert attempts.take(URI) is None
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert attempts.take(URI) is None
    assert attempts.take(URI) == run("a")


def test_names_of_jobs_that_are_no_names_of_files(tmp_path: Path) -> None:
    """A cluster may be called what it likes: nothing is written elsewhere."""
    odd = replace(FIRST, cluster="../../ü " + "x" * 300)
    Attempts(tmp_path / "home", odd).note(run("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert Attempts(tmp_path / "home", replace(odd, restart=1)).take(URI) == run("a")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "runs": []}', '{"format": 1, "runs": [{"run_id": "a"}, 5, {"run_id": 5}]}']
)
def test_a_damaged_file(tmp_path: Path, text: str) -> None:
    """What cannot be read says nothing, and is written anew."""
    attempts = Attempts(tmp_path, FIRST)
    attempts.note(run("a"))
    (path,) = (tmp_path / "attempts").glob("*.json")
    path.write_text(text)
    assert Attempts(tmp_path, SECOND).take(URI) is None
    attempts.note(run("b"))
    assert Attempts(tmp_path, SECOND).take(URI) == run("b")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A home that is none is no error: an attempt then begins a run of its own."""
    home = tmp_path / "file"
    home.touch()
    Attempts(home, FIRST).note(run("a"))
    assert Attempts(home, SECOND).take(URI) is None


def test_old_files_are_forgotten(tmp_path: Path) -> None:
    """Files of jobs that nothing was heard of for three months are deleted; the files are for the user alone."""
    Attempts(tmp_path, FIRST).note(run("a"))
    folder = tmp_path / "attempts"
    (old,) = folder.glob("*.json")
    before = time.time() - 91 * DAY
    os.utime(old, (before, before))
    Attempts(tmp_path, replace(FIRST, job_id="18")).note(run("b"))
    (kept,) = folder.glob("*.json")
    assert "18" in kept.name
    assert (folder.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)
