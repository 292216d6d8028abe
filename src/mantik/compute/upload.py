"""Packs what is to be submitted and sends it, if the service says that it would take it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
from typing import TYPE_CHECKING, BinaryIO

from mantik.compute.archive import ARCHIVE_LIMIT, pack
from mantik.compute.mistakes import Mistakes
from mantik.compute.progress import upload_bar
from mantik.compute.service import Package
from mantik.delivery.ledger import size_in_words
from mantik.exceptions import ProjectError, SubmissionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from requests import Response

    from mantik.compute.archive import Archive
    from mantik.compute.service import Service
    from mantik.compute.submission import Submission
    from mantik.secret import Secret

__all__ = ["upload"]

_TOO_LARGE = 413

_logger = logging.getLogger(__name__)


def upload(
    service: Service,
    submission: Submission,
    form: Callable[[Submission, Secret], Mapping[str, str]],
    say: Callable[[str], None],
) -> Response:
    """Submit what has been checked.

    Args:
        service: The compute backend.
        submission: The job.
        form: Makes the form's fields for a token.
        say: Is told what is sent and what is not, in sentences.

    Returns:
        The answer, which is a success; if it got lost, what the service says of the job.

    Raises:
        ProjectError: The archive is larger than the service takes, or cannot be packed.
        MantikError: The service does not take it, or does not answer.
    """
    limit, mistakes, tree = service.archive_limit(), Mistakes(), submission.archive.tree
    submission.archive.check(ARCHIVE_LIMIT if limit is None else limit, mistakes)
    mistakes.raise_if_any("The run cannot be submitted")
    for note in submission.notes:
        _logger.warning(note)
    if submission.config.unused:
        say(f"Without effect on this platform: {', '.join(submission.config.unused)}.")
    say(f"Sending {tree}")
    with _packed(submission.archive) as packed, upload_bar() as progress:
        size = packed.seek(0, os.SEEK_END)
        job_id = "" if limit is None else str(uuid.uuid4())
        package = Package(
            submission.experiment_id, job_id, lambda token: form(submission, token), packed, size, progress
        )
        try:
            return service.submit(package)
        except SubmissionError as error:
            if error.status != _TOO_LARGE:
                raise
            largest = ", ".join(map(str, tree.largest))
            raise SubmissionError(f"{error} Largest: {largest}", error.url, error.status) from None


@contextlib.contextmanager
def _packed(archive: Archive) -> Iterator[BinaryIO]:
    """Pack a project into a file that is gone afterwards."""
    with contextlib.ExitStack() as opened:
        try:
            file = tempfile.TemporaryFile(prefix="mantik-")  # noqa: SIM115  # closed in a way of its own
            # Closing writes what is left, which fails once more where there is no space.
            opened.callback(_close, file)
            pack(archive, file)
            file.flush()
        except OSError as error:
            raise ProjectError(
                f"The project cannot be packed in the folder for temporary files ({error.strerror}). Set TMPDIR to a "
                f"folder with {size_in_words(archive.size)} of space."
            ) from None
        yield file


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        file.close()
