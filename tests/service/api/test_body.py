"""Bodies become data, or a problem that says why not."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.body import (
    _UNSURE,
    MAX_BRACKETS,
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_NAMES,
    read_carefully,
    read_json,
    read_plain,
)
from service.api.problems import ProblemError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9), inner, max_size=5)
    ),
    max_leaves=20,
)

_PIECES = (
    b'"a":1,', b'{"a":1,"a":2}', b'{"a" :1,"a":2}', b'"a\\":', b"9007199254740993", b"1e999", b"-0", b"1e5", b"NaN",
    b"\\ud800", b"\\u0000", b"0" * 34, b"1" * 101, b"." + b"3" * 101, b"[" * 33, b"]" * 33, b" ", b"\t:", b'"',
    b"\\", b"\xff", b"\x00", b",", b":",
)  # fmt: skip


@given(PLAIN, st.booleans())
def test_json_is_read_as_it_was_written(content: object, ascii_only: bool) -> None:
    """Whatever is valid comes back as it was sent, escaped or not."""
    assert read_json(json.dumps(content, ensure_ascii=ascii_only).encode()) == content


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH),
        b'{"a":' * (MAX_DEPTH - 1) + b'["' + b"[{" * 50 + b'\\""]' + b"}" * (MAX_DEPTH - 1),
        b"[" + b"[]," * 500 + b"{}]",
        f"[{MAX_INTEGER},-{MAX_INTEGER}]".encode(),
        json.dumps({f"k{i}": i for i in range(MAX_NAMES)}).encode(),
        b'["\\ud83d\\ude00"]',
        b'["NaN, Infinity, {\\"a\\":1,\\"a\\":2}"]',
        b" \r\n\t{}\n",
        b"1e308",
    ],
)
def test_limits_are_reached(body: bytes) -> None:
    """What lies just within a limit, or looks like a breach inside a text, is taken."""
    assert read_json(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "not-json"),
        (b"{", 400, "not-json"),
        (b"{} {}", 400, "not-json"),
        (b" \n", 400, "not-json"),
        (b"\x0b{}", 400, "not-json"),
        ("{}\xa0".encode(), 400, "not-json"),
        (b"{'a':1}", 400, "not-json"),
        (b'{"a":1,}', 400, "not-json"),
        (b'["\x00"]', 400, "not-json"),
        (b'["\xff"]', 400, "not-json"),
        (b'["\xed\xa0\x80"]', 400, "not-json"),
        (b"\xef\xbb\xbf{}", 400, "not-json"),
        ('{"a":1}'.encode("utf-16"), 400, "not-json"),
        ('{"a":1}'.encode("utf-32"), 400, "not-json"),
        (b"NaN", 400, "not-json"),
        (b'{"a":Infinity}', 400, "not-json"),
        (b"[-Infinity]", 400, "not-json"),
        (b'{"a":1,"a":1}', 400, "repeated-name"),
        (b'[{"b":{"a":1,"\\u0061":2}}]', 400, "repeated-name"),
        (nested(MAX_DEPTH + 1), 400, "too-deep"),
        (b"[" * 500_000, 400, "too-deep"),
        (b'["\\"]",' + b'{"a":' * 100_000, 400, "too-deep"),
        (b"[" + b"{}," * MAX_BRACKETS + b"{}]", 400, "too-deep"),
        (json.dumps({f"k{i}": i for i in range(MAX_NAMES + 1)}).encode(), 400, "too-many-names"),
        (f"[{MAX_INTEGER + 1}]".encode(), 422, "invalid-number"),
        (f"[-{MAX_INTEGER + 1}]".encode(), 422, "invalid-number"),
        (b"9" * 1_000_000, 422, "invalid-number"),
        (b"1e309", 422, "invalid-number"),
        (b"-1e309", 422, "invalid-number"),
        (b"0." + b"1" * 1_000_000, 422, "invalid-number"),
        (b'["\\ud800"]', 422, "invalid-text"),
        (b'["\\udc00\\ud800"]', 422, "invalid-text"),
        (b'{"a":{"\\ud800":1}}', 422, "invalid-text"),
        (b'[{"a":["x\\u0000y"]}]', 422, "invalid-text"),
    ],
)
def test_hostile_bodies(body: bytes, status: int, slug: str) -> None:
    """Each kind of hostile body is refused for what it is, also where it is long."""
    for padded in (body, body + b" " * 1_000):
        with pytest.raises(ProblemError) as caught:
            read_json(padded)
        assert (caught.value.status, caught.value.slug) == (status, slug)
    assert read_plain(body) is _UNSURE


def test_long_plain_bodies_are_read_fast() -> None:
    """What callers send is plain, so that the fast way is taken at all."""
    said = {"event_id": "e", "properties": {"lines": [{"aisle": "deli", "quantity": 1, "sales_value": 2.5}] * 200}}
    assert read_plain(json.dumps(said).encode()) == said
    assert read_plain(json.dumps(said, indent=2).encode()) == said


@given(PLAIN, st.lists(st.tuples(st.integers(0, 400), st.sampled_from([b"", *_PIECES])), max_size=4), st.booleans())
def test_the_fast_way_is_the_careful_way(content: object, changes: list[tuple[int, bytes]], ascii_only: bool) -> None:
    """A body with pieces put in or taken out anywhere is read alike by both, to the type, or the fast one is unsure."""
    body = json.dumps(content, ensure_ascii=ascii_only).encode()
    for at, piece in changes:
        body = body[:at] + piece + body[at + (not piece) :]
    found = read_plain(body)
    if found is not _UNSURE:
        assert repr(read_carefully(body)) == repr(found)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0019eE+-.tfn \ud800', max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")
))  # fmt: skip
def test_any_bytes(body: bytes) -> None:
    """Any bytes are either read or refused with a problem; nothing else is raised."""
    with suppress(ProblemError):
        read_json(body)
