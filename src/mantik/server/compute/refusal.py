"""Why a request is refused, in the shapes that clients of the contract know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response

from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class FieldMistake:
    """What is wrong with one field of a form.

    Attributes:
        name: The field.
        text: What is wrong and what was expected.
        kind: One word for programs.
        place: Where the field is: ``body`` or ``path``.
    """

    name: str
    text: str
    kind: str = "value_error"
    place: str = "body"


@dataclass(eq=False)
class RefusedError(MantikError):
    """A request that is not served.

    Attributes:
        status: The HTTP status code of the answer.
        content: Its JSON object.
        headers: Its headers, besides the usual ones.
    """

    status: int
    content: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Show what is answered."""
        return f"{self.status} {dict(self.content)}"

    def response(self) -> Response:
        """Return the answer."""
        return JSONResponse(self.content, self.status, HEADERS | dict(self.headers))


def message(status: int, text: str, *, retry_after: int | None = None) -> RefusedError:
    """Return the refusal of a project, a configuration, an experiment, or of everything: ``{"message": text}``."""
    return RefusedError(status, {"message": text}, {} if retry_after is None else {"Retry-After": str(retry_after)})


def detail(status: int, text: str) -> RefusedError:
    """Return the refusal of a bearer or of a path: ``{"detail": text}``."""
    return RefusedError(status, {"detail": text})


def invalid(mistakes: Sequence[FieldMistake]) -> RefusedError:
    """Return the refusal of a form: 422 with one object for each mistake."""
    content = [{"loc": [found.place, found.name], "msg": found.text, "type": found.kind} for found in mistakes]
    return RefusedError(422, {"detail": content})
