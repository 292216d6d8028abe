from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mantik.training.identity import RunIdentity
from mantik.training.sidecar import Entry, Sidecar

if TYPE_CHECKING:
    from pathlib import Path

RUN = RunIdentity("0123456789abcdef0123456789abcdef", "7", "https://platform.example")
UPLOADED = Entry(
    run=RUN.to_text(), artifact="checkpoints/a", stamp=[1, 2], keeper="k", about={"file": "a", "aliases": []}
)
FILE = ".mantik-run.json"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Entries come back as they were; those of files that are gone and were never uploaded do not."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/here.ckpt").touch()
    noted = Entry(run=RUN.to_text())
    Sidecar(tmp_path).write({"deep/here.ckpt": noted, "gone.ckpt": noted, "pruned.ckpt": UPLOADED})
    assert Sidecar(tmp_path).entries() == {"deep/here.ckpt": noted, "pruned.ckpt": UPLOADED}
    assert Sidecar(tmp_path).identity_of("deep/here.ckpt") == RUN
    assert Sidecar(tmp_path).identity_of("gone.ckpt") is None


def test_writing_again(tmp_path: Path) -> None:
    """What is written replaces what was there, and leaves no other file."""
    Sidecar(tmp_path).write({"a": UPLOADED, "b": UPLOADED})
    Sidecar(tmp_path).write({"b": UPLOADED})
    assert list(Sidecar(tmp_path).entries()) == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\0", '{"format": 2, "checkpoints": {}}', '{"format": 1, "checkpoints": []}']
)
def test_a_file_that_is_not_ours(tmp_path: Path, text: str) -> None:
    """A damaged file, or one of another format, says nothing and is no error."""
    (tmp_path / FILE).write_text(text)
    assert Sidecar(tmp_path).entries() == {}
    assert Sidecar(tmp_path).identity_of("a") is None


@pytest.mark.parametrize(
    "change",
    [{"run": 5}, {"artifact": 5}, {"stamp": "x"}, {"about": "x"}, {"about": {"file": "a"}}, {"about": {"aliases": []}}],
)
def test_an_entry_that_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    """An entry that is not what we write is left out, and the others stay."""
    content = {"good": UPLOADED, "bad": {**UPLOADED, **change}, "text": "x"}
    (tmp_path / FILE).write_text(json.dumps({"format": 1, "checkpoints": content}))
    assert Sidecar(tmp_path).entries() == {"good": UPLOADED}


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    """The error is Python's, and nothing half-written stays."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(OSError, match="mantik-run"):
        Sidecar(tmp_path).write({"a": UPLOADED})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(FileNotFoundError):
        Sidecar(tmp_path / "none").write({"a": UPLOADED})
