"""The log of a job, line by line, also while it is written."""

from __future__ import annotations

import codecs
import re
import time
from typing import TYPE_CHECKING

from mantik.compute.job import ENDED
from mantik.compute.patience import Patience
from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.compute.service import Service

__all__ = ["read_log"]

_CHUNK_BYTES = 64 * 1024
_LONGEST_LINE = 1024 * 1024
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")
"""A progress bar ends its lines with a carriage return alone; whether one at the end is alone is not known yet."""


def read_log(service: Service, path: str, *, follow: bool, poll: float) -> Iterator[str]:
    """Yield the lines of a log, each with its end; put together they are the log.

    Args:
        service: The compute backend.
        path: Where the log is there.
        follow: Go on until the job has ended, and sit out outages of the service. A line that is not finished when
            nothing more comes is yielded as it is.
        poll: Seconds between two looks.

    Raises:
        MantikError: The service refused; without ``follow`` also that it does not answer.
    """
    reader, patience, offset = _Lines(), Patience(), 0
    while True:
        before, state = offset, ""
        try:
            with service.stream(path, offset=offset) as answer:
                state = answer.headers.get("Mantik-Job-State", "")
                for chunk in answer.iter_content(_CHUNK_BYTES):
                    offset += len(chunk)
                    yield from reader.feed(chunk)
            patience.over()
        except MantikError as error:
            if not follow:
                raise
            patience.bear(error)
            time.sleep(poll)
            continue
        has_ended = state in ENDED and offset == before
        if has_ended or not follow:
            yield from reader.rest(is_end=True)
            return
        if state in ENDED:
            # What was written between the look at the state and the look at the log comes with the next one.
            continue
        if offset == before:
            yield from reader.rest()
        time.sleep(poll)


class _Lines:
    """Makes lines of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Take the next bytes and yield the lines that are finished now."""
        text, end = self._pending + self._decoder.decode(chunk), 0
        for line_end in _LINE_END.finditer(text):
            begin, end = end, line_end.end()
            yield text[begin:end]
        self._pending = text[end:]
        if len(self._pending) > _LONGEST_LINE:
            yield from self.rest()

    def rest(self, *, is_end: bool = False) -> Iterator[str]:
        """Yield what is there of a line that is not finished."""
        text = self._pending + self._decoder.decode(b"", final=is_end)
        self._pending = ""
        if text:
            yield text
