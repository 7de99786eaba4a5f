"""Many customers as they are known at a moment, to try a catalogue on: no request, no history, no store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.matrix import mask_stale
from service.catalogue.time_zones import local_times
from service.decision.compiled import CompiledCatalogue
from service.decision.model import Contacts, CustomerBatch

Floats = NDArray[np.float64]
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Population:
    """Customers with their latest facts.

    Attributes:
        facts: (layout.width, n), as written. view_times: (n_views, n) Unix seconds, NaN where never written.
    """

    customer_ids: tuple[str, ...]
    facts: Floats
    view_times: Floats

    def batches(self, catalogue: CompiledCatalogue, now: float) -> Iterator[CustomerBatch]:
        """Yield the customers in chunks, as if every consent were given and nobody had ever been contacted."""
        granted: Mapping[str, int] = {action.purpose: 1 for action in catalogue.catalogue.actions}
        for start in range(0, len(self.customer_ids), CHUNK):
            part = slice(start, start + CHUNK)
            facts = np.ascontiguousarray(self.facts[:, part])
            times = np.ascontiguousarray(self.view_times[:, part])
            mask_stale(catalogue.columns.layout, facts, times, now)
            n = facts.shape[1]
            yield CustomerBatch(
                customer_ids=self.customer_ids[part],
                facts=facts,
                view_times=times,
                is_known=np.asarray(~np.isnan(times).all(axis=0)),
                consents=(granted,) * n,
                contacts=Contacts.none(),
                local=local_times(("",) * n, catalogue.catalogue.zone.name, now)[0],
            )
