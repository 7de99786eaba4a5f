"""What is known of one customer, for people: columns as of now with their age, journey stage, consent, contacts."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.layout import Kind
from service.answer import finite, iso
from service.online import Serving
from service.ports import CustomerState, StoreUnavailable

VIEW_DEADLINE_SECONDS = 0.25


async def customer_view(state: CustomerState, serving: Serving, customer_id: str, now: float) -> dict[str, Any] | None:
    """Return the customer as of now, or None where nothing at all is known.

    Raises:
        StoreUnavailable: The store did not answer.
    """
    channel = serving.catalogue.catalogue.channels[0]
    gathered = await state.gather(serving.bundle.plan, (customer_id,), channel, now, VIEW_DEADLINE_SECONDS)
    if "features_unavailable" in gathered.degraded_reasons:
        raise StoreUnavailable("features_unavailable")
    contacts = await state.contacts_of(customer_id, now)
    batch = gathered.batch
    if not batch.is_known[0] and not contacts.get("consents") and not contacts.get("contacts"):
        return None
    columns = serving.catalogue.columns
    layout = columns.layout
    values = columns.as_of(batch.facts, now)[:, 0]
    views = {}
    for v, view in enumerate(layout.views):
        written = batch.view_times[v, 0]
        known = {}
        for fact in view.facts:
            if fact.kind in (Kind.ANCHOR, Kind.RECENT):
                continue
            members = layout.dimensions[fact.per] if fact.per else (None,)
            for member in members:
                name = f"{fact.column}__{member}" if member else fact.column
                value = readable(values[columns.index[name]], columns.vocabulary(name))
                if value is not None:
                    known[name] = value
        views[view.name] = {
            "written_at": None if np.isnan(written) else iso(written),
            "age_days": None if np.isnan(written) else round((now - written) / 86_400, 6),
            "max_age_days": view.max_age_days,
            "columns": known,
        }
    derived = (
        name for name in ("stage", *(n for n in columns.names if n.startswith(("gap_", "silence_", "shopping_days_"))))
    )
    return {
        "customer_id": customer_id,
        "as_of": iso(now),
        "is_known": bool(batch.is_known[0]),
        "journey": {name: readable(values[columns.index[name]], columns.vocabulary(name)) for name in derived},
        "views": views,
        **contacts,
    }


def readable(value: float, vocabulary: tuple[str, ...]) -> str | float | None:
    """Return a column's value as a person reads it: a text for a code, None for missing."""
    if vocabulary and not np.isnan(value):
        return vocabulary[int(value)]
    return finite(value)
