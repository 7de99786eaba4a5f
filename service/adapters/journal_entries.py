"""The payloads of the journal, as msgpack: what stands in a stream entry and how the lake and the worker read it.

An outcome's entry is an array of two: the decision as the store knew it (null for an orphan) and the outcome, glued by
the atomic script from bytes that were encoded here, so that nothing is re-encoded in Lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
import numpy as np

from features.layout import SECONDS_PER_DAY
from service.decision.record import DecisionRow
from service.ports import Event, Outcome, Shadow

EVIDENCE_SECONDS = 28 * SECONDS_PER_DAY
"""Half-life of evidence of offers that come without one."""


Offered = tuple[str, str, str, str, bool, str]
"""(action_id, issue, group, treatment_id, is_marketing, placement)."""


class KnownDecision(msgspec.Struct, array_like=True, frozen=True):
    """What outcomes need of their decision."""

    customer_id: str
    customer_digest: str
    decision_time: float
    channel: str
    offers: tuple[Offered, ...]
    propensities: tuple[float, ...] = ()
    """Of the offers: how many positives are expected of an impression."""
    half_life_seconds: float = EVIDENCE_SECONDS
    """After this long an outcome counts half as evidence."""


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


class _DecisionHead(msgspec.Struct, array_like=True, frozen=True):
    """The first field of a decision's entry."""

    decision_id: str


Sparse = tuple[int, bytes, bytes]
"""Float64 numbers of which many are NaN: how many, a bit for each that is not, and those that are not."""
_SPARSE = ("propensities", "priorities", "uplifts", "facts")
_FIELDS = tuple(field.name for field in fields(DecisionRow))
_SPARSE_AT = tuple(_FIELDS.index(name) for name in _SPARSE)
_values_of, _sparse_of = attrgetter(*_FIELDS), attrgetter(*_SPARSE)
_FILLS = tuple(np.full(-size % 8, np.nan).tobytes() for size in range(8))
_TYPES = {**get_type_hints(DecisionRow), **dict.fromkeys(_SPARSE, Sparse)}
_ROW: Any = tuple[tuple([_TYPES[name] for name in _FIELDS])]  # type: ignore[misc]

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
_decode_decision_row = msgspec.msgpack.Decoder(_ROW).decode
_decode_outcome = msgspec.msgpack.Decoder(OutcomeEntry).decode
_decode_event = msgspec.msgpack.Decoder(Event).decode
_decode_shadow = msgspec.msgpack.Decoder(Shadow).decode
_decode_switch = msgspec.msgpack.Decoder(SwitchEntry).decode
_decode_head = msgspec.msgpack.Decoder(_DecisionHead).decode
_decode_parked = msgspec.msgpack.Decoder(Outcome).decode
_decode_stored = msgspec.msgpack.Decoder(tuple[str, KnownDecision]).decode


def encode_decision(row: DecisionRow) -> bytes:
    """Write the payload of a `decision` entry: an array of the row's fields in their order."""
    return encode_decisions([row])[0]


def encode_decisions(rows: Sequence[DecisionRow]) -> list[bytes]:
    """Write the payloads of many, as `encode_decision` writes each."""
    sparse = iter(_without_nan([content for row in rows for content in _sparse_of(row)]))
    payloads = []
    for row in rows:
        values: list[Any] = list(_values_of(row))
        for i in _SPARSE_AT:
            values[i] = next(sparse)
        payloads.append(_encoder.encode(values))
    return payloads


def decode_decision(payload: bytes) -> DecisionRow:
    """Read the payload of a `decision` entry."""
    values: list[Any] = list(_decode_decision_row(payload))
    for i in _SPARSE_AT:
        values[i] = _with_nan(values[i])
    return DecisionRow(*values)


def _without_nan(contents: Sequence[bytes]) -> list[Sparse]:
    """Leave out what is NaN, of all in one go: each is filled up with NaN to whole bytes of bits, then all is cut."""
    sizes = [len(content) // 8 for content in contents]
    parts = [part for content, size in zip(contents, sizes, strict=True) for part in (content, _FILLS[size % 8])]
    numbers = np.frombuffer(b"".join(parts), "<f8")
    is_there = numbers == numbers
    bits, there = np.packbits(is_there).tobytes(), numbers[is_there].tobytes()
    found: list[Sparse] = []
    at = start = 0
    for size in sizes:
        mine = bits[at : (at := at + (size + 7) // 8)]
        found.append((size, mine, there[start : (start := start + 8 * int.from_bytes(mine).bit_count())]))
    return found


def _with_nan(sparse: Sparse) -> bytes:
    size, bits, content = sparse
    numbers = np.full(size, np.nan)
    numbers[np.unpackbits(np.frombuffer(bits, np.uint8), count=size).view(np.bool_)] = np.frombuffer(content, "<f8")
    return numbers.tobytes()


def decision_id_of(payload: bytes) -> str | None:
    """Read nothing but the id of a `decision` entry; None where it is none, which whoever needs the row will find."""
    try:
        return _decode_head(payload).decision_id
    except msgspec.MsgspecError:
        return None


def decode_outcome(payload: bytes) -> OutcomeEntry:
    """Read the payload of an `outcome` or `orphan` entry."""
    return _decode_outcome(payload)


def decode_parked(blob: bytes) -> Outcome:
    """Read an outcome that waits for its decision."""
    return _decode_parked(blob)


def decode_event(payload: bytes) -> Event:
    """Read the payload of an `event` entry."""
    return _decode_event(payload)


def decode_shadow(payload: bytes) -> Shadow:
    """Read the payload of a `shadow` entry."""
    return _decode_shadow(payload)


def decode_switch(payload: bytes) -> SwitchEntry:
    """Read the payload of a `switch` entry."""
    return _decode_switch(payload)


def decode_stored_decision(value: bytes) -> tuple[str, KnownDecision]:
    """Read the value of a decision key: (journal id, decision)."""
    return _decode_stored(value)


def as_text(value: Any) -> str:
    """Return a reply's text."""
    return value.decode() if isinstance(value, bytes) else str(value)
