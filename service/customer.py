"""What is known of one customer, for people: columns as of now with their age, journey stage, consent, contacts."""

from __future__ import annotations

import math
from typing import Any

from features.layout import SECONDS_PER_DAY, Kind, Layout, View
from features.matrix import JOURNEY_COLUMNS
from service.answer import finite, iso
from service.online import Serving
from service.ports import CustomerState, StoreUnavailable

Readable = str | float | None
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
    values = columns.as_of(batch.facts, now)[:, 0]
    known = {name: readable(values[row], columns.vocabulary(name)) for name, row in columns.index.items()}
    written = dict(zip((view.name for view in columns.layout.views), batch.view_times[:, 0].tolist(), strict=True))
    return {
        "customer_id": customer_id,
        "as_of": iso(now),
        "is_known": bool(batch.is_known[0]),
        "journey": {name: known[name] for name in JOURNEY_COLUMNS},
        "views": {
            view.name: view_of(view, columns.layout, written[view.name], known, now) for view in columns.layout.views
        },
        **contacts,
    }


def view_of(view: View, layout: Layout, written_at: float, known: dict[str, Readable], now: float) -> dict[str, Any]:
    """Return one view: when it was written, and its columns that are not missing."""
    names = []
    for fact in view.facts:
        if fact.kind not in (Kind.ANCHOR, Kind.RECENT):
            members = layout.dimensions[fact.per] if fact.per else None
            names += [f"{fact.column}__{member}" for member in members] if members else [fact.column]
    is_written = not math.isnan(written_at)
    return {
        "written_at": iso(written_at) if is_written else None,
        "age_days": (now - written_at) / SECONDS_PER_DAY if is_written else None,
        "max_age_days": view.max_age_days,
        "columns": {name: known[name] for name in names if known[name] is not None},
    }


def readable(value: float, vocabulary: tuple[str, ...]) -> Readable:
    """Return a column's value as a person reads it: a text for a code, None for missing."""
    if vocabulary and not math.isnan(value):
        return vocabulary[int(value)]
    return finite(value)
