"""A customer's facts as one row of numbers, and each view of it as Feast stores it; there and back. Pure.

Knows the layout alone: what events do to the facts is said in `facts.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import LAYOUT
from features.layout import View

Floats = NDArray[np.float64]

VIEWS = {view.name: view for view in LAYOUT.views}
BLOCKS = {
    view.name: slice(LAYOUT.slices[view.facts[0].name].start, LAYOUT.slices[view.facts[-1].name].stop)
    for view in LAYOUT.views
}


def unknown() -> Floats:
    """Return the facts of a customer of whom nothing is known: (LAYOUT.width,), all NaN."""
    return np.full(LAYOUT.width, np.nan)


def to_view(row: Floats, view: str) -> dict[str, Any]:
    """Turn a view's part of a row into its Feast columns.

    Args:
        row: (LAYOUT.width,).
        view: The view's name.

    Returns:
        Fact name -> float, text, list of floats (NaN where missing), or None for a missing single value.
    """
    return {fact.name: _stored(fact.vocabulary, row[LAYOUT.slices[fact.name]]) for fact in VIEWS[view].facts}


def _stored(vocabulary: tuple[str, ...], values: Floats) -> Any:
    if len(values) > 1:
        return values.tolist()
    value = float(values[0])
    if value != value:
        return None
    return vocabulary[int(value)] if vocabulary else value


def from_view(values: Mapping[str, Any], view: str, row: Floats | None = None) -> Floats:
    """Turn a view's Feast columns into its part of a row: the inverse of `to_view`.

    Args:
        values: Fact name -> value; an absent name, None, or a text outside the vocabulary is missing.
        view: The view's name.
        row: (LAYOUT.width,) to fill in place, or None.

    Returns:
        The view's part of the row, in contract order.
    """
    block = np.full(_width(VIEWS[view]), np.nan) if row is None else row[BLOCKS[view]]
    start = BLOCKS[view].start
    for fact in VIEWS[view].facts:
        place, value = LAYOUT.slices[fact.name], values.get(fact.name)
        if fact.vocabulary and value is not None:
            value = fact.vocabulary.index(value) if value in fact.vocabulary else None
        block[place.start - start : place.stop - start] = np.nan if value is None else value
    return block


def _width(view: View) -> int:
    block = BLOCKS[view.name]
    return int(block.stop - block.start)
