"""Which URL may get credentials: decided from the configuration alone, before any request.

The rules are those of the platform contract, section 9: credentials go to exactly one URL, no second layout is tried
after a failure, no other host is ever derived, and nothing secret travels unencrypted except on loopback.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from mantik.exceptions import EndpointError, MissingSettingsError

if TYPE_CHECKING:
    from mantik.settings import Settings

__all__ = ["Origin", "TokenEndpoint", "is_local", "normalise_tracking_uri", "platform_origin", "token_endpoint"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql", "oracle"})
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")
_EXAMPLE = "https://test.cloud.mantik.ai"


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token is bound to.

    Attributes:
        scheme: ``http`` or ``https``.
        host: In lower case, without the brackets of an IPv6 address.
        port: The effective port, also where the URL leaves it to the scheme.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """Return the origin of an http(s) URL, or None where there is none."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return None
        scheme = parts.scheme.lower()
        if scheme not in _DEFAULT_PORTS or not parts.hostname:
            return None
        return cls(scheme, parts.hostname.lower(), port if port is not None else _DEFAULT_PORTS[scheme])

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine itself."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """The one place that gets the credentials.

    Attributes:
        base: URL in front of ``/create`` and ``/refresh``, without a trailing slash.
    """

    base: str

    @property
    def create_url(self) -> str:
        """Where user name and password are exchanged for tokens."""
        return f"{self.base}/create"

    @property
    def refresh_url(self) -> str:
        """Where a refresh token is exchanged for a new access token."""
        return f"{self.base}/refresh"


def is_local(uri: str) -> bool:
    """Tell whether a tracking URI names a local store (a path, ``file:`` or a database), where nobody logs in.

    A text without a scheme that looks like a host name is not local: ``test.cloud.mantik.ai`` lacks its ``https://``,
    and MLflow would silently make a folder of that name.
    """
    scheme, separator, _ = uri.partition(":")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):
        return scheme.lower() == "file" or scheme.lower().partition("+")[0] in _DATABASES
    if uri in {"databricks", "localhost"}:
        return False
    return uri.startswith(("/", "./", "../", "~", ".")) or Path(uri).exists() or "." not in uri.partition("/")[0]


def normalise_tracking_uri(uri: str, *, allow_http: bool = False, name: str = "MLFLOW_TRACKING_URI") -> str:
    """Check a platform's tracking URI and write it the one way: no trailing and no double slash, host in lower case.

    Args:
        uri: ``MLFLOW_TRACKING_URI`` as the user wrote it.
        allow_http: Whether http is allowed to hosts other than loopback.
        name: What the user knows it as, for the error.

    Raises:
        EndpointError: The URI is none that a token may be sent to.
    """
    return _normalised(name, uri, allow_http=allow_http)


def token_endpoint(settings: Settings) -> TokenEndpoint:
    """Resolve the token endpoint (contract, section 9, rules 2 to 6).

    Raises:
        MissingSettingsError: Neither ``MANTIK_API_URL`` nor ``MLFLOW_TRACKING_URI`` is set.
        EndpointError: The URL is none that credentials may be sent to.
    """
    if settings.api_url is not None:
        base = _normalised("MANTIK_API_URL", settings.api_url, allow_http=settings.allow_http)
        return TokenEndpoint(f"{base}/mantik/tokens")
    if settings.tracking_uri is None:
        raise MissingSettingsError(
            f"No platform is configured: set MLFLOW_TRACKING_URI to its base URL, e.g. {_EXAMPLE}.",
            ("MLFLOW_TRACKING_URI",),
        )
    uri = normalise_tracking_uri(settings.tracking_uri, allow_http=settings.allow_http)
    parts = urlsplit(uri)
    if (parts.hostname or "").startswith("tracking") and (parts.hostname or "").endswith(".cloud.mantik.ai"):
        raise EndpointError(
            f"MLFLOW_TRACKING_URI={uri} serves tracking only; tokens come from another host, which mantik does not "
            f"guess. "
            "Set MANTIK_API_URL=https://api.cloud.mantik.ai as well."
        )
    if not parts.path:
        return TokenEndpoint(f"{uri}/api/mantik/tokens")
    if parts.path == "/tracking":
        return TokenEndpoint(f"{uri.removesuffix('/tracking')}/mantik/tokens")
    raise EndpointError(
        f"MLFLOW_TRACKING_URI={uri} has the path {parts.path!r}, so it does not tell where tokens are issued. "
        f"Give the base URL alone, e.g. {parts.scheme}://{parts.netloc}, or name the API with MANTIK_API_URL."
    )


def platform_origin(uri: str, *, allow_http: bool = False, name: str = "MLFLOW_TRACKING_URI") -> Origin:
    """Return the origin of a platform's tracking URI, which has to pass the same checks as anywhere else.

    Args:
        uri: The tracking URI, or another URL of the platform.
        allow_http: Whether http is allowed to hosts other than loopback.
        name: What the URL is called in a message.

    Raises:
        EndpointError: The URI is none that a token may be sent to.
    """
    return _checked(name, uri, allow_http=allow_http)[1]


def _normalised(name: str, url: str, *, allow_http: bool) -> str:
    parts, origin = _checked(name, url, allow_http=allow_http)
    shown = f"[{origin.host}]" if ":" in origin.host else origin.host
    port = f":{parts.port}" if parts.port is not None else ""
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    return f"{origin.scheme}://{shown}{port}{path}"


def _checked(name: str, url: str, *, allow_http: bool) -> tuple[SplitResult, Origin]:
    parts = _split(name, url)
    host = parts.hostname or ""
    origin = Origin.of(url)
    if origin is None:
        raise EndpointError(f"{name} has no host: expected a URL such as {_EXAMPLE}.")
    if origin.scheme == "http" and not origin.is_loopback and not allow_http:
        raise EndpointError(
            f"{name} begins with http://, and {host} is not this machine: credentials would travel unencrypted. "
            "Use https://, or set MANTIK_ALLOW_HTTP=1 if that network is trusted."
        )
    return parts, origin


def _split(name: str, url: str) -> SplitResult:
    """Split a URL and refuse what must never receive credentials, without repeating what may be secret in it."""
    if url == "databricks" or url.startswith("databricks:"):
        raise EndpointError(
            f"{name} points at Databricks, which has its own login. Expected a mantik platform, e.g. {_EXAMPLE}."
        )
    if re.search(r"[\s\\\x00-\x1f\x7f]", url):
        raise EndpointError(
            f"{name} contains a blank, a backslash or a control character. Expected a URL such as {_EXAMPLE}."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EndpointError(f"{name} is not a valid URL ({error}). Expected e.g. {_EXAMPLE}.") from None
    if "@" in (parts.netloc or url):
        raise EndpointError(
            f"{name} contains user information in front of the host, which ends up in logs and process lists. "
            "Remove it and set MANTIK_USERNAME and MANTIK_PASSWORD instead."
        )
    if parts.scheme.lower() not in _DEFAULT_PORTS:
        raise EndpointError(f"{name}={_scheme_only(url)} is no http(s) URL. {_scheme_hint(url)}")
    if "?" in url or "#" in url:
        raise EndpointError(f"{name} has a query or a fragment ('?' or '#'). Give the base URL alone, e.g. {_EXAMPLE}.")
    if port == 0:
        raise EndpointError(f"{name} names port 0, which no server has. Expected a port from 1 to 65535, or none.")
    host = parts.hostname or ""
    if not host:
        raise EndpointError(f"{name} has no host: expected a URL such as {_EXAMPLE}.")
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        raise EndpointError(
            f"{name} has the host {host!r}, which is not a valid host name. Write international names in their 'xn--' "
            f"form."
        )
    return parts


def _scheme_only(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return f"{scheme}{separator}..." if separator else repr(url)


def _scheme_hint(url: str) -> str:
    if "://" in url:
        return f"Expected a platform such as {_EXAMPLE}."
    scheme = "http" if re.match(r"(localhost|127\.[0-9.]+)(:|/|$)", url) else "https"
    return f"Did you mean {scheme}://{url.lstrip('/')} ?"
