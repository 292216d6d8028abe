"""Whether a browser's request comes from one of our own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.datastructures import Headers

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_own_page(headers: Headers) -> bool:
    """Tell whether a page of this very host and port sent the request.

    Browsers send ``Origin`` with every form and every cross-origin script request; pages cannot forge it. The scheme is
    not compared, because behind a proxy the platform may not know its own.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    host = headers.get("host", "").lower()
    return bool(host) and origin.lower() in {f"http://{host}", f"https://{host}"}


def may_use_cookie(method: str, headers: Headers) -> bool:
    """Tell whether a request may use the browser's cookie.

    Changing something takes a page of our own. Reading is open to links from anywhere, but not to another site's
    scripts: another port of localhost is the same site, so that the cookie's SameSite does not keep it out.
    """
    if method in SAFE_METHODS and "origin" not in headers:
        return True
    return is_own_page(headers)
