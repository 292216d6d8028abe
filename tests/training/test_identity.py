from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mantik.training.identity import RunIdentity, identity_in

if TYPE_CHECKING:
    from pathlib import Path

RUN = RunIdentity("0123456789abcdef0123456789abcdef", "7", "https://platform.example")


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Name what is called."""
        return os.mkdir, (str(self._path),)


def saved(content: object, **options: Any) -> io.BytesIO:  # noqa: ANN401  # those of torch
    """Return a checkpoint that torch wrote."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    file.seek(0)
    return file


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    """Return a zip archive with one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    file.seek(0)
    return file


def test_a_text_and_back() -> None:
    """An identity is one line of text, from which it comes back."""
    assert RunIdentity.from_text(RUN.to_text()) == RUN
    assert "\n" not in RUN.to_text()


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        "",
        "mantik-run:",
        "mantik-run:[]",
        "mantik-run:{",
        RUN.to_text().removeprefix("mantik-run:"),
        RUN.to_text().replace("run_id", "id"),
        RUN.to_text().replace('"7"', "7"),
        RUN.to_text().replace(RUN.run_id, "../../secret"),
        RUN.to_text().replace(RUN.run_id, ""),
        RUN.to_text().replace(RUN.run_id, "a" * 257),
    ],
)
def test_what_is_no_identity(text: object) -> None:
    """Anything else is none, above all an id that would lead elsewhere in a URL."""
    assert RunIdentity.from_text(text) is None


def test_an_identity_in_a_checkpoint() -> None:
    """It is found among tensors, objects and other texts, whichever key it has."""
    content = {"epoch": 3, "note": "mantik-run: no", "state_dict": {"weight": torch.zeros(9)}, "mantik": RUN.to_text()}
    assert identity_in(saved(content)) == RUN
    assert identity_in(saved({"nested": [{"x": RUN.to_text()}]})) == RUN


def test_the_end_of_a_run_id_of_the_platform() -> None:
    """Ids of other platforms than MLflow's are ids, too."""
    other = RunIdentity("run_1-B", "", "")
    assert identity_in(saved({"mantik": other.to_text()})) == other


def test_nothing_is_executed(tmp_path: Path) -> None:
    """A checkpoint that would run code when it is loaded runs none."""
    made = tmp_path / "made"
    assert identity_in(saved({"trap": Executed(made), "mantik": RUN.to_text()})) == RUN
    assert not made.exists()


@pytest.mark.parametrize(
    "file",
    [
        saved({"epoch": 1}),
        saved({"mantik": RUN.to_text()}, _use_new_zipfile_serialization=False),
        io.BytesIO(),
        io.BytesIO(b"PK\x03\x04" + bytes(100)),
        io.BytesIO(pickle.dumps({"mantik": RUN.to_text()})),
        zipped("other.txt", RUN.to_text().encode()),
        zipped("a/data.pkl", RUN.to_text().encode()),
        zipped("a/data.pkl", b"\x80\x02" + RUN.to_text().encode()),
        zipped("a/data.pkl", pickle.dumps(json.dumps({"text": RUN.to_text()}))),
    ],
    ids=["none", "old", "empty", "torn", "pickle", "other file", "no pickle", "damaged pickle", "quoted"],
)
def test_where_there_is_none(file: io.BytesIO) -> None:
    """A file without an identity, or that is no checkpoint at all, has none and is no error."""
    assert identity_in(file) is None


def test_a_compressed_checkpoint() -> None:
    """An archive that something else has compressed is read all the same."""
    assert identity_in(zipped("a/data.pkl", pickle.dumps({"mantik": RUN.to_text()}), zipfile.ZIP_DEFLATED)) == RUN
