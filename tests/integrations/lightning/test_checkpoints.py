"""Which checkpoints of a training are on the platform, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from mantik import MantikLogger
from tests.integrations.lightning.modules import Small, data, trainer

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from tests.integrations.arrivals import Arrived

SCORES = [5.0, 1.0, 4.0, 2.0, 3.0, 0.5]


class Scored(Small):
    """Has a score by epoch that is known before."""

    def on_validation_epoch_end(self) -> None:
        """Log it."""
        self.log("score", SCORES[self.current_epoch])


def fit(logger: MantikLogger, *callbacks: ModelCheckpoint, epochs: int = 3, ckpt_path: str | None = None) -> pl.Trainer:
    """Train for some epochs of two steps."""
    arguments: dict[str, Any] = {"logger": logger, "max_epochs": epochs, "num_sanity_val_steps": 0}
    training = trainer(**arguments, callbacks=list(callbacks))
    training.fit(Scored(), data(2), data(1), ckpt_path=ckpt_path)
    return training


def files(arrived: Arrived, logger: MantikLogger) -> list[str]:
    """Return the checkpoints' files on the platform, and see that each is described and listed, and nothing else is."""
    everything = arrived.artifacts(logger.run_id, "checkpoints")
    found = [path for path in everything if not path.endswith(".yaml")]
    folders = [path.rpartition("/")[0] for path in found]
    described = sorted([*found, *(f"{folder}/metadata.yaml" for folder in folders), "checkpoints/index.yaml"])
    assert sorted(everything) == (described if found else [])
    if found:
        listed = arrived.yaml(logger.run_id, "checkpoints/index.yaml")["checkpoints"]
        assert sorted(about["file"] for about in listed) == found
        by_file = {about["file"]: about for about in listed}
        for path, folder in zip(found, folders, strict=True):
            assert arrived.yaml(logger.run_id, f"{folder}/metadata.yaml") == by_file[path]
    return [path.removeprefix("checkpoints/") for path in found]


def labels(arrived: Arrived, logger: MantikLogger) -> dict[str, list[str]]:
    """Return the files that have a label, by label."""
    found: dict[str, list[str]] = {}
    for about in arrived.yaml(logger.run_id, "checkpoints/index.yaml")["checkpoints"]:
        for alias in about["aliases"]:
            found.setdefault(alias, []).append(about["file"].removeprefix("checkpoints/"))
    return found


def uploads(arrived: Arrived) -> int:
    """Return how often a checkpoint was sent."""
    arrived.runs()
    return sum(r.method == "PUT" and r.path.endswith(".ckpt") for r in arrived.proxy.requests)


@pytest.mark.parametrize("log_model", [False, True, "all"])
def test_which_are_uploaded(arrived: Arrived, log_model: Literal[False, True, "all"]) -> None:
    """None; those that are there at the end; or each as it appears, of which the dropped ones are deleted again."""
    logger = MantikLogger(log_model=log_model)
    fit(logger, ModelCheckpoint(monitor="score", filename="{epoch}", save_top_k=2), epochs=6)
    expected = ["epoch=1/epoch=1.ckpt", "epoch=5/epoch=5.ckpt"] if log_model else []
    assert files(arrived, logger) == expected
    assert uploads(arrived) >= len(expected)
    local = Path(str(logger.save_dir), "checkpoints").glob("*.ckpt")
    assert sorted(path.name for path in local) == ["epoch=1.ckpt", "epoch=5.ckpt"]
    tags = arrived.run(logger.run_id).tags
    assert tags.get("mantik.checkpoint.best") == ("checkpoints/epoch=5/epoch=5.ckpt" if log_model else None)


def test_what_is_told_of_one(arrived: Arrived) -> None:
    """Labels, score, epoch, step, time and the callback's settings are in metadata.yaml."""
    logger = MantikLogger(log_model=True)
    fit(logger, ModelCheckpoint(monitor="score", filename="{epoch}", save_last=True))
    assert files(arrived, logger) == ["epoch=1/epoch=1.ckpt", "last/last.ckpt"]
    about = arrived.yaml(logger.run_id, "checkpoints/epoch=1/metadata.yaml")
    assert about.pop("saved").endswith(" UTC")
    assert about == {
        "file": "checkpoints/epoch=1/epoch=1.ckpt",
        "aliases": ["best"],
        "score": 1.0,
        "original_filename": "epoch=1.ckpt",
        "epoch": 1,
        "global_step": 4,
        "checkpoint": {
            "monitor": "score",
            "mode": "min",
            "save_last": True,
            "save_top_k": 1,
            "save_weights_only": False,
        },
    }
    last = arrived.yaml(logger.run_id, "checkpoints/last/metadata.yaml")
    assert (last["aliases"], last["score"], last["epoch"], last["global_step"]) == (["last"], 1.0, 1, 4)
    tags = arrived.run(logger.run_id).tags
    assert tags["mantik.checkpoint.best"] == "checkpoints/epoch=1/epoch=1.ckpt"
    assert tags["mantik.checkpoint.last"] == "checkpoints/last/last.ckpt"


def test_the_best_one_can_be_loaded(arrived: Arrived, tmp_path: Path) -> None:
    """The file that the tag names is the best one, whole: loading it gives the module back."""
    logger = MantikLogger(log_model="all")
    training = fit(logger, ModelCheckpoint(monitor="score"))
    best = arrived.run(logger.run_id).tags["mantik.checkpoint.best"]
    path = tmp_path / "downloaded.ckpt"
    path.write_bytes(arrived.content(logger.run_id, best))
    callback = training.checkpoint_callback
    assert isinstance(callback, ModelCheckpoint)
    assert path.read_bytes() == Path(callback.best_model_path).read_bytes()
    loaded = Scored.load_from_checkpoint(path)
    assert (loaded.lr, torch.load(path, weights_only=True)["epoch"]) == (0.1, 1)


@pytest.mark.parametrize("log_model", [True, "all"])
def test_all_are_kept(arrived: Arrived, log_model: Literal[True, "all"]) -> None:
    """With save_top_k=-1 each is uploaded once, as it appears, and the latest alone is called last."""
    logger = MantikLogger(log_model=log_model)
    fit(logger, ModelCheckpoint(every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    assert len(files(arrived, logger)) == uploads(arrived) == 6
    assert labels(arrived, logger) == {"last": ["step=6/step=6.ckpt"]}
    assert arrived.run(logger.run_id).tags["mantik.checkpoint.last"] == "checkpoints/step=6/step=6.ckpt"


def test_several_callbacks_in_one_folder(arrived: Arrived) -> None:
    """Each callback's checkpoints are there, with the labels of each; the tag names the later of two last ones."""
    logger = MantikLogger(log_model="all")
    lowest = ModelCheckpoint(monitor="score", filename="low-{epoch}")
    highest = ModelCheckpoint(monitor="score", mode="max", filename="high-{epoch}")
    regular = ModelCheckpoint(every_n_train_steps=2, save_top_k=-1, filename="{step}")
    fit(logger, lowest, highest, regular)
    steps = ["step=2/step=2.ckpt", "step=4/step=4.ckpt", "step=6/step=6.ckpt"]
    low, high = "low-epoch=1/low-epoch=1.ckpt", "high-epoch=0/high-epoch=0.ckpt"
    assert files(arrived, logger) == [high, low, *steps]
    assert labels(arrived, logger) == {"best": [high, low], "last": [high, low, steps[-1]]}
    assert arrived.run(logger.run_id).tags["mantik.checkpoint.last"] == f"checkpoints/{steps[-1]}"


def test_the_same_names_in_several_folders(arrived: Arrived, tmp_path: Path) -> None:
    """Callbacks with folders of their own, even of the same name, do not overwrite each other's files."""
    logger = MantikLogger(log_model=True)
    places = {"one/best": "min", "two/best": "max"}
    callbacks = [ModelCheckpoint(tmp_path / at, "x", monitor="score", mode=mode) for at, mode in places.items()]
    training = fit(logger, *callbacks)
    assert files(arrived, logger) == ["best-2/x/x.ckpt", "best/x/x.ckpt"]
    for name, callback in zip(("best", "best-2"), training.checkpoint_callbacks, strict=True):
        assert isinstance(callback, ModelCheckpoint)
        held = arrived.content(logger.run_id, f"checkpoints/{name}/x/x.ckpt")
        assert held == Path(callback.best_model_path).read_bytes()


def test_one_name_for_the_best(arrived: Arrived) -> None:
    """A file that is written again under its name is sent again, and told of as what it is now."""
    logger = MantikLogger(log_model="all")
    callback = ModelCheckpoint(monitor="score", filename="best", enable_version_counter=False)
    fit(logger, callback, epochs=6)
    assert files(arrived, logger) == ["best/best.ckpt"]
    about = arrived.yaml(logger.run_id, "checkpoints/best/metadata.yaml")
    assert (about["epoch"], about["global_step"], about["score"]) == (5, 12, 0.5)
    assert arrived.content(logger.run_id, about["file"]) == Path(callback.best_model_path).read_bytes()


@pytest.mark.parametrize(
    ("filename", "artifact"),
    [
        ("{epoch}-{score:.1f}", "epoch=1-score=1.0/epoch=1-score=1.0.ckpt"),
        ("m-{epoch}-val/loss", "m-epoch=1-val/loss/loss.ckpt"),
        ("ünï v1.5", "ünï v1.5/ünï v1.5.ckpt"),
    ],
)
def test_names(arrived: Arrived, filename: str, artifact: str) -> None:
    """Each checkpoint has an artifact folder of its own, after its name, slashes and all."""
    logger = MantikLogger(log_model=True)
    fit(logger, ModelCheckpoint(monitor="score", filename=filename))
    assert files(arrived, logger) == [artifact]


@pytest.mark.parametrize(
    "character", [*"#%:", *(pytest.param(other, marks=pytest.mark.thorough) for other in '?*"<>|')]
)
def test_characters_that_no_artifact_can_have(arrived: Arrived, character: str) -> None:
    """They are replaced, with digits that keep two names apart, and metadata.yaml has the name as it was."""
    logger = MantikLogger(log_model=True)
    callback = ModelCheckpoint(monitor="score", filename=f"a{character}b")
    fit(logger, callback)
    (path,) = files(arrived, logger)
    assert path.startswith("a_b-")
    assert arrived.content(logger.run_id, f"checkpoints/{path}") == Path(callback.best_model_path).read_bytes()
    (about,) = arrived.yaml(logger.run_id, "checkpoints/index.yaml")["checkpoints"]
    assert about["original_filename"] == f"a{character}b.ckpt"


def test_the_artifact_folder(arrived: Arrived) -> None:
    """checkpoint_name is the artifact folder of all of them."""
    logger = MantikLogger(log_model=True, checkpoint_name="weights/mine")
    fit(logger, ModelCheckpoint(filename="{epoch}"), epochs=1)
    folder = "weights/mine/epoch=0"
    expected = [f"{folder}/epoch=0.ckpt", f"{folder}/metadata.yaml", "weights/mine/index.yaml"]
    assert arrived.artifacts(logger.run_id, "weights") == expected
    assert arrived.run(logger.run_id).tags["mantik.checkpoint.last"] == f"{folder}/epoch=0.ckpt"


def test_last_as_a_link(arrived: Arrived) -> None:
    """A last one that is a link on disk is a file on the platform."""
    logger = MantikLogger(log_model="all")
    callback = ModelCheckpoint(monitor="score", filename="{epoch}", save_last="link")
    fit(logger, callback)
    assert Path(callback.last_model_path).is_symlink()
    assert files(arrived, logger) == ["epoch=1/epoch=1.ckpt", "last/last.ckpt"]
    last = arrived.content(logger.run_id, "checkpoints/last/last.ckpt")
    assert last == Path(callback.last_model_path).read_bytes()


def test_weights_alone(arrived: Arrived) -> None:
    """Checkpoints of the weights alone are uploaded as others are; the file beside them says which run they are of."""
    logger = MantikLogger(log_model=True)
    callback = ModelCheckpoint(save_weights_only=True, filename="{epoch}")
    fit(logger, callback, epochs=1)
    assert files(arrived, logger) == ["epoch=0/epoch=0.ckpt"]
    beside = json.loads(Path(callback.best_model_path).with_name(".mantik-run.json").read_text())
    assert str(logger.run_id) in beside["checkpoints"]["epoch=0.ckpt"]["run"]


@pytest.mark.parametrize("log_model", [True, "all"])
def test_checkpoints_that_a_thread_writes(arrived: Arrived, log_model: Literal[True, "all"]) -> None:
    """With Lightning's asynchronous writing nothing is sent before it is whole, and the last one is there."""
    logger = MantikLogger(log_model=log_model)
    callback = ModelCheckpoint(monitor="score", filename="{epoch}", save_last=True)
    trainer(logger=logger, max_epochs=2, callbacks=[callback], plugins=[AsyncCheckpointIO()]).fit(
        Scored(), data(2), data(1)
    )
    assert files(arrived, logger) == ["epoch=1/epoch=1.ckpt", "last/last.ckpt"]
    last = arrived.content(logger.run_id, "checkpoints/last/last.ckpt")
    assert last == Path(callback.last_model_path).read_bytes()


def test_a_folder_that_takes_no_file_of_ours(arrived: Arrived, tmp_path: Path) -> None:
    """Where the file beside the checkpoints cannot be written they are uploaded and pruned all the same."""
    (tmp_path / "theirs/.mantik-run.json").mkdir(parents=True)
    logger = MantikLogger(log_model="all")
    fit(logger, ModelCheckpoint(tmp_path / "theirs", "{epoch}", monitor="score"), epochs=4)
    assert files(arrived, logger) == ["theirs/epoch=1/epoch=1.ckpt"]
    left = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert left == [".mantik-run.json", "epoch=1.ckpt"]


def test_a_resumed_training_goes_on_with_them(arrived: Arrived) -> None:
    """What the earlier attempt has uploaded is not sent again, and is deleted once the training drops it."""
    settings: dict[str, Any] = {"monitor": "score", "filename": "{epoch}", "save_top_k": 3}
    first = MantikLogger(log_model="all")
    callback = ModelCheckpoint(**settings)
    fit(first, callback, epochs=3)
    assert files(arrived, first) == [f"epoch={epoch}/epoch={epoch}.ckpt" for epoch in (0, 1, 2)]
    before = uploads(arrived)
    saved = arrived.yaml(first.run_id, "checkpoints/epoch=1/metadata.yaml")
    second = MantikLogger(log_model="all")
    fit(second, ModelCheckpoint(**settings), epochs=4, ckpt_path=str(Path(str(callback.dirpath), "epoch=2.ckpt")))
    assert second.run_id == first.run_id
    assert files(arrived, second) == [f"epoch={epoch}/epoch={epoch}.ckpt" for epoch in (1, 2, 3)]
    assert labels(arrived, second) == {"best": ["epoch=1/epoch=1.ckpt"], "last": ["epoch=3/epoch=3.ckpt"]}
    assert arrived.run(first.run_id).tags["mantik.checkpoint.last"] == "checkpoints/epoch=3/epoch=3.ckpt"
    assert uploads(arrived) == before + 1
    assert arrived.yaml(first.run_id, "checkpoints/epoch=1/metadata.yaml") == saved


def test_a_training_that_fails_uploads_what_there_is(arrived: Arrived) -> None:
    """With log_model=True the checkpoints up to an exception are uploaded, and the run is FAILED."""

    class Failing(Scored):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise RuntimeError("no more")

    logger = MantikLogger(log_model=True)
    callback = ModelCheckpoint(monitor="score", filename="{epoch}")
    with pytest.raises(RuntimeError, match="no more"):
        trainer(logger=logger, max_epochs=3, num_sanity_val_steps=0, callbacks=[callback]).fit(
            Failing(), data(2), data(1)
        )
    assert files(arrived, logger) == ["epoch=1/epoch=1.ckpt"]
    assert arrived.run(logger.run_id).status == "FAILED"


def test_two_trainings_of_one_logger(arrived: Arrived) -> None:
    """The checkpoints of a second Trainer join those of the first, and have the labels."""
    logger = MantikLogger(log_model=True)
    fit(logger, ModelCheckpoint(monitor="score", filename="first-{epoch}"))
    fit(logger, ModelCheckpoint(monitor="score", filename="second-{epoch}"), epochs=1)
    assert files(arrived, logger) == ["first-epoch=1/first-epoch=1.ckpt", "second-epoch=0/second-epoch=0.ckpt"]
    assert labels(arrived, logger) == {key: ["second-epoch=0/second-epoch=0.ckpt"] for key in ("best", "last")}
