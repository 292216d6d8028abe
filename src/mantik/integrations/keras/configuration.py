"""What a training is made of: params for MLflow's table, and everything whole as files."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]

from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.integrations.keras.call import Call
    from mantik.integrations.keras.kinds import Array, Callback, Model
    from mantik.training.writer import RunWriter

__all__ = ["architecture", "configuration", "draw", "optimizer_of", "params", "summary"]

_FIT_PARAMS = ("epochs", "validation_split", "validation_freq", "shuffle", "class_weight")
_FIT_SETTINGS = (*_FIT_PARAMS, "initial_epoch", "steps_per_epoch", "validation_steps", "validation_batch_size")
_MOST_LAYERS = 100
"""A picture of more takes seconds before the training begins, and cannot be read."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def optimizer_of(model: Model) -> Any | None:  # noqa: ANN401  # an optimizer of Keras
    """Return a model's optimizer; None where it was not compiled with one of Keras's."""
    optimizer = getattr(model, "optimizer", None)
    return optimizer if isinstance(optimizer, keras.optimizers.Optimizer) else None


def params(model: Model, call: Call, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a training, by the names that MLflow's own autologging uses, as far as it knows them.

    Args:
        model: What is trained.
        call: The ``fit``.
        told: What Keras tells callbacks: epochs and steps.
    """
    found: dict[str, Any] = {}
    optimizer = optimizer_of(model)
    if optimizer is not None:
        found |= {f"optimizer_{name}": value for name, value in _optimizer(optimizer.get_config()).items()}
        # Its own name counts the optimizers of a process.
        found["optimizer_name"] = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    if getattr(model, "compiled", False):
        compiled = model.get_compile_config() or {}
        found |= {name: _plain(compiled.get(name)) for name in ("loss", "metrics") if compiled.get(name) is not None}
        found |= {name: compiled[name] for name in ("loss_weights", "jit_compile", "run_eagerly") if compiled.get(name)}
    found |= {name: call.values[name] for name in _FIT_PARAMS if call.values.get(name) is not None}
    found |= {"epochs": told["epochs"]} if told.get("epochs") else {}
    found |= {"batch_size": call.batch_size} if call.batch_size is not None else {}
    found |= {"steps": told["steps"]} if told.get("steps") else {}
    found |= {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    policy = getattr(model, "dtype_policy", None)
    found |= {"dtype_policy": policy.name} if policy is not None else {}
    if getattr(model, "built", False):
        found["total_params"] = model.count_params()
        found["trainable_params"] = sum(_size(weight) for weight in model.trainable_weights)
    return found


def configuration(model: Model, call: Call, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a training, whole: of the compilation, of ``fit``, and of the other callbacks."""
    compiled = model.get_compile_config() if getattr(model, "compiled", False) else None
    return {
        "model": {"name": model.name, "class": text_of(type(model))},
        "compile": compiled,
        "fit": {name: call.values[name] for name in _FIT_SETTINGS if name in call.values}
        | {"batch_size": call.batch_size}
        | dict(told),
        "callbacks": [_settings(callback) for callback in call.callbacks],
        "keras": {"version": keras.__version__, "backend": keras.backend.backend()},
    }


def summary(model: Model) -> str:
    """Return a model's layers as a text."""
    lines: list[str] = []
    model.summary(expand_nested=True, show_trainable=True, print_fn=lambda line, **_: lines.append(str(line)))
    return _COLOUR.sub("", "\n".join(lines)) + "\n"


def architecture(model: Model) -> str:
    """Return a model's architecture as JSON, which ``keras.models.model_from_json`` reads."""
    return json.dumps(json.loads(model.to_json()), indent=2) + "\n"


def draw(model: Model, writer: RunWriter) -> None:
    """Keep a picture of a model, where the programs that draw it are installed, and the model is not too large."""
    if find_spec("pydot") is None or shutil.which("dot") is None or _layers(model) > _MOST_LAYERS:
        return
    with tempfile.TemporaryDirectory(prefix="mantik-") as folder:
        path = Path(folder, "model.png")
        keras.utils.plot_model(model, to_file=path, show_shapes=True, show_layer_names=True, expand_nested=True)
        writer.log_file(path, None)


def _layers(model: Model) -> int:
    return sum(1 + _layers(layer) for layer in getattr(model, "layers", ()))


def _optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's settings, those of a schedule of its learning rate among them."""
    inner = config.get("inner_optimizer")
    if isinstance(inner, dict):
        # One that scales losses, around the one that matters.
        return {"loss_scaling": config.get("name"), **_optimizer(inner["config"])}
    rate = config.get("learning_rate")
    if isinstance(rate, dict) and isinstance(rate.get("config"), dict):
        return {**config, "learning_rate": {"class_name": rate["class_name"], **rate["config"]}}
    return dict(config)


def _plain(value: object) -> object:
    """Return losses or metrics that Keras has serialized by their names."""
    if isinstance(value, dict) and "class_name" in value:
        config = value.get("config")
        return config.get("name") or value["class_name"] if isinstance(config, dict) else config or value["class_name"]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _settings(callback: Callback) -> dict[str, Any]:
    """Return a callback's class, and of Keras's own its settings: in others there may be anything, passwords too."""
    if not type(callback).__module__.startswith("keras."):
        return {"class": text_of(type(callback))}
    plain = {
        name: value
        for name, value in vars(callback).items()
        if not name.startswith("_") and isinstance(value, (str, int, float, bool))
    }
    return {"class": text_of(type(callback)), **plain}


def _size(weight: Array) -> int:
    size = 1
    for length in weight.shape:
        size *= int(length)
    return size
