"""The rows that models are judged on side by side: the test slice of a dataset, kept with the version it came with.

Decides which rows are kept. Knows no registry. Customers are kept as numbers, so that no id leaves the history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.matrix import LOG_COLUMNS
from service.decision.model import ISSUES

if TYPE_CHECKING:
    from training.dataset import Dataset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_ROWS = 60_000
FILE = "held_out.parquet"


@dataclass(frozen=True)
class HeldOut:
    """Labelled rows that no model compared on them was fitted on.

    Attributes:
        inputs: (n, n_inputs) in the order of `names`. labels: (n,) 0 or 1.
        issues: (n,) positions in `ISSUES`. customers: (n,) numbers, the unit that is resampled.
        fingerprint: Of the dataset that the rows are from.
        groups: (n,) groups of the rows' actions, "" for none.
        texts: Column of `LOG_COLUMNS` -> what its codes stand for.
    """

    inputs: Floats
    names: tuple[str, ...]
    labels: Floats
    issues: Ints
    customers: Ints
    fingerprint: str
    groups: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, dataset: Dataset, is_test: NDArray[np.bool_], most_rows: int = MOST_ROWS) -> HeldOut:
        """Take the rows of the test slice, whole customers by chance up to `most_rows`."""
        rows = np.flatnonzero(is_test)
        customers = np.unique(dataset.column("customer_id")[rows], return_inverse=True)[1]
        shuffled = np.random.default_rng(0).permutation(int(customers.max(initial=0)) + 1)[customers]
        sizes = np.cumsum(np.bincount(shuffled))
        kept = shuffled < max(int(np.searchsorted(sizes, most_rows, side="right")), 1)
        rows = rows[kept]
        issues = np.array([ISSUES.index(issue) for issue in dataset.column("issue")[rows]], dtype=np.int64)
        labels = dataset.column("label")[rows].astype(np.float64)
        groups = tuple(dataset.column("group")[rows].tolist())
        inputs = dataset.inputs[rows]
        return cls(inputs, dataset.names, labels, issues, shuffled[kept], dataset.fingerprint, groups, dataset.texts)

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """(n,) issue and group of each row, by which it is calibrated."""
        return [(ISSUES[issue], group) for issue, group in zip(self.issues, self.groups, strict=True)]

    def as_read_by(self, texts: Mapping[str, tuple[str, ...]]) -> Floats:
        """Return the inputs with the codes of another model, NaN for what it has none for, (n, n_inputs).

        Args:
            texts: What that model's codes of `LOG_COLUMNS` stand for.
        """
        inputs = self.inputs.copy()
        for name in LOG_COLUMNS:
            code = {text: float(i) for i, text in enumerate(texts.get(name, ()))}
            theirs = np.array([*(code.get(text, np.nan) for text in self.texts.get(name, ())), np.nan])
            own = inputs[:, self.names.index(name)]
            own[:] = theirs[np.where(np.isnan(own), -1, own).astype(np.int64)]
        return inputs

    def write(self, folder: Path) -> Path:
        """Write the rows into a folder; inputs lose half of their digits, labels nothing."""
        columns = {name: self.inputs[:, i].astype(np.float32) for i, name in enumerate(self.names)}
        table = pa.table(
            {
                **columns,
                "_label": self.labels,
                "_issue": self.issues,
                "_customer": self.customers,
                "_group": pa.array(self.groups, pa.string()),
            },
            metadata={"fingerprint": self.fingerprint, "texts": json.dumps(dict(self.texts))},
        )
        pq.write_table(table, folder / FILE, compression="zstd")
        return folder / FILE

    @classmethod
    def read(cls, path: Path) -> HeldOut:
        """Read what `write` wrote."""
        table = pq.read_table(path)
        names = tuple(name for name in table.column_names if not name.startswith("_"))
        inputs = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
        metadata = table.schema.metadata or {}
        return cls(
            inputs,
            names,
            table["_label"].to_numpy(),
            table["_issue"].to_numpy(),
            table["_customer"].to_numpy(),
            metadata.get(b"fingerprint", b"").decode(),
            tuple(table["_group"].to_pylist()),
            {name: tuple(texts) for name, texts in json.loads(metadata.get(b"texts", b"{}")).items()},
        )
