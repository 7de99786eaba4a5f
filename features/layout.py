"""The kinds of facts and where each lies in a row of numbers. Knows nothing of any business.

A *fact* is what the feature store holds: it does not age by itself. A *column* is what a fact is worth as of a
decision time. Every fact is a float64, or a fixed-length array of float64, so that a customer is one column of one
matrix; text is held as the position in a declared vocabulary. NaN is the one and only "missing".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400.0


class Kind(StrEnum):
    """How a fact turns into a column as of a decision time (`matrix.columns_as_of`)."""

    MOMENT = "moment"
    """Unix seconds UTC -> elapsed days; `last_basket_at` becomes `days_since_last_basket`."""
    DECAYED = "decayed"
    """Sum of v * 2^(-(anchor - t) / half_life) over events -> the same sum as of now; keeps its name."""
    COUNT = "count"
    """A number that only grows or is set; keeps its name and value."""
    CATEGORY = "category"
    """A text from a declared vocabulary, held in the store as text, in a row as its position."""
    ANCHOR = "anchor"
    """Unix seconds UTC of the moment to which the view's decayed sums are anchored; has no column of its own."""
    RECENT = "recent"
    """Array of the latest distinct day numbers, ascending, NaN-padded at the end; read by the journey columns only."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of a view.

    Attributes:
        name: Unique over all views; ends in `_at` for a moment.
        kind: How it ages.
        description: One sentence for data scientists; becomes the Feast field's description.
        half_life_days: For `Kind.DECAYED` only.
        vocabulary: For `Kind.CATEGORY` only; the code of a text is its position, anything else is missing.
        per: Name of the dimension for an array fact (one element a member), or None.
        length: Number of elements: 1, the dimension's size, or the capacity of a `Kind.RECENT` list.
    """

    name: str
    kind: Kind
    description: str
    half_life_days: float | None = None
    vocabulary: tuple[str, ...] = ()
    per: str | None = None
    length: int = 1

    @property
    def column(self) -> str:
        """Name of the column that this fact becomes (`days_since_...` for moments)."""
        if self.kind is Kind.MOMENT:
            return "days_since_" + self.name.removesuffix("_at")
        return self.name


@dataclass(frozen=True, slots=True)
class View:
    """A Feast feature view: facts that are written together.

    Attributes:
        name: The Feast feature view's name.
        facts: In contract order; a view with decayed facts has exactly one `Kind.ANCHOR` fact.
        max_age_days: Values whose event timestamp is older than this count as missing.
    """

    name: str
    description: str
    facts: tuple[Fact, ...]
    max_age_days: float


@dataclass(frozen=True)
class Layout:
    """Where each fact lies in the facts matrix of shape (width, n_customers).

    Attributes:
        views: The views, in contract order.
        dimensions: Name of a dimension -> its members, e.g. aisle -> ("baby", ...).
    """

    views: tuple[View, ...]
    dimensions: dict[str, tuple[str, ...]]
    facts: dict[str, Fact] = field(init=False)
    slices: dict[str, slice] = field(init=False)
    view_of: dict[str, str] = field(init=False)
    width: int = field(init=False)

    def __post_init__(self) -> None:
        facts: dict[str, Fact] = {}
        slices: dict[str, slice] = {}
        view_of: dict[str, str] = {}
        start = 0
        for view in self.views:
            for fact in view.facts:
                if fact.name in facts:
                    raise ValueError(f"fact {fact.name!r} is declared twice (views {view_of[fact.name]}, {view.name})")
                if fact.per is not None and fact.length != len(self.dimensions[fact.per]):
                    raise ValueError(f"fact {fact.name!r} has length {fact.length}, dimension {fact.per} has another")
                facts[fact.name], view_of[fact.name] = fact, view.name
                slices[fact.name] = slice(start, start + fact.length)
                start += fact.length
        object.__setattr__(self, "facts", facts)
        object.__setattr__(self, "slices", slices)
        object.__setattr__(self, "view_of", view_of)
        object.__setattr__(self, "width", start)

    @cached_property
    def max_age_seconds(self) -> NDArray[np.float64]:
        """(n_views, 1) the age above which a view's values count as missing."""
        return np.array([[view.max_age_days * SECONDS_PER_DAY] for view in self.views])

    def elements(self) -> Iterator[tuple[int, Fact, str | None]]:
        """Yield (row, fact, member or None) for every row of the facts matrix."""
        for name, fact in self.facts.items():
            members: Sequence[str | None] = self.dimensions[fact.per] if fact.per else [None] * fact.length
            for offset, member in enumerate(members):
                yield self.slices[name].start + offset, fact, member
