"""Videos among the artifacts of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.training.arguments import as_file, as_list, as_step, captions_for, each
from mantik.training.arrays import as_array, package
from mantik.training.picture_files import picture_cell
from mantik.training.pixels import gray_levels
from mantik.training.places import copy_file, new_artifact, place
from mantik.training.table_files import write_captions

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

__all__ = ["log_videos"]

_FEATURE = "To log videos"
_CHANNELS = (1, 3, 4)
_SHORTEST_FRAME = 20
"""Milliseconds; of a shorter one browsers make 100."""


def log_videos(  # noqa: PLR0913  # what belongs to a video; most calls give few of them
    client: MlflowClient,
    run_id: str,
    key: str,
    videos: object,
    *,
    step: int | None = None,
    fps: object = 4,
    captions: object = None,
    format: object = "gif",  # noqa: A002  # the name of other loggers
) -> None:
    """Log videos as ``videos/<key>.gif``, or ``videos/<key>/step-<8 digits>.gif``; MLflow shows them.

    Of several in one call each has a number: ``videos/<key>/step-<8 digits>-00.gif``, and so on.

    Args:
        client: The client.
        run_id: The run.
        key: What the videos are called.
        videos: A list, or one alone. A video is the path of a file, which is copied and keeps its suffix, or an array
            or tensor of the shape time x channels x height x width, or with the channels last; with 1, 3 or 4 channels,
            and values as of `mantik.training.pictures.log_images`, of which all of a video are stretched alike. An
            array with five axes is a list of videos.
        step: The training step; None: no step in the path.
        fps: Frames a second of arrays, in one number or a list with one for each video; more than 50 are shown as 50.
        captions: A text for each video: videos and captions are also a table, ``captions/videos/<key>.json`` or
            ``captions/videos/<key>/step-<8 digits>.json``.
        format: What arrays are stored as, in one text or a list with one for each video; ``gif`` is what there is.

    Raises:
        InvalidValueError: A video is none, the format is another one, there are not as many captions as videos, or the
            step is no whole number. Nothing has been logged then.
        MissingExtraError: pillow or numpy is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    number = as_step(step, key)
    given = as_list(videos, key, several=5)
    rates = each(fps, len(given), "fps", key)
    formats = each(format, len(given), "format", key)
    texts = captions_for(captions, len(given), key)
    films: list[Path | tuple[list[Any], int]] = []
    for at, (video, rate, kind) in enumerate(zip(given, rates, formats, strict=True)):
        what = f"video {at}"
        films.append(as_file(video, what, key) or _film(video, rate, kind, what, key))
    paths = []
    for at, film in enumerate(films):
        suffix = ".gif" if isinstance(film, tuple) else film.suffix.lower()
        path = place("videos", key, number, suffix, at if len(films) > 1 else None)
        paths.append(path)
        if isinstance(film, tuple):
            frames, duration = film
            with new_artifact(client, run_id, path) as file:
                frames[0].save(file, save_all=True, append_images=frames[1:], duration=duration, loop=0)
        else:
            copy_file(client, run_id, film, path)
    if texts is not None and paths:
        # A GIF is an image, which plays in the table, too; a column is of images only where all are.
        shown = all(path.endswith(".gif") for path in paths)
        things = [picture_cell(path, path) for path in paths] if shown else paths
        write_captions(client, run_id, "videos", key, step=number, things=things, captions=texts)


def _film(video: object, rate: object, kind: object, what: str, key: str) -> tuple[list[Any], int]:
    """Return the frames of an array as images, and how long each is shown, in milliseconds."""
    if kind not in {"gif", ".gif", None}:
        raise InvalidValueError(
            f"{what} of {key!r} is an array, which is stored as 'gif', not as {kind!r}. For another format, write the "
            "file and give its path.",
            key,
        )
    if not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        raise InvalidValueError(f"{what} of {key!r} has fps={rate!r}. Expected are the frames a second, e.g. 4.", key)
    array = as_array(video, _FEATURE)
    if array is None:
        raise InvalidValueError(
            f"{what} of {key!r} is of the type {type(video).__name__}. Expected is the path of a file, an array or a "
            "tensor.",
            key,
        )
    numpy, pil = package("numpy", _FEATURE), package("PIL.Image", _FEATURE)
    axis = next((axis for axis in (1, -1) if array.ndim == 4 and array.shape[axis] in _CHANNELS), None)  # noqa: PLR2004
    if axis is None or 0 in array.shape:
        raise InvalidValueError(
            f"{what} of {key!r} has the shape {tuple(array.shape)}. Expected is time x channels x height x width, or "
            "time x height x width x channels, with 1, 3 or 4 channels.",
            key,
        )
    levels = numpy.moveaxis(gray_levels(array, what, key), axis, -1)
    frames = [pil.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in levels]
    return frames, max(_SHORTEST_FRAME, round(1000 / rate))
