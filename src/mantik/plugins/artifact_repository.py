"""Artifacts behind ``mlflow-artifacts:``: staged for the claimed platform, MLflow's own for all other servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

__all__ = ["build_repository"]


def build_repository(artifact_uri: str, *args: Any, **options: Any) -> ArtifactRepository:  # noqa: ANN401
    """Return the repository for an artifact URI; MLflow calls this once per run or model.

    Args:
        artifact_uri: The artifact URI.
        *args: Tracking and registry URI, as far as the installed MLflow passes them.
        **options: The same by name.
    """
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    try:
        from mantik.plugins.artifacts import repository_for

        repository = repository_for(artifact_uri, *args, **options)
        if repository is not None:
            return repository
    except Exception as error:  # noqa: BLE001  # the one guard: whatever is wrong here must not take MLflow away
        import logging

        logging.getLogger(__name__).warning("Artifacts go on without durable delivery: %s", error)
    return MlflowArtifactsRepository(artifact_uri, *args, **options)
