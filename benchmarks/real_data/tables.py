"""Where the public data lie, and their tables as plain arrays. Knows no estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
VARIABLE = "NBA_CHECK_DATA"


class DataMissing(RuntimeError):
    """A table is not there; one sentence says what to do."""


def folder_of_data(given: Path | None = None) -> Path:
    """Return the folder of public data: as given, else as the environment variable NBA_CHECK_DATA says.

    Raises:
        DataMissing: Neither is given.
    """
    named = given or os.environ.get(VARIABLE)
    if not named:
        raise DataMissing(f"the folder of public data is not named; give --data DIR or set {VARIABLE}")
    return Path(named)


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Read a Parquet table as column -> array.

    Raises:
        DataMissing: It is not there.
    """
    if not path.is_file():
        raise DataMissing(f"{path.name} is missing in {path.parent}; docs/off-policy.md says where it comes from")
    table = pq.read_table(path)
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def one_hot(values: NDArray[Any], *, drop_first: bool = False) -> Floats:
    """Return a column for each distinct value in order, without the first if asked."""
    kinds = np.unique(values)[1 if drop_first else 0 :]
    return (values[:, None] == kinds).astype(np.float64)


def codes(values: NDArray[Any]) -> Floats:
    """Return the place of each value among the distinct ones in order."""
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def as_inputs(columns: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> Floats:
    """Stack columns: numbers as they are, texts as codes."""
    stacked = [
        columns[name].astype(float) if columns[name].dtype.kind in "iuf" else codes(columns[name]) for name in names
    ]
    return np.column_stack(stacked)
