"""Columns of an Arrow table as arrays of numbers: what is no number becomes the code of its text, missing is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def is_number(column: pa.ChunkedArray) -> bool:
    """Say whether a column holds numbers or flags."""
    kind = column.type
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def inputs_of(table: pa.Table, names: list[str]) -> Floats:
    """(n, n_inputs) numbers as they are, moments as Unix seconds, anything else as codes."""
    if not names:
        return np.empty((table.num_rows, 0))
    return np.column_stack([numbers(table[name]) for name in names])


def numbers(column: pa.ChunkedArray) -> Floats:
    """(n,) a column as numbers."""
    if pa.types.is_timestamp(column.type):
        return seconds(column)
    if is_number(column):
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    return codes(column).astype(np.float64)


def seconds(column: pa.ChunkedArray) -> Floats:
    """(n,) timestamps as Unix seconds, NaN where missing."""
    micros: Any = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).cast(pa.float64())
    return np.asarray(micros.to_numpy(), dtype=np.float64) / 1e6


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(n,) position of each value among the distinct ones, -1 where missing."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
