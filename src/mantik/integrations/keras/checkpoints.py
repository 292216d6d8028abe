"""The checkpoints of a Keras training: saved by the callback itself, or by the user's ``ModelCheckpoint`` callbacks."""

from __future__ import annotations

import glob
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]

from mantik.training.checkpoints import Checkpoint, Shelf
from mantik.training.sidecar import Sidecar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mantik.integrations.keras.best import Best
    from mantik.integrations.keras.kinds import Callback, Model
    from mantik.training.run import TrackedRun

__all__ = ["Collector", "Saver", "files_of"]

_logger = logging.getLogger(__name__)

_FIELD = re.compile(r"\{[^{}]*\}")


class Saver:
    """Saves a model every so often, as the last and as the best, and uploads both. For one thread.

    Files are whole at any moment: each is written under another name and then put in the place of the one before.

    Args:
        run: The run.
        best: Which epoch is the best.
        save_freq: ``epoch``, or a number of batches.
        best_only: Save only the best.
        weights_only: Save weights without the model.
    """

    def __init__(
        self, run: TrackedRun, best: Best, save_freq: str | int, *, best_only: bool, weights_only: bool
    ) -> None:
        self._run = run
        self._best = best
        self._best_only = best_only
        self._weights_only = weights_only
        self._suffix = ".weights.h5" if weights_only else ".keras"
        self._every = None if save_freq == "epoch" else int(save_freq)
        self._shelf = Shelf(run, "checkpoints")
        self._place: Path | None = None
        self._saved: dict[str, dict[str, Any]] = {}
        self._batch: int | None = None

    @property
    def folder(self) -> Path:
        """Local folder of the checkpoints; a temporary one where the working directory is not ours to write into.

        Raises:
            OSError: There is none either.
        """
        if self._place is None:
            place = Path("keras_logs", str(self._run.experiment_id), str(self._run.run_id), "checkpoints").absolute()
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                place = Path(tempfile.mkdtemp(prefix="mantik-"), "checkpoints")
                place.mkdir()
                _logger.warning(
                    "The working directory cannot be written (%s): checkpoints are saved in %s.", error.strerror, place
                )
            self._place = place
        return self._place

    def begin(self) -> None:
        """Take over what an earlier attempt of the run has saved, so that nothing worse takes the place of its best.

        Raises:
            OSError: Nothing can be saved.
        """
        for alias in ("last", "best"):
            path = self.path(alias)
            about = Sidecar(self.folder).entries().get(path.name, {}).get("about")
            if alias not in self._saved and about is not None and path.exists():
                self._saved[alias] = {key: about[key] for key in ("epoch", "global_step", "score") if key in about}
        match self._saved.get("best"):
            case {"score": float(score), "epoch": int(epoch)} if self._best.score is None:
                self._best.score, self._best.epoch = score, epoch

    def path(self, alias: str) -> Path:
        """Return the local file of ``best`` or ``last``."""
        return self.folder / f"{alias}{self._suffix}"

    def begin_batch(self, model: Callable[[], Model], batch: int) -> None:
        """Save before a batch what the batches before have made of the model, if that is due.

        Args:
            model: Gives the model; asked only when it is due.
            batch: The step of the batch.
        """
        if self._is_due(batch) and not self._best_only:
            self._save("last", model(), {"global_step": batch})
            self._upload()

    def end_epoch(self, model: Model, epoch: int, batch: int, *, improved: bool) -> None:
        """Save after an epoch what is due.

        Args:
            model: The model.
            epoch: The step of the epoch.
            batch: The step of the next batch.
            improved: The epoch is the best so far.
        """
        due = self._every is None or self._is_due(batch)
        details = {"epoch": epoch, "global_step": batch}
        keeps_last = not self._best_only or self._best.score is None
        if due and keeps_last:
            self._save("last", model, details)
        if improved:
            self._save("best", model, {**details, "score": self._best.score})
        if improved or (due and keeps_last):
            self._upload()

    def _is_due(self, batch: int) -> bool:
        """Tell whether so many batches have passed that a number of which each one is due is among them."""
        if self._every is None:
            return False
        before, self._batch = self._batch, batch
        return before is not None and batch // self._every > before // self._every

    def _save(self, alias: str, model: Model, details: dict[str, Any]) -> None:
        path = self.path(alias)
        half = path.with_name(f".half-{path.name}")
        if self._weights_only:
            model.save_weights(half, overwrite=True)
        else:
            model.save(half, overwrite=True)
        half.replace(path)
        self._saved[alias] = details

    def _upload(self) -> None:
        settings = {"monitor": self._best.monitor, "save_weights_only": self._weights_only}
        checkpoints = []
        for alias, facts in self._saved.items():
            details = {"checkpoint": settings, **{key: value for key, value in facts.items() if key != "score"}}
            checkpoints.append(Checkpoint(self.path(alias), (alias,), facts.get("score"), details))
        self._shelf.update(self.folder, checkpoints)


class Collector:
    """Knows the files that the user's own ``ModelCheckpoint`` callbacks write, and uploads them. For one thread.

    Args:
        run: The run.
        uploads: Upload them; otherwise only a note is left beside them which run they are from.
    """

    def __init__(self, run: TrackedRun, *, uploads: bool) -> None:
        self._run = run
        self._uploads = uploads
        self._shelf = Shelf(run, "checkpoints")

    def collect(self, callbacks: Sequence[Callback], since: float) -> None:
        """Take in what the callbacks have written.

        Args:
            callbacks: The callbacks.
            since: When they began, in seconds since 1970: older files are of another training, unless of the same run.
        """
        for callback in callbacks:
            files = [path for path in files_of(callback) if path.stat().st_mtime >= since or self._is_own(path)]
            for folder in dict.fromkeys(path.parent for path in files):
                found = [_checkpoint(callback, path, files[-1]) for path in files if path.parent == folder]
                if self._uploads:
                    self._shelf.update(folder, found)
                else:
                    self._shelf.note(folder, found)

    def _is_own(self, path: Path) -> bool:
        return Sidecar(path.parent).identity_of(path.name) == self._run.identity


def files_of(callback: Callback) -> list[Path]:
    """Return the files that are there of those that a ``ModelCheckpoint`` writes, the newest last."""
    text = str(callback.filepath)
    if "://" in text:
        return []
    pattern = "*".join(glob.escape(part) for part in _FIELD.split(text))
    files = [path for path in map(Path, glob.glob(pattern)) if path.is_file()]  # noqa: PTH207  # it may be absolute
    return sorted(files, key=lambda path: path.stat().st_mtime)


def _checkpoint(callback: Callback, path: Path, newest: Path) -> Checkpoint:
    settings = {
        name: getattr(callback, name)
        for name in ("monitor", "mode", "save_best_only", "save_weights_only", "save_freq")
    }
    aliases: tuple[str, ...] = ()
    score = None
    if path == newest:
        # With `save_best_only`, what was written last is the best.
        aliases = ("best",) if callback.save_best_only else ("last",)
        best = callback.best if callback.save_best_only else None
        score = None if best is None else float(keras.ops.convert_to_numpy(best))
    return Checkpoint(path, aliases, score, {"checkpoint": settings})
