from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

import mantik
from mantik.exceptions import InvalidValueError
from mantik.training.video import log_videos

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform, ReadBack

FINISH_SECONDS = 30.0
LEVELS = (0, 100, 255)


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


def film(channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return frames of 5 x 6 pixels of one level each, with the channels second."""
    frames = np.full((len(LEVELS), channels, 5, 6), 255, dtype=np.uint8)
    frames[:, :3] = np.array(LEVELS)[:, None, None, None]
    return frames


def watched(held: ReadBack, run_id: str, path: str) -> tuple[tuple[int, int], list[int], int]:
    """Return the size of a GIF, the level of the first pixel of each frame, and the milliseconds of the first."""
    with Image.open(io.BytesIO(held.download(run_id, path))) as gif:
        assert gif.format == "GIF"
        assert gif.info["loop"] == 0
        duration = gif.info["duration"]
        levels = []
        for number in range(gif.n_frames):
            gif.seek(number)
            levels.append(np.asarray(gif.convert("RGB"))[0, 0, 0].item())
        return gif.size, levels, duration


KINDS: list[tuple[object, list[int]]] = [
    (film(), [0, 100, 255]),
    (film(1), [0, 100, 255]),
    (film(4), [0, 100, 255]),
    (np.moveaxis(film(), 1, -1), [0, 100, 255]),
    (torch.tensor(film()), [0, 100, 255]),
    (torch.tensor(film() / 255, requires_grad=True), [0, 100, 255]),
    (film()[:2] / 50.0, [0, 255]),
    (film()[:1], [0]),
]


def test_videos_of_all_kinds_arrive(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Arrays and tensors are GIFs; values outside of the range are stretched over all frames alike."""
    log_videos(client, run_id, "val/film", [video for video, _ in KINDS], step=7)
    assert mantik.flush(FINISH_SECONDS)
    paths = [f"videos/val/film/step-00000007-{number:02d}.gif" for number in range(len(KINDS))]
    assert held.artifacts(run_id) == paths
    found = [watched(held, run_id, path) for path in paths[:-1]]
    assert found == [((6, 5), levels, 250) for _, levels in KINDS[:-1]]


def test_frames_a_second_are_those_of_each_video(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """One number is for all, a list has one for each; browsers show at most 50."""
    log_videos(client, run_id, "one", np.stack([film(), film()]), fps=10)
    log_videos(client, run_id, "each", [film(), film()], fps=[2.5, 1000], format=["gif", ".gif"])
    assert mantik.flush(FINISH_SECONDS)
    durations = [watched(held, run_id, path)[2] for path in held.artifacts(run_id)]
    assert durations == [400, 20, 100, 100]


def test_a_file_is_stored_as_it_is(client: mlflow.MlflowClient, run_id: str, held: ReadBack, tmp_path: Path) -> None:
    """A file keeps its content and suffix, whatever is said of arrays, and may be deleted after the call."""
    file = tmp_path / "film.mp4"
    file.write_bytes(b"any content")
    log_videos(client, run_id, "film", file, fps=None, format="mp4")
    file.unlink()
    assert mantik.flush(FINISH_SECONDS)
    assert held.artifacts(run_id) == ["videos/film.mp4"]
    assert held.download(run_id, "videos/film.mp4") == b"any content"


def test_captions_are_a_table_of_videos(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack, tmp_path: Path
) -> None:
    """GIFs are shown in the table, each beside its caption; where there are others, their paths are."""
    (tmp_path / "film.mp4").write_bytes(b"any content")
    log_videos(client, run_id, "gifs", [film(), film()], captions=["one", "two"], step=1)
    log_videos(client, run_id, "mixed", [film(), tmp_path / "film.mp4"], captions=["one", "two"])
    assert mantik.flush(FINISH_SECONDS)
    gifs = json.loads(held.download(run_id, "captions/videos/gifs/step-00000001.json"))
    assert gifs["columns"] == ["video", "caption"]
    path = "videos/gifs/step-00000001-00.gif"
    assert gifs["data"][0] == [{"type": "image", "filepath": path, "compressed_filepath": path}, "one"]
    mixed = json.loads(held.download(run_id, "captions/videos/mixed.json"))
    assert mixed["data"] == [["videos/mixed-00.gif", "one"], ["videos/mixed-01.mp4", "two"]]


@pytest.mark.parametrize(
    ("videos", "options", "text"),
    [
        (film(), {"format": "mp4"}, "video 0 of 'bad' is an array, which is stored as 'gif', not as 'mp4'. For anothe"),
        ([film()] * 2, {"format": ["gif"]}, "format has 1 elements, but 2 are to be logged as 'bad'."),
        (film(), {"fps": 0}, "video 0 of 'bad' has fps=0. Expected are the frames a second, e.g. 4."),
        (film(), {"fps": "4"}, "video 0 of 'bad' has fps='4'."),
        (film(), {"fps": float("nan")}, "video 0 of 'bad' has fps=nan."),
        ([film()] * 2, {"fps": [1, 2, 3]}, "fps has 3 elements, but 2 are to be logged as 'bad'."),
        ([film()] * 2, {"captions": "one"}, "captions has 1 elements, but 2 are to be logged as 'bad'."),
        (film(), {"step": 1.0}, "The step of 'bad' is 1.0"),
        ("nowhere.mp4", {}, "video 0 of 'bad' is 'nowhere.mp4', which is no file."),
        (None, {}, "'bad' is given as NoneType."),
        ([5], {}, "video 0 of 'bad' is of the type int. Expected is the path of a file, an array or a tensor."),
        (np.zeros((5, 6, 3)), {}, "video 0 of 'bad' has the shape (5, 6, 3). Expected is time x channels x height x"),
        (np.zeros((9, 5, 6, 7)), {}, "has the shape (9, 5, 6, 7)."),
        (np.zeros((0, 3, 5, 6)), {}, "has the shape (0, 3, 5, 6)."),
        (np.zeros((2, 3, 5, 6), complex), {}, "video 0 of 'bad' has values of the type complex128."),
    ],
)
def test_what_is_no_video_is_said_before_anything_is_logged(
    nobody: mlflow.MlflowClient, videos: object, options: dict[str, Any], text: str
) -> None:
    """The error names the video, what it is and what is expected."""
    with pytest.raises(InvalidValueError) as raised:
        log_videos(nobody, "0" * 32, "bad", videos, **options)
    assert text in str(raised.value)
    assert raised.value.name == "bad"
