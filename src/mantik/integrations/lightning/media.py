"""Pictures, tables, texts, sounds and films of a training, with the signatures of Lightning's ``WandbLogger``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mantik.integrations.lightning.namespace import rank
from mantik.training import pictures, sound, tables, video

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from mlflow import MlflowClient

    from mantik.integrations.lightning.session import Session

__all__ = ["MediaMethods"]


class MediaMethods:
    """The methods of a `MantikLogger` for all that is no number. On other ranks than zero they do nothing."""

    _session: Session

    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, caption: Sequence[str] | None = None
    ) -> None:
        """Record pictures, which MLflow shows in a grid with a slider for the steps.

        Args:
            key: What they show, e.g. ``"val/wrong"``.
            images: Paths of image files, PIL images, matplotlib figures, arrays (height, width[, 1, 3 or 4]) or tensors
                ([1, 3 or 4,] height, width): ``uint8`` from 0 to 255, or floats from 0 to 1.
            step: Their step. Default: 0.
            caption: One text for each.

        Raises:
            InvalidValueError: Something is no picture, or of a wrong shape; the error says which and why.
        """
        if rank() == 0:
            client, run_id = self._place()
            pictures.log_images(client, run_id, key, images, step=step, captions=caption)

    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,  # noqa: ANN401  # pandas is optional
        step: int | None = None,
    ) -> None:
        """Record a table, which MLflow shows as one and ``mlflow.load_table`` reads.

        Args:
            key: What it tells.
            columns: Names of the columns.
            data: Rows; cells may be pictures.
            dataframe: A pandas data frame instead of columns and rows.
            step: Its step; each has a table of its own.

        Raises:
            InvalidValueError: It is no table; the error says why.
        """
        if rank() == 0:
            client, run_id = self._place()
            tables.log_table(client, run_id, key, columns=columns, data=data, dataframe=dataframe, step=step)

    def log_text(
        self,
        key: str,
        columns: list[str] | str | None = None,
        data: list[list[str]] | None = None,
        dataframe: Any = None,  # noqa: ANN401  # pandas is optional
        step: int | None = None,
    ) -> None:
        """Record a text as a file, or a table of texts.

        Args:
            key: What it is about.
            columns: The text, or the names of the table's columns.
            data: Rows of a table.
            dataframe: A pandas data frame instead of columns and rows.
            step: Its step; each has a text of its own.

        Raises:
            InvalidValueError: It is neither; the error says why.
        """
        if rank() == 0:
            client, run_id = self._place()
            tables.log_text(client, run_id, key, columns=columns, data=data, dataframe=dataframe, step=step)

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:  # noqa: ANN401  # of several libraries
        """Record a figure of matplotlib or plotly, or a PIL image, as one file.

        Args:
            key: What it shows.
            figure: The figure.
            step: Its step; each has a file of its own.

        Raises:
            InvalidValueError: It is no figure.
        """
        if rank() == 0:
            client, run_id = self._place()
            pictures.log_figure(client, run_id, key, figure, step=step)

    def log_audio(
        self,
        key: str,
        audios: Sequence[Any],
        step: int | None = None,
        sample_rate: int | Sequence[int] | None = None,
        caption: Sequence[str] | None = None,
    ) -> None:
        """Record sounds.

        Args:
            key: What they are.
            audios: Paths of files; arrays or tensors (samples[, channels]) of floats from -1 to 1 or of ``int16``.
            step: Their step.
            sample_rate: Samples a second, for arrays; one number for all, or one for each.
            caption: One text for each.

        Raises:
            InvalidValueError: Something is no sound; the error says which and why.
        """
        if rank() == 0:
            client, run_id = self._place()
            sound.log_audio(client, run_id, key, audios, step=step, sample_rate=sample_rate, captions=caption)

    def log_video(  # noqa: PLR0913, PLR0917  # what belongs to a film
        self,
        key: str,
        videos: Sequence[Any],
        step: int | None = None,
        fps: int = 4,
        caption: Sequence[str] | None = None,
        format: str = "gif",  # noqa: A002  # the name of other loggers
    ) -> None:
        """Record films.

        Args:
            key: What they show.
            videos: Paths of files; arrays or tensors (frames, channels, height, width): ``uint8``, or floats from 0 to
                1.
            step: Their step.
            fps: Frames a second, for arrays.
            caption: One text for each.
            format: What arrays become: ``gif``.

        Raises:
            InvalidValueError: Something is no film; the error says which and why.
        """
        if rank() == 0:
            client, run_id = self._place()
            video.log_videos(client, run_id, key, videos, step=step, fps=fps, captions=caption, format=format)

    def log_artifact(self, local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Record a file, or a folder with all that is in it; it may be changed or deleted when this returns.

        Args:
            local_path: The file or folder.
            artifact_path: Artifact folder that gets it. Default: the run's top folder.

        Raises:
            OSError: It cannot be read.
        """
        if rank() == 0:
            self._session.writer.log_file(Path(local_path), artifact_path)

    def _place(self) -> tuple[MlflowClient, str]:
        writer = self._session.writer
        return self._session.run.client, writer.run_id
