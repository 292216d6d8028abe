"""``MLFLOW_TRACKING_AUTH=mantik``: a fresh bearer token on every request of MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests.auth import AuthBase

__all__ = ["MantikRequestAuthProvider"]


class MantikRequestAuthProvider:
    """MLflow's request auth provider named ``mantik``; asked once per request."""

    def get_name(self) -> str:
        """Return the name that ``MLFLOW_TRACKING_AUTH`` selects."""
        return "mantik"

    def get_auth(self) -> AuthBase:
        """Return what puts the token on the request that is being made.

        Raises:
            ConfigurationError: The environment was changed since ``init_tracking()`` and does not make sense any more.
        """
        from mantik.auth.bearer import claimed_auth

        return claimed_auth()
