"""Tables as files that MLflow shows as tables."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

from mantik.training.places import new_artifact, place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient

__all__ = ["write_captions", "write_table"]

_TAG = "mlflow.loggedArtifacts"
"""Where MLflow looks which artifacts are tables."""

_LONGEST_TAG = 5000
"""Characters; 8000 from MLflow 2.15 on. A longer one is cut off by the server, and then it is no JSON."""

_OF_STEP = re.compile(r"/step--?\d+\.json$")

_logged: dict[str, list[dict[str, Any]]] = {}
"""What the tag says, by run. Asking the server at each table would let training wait."""

_lock = threading.Lock()


def write_table(
    client: MlflowClient, run_id: str, path: str, columns: Sequence[str], rows: Sequence[list[Any]]
) -> None:
    """Log a table, in MLflow's format for tables.

    MLflow shows as tables, and finds by ``mlflow.load_table``, those that are in a tag of the run. It has room for
    about 80; after that the oldest of those with a step are left out of it. Their files stay.

    The first table of a run in a process asks the server which ones the run has, for at most 5 s; later ones do not.

    Args:
        client: The client.
        run_id: The run.
        path: The path of the file, with the suffix ``.json``.
        columns: The names of the columns.
        rows: The cells, of what JSON can hold; an image as of `mantik.training.picture_files.write_picture`.

    Raises:
        OSError: The folder for temporary files cannot be written.
    """
    content = json.dumps({"columns": list(columns), "data": list(rows)}, ensure_ascii=False, allow_nan=False)
    with new_artifact(client, run_id, path) as file:
        # Texts may hold lone surrogates.
        file.write_bytes(content.encode(errors="replace"))
    entry = {"path": path, "type": "table"}
    with _lock:
        if run_id not in _logged:
            _logged[run_id] = _entries(_tag_of(client, run_id))
        entries = _logged[run_id]
        if entry in entries:
            return
        entries.append(entry)
        while len(json.dumps(entries)) > _LONGEST_TAG and len(entries) > 1:
            del entries[_oldest(entries)]
        client.set_tag(run_id, _TAG, json.dumps(entries))


def write_captions(  # noqa: PLR0913  # what there is of the things, and the things
    client: MlflowClient,
    run_id: str,
    kind: str,
    key: str,
    *,
    step: int | None,
    things: Sequence[object],
    captions: Sequence[str],
) -> None:
    """Log captions as a table below ``captions``, each one beside what it belongs to.

    Args:
        client: The client.
        run_id: The run.
        kind: The folder of the things.
        key: What the training calls them.
        step: The step.
        things: The cells that show them.
        captions: As many texts.
    """
    rows = [[thing, caption] for thing, caption in zip(things, captions, strict=True)]
    columns = [kind.removesuffix("s"), "caption"]
    write_table(client, run_id, place(f"captions/{kind}", key, step, ".json"), columns, rows)


def _tag_of(client: MlflowClient, run_id: str) -> str:
    from mlflow.exceptions import RestException

    try:
        return str(client.get_run(run_id).data.tags.get(_TAG, ""))
    except RestException:
        # What a server refuses to tell must not end a training.
        return ""


def _entries(tag: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(tag)
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _oldest(entries: Sequence[dict[str, Any]]) -> int:
    """Return which entry to leave out: the first with a step, else the first; never the last one, which is new."""
    return next((at for at, entry in enumerate(entries[:-1]) if _OF_STEP.search(str(entry.get("path")))), 0)
