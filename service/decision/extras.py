"""What rules may read beside the matrix columns: context and pseudo columns, as one array for all customers of a batch.

All of it follows from the batch, the request, the catalogue and the decision time: the same for the same, always.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from features.matrix import FUTURE_SECONDS, Columns
from service.decision.circuit import Circuit
from service.decision.expression import CHANNEL, KNOWN, MOMENT_PARTS, PERSONA, age_column, columns_read, part_column
from service.decision.local_time import part_of
from service.decision.model import Catalogue, CustomerBatch, Persona, Request

Floats = NDArray[np.float64]


class Extras:
    """Lays out and fills context and pseudo columns.

    Args:
        read: Names that the rules read; what neither they nor personas read is left out.

    Attributes:
        names: In the order of the rows: channel, known, context fields; of what is read parts, ages, persona.
    """

    def __init__(self, catalogue: Catalogue, columns: Columns, read: Collection[str]) -> None:
        wanted = {*read, *chain.from_iterable(columns_read(persona.expression) for persona in catalogue.personas)}
        views = [view.name for view in columns.layout.views]
        self._channels, self._zone = catalogue.channels, catalogue.zone
        self._context = tuple(field.name for field in catalogue.context)
        self._parts = tuple(part for part in MOMENT_PARTS if part_column(part) in wanted)
        self._ages = tuple(row for row, view in enumerate(views) if age_column(view) in wanted)
        plain = (
            CHANNEL,
            KNOWN,
            *self._context,
            *map(part_column, self._parts),
            *(age_column(views[row]) for row in self._ages),
        )
        self._personas = _circuit(catalogue.personas, columns, plain)
        self._n_plain = len(plain)
        self.names: tuple[str, ...] = (*plain, PERSONA) if PERSONA in read else plain

    def fill(self, batch: CustomerBatch, request: Request, as_of: Floats, now: float) -> Floats:
        """Fill the rows; what the caller did not send, and the age of what was never written, is NULL.

        Args:
            as_of: (n_columns + 1, n_customers).
            now: Decision time, Unix seconds UTC.

        Returns:
            (n_extras, n_customers).
        """
        extras = np.full((len(self.names), len(batch.customer_ids)), np.nan)
        extras[0] = self._channels.index(request.channel)
        extras[1] = batch.is_known
        for row, name in enumerate(self._context, start=2):
            extras[row] = request.context.get(name, np.nan)
        row = 2 + len(self._context)
        if self._parts:
            local = self._zone.local(now)
            extras[row : row + len(self._parts)] = np.array([[part_of(part, local)] for part in self._parts])
            row += len(self._parts)
        if self._ages:
            extras[row : row + len(self._ages)] = ages_days(batch.view_times[list(self._ages)], now)
        if len(self.names) > self._n_plain:
            extras[-1] = self.persona_codes(as_of, extras)
        return extras

    def persona_codes(self, as_of: Floats, extras: Floats) -> Floats:
        """Return (n_customers,) which persona each customer is, whether a rule reads it or not; NULL for none.

        Args:
            as_of: (n_columns + 1, n_customers). extras: (n_extras, n_customers), filled up to the persona.
        """
        if self._personas is None:
            return np.full(as_of.shape[1], np.nan)
        fits = self._personas.evaluate(as_of, extras[: self._n_plain])
        return np.where(fits.any(axis=0), fits.argmax(axis=0), np.nan)


def ages_days(view_times: Floats, now: float) -> Floats:
    """Return how many days ago each view was written; NULL where it never was, or is stamped in the future."""
    ages = (now - view_times) / SECONDS_PER_DAY
    # A clock that is a little ahead is taken for now; what is further ahead counts as stale and has no age.
    return np.where(view_times > now + FUTURE_SECONDS, np.nan, np.maximum(ages, 0.0))


def _circuit(personas: Sequence[Persona], columns: Columns, names: tuple[str, ...]) -> Circuit | None:
    if not personas:
        return None
    trees = [persona.expression for persona in personas]
    return Circuit(trees, list(chain.from_iterable(map(columns_read, trees))), columns.index, names)
