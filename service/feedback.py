"""Outcomes and events: check what a schema cannot, fill defaults, hand them to the journal.

Decides what is taken in and which moment it is given. Knows the journal as a port and the events as `features.events`
declares them; no store, no wire format. One bad item never refuses the others of its list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, TypeVar

from features.event_shapes import is_sound
from features.events import EVENT_TYPES, EventError, check_event
from service.catalogue.time_zones import clock_of
from service.ports import Clock, Event, Journal, Outcome, Receipt

OUTCOME_TYPES = ("impression", "click", "accept", "reject", "conversion")
CONSENT_EVENT, TIME_ZONE_EVENT = "consent_changed", "time_zone_changed"
SKEW_SECONDS = 300.0
"""What is said to lie further ahead than this is given the present moment and flagged `clock_skew`."""
LATE_SECONDS = 86_400.0
"""What is said to lie further back than this is taken as any other, with its own moment, and flagged `late`."""
MAX_ID = 128

_CONSENT_FIELDS = ("channel", "purpose", "granted", "source", "expiry")
_TIME_ZONE_FIELDS = ("time_zone", "source")
Item = TypeVar("Item", Outcome, Event)


class Refused(ValueError):
    """An item that cannot be taken: `field: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Takes what customers did and what became of actions."""

    journal: Journal
    clock: Clock

    async def take_outcomes(self, outcomes: Sequence[Outcome]) -> list[Receipt]:
        """Check and append outcomes; a NaN `occurred_at` is the present moment.

        Returns:
            A receipt for each, in order. Raises StoreUnavailable: then none may be taken as stored.
        """
        now = self.clock.now()
        return await _take(outcomes, now, checked_outcome, self.journal.append_outcomes)

    async def take_events(self, events: Sequence[Event]) -> list[Receipt]:
        """Check and append events, as `take_outcomes`."""
        now = self.clock.now()
        return await _take(events, now, checked_event, self.journal.append_events)


async def _take(
    items: Sequence[Item],
    now: float,
    check: Callable[[Item, float], Item],
    append: Callable[[Sequence[Item], float], Awaitable[list[Receipt]]],
) -> list[Receipt]:
    receipts: dict[int, Receipt] = {}
    good: dict[int, Item] = {}
    for i, item in enumerate(items):
        try:
            good[i] = check(item, now)
        except (Refused, EventError) as error:
            receipts[i] = Receipt(_id_of(item), "invalid", str(error))
    if good:
        taken = await append(list(good.values()), now)
        for (i, item), receipt in zip(good.items(), taken, strict=True):
            receipts[i] = replace(receipt, flags=item.flags) if item.flags else receipt
    return [receipts[i] for i in range(len(items))]


def checked_outcome(outcome: Outcome, now: float) -> Outcome:
    """Return the outcome as it goes to the journal.

    Raises:
        Refused: naming the field.
    """
    for name in ("outcome_id", "decision_id", "action_id"):
        _check_id(name, getattr(outcome, name))
    if outcome.type not in OUTCOME_TYPES:
        raise Refused(f"type: is none of {', '.join(OUTCOME_TYPES)}")
    if outcome.value is not None and not math.isfinite(outcome.value):
        raise Refused("value: must be a finite number")
    body = [outcome.decision_id, outcome.action_id, outcome.type, outcome.value, _said(outcome.occurred_at)]
    occurred_at, flags = _timed(outcome, now)
    return replace(outcome, occurred_at=occurred_at, flags=flags, body_digest=_digest(body))


def checked_event(event: Event, now: float) -> Event:
    """Return the event as it goes to the journal; a consent's `expiry` becomes Unix seconds.

    Raises:
        Refused, EventError: naming the field.
    """
    _check_id("event_id", event.event_id)
    _check_id("customer_id", event.customer_id)
    properties = event.properties
    if event.type == CONSENT_EVENT:
        properties = checked_consent(properties)
    elif event.type == TIME_ZONE_EVENT:
        properties = checked_time_zone(properties)
    elif event.type not in EVENT_TYPES:
        raise Refused(f"type: is none of {', '.join((*EVENT_TYPES, CONSENT_EVENT, TIME_ZONE_EVENT))}")
    elif not is_sound(event.type, properties):
        check_event(event.type, properties)
    body = [event.customer_id, event.type, properties, _said(event.occurred_at)]
    occurred_at, flags = _timed(event, now)
    return replace(event, properties=properties, occurred_at=occurred_at, flags=flags, body_digest=_digest(body))


def checked_consent(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a consent: channel, purpose, granted, source, and expiry in Unix seconds or None."""
    _check_fields(said, _CONSENT_FIELDS)
    for name in ("channel", "purpose", "source"):
        _check_word(said, name)
    if not isinstance(said.get("granted"), bool):
        raise Refused("properties.granted: must be true or false")
    return {**said, "expiry": _moment(said.get("expiry"))}


def checked_time_zone(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a customer's time zone: time_zone, and source if it is said."""
    _check_fields(said, _TIME_ZONE_FIELDS)
    for name in ("time_zone", "source") if "source" in said else ("time_zone",):
        _check_word(said, name)
    if clock_of(said["time_zone"]) is None:
        raise Refused("properties.time_zone: must be a name of the IANA time zone database, e.g. Europe/Lisbon")
    return dict(said)


def _check_fields(said: Mapping[str, Any], known: Sequence[str]) -> None:
    if any(name not in known for name in said):
        raise Refused(f"properties: has a field that is not known here (known: {', '.join(known)})")


def _check_word(said: Mapping[str, Any], name: str) -> None:
    value = said.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 100 or "|" in value:
        raise Refused(f"properties.{name}: must be a text of 1 to 100 characters without '|'")


def _moment(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Refused("properties.expiry: must be a date and time with a zone, e.g. 2027-01-31T00:00:00Z")
    return moment.timestamp()


def _timed(item: Outcome | Event, now: float) -> tuple[float, tuple[str, ...]]:
    """Return the moment that an item is given, and its flags."""
    if math.isnan(item.occurred_at):
        return now, item.flags
    if item.occurred_at > now + SKEW_SECONDS:
        return now, (*item.flags, "clock_skew")
    if item.occurred_at < now - LATE_SECONDS:
        return item.occurred_at, (*item.flags, "late")
    return item.occurred_at, item.flags


def _check_id(name: str, value: str) -> None:
    if not 0 < len(value) <= MAX_ID:
        raise Refused(f"{name}: must be a text of 1 to {MAX_ID} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{name}: is not valid Unicode") from None


def _said(occurred_at: float) -> float | None:
    return None if math.isnan(occurred_at) else occurred_at


def _id_of(item: Outcome | Event) -> str:
    return item.outcome_id if isinstance(item, Outcome) else item.event_id


def _digest(body: Any) -> str:
    return blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
