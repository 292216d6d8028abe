"""What a ``ModelCheckpoint`` keeps, in words that every adapter shares."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mantik.training.checkpoints import Checkpoint
from mantik.training.identity import RunIdentity, identity_in
from mantik.training.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from lightning.pytorch import Trainer

__all__ = ["checkpoint_to_load", "checkpoints_of", "folder_of", "identity_at"]

_SETTINGS = ("monitor", "mode", "save_last", "save_top_k", "save_weights_only")


def folder_of(callback: Any) -> Path | None:  # noqa: ANN401  # any checkpoint callback, also by weak reference
    """Return the local folder of a callback's checkpoints; None where it has none on this machine."""
    folder = getattr(callback, "dirpath", None)
    if not folder or "://" in str(folder):
        return None
    return Path(folder)


def checkpoints_of(callback: Any, moments: Mapping[str, Mapping[str, int]]) -> list[Checkpoint]:  # noqa: ANN401
    """Return all checkpoints that a callback keeps, best and last among them.

    Args:
        callback: A ``ModelCheckpoint``, or a callback that has its attributes.
        moments: Epoch and step at which each file was saved, as far as they are known.
    """
    best = getattr(callback, "best_model_path", "")
    last = getattr(callback, "last_model_path", "")
    scores: dict[str, Any] = dict(getattr(callback, "best_k_models", {}))
    monitored = getattr(callback, "monitor", None) is not None
    if best:
        scores.setdefault(best, getattr(callback, "best_model_score", None))
    if last:
        scores.setdefault(last, getattr(callback, "current_score", None))
    last = last or _newest(scores)
    # Without a metric "best" is Lightning's word for the latest.
    aliases = {path: _aliases(path, best if monitored else "", last) for path in scores}
    settings = {name: getattr(callback, name) for name in _SETTINGS if hasattr(callback, name)}
    return [
        Checkpoint(Path(path), aliases[path], _number(score), {"checkpoint": settings, **moments.get(path, {})})
        for path, score in scores.items()
    ]


def checkpoint_to_load(trainer: Trainer) -> str | None:
    """Return the checkpoint that a Trainer is about to go on from; None without one.

    Which it is decides in which run and folder the new checkpoints belong, and so has to be known when callbacks are
    set up. `trainer.ckpt_path` tells it only afterwards. Until then it is an argument of ``Trainer._run``, which is
    looked up where it is: further up on the stack.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # what inspect.currentframe returns, and never None
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer:
            path = frame.f_locals.get("ckpt_path")
            return None if path is None else str(path)
        frame = frame.f_back
    return None


def identity_at(path: str) -> RunIdentity | None:
    """Return the run that a checkpoint comes from: what it says itself, or the file beside it; None where none does."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    with contextlib.suppress(OSError):
        filesystem, place = url_to_fs(str(path))
        if filesystem.isfile(place):
            with filesystem.open(place, "rb") as file:
                identity = identity_in(file)
            if identity is not None:
                return identity
    local = Path(path).absolute()
    for folder in list(local.parents)[:3]:
        # A name with slashes lies some folders deeper.
        identity = Sidecar(folder).identity_of(local.relative_to(folder).as_posix())
        if identity is not None:
            return identity
    return None


def _aliases(path: str, best: str, last: str) -> tuple[str, ...]:
    return tuple(alias for alias, of in (("best", best), ("last", last)) if of == path)


def _newest(paths: Mapping[str, Any]) -> str:
    newest, when = "", -1.0
    for path in paths:
        with contextlib.suppress(OSError):
            changed = Path(path).stat().st_mtime
            if changed >= when:
                newest, when = path, changed
    return newest


def _number(score: Any) -> float | None:  # noqa: ANN401  # a tensor, a number, nothing
    return None if score is None else float(score)
