"""What is taken in, and which moment it is given."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from features.contract import LAYOUT
from service.adapters.connection import Link
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.feedback import (
    LATE_SECONDS,
    SKEW_SECONDS,
    Feedback,
    Refused,
    checked_consent,
    checked_event,
    checked_outcome,
)
from service.ports import Caps, Event, Outcome, Receipt
from tests.service.rows import CHEESE, decision_row

NOW = 1_770_000_000.0
NAN = math.nan
PURCHASE = {"lines": [{"aisle": "deli", "quantity": 1, "sales_value": 2.5}]}
CONSENT = {"channel": "app", "purpose": "marketing", "granted": True, "source": "web"}


class FixedClock:
    """A clock that stands at NOW plus what it was told."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        """Return Unix seconds."""
        return NOW + self.ahead


@pytest.mark.parametrize(
    ("said", "taken", "flags"),
    [
        (NAN, NOW, ()),
        (NOW - LATE_SECONDS, NOW - LATE_SECONDS, ()),
        (NOW - 1e6, NOW - 1e6, ("late",)),
        (NOW + SKEW_SECONDS, NOW + SKEW_SECONDS, ()),
        (NOW + SKEW_SECONDS + 1, NOW, ("clock_skew",)),
        (math.inf, NOW, ("clock_skew",)),
    ],
)
def test_the_moment_is_as_told_unless_it_is_missing_or_ahead(said: float, taken: float, flags: tuple[str, ...]) -> None:
    """No moment means now; more than five minutes ahead becomes now; the past is believed; both are flagged."""
    outcome = checked_outcome(Outcome("o", "d", "a", "click", None, said), NOW)
    event = checked_event(Event("e", "c", "purchase", said, PURCHASE), NOW)
    assert (outcome.occurred_at, outcome.flags) == (event.occurred_at, event.flags) == (taken, flags)


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Outcome("o", "d", "a", "bought", None, NAN), "type: is none of impression, click"),
        (Outcome("", "d", "a", "click", None, NAN), "outcome_id: must be a text of 1 to 128"),
        (Outcome("o", "d" * 129, "a", "click", None, NAN), "decision_id: must be"),
        (Outcome("o", "d", "\ud800", "click", None, NAN), "action_id: is not valid Unicode"),
        (Outcome("o", "d", "a", "click", math.inf, NAN), "value: must be a finite number"),
    ],
)
def test_an_outcome_that_cannot_be_taken_names_its_field(outcome: Outcome, complaint: str) -> None:
    """Each refusal says which field and what is wrong with it."""
    with pytest.raises(Refused, match=complaint):
        checked_outcome(outcome, NOW)


@pytest.mark.parametrize(
    ("kind", "properties", "complaint"),
    [
        ("danced", {}, "type: is none of purchase, .*consent_changed"),
        ("purchase", {}, "properties.lines: is missing"),
        ("purchase", {"lines": [{"aisle": "dely", "quantity": 1, "sales_value": 1}]}, "did you mean 'deli'"),
        ("consent_changed", {**CONSENT, "granted": "yes"}, "properties.granted: must be true or false"),
        ("consent_changed", {**CONSENT, "channel": "a|b"}, r"properties.channel: .*without '\|'"),
        ("consent_changed", {k: v for k, v in CONSENT.items() if k != "source"}, "properties.source"),
        ("consent_changed", {**CONSENT, "because": "x"}, "properties: has a field that is not known here"),
        ("consent_changed", {**CONSENT, "expiry": "soon"}, "properties.expiry: must be a date and time with a zone"),
        ("consent_changed", {**CONSENT, "expiry": "2027-01-01T00:00:00"}, "with a zone"),
    ],
)
def test_an_event_that_cannot_be_taken_names_its_field(kind: str, properties: dict[str, Any], complaint: str) -> None:
    """Types and properties are checked to the last field, with a suggestion where one is near."""
    with pytest.raises(ValueError, match=complaint):
        checked_event(Event("e", "c", kind, NAN, properties), NOW)


def test_an_expiry_of_consent_becomes_a_moment() -> None:
    """An expiry may be RFC 3339 or Unix seconds, and is Unix seconds from then on."""
    assert checked_consent({**CONSENT, "expiry": "2027-01-31T00:00:00Z"})["expiry"] == 1_801_353_600.0
    assert checked_consent({**CONSENT, "expiry": 5})["expiry"] == 5.0
    assert checked_consent(CONSENT)["expiry"] is None


def test_one_bad_item_does_not_refuse_the_others(clean_url: str) -> None:
    """A list gets a receipt for each item in its place; only the bad one is `invalid`, with the reason."""

    async def scenario() -> list[Receipt]:
        journal = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=100)
        events = [
            Event("e1", "c", "purchase", NAN, PURCHASE),
            Event("e2", "c", "purchase", NAN, {"lines": []}),
            Event("e3", "c", "consent_changed", NAN, CONSENT),
        ]
        receipts = await Feedback(journal, FixedClock()).take_events(events)
        await journal.close()
        return receipts

    first, second, third = asyncio.run(scenario())
    assert (first, third) == (Receipt("e1", "accepted"), Receipt("e3", "accepted"))
    assert (second.id, second.status) == ("e2", "invalid")
    assert (second.detail or "").startswith("properties.lines: ")


def test_a_repeat_without_a_moment_is_still_a_repeat(clean_url: str) -> None:
    """The same sent again later is a duplicate although the moment filled in differs; other content is a conflict."""

    async def scenario() -> list[str]:
        link = Link(clean_url)
        row = decision_row("c", NOW)
        await RedisState(link, link, LAYOUT).record(
            row, (CHEESE,), Caps(), answer=None, request_digest="", deadline_seconds=5
        )
        journal, clock = RedisJournal(clean_url, deadline_seconds=5, idempotency_seconds=100), FixedClock()
        feedback = Feedback(journal, clock)
        statuses = []
        for kind in ("click", "click", "accept"):
            clock.ahead += 60
            [receipt] = await feedback.take_outcomes([Outcome("o", row.decision_id, "upsell_cheese", kind, None, NAN)])
            statuses.append(receipt.status)
        await journal.close()
        await link.close()
        return statuses

    assert asyncio.run(scenario()) == ["accepted", "duplicate", "conflict"]


def test_a_time_zone_is_a_name_of_the_database() -> None:
    """What the database does not have is refused by field, and so is what is not known of a time zone."""

    def refusal(properties: dict[str, Any]) -> str:
        with pytest.raises(Refused) as caught:
            checked_event(Event("e", "c", "time_zone_changed", NOW, properties), NOW)
        return str(caught.value)

    taken = checked_event(Event("e", "c", "time_zone_changed", NOW, {"time_zone": "Europe/Lisbon"}), NOW)
    assert taken.properties == {"time_zone": "Europe/Lisbon"}
    for wrong in ("Europe/Lisboa", "../../etc/passwd", "", 7, "a|b"):
        assert refusal({"time_zone": wrong}).startswith("properties.time_zone: must be a ")
    assert refusal({"time_zone": "UTC", "offset": 1}).startswith("properties: has a field that is not known here")
    assert refusal({"time_zone": "UTC", "source": ""}).startswith("properties.source: must be a text")
