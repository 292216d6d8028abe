"""Results as a table that every program reads."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["as_csv"]


def as_csv(columns: Mapping[str, Sequence[object]]) -> str:
    """Return columns of the same length as CSV; of what is missing (None, NaN) the cell is empty, as pandas writes it.

    Args:
        columns: Cells of any type by the name of the column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def _cell(value: object) -> str:
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_missing else text_of(value)
