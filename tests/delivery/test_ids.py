"""Provisional ids: what they stand for, and what they become."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery.ids import Identities, Identity, UnresolvedError, is_provisional, new_id, operation_of

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.delivery.ids import Kind

KINDS = ("run", "model", "experiment")
RUN = "local-" + "a" * 32
MODEL = "m-local-" + "b" * 32
EXPERIMENT = "local-" + "c" * 32
RUN_ROOT = f"mlflow-artifacts:/{EXPERIMENT}/{RUN}/artifacts"


@pytest.fixture
def ids(tmp_path: Path) -> Identities:
    """Return the ids of a spool."""
    return Identities(tmp_path / "ids")


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_is_random_and_one_that_mlflow_takes(kind: Kind) -> None:
    """Two ids are never the same, look provisional, and pass MLflow's rule for ids of runs."""
    ids = {new_id(kind) for _ in range(100)}
    assert len(ids) == 100
    for one in ids:
        assert is_provisional(one)
        assert re.fullmatch(r"[a-zA-Z0-9][\w\-]{0,255}", one)
        assert one.startswith("m-") == (kind == "model")
        assert operation_of(one) not in {one, ""}
        assert not is_provisional(operation_of(one))


@pytest.mark.parametrize(
    "text", ["", "0", "a" * 32, "local-", "local-" + "a" * 31, "local-" + "a" * 33, "local-" + "G" * 32, RUN + "\n"]
)
def test_other_ids_are_not_provisional(text: str) -> None:
    """What a server or a user made up is left alone."""
    assert not is_provisional(text)


def test_an_id_is_known_to_every_process_of_the_spool(tmp_path: Path) -> None:
    """What one object notes, settles, refuses and readmits, another one on the same folder sees at once."""
    mine, yours = Identities(tmp_path / "ids"), Identities(tmp_path / "ids")
    identity = Identity(RUN, "run", RUN_ROOT, {"tags": [{"key": "épée", "value": "🜁"}]})
    assert yours.get(RUN) is None
    mine.note(identity)
    assert yours.get(RUN) == identity
    yours.refuse(RUN, "no such experiment")
    assert mine.refusal(RUN) == "no such experiment"
    mine.readmit(RUN)
    assert yours.refusal(RUN) is None
    yours.settle(RUN, "server-run", "mlflow-artifacts:/7/server-run/artifacts")
    assert mine.server_id(RUN) == "server-run"
    assert mine.known() == yours.known() == [RUN]


def test_the_files_are_for_the_user_alone(ids: Identities, tmp_path: Path) -> None:
    """Folder and files are closed to others, whatever the umask."""
    before = os.umask(0)
    try:
        ids.note(Identity(RUN, "run", RUN_ROOT))
    finally:
        os.umask(before)
    assert (tmp_path / "ids").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "ids").iterdir())
    assert [file.name for file in files] == [f"{RUN}.json"]
    assert files[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"{}",
        b'{"format": 1}',
        b'{"format": 2, "local_id": "x", "kind": "run", "root": ""}',
        b'{"format": 1, "local_id": "x", "kind": "run", "root": "", "colour": "red"}',
        b'{"format": 1, "local_id": "%b", "kind": "run", "root": "", "body": [1]}' % RUN.encode(),
        b'{"format": 1, "local_id": 5, "kind": "run", "root": ""}',
        b'{"format": 1, "local_id": "%b", "kind": "run", "root": "", "server_id": 7}' % RUN.encode(),
        b'{"format": 1, "local_id": "%b", "kind": "run", "root": 7}' % RUN.encode(),
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_unknown_id(ids: Identities, tmp_path: Path, content: bytes) -> None:
    """What cannot be understood stands for nothing, and its id stays where it is in texts."""
    ids.note(Identity(MODEL, "model", ""))
    (tmp_path / "ids" / f"{RUN}.json").write_bytes(content)
    assert ids.get(RUN) is None
    assert ids.translate(f"run {RUN}") == f"run {RUN}"
    assert ids.refusal(RUN) is None
    with pytest.raises(UnresolvedError):
        ids.server_id(RUN)
    ids.settle(RUN, "server-run", None)
    assert ids.get(RUN) is None


def test_what_is_known_is_not_forgotten_with_its_file(ids: Identities, tmp_path: Path) -> None:
    """The process that made an id up goes on with it though its file is gone or damaged."""
    ids.note(Identity(RUN, "run", RUN_ROOT))
    (tmp_path / "ids" / f"{RUN}.json").write_text("{")
    assert ids.get(RUN) == Identity(RUN, "run", RUN_ROOT)
    (tmp_path / "ids" / f"{RUN}.json").unlink()
    ids.settle(RUN, "server-run", "root")
    assert ids.server_id(RUN) == "server-run"
    assert Identities(tmp_path / "ids").server_id(RUN) == "server-run"


def test_what_the_disk_does_not_take_is_known_to_this_process(tmp_path: Path) -> None:
    """Where the folder cannot be made, the error is raised and the id is known all the same."""
    (tmp_path / "file").write_text("")
    ids = Identities(tmp_path / "file" / "ids")
    with pytest.raises(OSError, match="file"):
        ids.note(Identity(RUN, "run", RUN_ROOT))
    assert ids.get(RUN) == Identity(RUN, "run", RUN_ROOT)


def test_uris_are_translated_before_ids(ids: Identities) -> None:
    """An artifact URI becomes the server's, wherever its experiment keeps artifacts, and ids elsewhere become ids."""
    ids.note(Identity(RUN, "run", RUN_ROOT))
    ids.note(Identity(EXPERIMENT, "experiment", "", {"name": "chosen"}))
    ids.note(Identity(MODEL, "model", f"mlflow-artifacts:/{EXPERIMENT}/models/{MODEL}/artifacts"))
    ids.settle(RUN, "r1", "mlflow-artifacts:/team/store/of/r1/artifacts")
    ids.settle(EXPERIMENT, "42", "mlflow-artifacts:/team/store/of")
    ids.settle(MODEL, "m-1", "s3://elsewhere/m-1")
    said = ids.translate(
        f"{RUN_ROOT}/a.txt {RUN} {MODEL} {EXPERIMENT} mlflow-artifacts:/{EXPERIMENT}/models/{MODEL}/artifacts/MLmodel"
    )
    assert said == "mlflow-artifacts:/team/store/of/r1/artifacts/a.txt r1 m-1 42 s3://elsewhere/m-1/MLmodel"
    assert ids.translate(f"runs:/{RUN}/model, {RUN}") == "runs:/r1/model, r1"


def test_an_experiment_that_was_found_by_name_has_no_uri_of_its_own(ids: Identities) -> None:
    """A run's URI below an experiment that is not settled waits for the run alone."""
    ids.note(Identity(EXPERIMENT, "experiment", f"mlflow-artifacts:/{EXPERIMENT}", {"name": "chosen"}))
    ids.settle(EXPERIMENT, "42", "s3://other/42")
    assert ids.translate(f"mlflow-artifacts:/{EXPERIMENT}/x") == "mlflow-artifacts:/42/x"
    ids.note(Identity(RUN, "run", RUN_ROOT))
    with pytest.raises(UnresolvedError) as caught:
        ids.translate(RUN_ROOT)
    assert caught.value.local_id == RUN


def test_unknown_ids_stay_and_unresolved_ones_raise(ids: Identities) -> None:
    """A text of the user that looks like an id is his own; an id that is known and not settled cannot be sent."""
    assert ids.translate(f"{RUN} and {MODEL}") == f"{RUN} and {MODEL}"
    with pytest.raises(UnresolvedError):
        ids.server_id(RUN)
    ids.note(Identity(RUN, "run", RUN_ROOT))
    for text in (RUN, f"see {RUN}!", f"{RUN_ROOT}/a"):
        with pytest.raises(UnresolvedError, match=RUN) as caught:
            ids.translate(text)
        assert caught.value.local_id == RUN
    assert ids.translate(f"x{RUN}") == f"x{RUN}"
    assert ids.translate(f"{RUN}0") == f"{RUN}0"


def test_every_text_of_a_json_value_is_translated(ids: Identities) -> None:
    """Lists and values of objects are translated at any depth; numbers and names stay."""
    ids.note(Identity(RUN, "run", RUN_ROOT))
    ids.settle(RUN, "r1", "root")
    content = {"a": [RUN, 1, None, {"b": f"<{RUN}>"}], RUN: 1.5, "c": True}
    assert ids.translate_all(content) == {"a": ["r1", 1, None, {"b": "<r1>"}], RUN: 1.5, "c": True}


@given(st.text(max_size=80))
def test_a_text_without_ids_is_not_touched(text: str) -> None:
    """Whatever users write stays as it is."""
    ids = Identities(None)
    ids.note(Identity(RUN, "run", RUN_ROOT, server_id="r1", server_root="root"))
    assert ids.translate(text) == text


def test_ids_without_a_folder_are_kept_in_memory_up_to_a_number() -> None:
    """Where nothing is written, the newest ids are known and memory stays bounded."""
    ids = Identities(None)
    made = [new_id("run") for _ in range(3000)]
    for one in made:
        ids.note(Identity(one, "run", ""))
    assert all(ids.get(one) is not None for one in made[-500:])
    assert sum(ids.get(one) is not None for one in made) <= 1000
    assert ids.known() == []


def test_settled_ids_are_forgotten_after_months_and_waiting_ones_never(tmp_path: Path) -> None:
    """Files of ids that the server has are deleted when they are old; others are needed however old they are."""
    ids = Identities(tmp_path / "ids")
    recent = "local-" + "d" * 32
    for one in (RUN, MODEL, recent):
        ids.note(Identity(one, "run", ""))
    for one in (RUN, recent):
        ids.settle(one, "server-run", "root")
    for one in (RUN, MODEL):
        os.utime(tmp_path / "ids" / f"{one}.json", (1000, 1000))
    Identities(tmp_path / "ids").forget_old()
    assert sorted(ids.known()) == sorted([MODEL, recent])


def test_the_file_says_its_format(ids: Identities, tmp_path: Path) -> None:
    """What another version reads begins with the number of the format."""
    ids.note(Identity(RUN, "run", RUN_ROOT, {"experiment_id": "0"}))
    content = json.loads((tmp_path / "ids" / f"{RUN}.json").read_text())
    assert content == {
        "format": 1,
        "local_id": RUN,
        "kind": "run",
        "root": RUN_ROOT,
        "body": {"experiment_id": "0"},
        "server_id": None,
        "server_root": None,
        "refused": None,
        "asked_at": None,
    }
