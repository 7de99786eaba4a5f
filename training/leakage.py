"""Which inputs give the outcome away, as only what was written down after it can. Knows columns and labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import rankdata

from training.findings import Finding
from training.table_numbers import is_number, numbers

Floats = NDArray[np.float64]

TELLTALE_AUC = 0.95
"""One input alone that ranks so well is rather an echo of the outcome than a cause of it."""
LEAST_CERTAIN = 20
"""So many rows of one kind with never another outcome, where that many of the other were due, are no accident."""
MOST_KINDS = 50
"""Columns of no more distinct values are looked at value by value."""


def leaks(table: pa.Table, labels: Floats, inputs: list[str]) -> Iterator[Finding]:
    """Yield what each input gives away; `labels` (n,) 0 or 1."""
    suspects = 0
    for name in inputs:
        column = table[name]
        if column.null_count == len(column) or pc.count_distinct(column, mode="all").as_py() == 1:
            yield Finding("inputs", "warning", f"{name!r} is the same in every row", "leave it out: it says nothing")
            continue
        tells, is_sure = _tells(column, labels)
        if tells:
            suspects += 1
            remedy = "leave it out unless it was known before the moment; --ignore names columns that are no inputs"
            yield Finding("leakage", "wrong" if is_sure else "warning", f"{name!r} {tells}", remedy)
    if not suspects:
        yield Finding("leakage", "ok", f"none of {len(inputs)} inputs gives the outcome away")


def _tells(column: pa.ChunkedArray, labels: Floats) -> tuple[str, bool]:
    """Say how a column gives the outcome away, or "", and whether that is sure: some may honestly never respond."""
    values = numbers(column)
    if is_number(column):
        known = ~np.isnan(values)
        area = auc_of(labels[known], values[known]) if known.any() else 0.5
        if max(area, 1 - area) > TELLTALE_AUC:
            return f"alone ranks the outcome almost perfectly (AUC {max(area, 1 - area):.3f})", True
    # What is most common means "nothing happened" in a column that is written afterwards.
    kinds, codes, counts = np.unique(values, return_inverse=True, return_counts=True, equal_nan=True)
    groups = [("differs from its most common value", codes != counts.argmax())]
    if len(kinds) <= MOST_KINDS:
        groups += [("has one of its values", codes == code) for code in range(len(kinds))]
    doubt = ""
    for text, rows in groups:
        n, positives = int(rows.sum()), float(labels[rows].sum())
        rate = labels[~rows].mean() if (~rows).any() else 0.0
        if n * (1 - rate) >= LEAST_CERTAIN and positives == n:
            return f"comes with a positive in all {n:,} rows where it {text}", True
        if n * rate >= LEAST_CERTAIN and positives == 0 and len(kinds) <= MOST_KINDS:
            doubt = doubt or f"comes with no positive in {n:,} rows where it {text}"
    return doubt, False


def auc_of(labels: Floats, scores: Floats) -> float:
    """Return the area under the ROC curve, ties counted half; .5 where only one outcome is there."""
    n, positives = len(labels), float(labels.sum())
    if not 0 < positives < n:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (n - positives)))
