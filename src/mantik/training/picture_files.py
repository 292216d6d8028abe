"""One image as two files: the image itself, and a small one for MLflow's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mantik.training.arrays import package
from mantik.training.places import new_artifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

__all__ = ["picture_cell", "write_picture"]

_SMALL_SIZE = 256
"""Pixels of the longer side; as of MLflow's own."""

_FASTEST: dict[str, Any] = {"compress_level": 1, "method": 0}
"""PNG is 7 times as fast as by default and a tenth larger; the second is for WebP."""


def write_picture(client: MlflowClient, run_id: str, image: Image, path: str, small: str) -> dict[str, str]:
    """Log an image and a small version of it, and return what shows it in a table.

    Args:
        client: The client.
        run_id: The run.
        image: The image, in a mode that PNG knows.
        path: The path of the file, without suffix.
        small: The path of the small one, without suffix.

    Raises:
        OSError: The folder for temporary files cannot be written.
    """
    path += ".png"
    small += ".webp" if package("PIL.features", "To log images").check("webp") else ".png"
    with new_artifact(client, run_id, path) as file:
        image.save(file, **_FASTEST)
    with new_artifact(client, run_id, small) as file:
        _small(image).save(file, **_FASTEST)
    return picture_cell(path, small)


def picture_cell(path: str, small: str) -> dict[str, str]:
    """Return what the cell of a table holds where MLflow is to show an image.

    Args:
        path: The artifact with the image.
        small: The one with a small version of it.
    """
    return {"type": "image", "filepath": path, "compressed_filepath": small}


def _small(image: Image) -> Image:
    filters = package("PIL.Image", "To log images").Resampling
    longer = max(image.size)
    width, height = (max(1, round(side * _SMALL_SIZE / longer)) for side in image.size)
    has_alpha = image.mode in {"LA", "RGBA"} or "transparency" in image.info
    plain = image.convert("RGBA" if has_alpha else "RGB")
    # MLflow's pages show it as large as this one is: the pixels of a tiny image are to be seen.
    return plain.resize((width, height), filters.NEAREST if longer < _SMALL_SIZE else filters.BICUBIC)
