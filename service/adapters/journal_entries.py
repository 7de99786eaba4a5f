"""The payloads of the journal, as msgpack: what stands in a stream entry and how the lake and the worker read it.

An outcome's entry is an array of two: the decision as the store knew it (null for an orphan) and the outcome, glued by
the atomic script from bytes that were encoded here, so that nothing is re-encoded in Lua.
"""

from __future__ import annotations

from typing import Any

import msgspec

from service.decision.record import DecisionRow
from service.ports import Event, Outcome


class KnownDecision(msgspec.Struct, array_like=True, frozen=True):
    """What outcomes need of their decision."""

    customer_id: str
    customer_digest: str
    decision_time: float
    channel: str
    offers: tuple[tuple[str, str, str, str, bool], ...]
    """(action_id, issue, group, treatment_id, is_marketing)."""


class OutcomeEntry(msgspec.Struct, array_like=True, frozen=True):
    """An outcome with its decision, or without one where it is an orphan."""

    decision: KnownDecision | None
    outcome: Outcome


class SwitchEntry(msgspec.Struct, array_like=True, frozen=True):
    """Who paused or resumed what, when and why."""

    scope: str
    scope_id: str
    paused: bool
    who: str
    why: str
    at: float


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
_decode_decision_row = msgspec.msgpack.Decoder(DecisionRow).decode
_decode_outcome = msgspec.msgpack.Decoder(OutcomeEntry).decode
_decode_event = msgspec.msgpack.Decoder(Event).decode
_decode_switch = msgspec.msgpack.Decoder(SwitchEntry).decode
_decode_stored = msgspec.msgpack.Decoder(tuple[str, KnownDecision]).decode


def decode_decision(payload: bytes) -> DecisionRow:
    """Read the payload of a `decision` entry."""
    return _decode_decision_row(payload)


def decode_outcome(payload: bytes) -> OutcomeEntry:
    """Read the payload of an `outcome` or `orphan` entry."""
    return _decode_outcome(payload)


def decode_event(payload: bytes) -> Event:
    """Read the payload of an `event` entry."""
    return _decode_event(payload)


def decode_switch(payload: bytes) -> SwitchEntry:
    """Read the payload of a `switch` entry."""
    return _decode_switch(payload)


def decode_stored_decision(value: bytes) -> tuple[str, KnownDecision]:
    """Read the value of a decision key: (journal id, decision)."""
    return _decode_stored(value)


def as_text(value: Any) -> str:
    """Return a reply's text."""
    return value.decode() if isinstance(value, bytes) else str(value)
