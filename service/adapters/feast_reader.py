"""Reads a customer's facts from the hash that Feast keeps for them in Redis, straight into a row of numbers.

Pure decoding, no connection: Feast's documented layout (one hash a customer; field = murmur3 of "view:feature", value =
a protobuf `Value`; `_ts:view` = a protobuf `Timestamp`) by the plan that a bundle carries. Knows neither Feast nor
protobuf as libraries. What is not there, null or of a wrong type is NaN; a value that should be there and is not, or is
of a wrong type, makes the row *partial*. Whether a value is fresh enough is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from features.layout import Fact, Kind, Layout
from service.ports import FactPlan

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEVER = 0.0
"""The event timestamp that Feast gives for what was never written."""

_DOUBLE_TAG = 0x29  # field 5 of Value, eight bytes follow
_NAN = np.float64(np.nan).tobytes()


class Decoded(NamedTuple):
    """What one hash held.

    Attributes:
        is_known: At least one view of the plan was ever written for the customer.
        is_partial: Something that should be readable is not.
    """

    is_known: bool
    is_partial: bool


class FactRows(NamedTuple):
    """What a reader found of n customers; the same for every reader.

    Attributes:
        facts: (n, layout.width), NaN for missing. view_times: (n, n_views) Unix seconds, NaN = never written.
        is_known: (n,) at least one view was ever written for the customer.
        is_partial: (n,) something that should be readable is not.
    """

    facts: Floats
    view_times: Floats
    is_known: NDArray[np.bool_]
    is_partial: NDArray[np.bool_]

    @classmethod
    def empty(cls, layout: Layout, n: int) -> FactRows:
        """Return rows in which nothing is known."""
        facts, view_times = np.full((n, layout.width), np.nan), np.full((n, len(layout.views)), np.nan)
        return cls(facts, view_times, np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_))


def _fields(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    pairs = iter(reply)
    return dict(zip(pairs, pairs, strict=True))


class FactReader:
    """Decodes hashes by one plan into rows of one layout.

    A hash as Feast writes it has one length for each value: then all values of a customer are one stretch of bytes, and
    the doubles of all customers are taken from it at once. Any other hash is read value by value (`decode`).
    """

    def __init__(self, plan: FactPlan, layout: Layout) -> None:
        self._prefix, self._suffix = plan.key_prefix, plan.key_suffix
        self._layout = layout
        field_of = {name: field for field, name in plan.fields.items()}
        missing = sorted(set(layout.facts) - set(field_of))
        if missing:
            raise ValueError(f"the plan lacks facts of the contract: {', '.join(missing)}; make the bundle again")
        self._numbers = [
            (field_of[f.name], layout.slices[f.name].start)
            for f in layout.facts.values()
            if f.length == 1 and f.kind is not Kind.CATEGORY
        ]
        self._arrays = [
            (field_of[f.name], layout.slices[f.name], list_header(f.length), f.length)
            for f in layout.facts.values()
            if f.length > 1
        ]
        self._texts = [
            (
                field_of[f.name],
                layout.slices[f.name].start,
                {text_value(v): float(i) for i, v in enumerate(f.vocabulary)},
            )
            for f in layout.facts.values()
            if f.kind is Kind.CATEGORY
        ]
        position = {view.name: i for i, view in enumerate(layout.views)}
        self._stamps = [(field, position[view]) for field, view in plan.timestamps.items() if view in position]
        self._fields_of_view = [[field_of[f.name] for f in view.facts] for view in layout.views]
        self._stretch = _Stretch(layout, field_of, {view: field for field, view in plan.timestamps.items()})

    def key(self, customer_id: str) -> bytes:
        """Return the key of a customer's hash."""
        text = customer_id.encode()
        return b"".join((self._prefix, len(text).to_bytes(4, "little"), text, self._suffix))

    def rows(self, replies: Sequence[Sequence[bytes]]) -> FactRows:
        """Decode the replies to HGETALL of n customers."""
        hashes = [_fields(reply) for reply in replies]
        written = [self._stretch.of(fields) if fields else None for fields in hashes]
        stretches = [found for found in written if found is not None]
        facts, is_sound = self._stretch.doubles([found.content for found in stretches])
        times = np.array([found.view_times for found in stretches]).reshape(len(stretches), len(self._layout.views))
        is_known = np.array([found.is_known for found in stretches], dtype=np.bool_)
        rows = FactRows(facts, times, is_known, np.zeros(len(stretches), dtype=np.bool_))
        if not all(found.is_stamped for found in stretches):
            _forget_unstamped(self._layout, rows)
        if len(stretches) == len(hashes) and np.count_nonzero(is_sound) == len(hashes):
            return rows
        return self._mixed(hashes, [k for k, found in enumerate(written) if found is not None], rows, is_sound)

    def _mixed(
        self, hashes: Sequence[Mapping[bytes, bytes]], places: Sequence[int], written: FactRows, is_sound: Bools
    ) -> FactRows:
        """Return the rows of all, where `written` has those of `places` and any other is read by value."""
        found = FactRows.empty(self._layout, len(hashes))
        by_stretch = {places[k]: k for k in np.flatnonzero(is_sound).tolist()}
        for i, fields in enumerate(hashes):
            k = by_stretch.get(i)
            if k is not None:
                found.facts[i], found.view_times[i] = written.facts[k], written.view_times[k]
                found.is_known[i] = written.is_known[k]
            elif fields:
                found.is_known[i], found.is_partial[i] = self.decode(fields, found.facts[i], found.view_times[i])
        return found

    def decode(self, fields: Mapping[bytes, bytes], facts: Floats, view_times: Floats) -> Decoded:
        """Fill a customer's facts and view times.

        Args:
            fields: The hash, as HGETALL gives it; empty for an unknown customer.
            facts: (layout.width,) all overwritten. view_times: (n_views,) all overwritten; Unix seconds, NaN = never.
        """
        facts.fill(np.nan)
        view_times.fill(np.nan)
        if not fields:
            return Decoded(False, False)
        is_partial = not self._decode_numbers(fields, facts)
        for field, at, header, length in self._arrays:
            value = fields.get(field)
            if not value:
                continue
            if len(value) == len(header) + 8 * length and value.startswith(header):
                facts[at] = np.frombuffer(value, "<f8", length, len(header))
            else:
                array = decode_value(value)
                if isinstance(array, np.ndarray) and len(array) == length:
                    facts[at] = array
                elif not is_null(array):
                    is_partial = True
        for field, row, codes in self._texts:
            value = fields.get(field)
            if value:
                code = codes.get(value)
                if code is not None:
                    facts[row] = code
                elif not is_null(decode_value(value)):
                    is_partial = True
        return self._decode_stamps(fields, facts, view_times, is_partial)

    def _decode_numbers(self, fields: Mapping[bytes, bytes], facts: Floats) -> bool:
        is_whole = True
        for field, row in self._numbers:
            value = fields.get(field)
            number = decode_value(value) if value else float("nan")
            if isinstance(number, float):
                facts[row] = number
            else:
                is_whole = False
        return is_whole

    def _decode_stamps(
        self, fields: Mapping[bytes, bytes], facts: Floats, view_times: Floats, is_partial: bool
    ) -> Decoded:
        is_known = False
        for field, view in self._stamps:
            stamp = fields.get(field)
            moment = None if stamp is None else decode_timestamp(stamp)
            if stamp is None or moment == NEVER:
                self._forget(view, facts)  # a value without its stamp is of unknown age
                continue
            is_known = True
            if moment is None:
                self._forget(view, facts)
                is_partial = True
                continue
            view_times[view] = moment
            if not is_partial:
                is_partial = any(name not in fields for name in self._fields_of_view[view])
        return Decoded(is_known, is_partial)

    def _forget(self, view: int, facts: Floats) -> None:
        for fact in self._layout.views[view].facts:
            facts[self._layout.slices[fact.name]] = np.nan


class _Written(NamedTuple):
    """A hash as Feast writes it.

    Attributes:
        content: Every value in the order of the layout, each of its length.
        view_times: (n_views,) Unix seconds, NaN where the view has no stamp.
        is_known, is_stamped: Whether any view has a stamp, and whether every one has.
    """

    content: bytes
    view_times: list[float]
    is_known: bool
    is_stamped: bool


class _Stretch:
    """All values of a customer's hash as one stretch of bytes, where every one has the length that Feast gives it."""

    def __init__(self, layout: Layout, field_of: Mapping[str, bytes], stamp_of: Mapping[str, bytes]) -> None:
        facts = list(layout.facts.values())
        headers = [bytes([_DOUBLE_TAG]) if f.length == 1 else list_header(f.length) for f in facts]
        self._fields = [field_of[f.name] for f in facts]
        self._missing = [h + _NAN * f.length for h, f in zip(headers, facts, strict=True)]
        self._lengths = [len(missing) for missing in self._missing]
        self._texts = [(at, _codes(f)) for at, f in enumerate(facts) if f.kind is Kind.CATEGORY]
        ends = np.cumsum([len(view.facts) for view in layout.views]).tolist()
        self._views = [
            (stamp_of.get(view.name), slice(end - len(view.facts), end))
            for view, end in zip(layout.views, ends, strict=True)
        ]
        is_header = np.concatenate([np.arange(n) < len(h) for h, n in zip(headers, self._lengths, strict=True)])
        self._header_at, self._double_at = np.flatnonzero(is_header), np.flatnonzero(~is_header)
        self._header = np.frombuffer(b"".join(headers), np.uint8)

    def of(self, fields: Mapping[bytes, bytes]) -> _Written | None:
        """Return the stretch and the view times, or None where the hash must be read by value.

        The values of a view without a stamp are still in it: who takes the doubles forgets them.
        """
        get = fields.get
        values: list[bytes | None] = list(map(get, self._fields))
        times = []
        n_stamped = 0
        for field, where in self._views:
            stamp = get(field) if field is not None else None
            moment = NEVER if stamp is None else decode_timestamp(stamp)
            if moment == NEVER:
                times.append(np.nan)
                continue
            if moment is None or None in values[where]:
                return None
            times.append(moment)
            n_stamped += 1
        for at, codes in self._texts:
            code = codes.get(values[at])
            if code is None:
                return None
            values[at] = code
        if not all(values):
            values = [value or missing for value, missing in zip(values, self._missing, strict=True)]
        whole = cast(list[bytes], values)
        if list(map(len, whole)) != self._lengths:
            return None
        return _Written(b"".join(whole), times, n_stamped > 0, n_stamped == len(times))

    def doubles(self, stretches: Sequence[bytes]) -> tuple[Floats, Bools]:
        """Return (n, layout.width) doubles, and (n,) whether all values are of the types that Feast writes."""
        table = np.frombuffer(b"".join(stretches), np.uint8).reshape(len(stretches), sum(self._lengths))
        is_sound = (table.take(self._header_at, axis=1) == self._header).all(axis=1)
        return table.take(self._double_at, axis=1).view("<f8"), is_sound


def _forget_unstamped(layout: Layout, rows: FactRows) -> None:
    """Set the facts of views without a stamp to NaN: a value without its stamp is of unknown age."""
    is_unstamped = np.isnan(rows.view_times)
    for v, view in enumerate(layout.views):
        first, last = layout.slices[view.facts[0].name], layout.slices[view.facts[-1].name]
        rows.facts[is_unstamped[:, v], first.start : last.stop] = np.nan


def decode_value(value: bytes) -> float | str | Floats | None:
    """Decode one protobuf `Value` of Feast: a number, a text, a list of numbers, NaN for null; None for anything else.

    The fields of `feast.types.Value`: 2 string, 3 int32, 4 int64, 5 double, 6 float, 7 bool, 8 unix_timestamp, 13/14
    lists of int32/int64, 15 of double, 16 of float, 17 of bool, 19 null.
    """
    if not value:
        return float("nan")
    try:
        tag, at = _varint(value, 0)
        field, wire = tag >> 3, tag & 7
        if wire == 1 and field == 5 and len(value) == at + 8:
            return float(np.frombuffer(value, "<f8", 1, at)[0])
        if wire == 5 and field == 6 and len(value) == at + 4:
            return float(np.frombuffer(value, "<f4", 1, at)[0])
        if wire == 0:
            number, end = _varint(value, at)
            if end != len(value) or field not in (3, 4, 7, 8, 19):
                return None
            return float("nan") if field == 19 else float(_signed(number))
        if wire == 2:
            size, start = _varint(value, at)
            body = value[start:]
            if len(body) != size:
                return None
            return body.decode() if field == 2 else _list(field, body)
    except (IndexError, UnicodeDecodeError):
        return None
    return None


def is_null(value: float | str | Floats | None) -> bool:
    """Say whether a decoded value is one that says nothing: null, or a number that is none."""
    return isinstance(value, float) and value != value


@lru_cache(maxsize=4096)
def decode_timestamp(value: bytes) -> float | None:
    """Decode a protobuf `Timestamp` into Unix seconds, or None where the bytes are none."""
    seconds = nanos = 0
    at = 0
    try:
        while at < len(value):
            tag = value[at]
            number, at = _varint(value, at + 1)
            if tag == 0x08:
                seconds = _signed(number)
            elif tag == 0x10:
                nanos = _signed(number)
            else:
                return None
    except IndexError:
        return None
    return seconds + nanos / 1e9


def _list(field: int, body: bytes) -> Floats | None:
    if not body:
        return np.empty(0)
    if body[0] != 0x0A:
        return None
    size, start = _varint(body, 1)
    packed = body[start:]
    if len(packed) != size:
        return None
    if field in (15, 16):
        width, kind = (8, "<f8") if field == 15 else (4, "<f4")
        return np.frombuffer(packed, kind).astype(np.float64) if size % width == 0 else None
    if field in (13, 14, 17):
        numbers, at = [], 0
        while at < size:
            number, at = _varint(packed, at)
            numbers.append(float(_signed(number)))
        return np.array(numbers)
    return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise IndexError("a varint longer than ten bytes")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _write_varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def list_header(length: int) -> bytes:
    """Return the bytes before the doubles of a `Value` that holds a packed list of `length` doubles."""
    inner = b"\x0a" + _write_varint(8 * length)
    return b"\x7a" + _write_varint(len(inner) + 8 * length) + inner


def text_value(text: str) -> bytes:
    """Return the bytes of a `Value` that holds a text."""
    data = text.encode()
    return b"\x12" + _write_varint(len(data)) + data


def timestamp_value(microseconds: int) -> bytes:
    """Return the bytes of a `Timestamp`, as protobuf writes it: a part that is zero is left out."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return (b"\x08" + _write_varint(seconds) if seconds else b"") + (
        b"\x10" + _write_varint(rest * 1000) if rest else b""
    )


def _number(value: float) -> bytes:
    return bytes([_DOUBLE_TAG]) + np.float64(value).tobytes()


def _codes(fact: Fact) -> dict[bytes | None, bytes]:
    """Return text as stored -> the double of its code as stored, NaN for nothing."""
    return {
        **dict.fromkeys((None, b""), _number(np.nan)),
        **{text_value(v): _number(float(i)) for i, v in enumerate(fact.vocabulary)},
    }
