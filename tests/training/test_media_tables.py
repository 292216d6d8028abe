from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mantik
from mantik.exceptions import InvalidValueError
from mantik.testing import Status
from mantik.training.tables import log_table, log_text
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform, ReadBack

FINISH_SECONDS = 30.0
TAG = "mlflow.loggedArtifacts"


@pytest.fixture
def run_id(tracked: FaultProxy) -> Iterator[str]:
    """Return the id of an active run."""
    with mlflow.start_run() as run:
        yield run.info.run_id


@pytest.fixture
def client(tracked: FaultProxy) -> mlflow.MlflowClient:
    """Return a client of the platform."""
    return mlflow.MlflowClient()


@pytest.fixture
def nobody() -> mlflow.MlflowClient:
    """Return a client of a server that is not there: whoever logs with it fails."""
    return mlflow.MlflowClient("http://127.0.0.1:9")


@pytest.fixture
def held(mantik_platform: Platform) -> ReadBack:
    """Return a reader of what the platform holds."""
    return mantik_platform.read_back


def table(held: ReadBack, run_id: str, path: str) -> dict[str, Any]:
    """Deliver, and return a table as it is stored."""
    assert mantik.flush(FINISH_SECONDS)
    content: dict[str, Any] = json.loads(held.download(run_id, path))
    return content


def listed(held: ReadBack, run_id: str) -> list[str]:
    """Deliver, and return the paths of what MLflow takes for tables."""
    assert mantik.flush(FINISH_SECONDS)
    entries = json.loads(held.run(run_id).tags[TAG])
    assert {entry["type"] for entry in entries} == {"table"}
    return [entry["path"] for entry in entries]


def test_a_table_is_read_by_mlflow(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """What was logged is stored in MLflow's format, and `mlflow.load_table` returns it."""
    log_table(client, run_id, "val/answers", ["text", "score"], [["yes", 0.5], ["no", float("inf")]], step=3)
    path = "tables/val/answers/step-00000003.json"
    assert table(held, run_id, path) == {"columns": ["text", "score"], "data": [["yes", 0.5], ["no", "Infinity"]]}
    assert listed(held, run_id) == [path]
    loaded = mlflow.load_table(path, run_ids=[run_id])
    expected = pd.DataFrame({"text": ["yes", "no"], "score": [0.5, float("inf")]})
    pd.testing.assert_frame_equal(loaded.astype({"score": float}), expected)


def test_a_data_frame_is_a_table(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Its columns and rows are stored, without the index; what is missing is null."""
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], dtype="Int64"),
            "x": [0.5, float("nan")],
            "when": pd.to_datetime(["2024-05-01", None]),
            3: ["a", None],
        },
        index=["first", "second"],
    )
    log_table(client, run_id, "frame", dataframe=frame)
    assert table(held, run_id, "tables/frame.json") == {
        "columns": ["n", "x", "when", "3"],
        "data": [[1, 0.5, "2024-05-01T00:00:00", "a"], [None, None, None, None]],
    }


CELLS: list[tuple[object, object]] = [
    (None, None),
    (True, True),
    (7, 7),
    (0.25, 0.25),
    ("text", "text"),
    ("a\ud800b", "a?b"),
    (float("nan"), None),
    (float("-inf"), "-Infinity"),
    (np.float32(0.5), 0.5),
    (np.int64(7), 7),
    (np.array([True])[0], True),
    (np.str_("text"), "text"),
    (np.datetime64("2024-05-01"), "2024-05-01"),
    (np.datetime64("NaT"), None),
    (np.array([1, 2]), [1, 2]),
    (np.array(float("nan")), None),
    (torch.tensor(0.5, requires_grad=True), 0.5),
    (torch.tensor([0.5, float("inf")]), [0.5, "Infinity"]),
    (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    (dt.date(2024, 5, 1), "2024-05-01"),
    (dt.time(12), "12:00:00"),
    (Decimal("0.1"), "0.1"),
    ({"a": np.int8(1), 2: (1, None)}, {"a": 1, "2": [1, None]}),
    (b"bytes", "b'bytes'"),
]


def test_cells_of_all_kinds_arrive(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Scalars and tensors are plain values, and what JSON does not have is its text."""
    log_table(client, run_id, "cells", ["cell"], [[cell] for cell, _ in CELLS])
    stored = table(held, run_id, "tables/cells.json")["data"]
    for (value,), (cell, expected) in zip(stored, CELLS, strict=True):
        assert (type(value), value) == (type(expected), expected), cell


def test_an_array_is_a_table(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """The rows may be those of an array or tensor with two axes, or come from an iterator."""
    log_table(client, run_id, "array", np.array(["a", "b"]), np.arange(4).reshape(2, 2))
    log_table(client, run_id, "tensor", ("a", "b"), torch.arange(4).reshape(2, 2))
    log_table(client, run_id, "iterator", pd.Index(["a", "b"]), zip([0, 2], [1, 3], strict=True))
    for key in ("array", "tensor", "iterator"):
        assert table(held, run_id, f"tables/{key}.json") == {"columns": ["a", "b"], "data": [[0, 1], [2, 3]]}


def test_a_table_without_rows_is_one(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Where a model made no mistakes, the table of its mistakes is empty."""
    log_table(client, run_id, "mistakes", ["image", "truth"], [])
    assert table(held, run_id, "tables/mistakes.json") == {"columns": ["image", "truth"], "data": []}


def test_images_in_a_table_are_files(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """A cell with an image, an array or a tensor says where the image is, whole and small."""
    rows = [
        [Image.new("RGB", (4, 4)), np.zeros((4, 4)), torch.zeros(3, 4, 4), 0],
        [mlflow.Image(np.zeros((4, 4))), np.zeros((4, 4, 3)), torch.zeros(4, 4), 1],
    ]
    log_table(client, run_id, "val/images", ["a", "b", "c", "n"], rows, step=0)
    stored = table(held, run_id, "tables/val/images/step-00000000.json")["data"]
    assert [row[3] for row in stored] == [0, 1]
    cells = [cell for row in stored for cell in row[:3]]
    assert {cell["type"] for cell in cells} == {"image"}
    files = [cell[kind] for cell in cells for kind in ("filepath", "compressed_filepath")]
    assert sorted(files) == held.artifacts(run_id, "table_images/val/images")
    assert len(set(files)) == 12


def test_names_with_dots_are_shown(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """MLflow's pages show nothing of a column with a dot in its name, so it has none."""
    log_table(client, run_id, "dots", ["val_loss", "val.loss", "val.acc"], [[1, 2, 3]])
    columns = table(held, run_id, "tables/dots.json")["columns"]
    assert columns[0] == "val_loss"
    assert re.fullmatch(r"val_loss-[0-9a-f]{8}", columns[1])
    assert columns[2] == "val_acc"


def test_a_table_replaces_the_one_of_its_name(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """The later of two tables of one key and step stays, and is listed once."""
    log_table(client, run_id, "table", ["a"], [[1]])
    log_table(client, run_id, "table", ["b"], [[2]])
    assert table(held, run_id, "tables/table.json") == {"columns": ["b"], "data": [[2]]}
    assert listed(held, run_id) == ["tables/table.json"]


def test_tables_from_before_stay_listed(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Those that MLflow itself logged to the run before are still tables."""
    mlflow.log_table({"a": [1]}, "before.json")
    log_table(client, run_id, "after", ["a"], [[1]])
    assert listed(held, run_id) == ["before.json", "tables/after.json"]


def test_tables_of_an_earlier_process_stay_listed(
    client: mlflow.MlflowClient, mantik_platform: Platform, held: ReadBack, tmp_path: Path
) -> None:
    """A run that is taken up again keeps the tables that it has."""
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        log_table(client, run_id, "earlier", ["a"], [[1]])
    assert mantik.flush(FINISH_SECONDS)
    script = """
        import os, mlflow
        import mantik
        from mantik.training.tables import log_table

        mantik.init_tracking()
        with mlflow.start_run(run_id=os.environ["TAKEN_UP"]) as run:
            log_table(mlflow.MlflowClient(), run.info.run_id, "later", ["a"], [[1]])
            assert mantik.flush(30)
        """
    environment = clean_environment({**mantik_platform.environment(), "TAKEN_UP": run_id}, tmp_path)
    run_script(script, environment, tmp_path)
    entries = json.loads(held.run(run_id).tags[TAG])
    assert [entry["path"] for entry in entries] == ["tables/earlier.json", "tables/later.json"]


def test_a_tag_that_is_no_list_is_replaced(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """One that was cut off by a server is no reason to fail."""
    client.set_tag(run_id, TAG, '[{"path": "cut')
    log_table(client, run_id, "table", ["a"], [[1]])
    assert listed(held, run_id) == ["tables/table.json"]


def test_more_tables_than_the_tag_can_hold_are_all_stored(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack
) -> None:
    """The latest are shown as tables, and so is one without a step, however old; the tag stays within its limit."""
    log_table(client, run_id, "summary", ["a"], [[1]])
    for step in range(120):
        log_table(client, run_id, "predictions", ["a"], [[step]], step=step)
    paths = listed(held, run_id)
    assert len(held.run(run_id).tags[TAG]) <= 5000
    assert paths[0] == "tables/summary.json"
    latest = [f"tables/predictions/step-{step:08d}.json" for step in range(120)][-len(paths[1:]) :]
    assert paths[1:] == latest
    assert len(latest) > 70
    assert len(held.artifacts(run_id, "tables")) == 121


def test_tables_wait_for_no_answer(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack, tracked: FaultProxy
) -> None:
    """Which tables a run has is asked once; after that, tables and texts ask the server nothing."""
    log_table(client, run_id, "first", ["a"], [[1]])
    assert mantik.flush(FINISH_SECONDS)
    with tracked.fault(Status(503), method="GET") as asked:
        log_table(client, run_id, "second", ["a"], [[np.zeros((4, 4))]])
        log_text(client, run_id, "third", "text")
        assert asked.hits == 0
    assert listed(held, run_id) == ["tables/first.json", "tables/second.json"]


def test_a_server_that_does_not_say_which_tables_there_are_is_no_error(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack, tracked: FaultProxy
) -> None:
    """The table is logged, and listed alone."""
    log_text(client, run_id, "text", "where artifacts are is known")
    with tracked.fault(Status(403), path=re.compile("runs/get")) as refused:
        log_table(client, run_id, "table", ["a"], [[1]])
        assert refused.hits == 1
    assert listed(held, run_id) == ["tables/table.json"]


def test_a_text_is_a_file(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """A text that is no list of columns is stored as it is."""
    log_text(client, run_id, "val/story", "Es war einmal …\n\ud800", step=12)
    log_text(client, run_id, "notes", "")
    assert mantik.flush(FINISH_SECONDS)
    assert held.artifacts(run_id) == ["text/notes.txt", "text/val/story/step-00000012.txt"]
    assert held.download(run_id, "text/val/story/step-00000012.txt").decode() == "Es war einmal …\n?"


def test_texts_are_a_table(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """With columns and rows, or a DataFrame, texts are a table like any other."""
    log_text(client, run_id, "answers", ["question", "answer"], [["6 x 7?", "42"]], step=1)
    log_text(client, run_id, "frame", dataframe=pd.DataFrame({"a": ["b"]}))
    expected = {"columns": ["question", "answer"], "data": [["6 x 7?", "42"]]}
    assert table(held, run_id, "tables/answers/step-00000001.json") == expected
    assert listed(held, run_id) == ["tables/answers/step-00000001.json", "tables/frame.json"]


FRAME = pd.DataFrame({"a": [1]})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "The table 'bad' has no columns. Give columns=['a', 'b'] and data=[[1, 2], [3, 4]], or a dataframe."),
        ({"data": [[1]]}, "The table 'bad' has no columns."),
        ({"columns": ["a"]}, "The table 'bad' has no data."),
        ({"columns": ["a"], "dataframe": FRAME}, "The table 'bad' is given twice. Give columns and data, or a datafr"),
        ({"data": [[1]], "dataframe": FRAME}, "The table 'bad' is given twice."),
        ({"dataframe": {"a": [1]}}, "The dataframe of 'bad' is of the type dict. Expected is one of pandas."),
        ({"columns": "ab", "data": [[1, 2]]}, "The columns of 'bad' are 'ab'. Expected is a list of names."),
        ({"columns": {"a": 1}, "data": [[1]]}, "The columns of 'bad' are {'a': 1}."),
        ({"columns": 2, "data": [[1, 2]]}, "The columns of 'bad' are 2."),
        ({"columns": ["b", "a", "b", "a"], "data": []}, "The table 'bad' has more than one column 'a', 'b'."),
        ({"columns": ["a"], "data": 5}, "The data of 'bad' is of the type int. Expected is a list of rows."),
        ({"columns": ["a"], "data": {"a": [1]}}, "The data of 'bad' is of the type dict."),
        ({"columns": ["a"], "data": np.array(5)}, "The data of 'bad' is of the type ndarray."),
        ({"columns": ["a"], "data": [1, 2]}, "Row 0 of the table 'bad' is of the type int. Expected is a list with a"),
        ({"columns": ["a"], "data": [[1], "2"]}, "Row 1 of the table 'bad' is of the type str."),
        ({"columns": ["a"], "data": [{"a": 1}]}, "Row 0 of the table 'bad' is of the type dict."),
        ({"columns": ["a", "b"], "data": [[1, 2], [3]]}, "Row 1 of the table 'bad' has 1 cells, but there are 2 colu"),
        ({"columns": ["a", "b"], "data": [[1, 2, 3]]}, "Row 0 of the table 'bad' has 3 cells"),
        (
            {"columns": ["a", "b"], "data": [[1, np.zeros((2, 2))], [2, None]]},
            "The column 'b' of the table 'bad' has images, but in row 1 there is none but a NoneType.",
        ),
        (
            {"columns": ["a", "b"], "data": [[1, np.zeros((2, 2, 2))]]},
            "row 0, column 'b' of 'bad' has the shape (2, 2, 2). Expected is height x width",
        ),
        ({"columns": ["a"], "data": [[1]], "step": 0.5}, "The step of 'bad' is 0.5, which is no whole number."),
    ],
)
def test_what_is_no_table_is_said_before_anything_is_logged(
    nobody: mlflow.MlflowClient, given: dict[str, Any], text: str
) -> None:
    """The error says what is wrong, what is expected and where."""
    with pytest.raises(InvalidValueError) as raised:
        log_table(nobody, "0" * 32, "bad", **given)
    assert text in str(raised.value)
    assert raised.value.name == "bad"


def test_a_text_and_a_table_at_once_are_said_at_once(nobody: mlflow.MlflowClient) -> None:
    """A text with rows is likely to be columns that were meant as a list."""
    with pytest.raises(InvalidValueError, match="'bad' is given a text and a table"):
        log_text(nobody, "0" * 32, "bad", "a", [["b"]])
