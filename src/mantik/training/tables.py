"""Tables and texts among the artifacts of a run."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.training.arguments import as_step
from mantik.training.arrays import as_array
from mantik.training.names import distinct
from mantik.training.picture_files import write_picture
from mantik.training.pixels import as_picture, is_picture
from mantik.training.places import file_name, new_artifact, place
from mantik.training.table_files import write_table

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["log_table", "log_text"]

_FEATURE = "To log tables"


def log_table(  # noqa: PLR0913  # a table in one of two forms
    client: MlflowClient,
    run_id: str,
    key: str,
    columns: Sequence[str] | None = None,
    data: object = None,
    *,
    dataframe: object = None,
    step: int | None = None,
) -> None:
    """Log a table as ``tables/<key>.json``, or ``tables/<key>/step-<8 digits>.json``.

    MLflow shows it among the run's artifacts, and ``mlflow.load_table`` reads it. MLflow's own `log_table` would add
    the rows to a table of the same name; this one replaces it.

    Args:
        client: The client.
        run_id: The run.
        key: What the table is called.
        columns: The names of the columns, each another. MLflow's pages show nothing of a column with a dot in its name,
            so ``val.loss`` is stored as ``val_loss``.
        data: The rows, each with a cell for each column; or an array with two axes. A cell that is an image, a figure,
            or an array or tensor with two axes or more is shown as an image, as of
            `mantik.training.pictures.log_images`, and then all cells of its column have to be images. NaN becomes null,
            infinities become the texts ``Infinity`` and ``-Infinity``, and what JSON does not have its text.
        dataframe: The table as a DataFrame of pandas, in place of columns and data. Its index is left out.
        step: The training step; None: no step in the path.

    Raises:
        InvalidValueError: There is no table in it. Nothing has been logged then.
        MissingExtraError: There are images and pillow or numpy is not installed.
        OSError: The folder for temporary files cannot be written.
    """
    number = as_step(step, key)
    names, rows = _parts(key, columns, data, dataframe)
    shown = {at for at in range(len(names)) if any(is_picture(row[at]) for row in rows)}
    cells = [
        [
            as_picture(cell, f"row {line}, column {names[at]!r}", key)
            if at in shown and _shows_one(cell, line, names[at], key)
            else _plain(cell)
            for at, cell in enumerate(row)
        ]
        for line, row in enumerate(rows)
    ]
    for row in cells:
        for at in shown:
            path = f"table_images/{file_name(key)}/{uuid.uuid4()}"
            row[at] = write_picture(client, run_id, row[at], path, path)
    write_table(client, run_id, place("tables", key, number, ".json"), _shown_names(names), cells)


def log_text(  # noqa: PLR0913  # a text, or a table in one of two forms
    client: MlflowClient,
    run_id: str,
    key: str,
    columns: Sequence[str] | str | None = None,
    data: object = None,
    *,
    dataframe: object = None,
    step: int | None = None,
) -> None:
    """Log a text as ``text/<key>.txt``, or ``text/<key>/step-<8 digits>.txt``; or a table of texts.

    Args:
        client: The client.
        run_id: The run.
        key: What the text is called.
        columns: The text; or the names of columns, and then all is as of `log_table`.
        data: The rows of a table.
        dataframe: The table as a DataFrame of pandas.
        step: The training step; None: no step in the path.

    Raises:
        InvalidValueError: There is neither a text nor a table. Nothing has been logged then.
        OSError: The folder for temporary files cannot be written.
    """
    if not isinstance(columns, str):
        log_table(client, run_id, key, columns, data, dataframe=dataframe, step=step)
        return
    if data is not None or dataframe is not None:
        raise InvalidValueError(f"{key!r} is given a text and a table. Give the one or the other.", key)
    with new_artifact(client, run_id, place("text", key, as_step(step, key), ".txt")) as file:
        # Texts may hold lone surrogates.
        file.write_bytes(columns.encode(errors="replace"))


def _parts(key: str, columns: object, data: object, dataframe: object) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of a table, as many cells in each row as there are columns."""
    if dataframe is not None:
        if columns is not None or data is not None:
            raise InvalidValueError(
                f"The table {key!r} is given twice. Give columns and data, or a dataframe that has both.", key
            )
        if not hasattr(dataframe, "itertuples") or not hasattr(dataframe, "columns"):
            raise InvalidValueError(
                f"The dataframe of {key!r} is of the type {type(dataframe).__name__}. Expected is one of pandas.", key
            )
        columns, data = list(dataframe.columns), dataframe.itertuples(index=False, name=None)
    elif columns is None or data is None:
        absent = "columns" if columns is None else "data"
        raise InvalidValueError(
            f"The table {key!r} has no {absent}. Give columns=['a', 'b'] and data=[[1, 2], [3, 4]], or a dataframe.",
            key,
        )
    if isinstance(columns, (str, Mapping)) or not _is_series(columns):
        raise InvalidValueError(f"The columns of {key!r} are {columns!r}. Expected is a list of names.", key)
    names = [str(column) for column in columns]  # type: ignore[attr-defined]  # asked for above
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidValueError(f"The table {key!r} has more than one column {', '.join(map(repr, twice))}.", key)
    if isinstance(data, (str, bytes, Mapping)) or not _is_series(data):
        raise InvalidValueError(
            f"The data of {key!r} is of the type {type(data).__name__}. Expected is a list of rows.", key
        )
    return names, [_row(row, at, names, key) for at, row in enumerate(data)]  # type: ignore[arg-type, var-annotated]


def _shown_names(names: Sequence[str]) -> list[str]:
    """Return names without dots: MLflow's pages take a dot for a step into an object, and show nothing."""
    shown: list[str] = []
    for name in names:
        shown.append(distinct(name.replace(".", "_"), shown))
    return shown


def _row(row: object, at: int, names: Sequence[str], key: str) -> list[Any]:
    if isinstance(row, (str, bytes, Mapping)) or not _is_series(row):
        raise InvalidValueError(
            f"Row {at} of the table {key!r} is of the type {type(row).__name__}. Expected is a list with a cell for "
            "each column.",
            key,
        )
    cells: list[Any] = list(row)  # type: ignore[call-overload]  # asked for above
    if len(cells) != len(names):
        raise InvalidValueError(
            f"Row {at} of the table {key!r} has {len(cells)} cells, but there are {len(names)} columns: "
            f"{', '.join(names)}.",
            key,
        )
    return cells


def _is_series(value: object) -> bool:
    # Arrays without an axis have a length only by name.
    return hasattr(value, "__iter__") and getattr(value, "ndim", 1) > 0


def _shows_one(cell: object, line: int, column: str, key: str) -> bool:
    if not is_picture(cell):
        raise InvalidValueError(
            f"The column {column!r} of the table {key!r} has images, but in row {line} there is none but a "
            f"{type(cell).__name__}. MLflow shows a column as images only where all of it is.",
            key,
        )
    return True


def _plain(cell: object) -> Any:  # noqa: ANN401, PLR0911  # whatever JSON has
    """Return a cell as JSON has it."""
    if cell is None or isinstance(cell, (bool, int, str)):
        return cell
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return cell if math.isfinite(cell) else ("Infinity" if cell > 0 else "-Infinity")
    if isinstance(cell, Mapping):
        return {str(name): _plain(value) for name, value in cell.items()}
    if isinstance(cell, (list, tuple)):
        return [_plain(value) for value in cell]
    if isinstance(cell, (dt.date, dt.time)):
        text = cell.isoformat()
    else:
        array = as_array(cell, _FEATURE)
        if array is not None and array.dtype.kind in "biufO":
            return _plain(array.tolist())
        text = str(cell)
    # What pandas writes where nothing is known.
    return None if text in {"NaT", "<NA>"} else text
