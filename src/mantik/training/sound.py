"""Sounds among the artifacts of a run."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.training.arguments import as_file, as_list, as_step, captions_for, each
from mantik.training.arrays import as_array, package
from mantik.training.places import copy_file, new_artifact, place
from mantik.training.table_files import write_captions

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

__all__ = ["log_audio"]

_FEATURE = "To log audio"
_MOST_CHANNELS = 64
_LOUDEST = 32767


def log_audio(  # noqa: PLR0913  # what belongs to a sound; most calls give few of them
    client: MlflowClient,
    run_id: str,
    key: str,
    audios: object,
    *,
    step: int | None = None,
    sample_rate: object = None,
    captions: object = None,
) -> None:
    """Log sounds as ``audio/<key>.wav``, or ``audio/<key>/step-<8 digits>.wav``; MLflow plays them.

    Of several in one call each has a number: ``audio/<key>/step-<8 digits>-00.wav``, and so on.

    Args:
        client: The client.
        run_id: The run.
        key: What the sounds are called.
        audios: A list, or one alone. A sound is the path of a file, which is copied and keeps its suffix, or an array
            or tensor of the shape time, time x channels or channels x time: the shorter axis is that of the channels.
            Its values are numbers from -1 to 1, cut off outside of that, NaN is silence; or int16. It is stored as WAV
            with 16 bits.
        step: The training step; None: no step in the path.
        sample_rate: Samples a second of arrays, in one number or a list with one for each sound.
        captions: A text for each sound: sounds and captions are also a table, ``captions/audio/<key>.json`` or
            ``captions/audio/<key>/step-<8 digits>.json``.

    Raises:
        InvalidValueError: A sound is none, an array has no sample rate, there are not as many captions or rates as
            sounds, or the step is no whole number. Nothing has been logged then.
        MissingExtraError: numpy is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    number = as_step(step, key)
    given = as_list(audios, key, several=3)
    rates = each(sample_rate, len(given), "sample_rate", key)
    texts = captions_for(captions, len(given), key)
    sounds: list[Path | tuple[Any, int]] = []
    for at, (sound, rate) in enumerate(zip(given, rates, strict=True)):
        what = f"audio {at}"
        sounds.append(as_file(sound, what, key) or (_samples(sound, what, key), _rate(rate, what, key)))
    paths = []
    for at, sound in enumerate(sounds):
        suffix = ".wav" if isinstance(sound, tuple) else sound.suffix.lower()
        path = place("audio", key, number, suffix, at if len(sounds) > 1 else None)
        paths.append(path)
        if isinstance(sound, tuple):
            with new_artifact(client, run_id, path) as file:
                _write(file, *sound)
        else:
            copy_file(client, run_id, sound, path)
    if texts is not None and paths:
        write_captions(client, run_id, "audio", key, step=number, things=paths, captions=texts)


def _rate(rate: object, what: str, key: str) -> int:
    try:
        whole = int(rate)  # type: ignore[call-overload]  # what is none raises
    except (TypeError, ValueError, OverflowError):
        whole = 0
    # A WAV file has 32 bits for it.
    if rate != whole or not 0 < whole < 2**32:
        raise InvalidValueError(
            f"{what} of {key!r} is an array with the sample rate {rate!r}. Give the samples a second, e.g. "
            "sample_rate=16000.",
            key,
        )
    return int(whole)


def _samples(sound: object, what: str, key: str) -> Any:  # noqa: ANN401  # numpy is optional
    """Return the samples of a sound as time x channels, in int16."""
    array = as_array(sound, _FEATURE)
    if array is None:
        raise InvalidValueError(
            f"{what} of {key!r} is of the type {type(sound).__name__}. Expected is the path of a file, an array or a "
            "tensor.",
            key,
        )
    numpy = package("numpy", _FEATURE)
    if array.ndim not in {1, 2} or 0 in array.shape or (array.ndim > 1 and min(array.shape) > _MOST_CHANNELS):
        raise InvalidValueError(
            f"{what} of {key!r} has the shape {tuple(array.shape)}. Expected is time, time x channels or channels x "
            f"time, with at most {_MOST_CHANNELS} channels.",
            key,
        )
    if array.dtype.kind != "f" and (array.dtype.kind, array.dtype.itemsize) != ("i", 2):
        raise InvalidValueError(
            f"{what} of {key!r} has values of the type {array.dtype}. Expected are numbers from -1 to 1, or int16.", key
        )
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    if array.dtype.kind == "f":
        # Numbers of 16 bits have no room for the levels.
        array = array.astype(numpy.result_type(array.dtype, numpy.float32))
        array = (numpy.nan_to_num(array, nan=0.0).clip(-1.0, 1.0) * _LOUDEST).round()
    return array.astype("<i2")


def _write(file: Path, samples: Any, rate: int) -> None:  # noqa: ANN401  # numpy is optional
    with wave.open(str(file), "wb") as written:
        written.setnchannels(samples.shape[1])
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(samples.tobytes())
