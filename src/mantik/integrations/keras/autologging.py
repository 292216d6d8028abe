"""MLflow's autologging of the same ``fit``: it keeps params and model, and leaves the metrics to the callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mantik.integrations.keras.call import Call

__all__ = ["THEIRS", "silence"]

THEIRS = frozenset(
    {
        *("epochs", "batch_size", "shuffle", "class_weight", "validation_split", "validation_freq"),
        "optimizer_name",
    }
)
"""The params that autologging records with values of its own, such as the arguments of ``fit`` as they were given."""


def silence(call: Call) -> bool:
    """Let MLflow's autologging record no metrics of a ``fit``; tell whether it is on.

    It would record those of the validation at step 0, again and again.

    Args:
        call: The call.
    """
    from mlflow.utils.autologging_utils import autologging_is_disabled

    callbacks = call.callback_list
    theirs = [one for one in call.callbacks if type(one).__module__ == "mlflow.keras.callback"]
    if callbacks is None or not theirs or autologging_is_disabled("keras"):
        return False
    # Another list: Keras is going through the old one, and its hook for the beginning, with the params, is yet to come.
    kept: list[Any] = [one for one in callbacks.callbacks if one not in theirs]
    callbacks.callbacks = kept
    return True
