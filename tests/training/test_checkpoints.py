from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import yaml

import mantik
from mantik.training.checkpoints import Checkpoint, Shelf, is_artifact_folder
from mantik.training.request import RunRequest
from mantik.training.run import TrackedRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform, ReadBack

FLUSH_SECONDS = 60.0


class Held:
    """A run, its shelf, and what of it the platform holds."""

    def __init__(self, run: TrackedRun, read_back: ReadBack) -> None:
        self.run = run
        self.shelf = Shelf(run, "kept")
        self._read_back = read_back

    @property
    def files(self) -> list[str]:
        """All files but those that describe others."""
        found = self._arrived().artifacts(str(self.run.run_id))
        return [path.removeprefix("kept/") for path in found if not path.endswith(".yaml")]

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags for checkpoints, by alias."""
        tags = self._arrived().run(str(self.run.run_id)).tags
        start = "mantik.checkpoint."
        return {key.removeprefix(start): value for key, value in tags.items() if key.startswith(start)}

    @property
    def index(self) -> list[dict[str, Any]]:
        """What is listed."""
        content = self._arrived().download(str(self.run.run_id), "kept/index.yaml")
        return list(yaml.safe_load(content)["checkpoints"])

    def content(self, path: str) -> str:
        """Return what a file holds."""
        return self._arrived().download(str(self.run.run_id), f"kept/{path}").decode()

    def _arrived(self) -> ReadBack:
        assert mantik.flush(FLUSH_SECONDS)
        return self._read_back


@pytest.fixture
def held(tracked: FaultProxy, mantik_platform: Platform) -> Iterator[Held]:
    """Return a run that has just begun."""
    del tracked
    run = TrackedRun(RunRequest())
    run.open()
    yield Held(run, mantik_platform.read_back)
    run.end("FINISHED")
    assert mlflow.active_run() is None


def write(path: Path, content: str = "weights") -> Path:
    """Write a checkpoint, later than all that were written before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    latest = max((file.stat().st_mtime_ns for file in path.parent.rglob("*")), default=0)
    path.write_text(content)
    os.utime(path, ns=(latest + 1000, latest + 1000))
    return path


def test_a_file_is_sent_when_it_has_changed(held: Held, tmp_path: Path) -> None:
    """An update sends what is new or was written again, and nothing else."""
    path = write(tmp_path / "a.ckpt", "one")
    held.shelf.update(tmp_path, [Checkpoint(path)])
    saved = held.index[0]["saved"]
    before = mantik.receipt()
    held.shelf.update(tmp_path, [Checkpoint(path)])
    assert mantik.receipt() == before
    write(path, "two")
    held.shelf.update(tmp_path, [Checkpoint(path)])
    assert held.content(f"{tmp_path.name}/a/a.ckpt") == "two"
    assert held.index[0]["saved"] >= saved


def test_another_shelf_knows_what_was_sent(held: Held, tmp_path: Path) -> None:
    """The file beside the checkpoints tells a later attempt what is on the platform, and what to delete there."""
    folder = tmp_path / "checkpoints"
    both = [Checkpoint(write(folder / name)) for name in ("a.ckpt", "b.ckpt")]
    held.shelf.update(folder, both)
    assert held.files == ["a/a.ckpt", "b/b.ckpt"]
    before = mantik.receipt()
    later = Held(held.run, held._read_back)  # noqa: SLF001  # the same eyes
    later.shelf.update(folder, both)
    assert mantik.receipt() == before
    both[0].path.unlink()
    later.shelf.update(folder, both[1:])
    assert later.files == ["b/b.ckpt"]
    assert [about["original_filename"] for about in later.index] == ["b.ckpt"]


def test_what_another_run_has_sent_is_not_ours(held: Held, tmp_path: Path) -> None:
    """Checkpoints that an earlier run has left in the folder are sent again if they are kept, and else left alone."""
    folder = tmp_path / "checkpoints"
    kept, gone = (Checkpoint(write(folder / name)) for name in ("kept.ckpt", "gone.ckpt"))
    held.shelf.update(folder, [kept, gone])
    held.run.end("FINISHED")
    run = TrackedRun(RunRequest())
    run.open()
    other = Held(run, held._read_back)  # noqa: SLF001
    gone.path.unlink()
    other.shelf.update(folder, [kept])
    run.end("FINISHED")
    assert other.files == ["kept/kept.ckpt"]
    assert held.files == ["gone/gone.ckpt", "kept/kept.ckpt"]


def test_a_checkpoint_that_is_a_folder(held: Held, tmp_path: Path) -> None:
    """A sharded checkpoint is a folder on the platform, too, and is sent again when one of its files has changed."""
    folder = tmp_path / "checkpoints"
    write(folder / "a.ckpt/shard/0.distcp")
    write(folder / "a.ckpt/.metadata")
    checkpoint = Checkpoint(folder / "a.ckpt", ("last",))
    held.shelf.update(folder, [checkpoint])
    assert held.files == ["a/a.ckpt/.metadata", "a/a.ckpt/shard/0.distcp"]
    assert held.tags == {"last": "kept/a/a.ckpt"}
    write(folder / "a.ckpt/shard/0.distcp", "more")
    held.shelf.update(folder, [checkpoint])
    assert held.content("a/a.ckpt/shard/0.distcp") == "more"


def test_labels_wander(held: Held, tmp_path: Path) -> None:
    """A label that goes to another checkpoint leaves the one that had it, on the platform, too."""
    folder = tmp_path / "checkpoints"
    first, second = (write(folder / name) for name in ("a.ckpt", "b.ckpt"))
    held.shelf.update(folder, [Checkpoint(first, ("best", "last"), 1.0)])
    held.shelf.update(folder, [Checkpoint(first, ("best",), 1.0), Checkpoint(second, ("last",), 2.0)])
    assert [(about["aliases"], about["score"]) for about in held.index] == [(["best"], 1.0), (["last"], 2.0)]
    assert held.tags == {"best": "kept/a/a.ckpt", "last": "kept/b/b.ckpt"}


def test_a_label_that_nobody_takes_over(held: Held, tmp_path: Path) -> None:
    """A checkpoint that its callback names no more, and that is still there, has no label any more."""
    folder = tmp_path / "checkpoints"
    for step in range(3):
        path = write(folder / f"{step}.ckpt")
        held.shelf.update(folder, [Checkpoint(path, ("last",))], "keeps all")
    assert [about["aliases"] for about in held.index] == [[], [], ["last"]]
    assert yaml.safe_load(held.content("0/metadata.yaml"))["aliases"] == []


def test_the_labels_of_another_callback(held: Held, tmp_path: Path) -> None:
    """Callbacks that share a folder keep their labels apart; the later of two last ones has the tag."""
    folder = tmp_path / "checkpoints"
    high, low = (write(folder / name) for name in ("high.ckpt", "low.ckpt"))
    held.shelf.update(folder, [Checkpoint(high, ("best", "last"), details={"global_step": 4})], "high")
    held.shelf.update(folder, [Checkpoint(low, ("best", "last"), details={"global_step": 2})], "low")
    assert [about["aliases"] for about in held.index] == [["best", "last"], ["best", "last"]]
    assert held.tags["last"] == "kept/high/high.ckpt"


def test_a_checkpoint_that_is_gone(held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that was deleted before it was sent is no error; nor is one that cannot be read."""
    folder = tmp_path / "checkpoints"
    there = write(folder / "there.ckpt")
    (folder / "link.ckpt").symlink_to(folder / "nowhere")
    held.shelf.update(folder, [Checkpoint(folder / name) for name in ("gone.ckpt", "link.ckpt", "there.ckpt")])
    assert held.files == ["there/there.ckpt"]
    assert there.exists()
    assert "Traceback" not in caplog.text


def test_a_checkpoint_elsewhere(held: Held, tmp_path: Path) -> None:
    """One that lies outside of its callback's folder belongs to another training, and is left alone."""
    path = write(tmp_path / "elsewhere/a.ckpt")
    held.shelf.note(tmp_path / "checkpoints", [Checkpoint(path)])
    held.shelf.update(tmp_path / "checkpoints", [Checkpoint(path)])
    assert held.files == []


def test_a_note_without_an_upload(held: Held, tmp_path: Path) -> None:
    """Which run a checkpoint is of is beside it, though it was never sent."""
    path = write(tmp_path / "deep/a.ckpt")
    held.shelf.note(tmp_path, [Checkpoint(path)])
    beside = json.loads((tmp_path / ".mantik-run.json").read_text())["checkpoints"]
    assert held.run.identity is not None
    assert beside == {"deep/a.ckpt": {"run": held.run.identity.to_text()}}
    assert held.files == []


@pytest.mark.parametrize("name", ["checkpoints", "weights/fine", "/a/", "ünï", "a b", "v1.5"])
def test_names_of_artifact_folders(name: str) -> None:
    """Names and paths of usual characters are artifact folders."""
    assert is_artifact_folder(name)


@pytest.mark.parametrize(
    "name", ["", "/", "..", "a/../b", "./a", "a//b", *(f"a{character}b" for character in '#%?\\:*"<>|\n')]
)
def test_what_is_no_artifact_folder(name: str) -> None:
    """What leads elsewhere, or has characters that an artifact server refuses or decodes, is none."""
    assert not is_artifact_folder(name)
