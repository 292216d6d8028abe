from __future__ import annotations

import io
import json
import wave
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
import torch

import mantik
from mantik.exceptions import InvalidValueError
from mantik.training.sound import log_audio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform, ReadBack

FINISH_SECONDS = 30.0
NAN = float("nan")


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


def played(held: ReadBack, run_id: str, path: str) -> tuple[int, list[list[int]]]:
    """Return the sample rate of a WAV file, and its samples as time x channels."""
    with wave.open(io.BytesIO(held.download(run_id, path))) as sound:
        assert sound.getsampwidth() == 2
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
        return sound.getframerate(), samples.reshape(-1, sound.getnchannels()).tolist()


STEREO = np.array([[1, -1], [2, -2], [3, -3]], dtype=np.int16)
KINDS: list[tuple[object, list[list[int]]]] = [
    (STEREO, STEREO.tolist()),
    (STEREO.T, STEREO.tolist()),
    (STEREO[:, 0], [[1], [2], [3]]),
    (STEREO[:, :1], [[1], [2], [3]]),
    (STEREO.astype(">i2"), STEREO.tolist()),
    (torch.tensor([0.0, 0.5, -1.0, 1.0]), [[0], [16384], [-32767], [32767]]),
    (torch.tensor([[0.5, 1.0, 0.0]], requires_grad=True, dtype=torch.float16), [[16384], [32767], [0]]),
    (np.array([2.0, -2.0, NAN, float("inf"), float("-inf")]), [[32767], [-32767], [0], [32767], [-32767]]),
]


def test_sounds_of_all_kinds_arrive(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Arrays and tensors are WAV files; what is too loud is cut off, and NaN is silence."""
    log_audio(client, run_id, "val/sounds", [sound for sound, _ in KINDS], step=4, sample_rate=16000)
    assert mantik.flush(FINISH_SECONDS)
    paths = [f"audio/val/sounds/step-00000004-{number:02d}.wav" for number in range(len(KINDS))]
    assert held.artifacts(run_id) == paths
    assert [played(held, run_id, path) for path in paths] == [(16000, samples) for _, samples in KINDS]


def test_a_file_is_stored_as_it_is(client: mlflow.MlflowClient, run_id: str, held: ReadBack, tmp_path: Path) -> None:
    """A path may stand beside arrays; its file keeps its content and suffix, and may be deleted after the call."""
    file = tmp_path / "speech.MP3"
    file.write_bytes(b"any content")
    log_audio(client, run_id, "speech", str(file))
    log_audio(client, run_id, "both", [file, STEREO], sample_rate=[None, 8000], step=0)
    file.unlink()
    assert mantik.flush(FINISH_SECONDS)
    assert held.artifacts(run_id) == [
        "audio/both/step-00000000-00.mp3",
        "audio/both/step-00000000-01.wav",
        "audio/speech.mp3",
    ]
    assert held.download(run_id, "audio/speech.mp3") == b"any content"
    assert played(held, run_id, "audio/both/step-00000000-01.wav")[0] == 8000


def test_captions_are_a_table_of_sounds(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """The table says which sound has which caption."""
    log_audio(client, run_id, "beep", [STEREO, STEREO], sample_rate=8000, captions=["high", "low"], step=2)
    log_audio(client, run_id, "none", [], captions=[])
    assert mantik.flush(FINISH_SECONDS)
    content = json.loads(held.download(run_id, "captions/audio/beep/step-00000002.json"))
    first, second = held.artifacts(run_id, "audio")
    assert content == {"columns": ["audio", "caption"], "data": [[first, "high"], [second, "low"]]}


@pytest.mark.parametrize(
    ("audios", "options", "text"),
    [
        (STEREO, {}, "audio 0 of 'bad' is an array with the sample rate None. Give the samples a second, e.g. sample"),
        (STEREO, {"sample_rate": 0}, "with the sample rate 0."),
        (STEREO, {"sample_rate": -1}, "with the sample rate -1."),
        (STEREO, {"sample_rate": 0.5}, "with the sample rate 0.5."),
        (STEREO, {"sample_rate": NAN}, "with the sample rate nan."),
        (STEREO, {"sample_rate": float("inf")}, "with the sample rate inf."),
        (STEREO, {"sample_rate": "16 kHz"}, "with the sample rate '16 kHz'."),
        ([STEREO] * 2, {"sample_rate": [1]}, "sample_rate has 1 elements, but 2 are to be logged as 'bad'."),
        ([STEREO] * 2, {"sample_rate": [8000, None]}, "audio 1 of 'bad' is an array with the sample rate None."),
        ([STEREO] * 2, {"sample_rate": 1, "captions": ["a"]}, "captions has 1 elements, but 2 are to be logged"),
        (STEREO, {"sample_rate": 1, "step": "1"}, "The step of 'bad' is '1'"),
        ("nowhere.wav", {}, "audio 0 of 'bad' is 'nowhere.wav', which is no file."),
        (None, {}, "'bad' is given as NoneType."),
        ([5], {"sample_rate": 1}, "audio 0 of 'bad' is of the type int. Expected is the path of a file, an array or a"),
        (np.zeros(0), {"sample_rate": 1}, "audio 0 of 'bad' has the shape (0,). Expected is time, time x channels or"),
        (np.array(0.5), {"sample_rate": 1}, "has the shape ()."),
        (np.zeros((80, 90)), {"sample_rate": 1}, "has the shape (80, 90)."),
        (np.zeros((1, 2, 2, 2)), {"sample_rate": 1}, "has the shape (1, 2, 2, 2)."),
        (np.zeros(4, int), {"sample_rate": 1}, "has values of the type int64. Expected are numbers from -1 to 1, or"),
        (np.zeros(4, complex), {"sample_rate": 1}, "has values of the type complex128."),
    ],
)
def test_what_is_no_sound_is_said_before_anything_is_logged(
    nobody: mlflow.MlflowClient, audios: object, options: dict[str, Any], text: str
) -> None:
    """The error names the sound, what it is and what is expected."""
    with pytest.raises(InvalidValueError) as raised:
        log_audio(nobody, "0" * 32, "bad", audios, **options)
    assert text in str(raised.value)
    assert raised.value.name == "bad"
