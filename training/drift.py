"""How far a distribution has moved from the one a model was trained on: the population stability index.

    PSI = sum over bins of (now - then) x ln(now / then), bins of equal mass then, missing values a bin of their own.

Usual reading (Siddiqi 2006): below .10 stable, .10 to .25 watch, above .25 shifted. Knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10
WATCH, SHIFTED = 0.10, 0.25
FLOOR = 0.5
"""Rows that an empty bin counts as: a share of 0 would make the index infinite."""


@dataclass(frozen=True)
class Baseline:
    """A distribution as bins, to be kept with a model.

    Attributes:
        edges: (n_bins - 1,) inner edges; a value on an edge is in the bin above.
        counts: (n_bins + 1,) rows in each bin, the last: missing.
    """

    edges: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, bins: int = BINS) -> Baseline:
        """Cut into bins of about equal mass; heavy values take a bin of their own, so there may be fewer."""
        known = values[~np.isnan(values)]
        cuts = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]) if len(known) else np.empty(0)
        edges = np.unique(cuts)
        return cls(edges, _counts(edges, values))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Baseline:
        """Read what `document` wrote."""
        return cls(np.array(document["edges"], dtype=float), np.array(document["counts"], dtype=float))

    def document(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {"edges": self.edges.tolist(), "counts": self.counts.tolist()}

    def psi(self, values: Floats) -> float:
        """Return the index of values as they are now; NaN where there are none.

        Args:
            values: (n,) NaN for missing.
        """
        if not len(values) or not self.counts.sum():
            return float("nan")
        now = _counts(self.edges, values)
        is_used = (self.counts > 0) | (now > 0)
        then_share = np.maximum(self.counts, FLOOR)[is_used] / self.counts.sum()
        now_share = np.maximum(now, FLOOR)[is_used] / now.sum()
        return float(((now_share - then_share) * np.log(now_share / then_share)).sum())


def _counts(edges: Floats, values: Floats) -> Floats:
    missing = np.isnan(values)
    places = np.searchsorted(edges, values[~missing], side="right")
    return np.append(np.bincount(places, minlength=len(edges) + 1), missing.sum()).astype(np.float64)


def reading(psi: float) -> str:
    """Return stable, watch, shifted or unknown."""
    if psi != psi:
        return "unknown"
    if psi < WATCH:
        return "stable"
    return "watch" if psi < SHIFTED else "shifted"


def drift(then: Mapping[str, Floats], now: Mapping[str, Floats]) -> dict[str, float]:
    """Return name -> PSI for what both have, the greatest first."""
    found = {name: Baseline.of(values).psi(now[name]) for name, values in then.items() if name in now}
    return dict(sorted(found.items(), key=lambda item: (-item[1] if item[1] == item[1] else 0.0, item[0])))
