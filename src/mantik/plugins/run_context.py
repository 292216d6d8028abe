"""Tags that every run gets: who the platform user is."""

from __future__ import annotations

__all__ = ["MantikRunContextProvider"]


class MantikRunContextProvider:
    """MLflow's run context provider: ``mlflow.user`` is the platform user, not the account on the machine."""

    def in_context(self) -> bool:
        """Tell whether MLflow points at the claimed platform and its user is known."""
        return _username() is not None

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that starts now."""
        username = _username()
        return {"mlflow.user": username} if username is not None else {}


def _username() -> str | None:
    from mantik.auth.login import token_source
    from mantik.settings import Settings

    settings = Settings.from_environment()
    if settings.claim is None or (settings.tracking_uri or "").rstrip("/") != settings.claim:
        return None
    return token_source(settings.for_claim()).username
