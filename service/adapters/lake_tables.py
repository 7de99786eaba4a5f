"""Journal entries as rows of readable columns: which table each kind goes to and what its columns are.

Decides the schema of the lake's log tables, which analysts, training and off-policy estimates read; knows no file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from service.adapters.journal_entries import (
    decode_decision,
    decode_event,
    decode_outcome,
    decode_shadow,
    decode_switch,
)
from service.decision.log_columns import to_columns

_MOMENT = pa.timestamp("us", tz="UTC")
_PLACED = pa.list_(
    pa.struct(
        [
            ("candidate", pa.int32()),
            ("treatment_id", pa.string()),
            ("placement", pa.string()),
            ("selection_probability", pa.float64()),
        ]
    )
)
_LAYERS = pa.list_(pa.struct([("layer", pa.string()), ("arm", pa.string()), ("probability", pa.float64())]))
_DISTRIBUTIONS = pa.list_(
    pa.struct(
        [
            ("placement", pa.string()),
            ("candidates", pa.list_(pa.int16())),
            ("probabilities", pa.list_(pa.float64())),
        ]
    )
)
_EVIDENCE = pa.list_(pa.struct([("candidate", pa.int16()), ("positives", pa.float64()), ("expected", pa.float64())]))
_EVERY_ROW = [("journal_id", pa.string()), ("partition", pa.int8()), ("logged_at", _MOMENT)]

SCHEMAS: Mapping[str, pa.Schema] = {
    "decisions": pa.schema(
        [
            *_EVERY_ROW,
            ("decision_id", pa.string()),
            ("customer_id", pa.string()),
            ("decision_time", _MOMENT),
            ("decision_seconds", pa.float64()),
            ("channel", pa.string()),
            ("placements", pa.list_(pa.struct([("placement", pa.string()), ("count", pa.int32())]))),
            ("context", pa.map_(pa.string(), pa.float64())),
            ("issues", pa.list_(pa.string())),
            ("limit", pa.int32()),
            ("locale", pa.string()),
            ("arm", pa.string()),
            ("arm_probability", pa.float64()),
            ("layers", _LAYERS),
            ("catalogue_version", pa.string()),
            ("model_version", pa.string()),
            ("features_version", pa.string()),
            ("bundle_digest", pa.string()),
            ("treatment_ids", pa.list_(pa.string())),
            ("stages", pa.list_(pa.int8())),
            ("reasons", pa.list_(pa.int32())),
            ("propensities", pa.list_(pa.float64())),
            ("priorities", pa.list_(pa.float64())),
            ("uplifts", pa.list_(pa.float64())),
            ("evidence", _EVIDENCE),
            ("facts", pa.binary()),
            ("view_times", pa.binary()),
            ("is_known", pa.bool_()),
            ("consents", pa.map_(pa.string(), pa.int8())),
            ("time_zone", pa.string()),
            ("paused", pa.list_(pa.struct([("scope", pa.string()), ("scope_id", pa.string())]))),
            ("room", pa.list_(pa.int16())),
            ("is_loggable", pa.bool_()),
            ("chosen", _PLACED),
            ("withheld", _PLACED),
            ("distributions", _DISTRIBUTIONS),
            ("degraded_reasons", pa.list_(pa.string())),
            ("reselected", pa.bool_()),
            ("dry_run", pa.bool_()),
        ]
    ),
    "outcomes": pa.schema(
        [
            *_EVERY_ROW,
            ("outcome_id", pa.string()),
            ("decision_id", pa.string()),
            ("action_id", pa.string()),
            ("type", pa.string()),
            ("value", pa.float64()),
            ("occurred_at", _MOMENT),
            ("is_orphan", pa.bool_()),
            ("customer_id", pa.string()),
            ("decision_time", _MOMENT),
            ("channel", pa.string()),
            ("issue", pa.string()),
            ("group", pa.string()),
            ("treatment_id", pa.string()),
            ("flags", pa.list_(pa.string())),
            ("body_digest", pa.string()),
        ]
    ),
    "events": pa.schema(
        [
            *_EVERY_ROW,
            ("event_id", pa.string()),
            ("customer_id", pa.string()),
            ("type", pa.string()),
            ("occurred_at", _MOMENT),
            ("properties", pa.string()),
            ("flags", pa.list_(pa.string())),
            ("body_digest", pa.string()),
        ]
    ),
    "shadows": pa.schema(
        [
            *_EVERY_ROW,
            ("decision_id", pa.string()),
            ("customer_id", pa.string()),
            ("decision_time", _MOMENT),
            ("model_version", pa.string()),
            ("bundle_digest", pa.string()),
            ("candidates", pa.list_(pa.int16())),
            ("propensities", pa.list_(pa.float64())),
            ("first_candidate", pa.int16()),
        ]
    ),
    "switches": pa.schema(
        [
            *_EVERY_ROW,
            ("scope", pa.string()),
            ("scope_id", pa.string()),
            ("paused", pa.bool_()),
            ("who", pa.string()),
            ("why", pa.string()),
            ("at", _MOMENT),
        ]
    ),
}
"""Facts and view times of a decision stay as the float64 little-endian bytes that were served, for exact replay."""


class UnreadableEntry(ValueError):
    """A journal entry that no table can take; it has to be set aside or it would block its partition."""

    def __init__(self, entry_id: str, detail: str) -> None:
        super().__init__(f"journal entry {entry_id}: {detail}")
        self.entry_id = entry_id


def row_of(entry_id: str, kind: str, payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return (table, row) of a journal entry.

    Raises:
        UnreadableEntry: The kind is unknown or the payload is damaged.
    """
    try:
        table, read = _READERS[kind]
        row = read(payload)
        row["journal_id"], row["logged_at"] = entry_id, int(entry_id.partition("-")[0]) * 1000
    except Exception as error:
        raise UnreadableEntry(entry_id, f"{kind}: {type(error).__name__}: {error}") from error
    return table, row


def _decision_row(payload: bytes) -> dict[str, Any]:
    return to_columns(decode_decision(payload))


def _outcome_row(payload: bytes) -> dict[str, Any]:
    entry = decode_outcome(payload)
    outcome, decision = entry.outcome, entry.decision
    row: dict[str, Any] = {
        "outcome_id": outcome.outcome_id,
        "decision_id": outcome.decision_id,
        "action_id": outcome.action_id,
        "type": outcome.type,
        "value": outcome.value,
        "occurred_at": _microseconds(outcome.occurred_at),
        "is_orphan": decision is None,
        "flags": list(outcome.flags),
        "body_digest": outcome.body_digest,
    }
    if decision is not None:
        offer = next(offer for offer in decision.offers if offer[0] == outcome.action_id)
        row["issue"], row["group"], row["treatment_id"] = offer[1:4]
        row["customer_id"], row["channel"] = decision.customer_id, decision.channel
        row["decision_time"] = _microseconds(decision.decision_time)
    return row


def _event_row(payload: bytes) -> dict[str, Any]:
    event = decode_event(payload)
    return {
        "event_id": event.event_id,
        "customer_id": event.customer_id,
        "type": event.type,
        "occurred_at": _microseconds(event.occurred_at),
        "properties": json.dumps(event.properties, sort_keys=True),
        "flags": list(event.flags),
        "body_digest": event.body_digest,
    }


def _shadow_row(payload: bytes) -> dict[str, Any]:
    row = asdict(decode_shadow(payload))
    row["decision_time"] = _microseconds(row["decision_time"])
    return row


def _switch_row(payload: bytes) -> dict[str, Any]:
    entry = decode_switch(payload)
    return {
        "scope": entry.scope,
        "scope_id": entry.scope_id,
        "paused": entry.paused,
        "who": entry.who,
        "why": entry.why,
        "at": _microseconds(entry.at),
    }


def _microseconds(moment: float) -> int:
    return round(moment * 1e6)


_READERS: Mapping[str, tuple[str, Callable[[bytes], dict[str, Any]]]] = {
    "decision": ("decisions", _decision_row),
    "outcome": ("outcomes", _outcome_row),
    "orphan": ("outcomes", _outcome_row),
    "event": ("events", _event_row),
    "shadow": ("shadows", _shadow_row),
    "switch": ("switches", _switch_row),
}
