"""Receives the form of a submission: its file goes to the disk while it arrives, its fields are few and short."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool

from mantik.server.compute.multipart import MultipartDecoder, MultipartError
from mantik.server.compute.refusal import FieldMistake, RefusedError, invalid, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

    from mantik.server.compute.multipart import Event, Part

ARCHIVE_FIELD: Final = "mlproject_zip"

_STALL_SECONDS: Final = 60.0
_MOST_PARTS: Final = 32
_MOST_BYTES_OF_FIELDS: Final = 1024 * 1024
_WRITTEN_AT_ONCE: Final = 1024 * 1024


async def receive_form(request: Request, archive: Path, limit: int) -> dict[str, str]:
    """Write the file of the form to ``archive`` and return the other fields.

    Nothing is kept in memory but the fields and a piece of the file. Who sends nothing for a minute is not waited for.

    Args:
        request: The request, of whose body nothing was read.
        archive: A file that is not there yet. After an error it may be there, with a part.
        limit: The most bytes that the file may have.

    Raises:
        RefusedError: The form is none, is incomplete, or is too long.
        ClientDisconnect: The client went away.
        OSError: The file cannot be written.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and float(length) > limit + _MOST_BYTES_OF_FIELDS:
        raise too_large(limit)
    form = _Form(limit)
    try:
        decoder = MultipartDecoder(request.headers.get("content-type", ""))
        with archive.open("xb") as file:
            async for chunk in _chunks(request.stream()):
                for event in decoder.decode(chunk):
                    form.take(event)
                if len(form.waiting) >= _WRITTEN_AT_ONCE:
                    await run_in_threadpool(file.write, form.taken())
            decoder.close()
            await run_in_threadpool(file.write, form.taken())
    except MultipartError as error:
        raise invalid([FieldMistake("form", str(error))]) from error
    if not form.has_archive:
        raise invalid([FieldMistake(ARCHIVE_FIELD, "The file is missing", "missing")])
    return form.fields()


def too_large(limit: int) -> RefusedError:
    """Return the refusal of a file that is longer than it may be."""
    return message(413, f"The archive of the project is too large. Expected at most {limit} bytes.")


class _Form:
    """What was decoded so far."""

    def __init__(self, limit: int) -> None:
        self.has_archive = False
        self.waiting = bytearray()
        self._limit = limit
        self._length = 0
        self._fields: dict[str, bytearray] = {}
        self._length_of_fields = 0
        self._current: bytearray | None = None
        self._parts = 0

    def take(self, event: Event) -> None:
        """Take what the decoder found."""
        if isinstance(event, bytes):
            self._add(event)
            return
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise message(413, f"The form is too long. Expected at most {_MOST_PARTS} fields.")
        self._current = self._begin(event)

    def _begin(self, part: Part) -> bytearray | None:
        """Return where the data of a part goes; files that nobody asked for go nowhere."""
        if not part.is_file:
            if part.name in self._fields:
                raise invalid([FieldMistake(part.name, "The field is there twice")])
            return self._fields.setdefault(part.name, bytearray())
        if part.name != ARCHIVE_FIELD:
            return None
        if self.has_archive:
            raise invalid([FieldMistake(ARCHIVE_FIELD, "The file is there twice")])
        self.has_archive = True
        return self.waiting

    def _add(self, data: bytes) -> None:
        if self._current is self.waiting:
            self._length += len(data)
            if self._length > self._limit:
                raise too_large(self._limit)
        else:
            self._length_of_fields += len(data)
            if self._length_of_fields > _MOST_BYTES_OF_FIELDS:
                raise message(413, f"The form is too long. Expected fields of at most {_MOST_BYTES_OF_FIELDS} bytes.")
        if self._current is not None:
            self._current += data

    def taken(self) -> bytes:
        """Return what is to be written to the file, and forget it."""
        data = bytes(self.waiting)
        self.waiting.clear()
        return data

    def fields(self) -> dict[str, str]:
        """Return the fields as texts."""
        return {name: _text(name, value) for name, value in self._fields.items()}


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid([FieldMistake(name, "The field is no text in UTF-8")]) from None


async def _chunks(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), _STALL_SECONDS)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise message(408, f"Nothing arrived for {_STALL_SECONDS:g} s. Send the project again.") from None
        yield chunk
