"""Credentials that lie around on the machine and would win over the token.

MLflow prefers a user name and password over a token, also those of ``~/.mlflow/credentials``; requests replaces a
bearer header by what
``.netrc`` says. The auth plugin is immune to all of them but the variable for AWS signatures; clients without the
plugin are not.
"""

from __future__ import annotations

import configparser
import netrc
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["conflicting_files"]


def conflicting_files(host: str, netrc_file: Path | None) -> Iterator[str]:
    """Describe each file whose credentials MLflow clients without the plugin would send instead of the token.

    Args:
        host: Host name of the platform.
        netrc_file: ``NETRC``, where that is set; else the two usual places are looked at.

    Yields:
        One sentence per file.
    """
    credentials = Path("~/.mlflow/credentials").expanduser()
    if _has_mlflow_login(credentials):
        yield f"{credentials} holds a user name and password, which MLflow prefers over a token."
    places = [netrc_file] if netrc_file is not None else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    for place in places:
        if _has_netrc_login(place, host):
            yield f"{place} has an entry for {host}, which replaces the token in requests without the plugin."
            return


def _has_mlflow_login(path: Path) -> bool:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return False
    return parser.has_option("mlflow", "mlflow_tracking_username") and parser.has_option(
        "mlflow", "mlflow_tracking_password"
    )


def _has_netrc_login(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return False
