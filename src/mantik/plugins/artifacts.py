"""Artifacts of the claimed platform: copied into the spool before the call returns, uploaded beside the training."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.store.artifact.artifact_repo import verify_artifact_path
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking._tracking_service.utils import get_tracking_uri
from mlflow.utils.file_utils import relative_path_to_artifact_path

from mantik.delivery import aside
from mantik.delivery.ids import UnresolvedError
from mantik.delivery.registry import outbox_for
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError

if TYPE_CHECKING:
    from mantik.delivery.outbox import Outbox

__all__ = ["MantikArtifacts", "repository_for"]

_ASK_TIMEOUT = (5.0, 5.0)
_ASSUMED = "mlflow-artifacts:/mantik-run/"


def repository_for(artifact_uri: str, *args: Any, **options: Any) -> MantikArtifacts | None:  # noqa: ANN401
    """Return the durable repository for an artifact URI; None where it is not the claimed platform's."""
    tracking_uri = (args[0] if args else options.get("tracking_uri")) or get_tracking_uri()
    host = urlsplit(artifact_uri).netloc
    if host and host != urlsplit(tracking_uri).netloc:
        return None
    if outbox_for(tracking_uri) is None:
        return None
    return MantikArtifacts(artifact_uri, tracking_uri, *args, **options)


class MantikArtifacts(MlflowArtifactsRepository):
    """The artifacts of one run, model or trace. Any thread may call.

    What was logged can be listed and read at once, from the spool or from the platform, wherever it is; what was
    removed can not.

    Args:
        artifact_uri: Where they are, or will be.
        claimed: The tracking URI of the claimed platform.
        *args: What the installed MLflow passes.
        **options: The same by name.
    """

    def __init__(self, artifact_uri: str, claimed: str, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(artifact_uri, *args, **options)
        self._root = f"mlflow-artifacts:{urlsplit(artifact_uri).path}".rstrip("/")
        self._claimed = claimed
        self._rest = (args, options)
        self._stock: MlflowArtifactsRepository | None = None

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Record a file: it may be changed or deleted when this returns."""
        outbox = outbox_for(self._claimed)
        if outbox is None:
            super().log_artifact(local_file, artifact_path)
            return
        verify_artifact_path(artifact_path)
        source = Path(local_file)
        if not source.is_file():
            raise MlflowException(
                f"{local_file} is no file that could be logged as an artifact.", error_code=INVALID_PARAMETER_VALUE
            )
        outbox.record_artifact(posixpath.join(self._root, artifact_path or "", source.name), source)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Record all files of a folder, with the folders in it."""
        if outbox_for(self._claimed) is None:
            super().log_artifacts(local_dir, artifact_path)
            return
        top = Path(local_dir).absolute()
        for root, _, names in os.walk(top):
            below = os.path.relpath(root, top)
            path = artifact_path or ""
            if below != ".":
                path = posixpath.join(path, relative_path_to_artifact_path(below))
            for name in names:
                self.log_artifact(str(Path(root, name)), path or None)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List what is on the platform and what waits for it."""
        outbox = outbox_for(self._claimed)
        if outbox is None:
            return list(super().list_artifacts(path))
        aside.wait_for()
        # Asked for before the platform is: what arrives in between is then at worst in both.
        staged, removals = outbox.staged.below(self._root), outbox.staged.removals()
        found = {
            info.path: info
            for info in self._listed(outbox, path)
            if not any(removal.covers(f"{self._root}/{info.path}") for removal in removals)
        }
        prefix = f"{path.strip('/')}/" if path else ""
        for file in staged:
            if not file.path.startswith(prefix):
                continue
            name, _, deeper = file.path[len(prefix) :].partition("/")
            if name:
                size = None if deeper else file.size
                found[prefix + name] = FileInfo(prefix + name, bool(deeper), size)
        return sorted(found.values(), key=lambda info: info.path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Record that a file, a folder with all that is in it, or everything is to be removed."""
        outbox = outbox_for(self._claimed)
        if outbox is None:
            super().delete_artifacts(artifact_path)
            return
        path = artifact_path or ""
        # The end of a folder's name; a slash alone is none.
        path = path.rstrip("/") or path
        verify_artifact_path(path)
        outbox.record_removal(posixpath.join(self._root, path))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        outbox = outbox_for(self._claimed)
        if outbox is None:
            super()._download_file(remote_file_path, local_path)
            return
        aside.wait_for()
        if self._copied(outbox, remote_file_path, local_path):
            return
        uri = posixpath.join(self._root, remote_file_path)
        if any(removal.covers(uri) for removal in outbox.staged.removals()):
            raise MlflowException(f"The artifact {remote_file_path} was removed.", error_code=RESOURCE_DOES_NOT_EXIST)
        # Asked first with a short time limit: MLflow's own request would try for minutes.
        stock = self._on_server(outbox) if outbox.answers() else None
        if stock is None:
            raise MlflowException(
                f"The artifact {remote_file_path} is not here, and the platform at {outbox.uri} cannot be asked.",
                error_code=TEMPORARILY_UNAVAILABLE,
            )
        stock._download_file(remote_file_path, local_path)  # noqa: SLF001  # MLflow's seam for subclasses

    def _copied(self, outbox: Outbox, path: str, local_path: str) -> bool:
        """Copy a file that waits; tell whether one does."""
        tried: str | None = None
        while True:
            name = outbox.staged.at(self._root, path)
            if name is None or name == tried:
                return False
            with contextlib.suppress(FileNotFoundError):
                # FileNotFoundError: uploaded a moment ago, or logged again.
                shutil.copyfile(outbox.outgoing.staging.path(name), local_path)
                return True
            tried = name

    def _listed(self, outbox: Outbox, path: str | None) -> list[FileInfo]:
        """List what the platform has; nothing where it cannot be asked or has no such run yet."""
        if outbox.is_down:
            return []
        stock = self._on_server(outbox)
        if stock is None:
            return []
        _, _, root = stock.artifact_uri.partition("/mlflow-artifacts/artifacts")
        root = root.strip("/")
        query = {"path": posixpath.join(root, path) if path else root}
        api = MlflowApi(outbox.uri, outbox.auth)
        try:
            content = api.call("GET", "/api/2.0/mlflow-artifacts/artifacts", query, timeout=_ASK_TIMEOUT)
        except RefusedError:
            return []
        except UnavailableError:
            outbox.note_down()
            return []
        finally:
            api.close()
        files = [
            FileInfo(
                posixpath.join(path, item["path"]) if path else item["path"],
                item["is_dir"],
                int(item["file_size"]) if "file_size" in item else None,
            )
            for item in content.get("files", ())
        ]
        # For a path that is a file MLflow's contract is an empty list.
        if path and len(files) == 1 and not files[0].is_dir and files[0].path.endswith(f"/{posixpath.basename(path)}"):
            return []
        return files

    def _on_server(self, outbox: Outbox) -> MlflowArtifactsRepository | None:
        """Return the repository of the same run or model on the server; None while it is not there."""
        if self._stock is None:
            try:
                root = outbox.identities.translate(self._root)
                if root.startswith(_ASSUMED):
                    root = self._asked_root(outbox, root.removeprefix(_ASSUMED).partition("/")[0])
            except UnresolvedError:
                return None
            if not root.startswith("mlflow-artifacts:"):
                return None
            args, options = self._rest
            self._stock = MlflowArtifactsRepository(root, *args, **options)
        return self._stock

    def _asked_root(self, outbox: Outbox, run_id: str) -> str:
        api = MlflowApi(outbox.uri, outbox.auth)
        try:
            return str(
                api.call("GET", "runs/get", {"run_id": run_id}, timeout=_ASK_TIMEOUT)["run"]["info"]["artifact_uri"]
            )
        except (RefusedError, UnavailableError):
            return ""
        finally:
            api.close()
