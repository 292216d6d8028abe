"""Images and figures among the artifacts of a run."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from mantik.exceptions import InvalidValueError
from mantik.training.arguments import as_list, as_step, captions_for
from mantik.training.picture_files import write_picture
from mantik.training.pixels import as_picture, figure_of, is_image
from mantik.training.places import file_name, new_artifact, place
from mantik.training.table_files import write_captions

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["log_figure", "log_images"]


def log_images(  # noqa: PLR0913  # what belongs to images; most calls give few of them
    client: MlflowClient,
    run_id: str,
    key: str,
    images: object,
    *,
    step: int | None = None,
    captions: object = None,
) -> None:
    """Log images; on the run's page each is a chart with a slider for the steps.

    One image is shown under the key; of several in one call each has a number: ``samples/00``, ``samples/01``, and so
    on, under one heading. They are stored whole and small, in MLflow's format for images with steps.

    Args:
        client: The client.
        run_id: The run.
        key: What the images are called.
        images: A list, or one alone. An image is the path of a file, an image of Pillow or of MLflow, a figure or axes
            of matplotlib, or an array or tensor: of the shape height x width, or with 1, 3 or 4 channels, which are the
            last axis of an array and the first of a tensor of torch; where only the other one can be, that is taken. An
            array with four axes is a list of images. Whole numbers are levels from 0 to 255, others and bool from 0
            to 1; where one of an image's values lies outside of that, the lowest becomes black and the highest white.
            NaN is black.
        step: The training step; MLflow shows None as 0.
        captions: A text for each image. MLflow's charts have no room for it, so the images with their captions are also
            a table: ``captions/images/<key>.json``, or ``captions/images/<key>/step-<8 digits>.json``.

    Raises:
        InvalidValueError: An image is none, there are not as many captions as images, or the step is no whole number.
            Nothing has been logged then.
        MissingExtraError: pillow, or for arrays numpy, is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    name, number = file_name(key), as_step(step, key)
    given = as_list(images, key, several=4)
    texts = captions_for(captions, len(given), key)
    pictures = [as_picture(image, f"image {at}", key) for at, image in enumerate(given)]
    # MLflow reads all of this from the file's name, which has no folders.
    flat, moment = name.replace("/", "~"), time.time_ns() // 1_000_000
    cells = []
    for at, picture in enumerate(pictures):
        own = f"{flat}~{at:02d}" if len(pictures) > 1 else flat
        path = f"images/{own}+step+{number or 0}+timestamp+{moment}+{uuid.uuid4()}"
        cells.append(write_picture(client, run_id, picture, path, f"{path}+compressed"))
    if not cells:
        return
    client.set_tag(run_id, "mlflow.loggedImages", "True")
    if texts is not None:
        write_captions(client, run_id, "images", key, step=number, things=cells, captions=texts)


def log_figure(client: MlflowClient, run_id: str, key: str, figure: object, step: int | None = None) -> None:
    """Log a figure as ``figures/<key>.png``, or ``figures/<key>/step-<8 digits>.png``; one of plotly as ``.html``.

    Args:
        client: The client.
        run_id: The run.
        key: What the figure is called.
        figure: A figure or axes of matplotlib, a figure of plotly, or an image of Pillow. It stays open.
        step: The training step; None: no step in the path.

    Raises:
        InvalidValueError: It is none of these, or the step is no whole number. Nothing has been logged then.
        MissingExtraError: pillow is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    number = as_step(step, key)
    page = getattr(figure, "write_html", None)
    if callable(page):
        with new_artifact(client, run_id, place("figures", key, number, ".html")) as file:
            # The whole of plotly's script would be 4 MB in each file.
            page(str(file), include_plotlyjs="cdn")
        return
    drawn = figure_of(figure)
    if drawn is not None:
        with new_artifact(client, run_id, place("figures", key, number, ".png")) as file:
            drawn.savefig(file, format="png")
        return
    if not is_image(figure):
        raise InvalidValueError(
            f"The figure {key!r} is of the type {type(figure).__name__}. Expected is a figure of matplotlib or plotly, "
            "or an image of Pillow. Files, arrays and tensors belong into log_image.",
            key,
        )
    picture = as_picture(figure, "the figure", key)
    with new_artifact(client, run_id, place("figures", key, number, ".png")) as file:
        picture.save(file)
