"""Hostile input on every route: refused for what it is, never a 5xx, never echoed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from service.api.body import LIST_LIMIT, SINGLE_LIMIT
from tests.service.api.serving import Running

CANARY = "cAnArY-7f3a"
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/decisions"): {"customer_id": "1", "channel": "app", "dry_run": True},
    ("POST", "/v1/outcomes"): {"outcome_id": "o", "decision_id": "d", "action_id": "a", "type": "click"},
    ("POST", "/v1/events"): {"event_id": "e", "customer_id": "1", "type": "campaign_sent", "properties": {}},
    ("PUT", "/v1/switches/all/all"): {"paused": False, "who": "me", "why": "test"},
}
TEXT_FIELD = {path: next(n for n, v in body.items() if isinstance(v, str)) for (_, path), body in GOOD.items()}
WITHOUT_BODY = ["/livez", "/readyz", "/metrics", "/v1/catalogue", "/v1/customers/1", "/openapi.json", "/docs"]
JSON_TYPE = "application/json"

Hostile = Callable[[dict[str, Any], str], bytes]


def with_raw(good: dict[str, Any], field: str, raw: bytes) -> bytes:
    """Put bytes that are no JSON in the place of a field's value."""
    return json.dumps({**good, field: "@@"}).encode().replace(b'"@@"', raw)


def with_value(value: Any) -> Hostile:
    return lambda good, field: json.dumps({**good, field: value}).encode()


def with_bytes(raw: bytes) -> Hostile:
    return lambda good, field: with_raw(good, field, raw)


def with_name(name: str, value: Any = 1) -> Hostile:
    return lambda good, field: json.dumps({**good, name: value}).encode()


C = CANARY.encode()
KINDS: dict[str, tuple[Hostile, str, int]] = {
    "nothing": (lambda good, field: b"", JSON_TYPE, 400),
    "no JSON": (lambda good, field: C, JSON_TYPE, 400),
    "cut": (lambda good, field: json.dumps({**good, field: CANARY}).encode()[:-1], JSON_TYPE, 400),
    "trailing text": (lambda good, field: json.dumps(good).encode() + C, JSON_TYPE, 400),
    "single quotes": (lambda good, field: str({**good, field: CANARY}).encode(), JSON_TYPE, 400),
    "NaN": (with_bytes(b"NaN"), JSON_TYPE, 400),
    "Infinity": (with_bytes(b"-Infinity"), JSON_TYPE, 400),
    "NaN in an unknown field": (
        lambda good, field: json.dumps({**good, CANARY: float("nan")}).encode(),
        JSON_TYPE,
        400,
    ),
    "a name twice": (
        lambda good, field: json.dumps({**good, "@": 1}).encode().replace(b'"@"', f'"{field}"'.encode()),
        JSON_TYPE,
        400,
    ),
    "deep": (with_bytes(b'{"' + C + b'":' + b"[" * 20_000 + b"]" * 20_000 + b"}"), JSON_TYPE, 400),
    "deep and cut": (lambda good, field: b'[{"a":' * 5_000 + C, JSON_TYPE, 400),
    "many names": (with_value({f"{CANARY}{i}": 0 for i in range(2001)}), JSON_TYPE, 400),
    "raw NUL": (with_bytes(b'"' + C + b'\x00"'), JSON_TYPE, 400),
    "invalid UTF-8": (with_bytes(b'"' + C + b'\xc3\x28"'), JSON_TYPE, 400),
    "surrogate as UTF-8": (with_bytes(b'"' + C + b'\xed\xa0\x80"'), JSON_TYPE, 400),
    "byte order mark": (lambda good, field: b"\xef\xbb\xbf" + json.dumps(good).encode(), JSON_TYPE, 400),
    "UTF-16": (lambda good, field: json.dumps({**good, field: CANARY}).encode("utf-16"), JSON_TYPE, 400),
    "lone surrogate": (with_bytes(b'"' + C + b'\\ud800"'), JSON_TYPE, 422),
    "lone surrogate in a name": (
        lambda good, field: json.dumps({**good, "@": 1}).encode().replace(b'"@"', b'"' + C + b'\\udfff"'),
        JSON_TYPE,
        422,
    ),
    "NUL": (with_bytes(b'"' + C + b'\\u0000"'), JSON_TYPE, 422),
    "integer beyond 2^53": (with_bytes(b"9007199254740993"), JSON_TYPE, 422),
    "endless integer": (with_bytes(b"1" * 50_000), JSON_TYPE, 422),
    "1e999": (with_bytes(b"1e999"), JSON_TYPE, 422),
    "unknown field": (with_name(CANARY), JSON_TYPE, 422),
    "unknown field with an identifier's name": (with_name("canary_7f3a", CANARY), JSON_TYPE, 422),
    "many unknown fields": (
        lambda good, field: json.dumps({**good, **{f"{CANARY}{i}": i for i in range(1500)}}).encode(),
        JSON_TYPE,
        422,
    ),
    "list for a text": (with_value([CANARY]), JSON_TYPE, 422),
    "object for a text": (with_value({CANARY: CANARY}), JSON_TYPE, 422),
    "null for a text": (with_value(None), JSON_TYPE, 422),
    "true for a text": (with_value(True), JSON_TYPE, 422),
    "empty text": (with_value(""), JSON_TYPE, 422),
    "long text": (with_value(CANARY * 100), JSON_TYPE, 422),
    "bare text": (lambda good, field: json.dumps(CANARY).encode(), JSON_TYPE, 422),
    "bare null": (lambda good, field: b"null", JSON_TYPE, 422),
    "too large": (
        lambda good, field: with_raw(good, field, b'"' + C * (SINGLE_LIMIT // len(C)) + b'"'),
        JSON_TYPE,
        413,
    ),
    "too large and of blanks": (lambda good, field: b" " * (LIST_LIMIT + 1), JSON_TYPE, 413),
    "text/plain": (with_value("1"), "text/plain", 415),
    "form": (with_value("1"), "application/x-www-form-urlencoded", 415),
    "XML": (lambda good, field: b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "text/xml", 415),
    "another encoding": (with_value("1"), "application/json; charset=latin-1", 415),
    "a type that is echoed": (with_value("1"), f"application/{CANARY}", 415),
}


def assert_no_echo(body: bytes) -> None:
    for text in (CANARY, "canary", "7f3a"):
        assert text.encode().lower() not in body.lower()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", GOOD, ids=lambda route: route[1])
def test_hostile_bodies(api: Running, route: tuple[str, str], kind: str) -> None:
    """Each kind of hostile body gets its own status on every route that takes a body, as a problem, without echo."""
    make, content_type, status = KINDS[kind]
    answer = api.call(*route, make(GOOD[route], TEXT_FIELD[route[1]]), {"Content-Type": content_type})
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert_no_echo(answer.body)


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_where_none_belongs(api: Running, kind: str) -> None:
    """A route without a body answers as if there were none, whatever is sent along."""
    make, content_type, _ = KINDS[kind]
    for path in WITHOUT_BODY:
        body = make({"a": "b"}, "a")
        answer = api.call("GET", path, body, {"Content-Type": content_type})
        assert answer.status == api.call("GET", path).status
        assert_no_echo(answer.body)


@pytest.mark.parametrize("path", ["/v1/outcomes", "/v1/events"])
def test_hostile_items_of_a_list(api: Running, path: str) -> None:
    """In a list each bad item has its receipt, which names the field; what breaks the whole is a problem."""
    good = GOOD["POST", path]
    bad = [
        {**good, CANARY: 1},
        {**good, "type": CANARY},
        {**good, "occurred_at": CANARY},
        {CANARY: {}},
        CANARY,
        None,
        [],
    ]
    answer = api.call("POST", path, [*bad, good])
    assert answer.status == 202
    assert [receipt["status"] for receipt in answer.json[:-1]] == ["invalid"] * len(bad)
    assert all(receipt["detail"].startswith(f"[{i}]") for i, receipt in enumerate(answer.json[:-1]))
    assert_no_echo(answer.body)
    for body, status in (
        (b"[]", 422),
        (b"[" + b"{}," * 1000 + b"{}]", 422),
        (b"[NaN]", 400),
        (b'[{"a":1,"a":2}]', 400),
        (b"[" * 33 + b"]" * 33, 400),
        (b'["' + b"x" * LIST_LIMIT + b'"]', 413),
    ):
        assert api.call("POST", path, body).status == status


def test_properties_are_not_echoed(api: Running) -> None:
    """What an event or a context holds beyond what is declared is refused without being repeated."""
    event = {"event_id": "e9", "customer_id": "1", "type": "purchase"}
    line = {"aisle": "seafood", "quantity": 1, "sales_value": 2.0}
    consent = {"channel": "app", "purpose": "marketing", "granted": True, "source": "s"}
    for body in (
        {**event, "type": CANARY, "properties": {}},
        {**event, "properties": {"lines": [{**line, CANARY: 1}]}},
        {**event, "properties": {"lines": [{**line, "aisle": CANARY}]}},
        {**event, "properties": {"lines": [line], CANARY: 1}},
        {**event, "type": "consent_changed", "properties": {**consent, "canary": 1}},
        {**event, "type": "consent_changed", "properties": {**consent, "expiry": CANARY}},
        {**event, "occurred_at": CANARY},
        {**event, "occurred_at": 1_514_592_000, "properties": {"lines": [line]}},
        {**event, "occurred_at": "0001-01-01T00:00:00Z", "properties": {"lines": [line]}},
    ):
        answer = api.call("POST", "/v1/events", body)
        assert answer.status == 422
        assert_no_echo(answer.body)
    ask = {"customer_id": "1", "channel": "app", "dry_run": True}
    for more in (
        {"channel": CANARY},
        {"placements": [{"name": CANARY}]},
        {"placements": [{"name": "app_home", CANARY: 1}]},
        {"context": {CANARY: 1}},
        {"context": {"canary": []}},
        {"context": {"device": CANARY}},
        {"context": {"basket_total": CANARY}},
        {"issues": [CANARY]},
        {"locale": f"{CANARY}_"},
        {"explain": CANARY},
    ):
        answer = api.call("POST", "/v1/decisions", {**ask, **more})
        assert answer.status == 422
        assert answer.json["errors"]
        assert_no_echo(answer.body)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/customers/{CANARY}%00", 422),
        (f"/v1/customers/{CANARY}%0d%0aX:1", 422),
        (f"/v1/customers/{CANARY}%ff", 422),
        (f"/v1/customers/{CANARY}%ed%a0%80", 422),
        (f"/v1/customers/{CANARY * 20}", 422),
        (f"/v1/customers/{CANARY}%20x", 422),
        (f"/v1/customers/{CANARY}", 404),
        (f"/v1/customers/{CANARY}?x=%00&x=1&{CANARY}", 404),
        ("/v1/customers/", 404),
        (f"/v1/customers/..%2f{CANARY}", 404),
        (f"/{CANARY}", 404),
        (f"/v1/catalogue/{CANARY}", 404),
        ("//v1//catalogue", 404),
    ],
)
def test_hostile_paths(api: Running, path: str, status: int) -> None:
    """A path that cannot be is a problem that does not repeat it; unknown query parameters are ignored."""
    answer = api.call("GET", path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert_no_echo(answer.body)
    body = GOOD["PUT", "/v1/switches/all/all"]
    for scope_path in (f"{CANARY}/all", f"all/{CANARY}", "all/%00", f"action/{CANARY * 20}"):
        switched = api.call("PUT", f"/v1/switches/{scope_path}", body)
        assert switched.status == 422
        assert_no_echo(switched.body)


def test_query_strings_change_nothing(api: Running) -> None:
    """Query parameters that no route knows are ignored, however they look."""
    for query in ("?", "?x", "?%00=%ff", "?a=1&a=2", "?" + "x" * 20_000):
        assert api.call("GET", f"/livez{query}").status == 200


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        (["k" * 128], 200),
        (["k" * 129], 422),
        ([""], 422),
        (["a b"], 422),
        (["caf\xe9"], 422),
        (["a\tb"], 422),
        (["one", "two"], 422),
        (["same", "same"], 422),
    ],
)
def test_idempotency_keys(api: Running, keys: list[str], status: int) -> None:
    """An Idempotency-Key is sent once and has 1 to 128 visible ASCII characters."""
    headers = [("Idempotency-Key", key) for key in keys]
    answer = api.call("POST", "/v1/decisions", GOOD["POST", "/v1/decisions"], headers)
    assert answer.status == status


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", JSON_TYPE), ("Content-Type", "text/plain")],
        [("Content-Type", JSON_TYPE), ("Content-Encoding", "gzip")],
        [("Content-Type", "application/json; charset=utf-8; x=y")],
        [("Content-Type", "\xff")],
        [("Content-Type", "")],
    ],
)
def test_hostile_content_headers(api: Running, headers: list[tuple[str, str]]) -> None:
    """A body is declared once, as plain JSON in UTF-8."""
    for route, good in GOOD.items():
        assert api.call(*route, good, headers).status == 415


@pytest.mark.parametrize(
    "declared", ["application/json", "application/json;charset=utf-8", 'APPLICATION/JSON; charset="UTF-8"']
)
def test_good_content_types(api: Running, declared: str) -> None:
    """JSON in UTF-8 may be declared in any of the usual ways."""
    answer = api.call("POST", "/v1/decisions", GOOD["POST", "/v1/decisions"], {"Content-Type": declared})
    assert answer.status == 200


def test_methods(api: Running) -> None:
    """A method that a route does not have is a 405 that says which it has."""
    for path, allowed in [
        *((path, method) for method, path in GOOD),
        ("/v1/customers/1", "DELETE, GET"),
        ("/v1/catalogue", "GET"),
        ("/metrics", "GET"),
        ("/livez", "GET"),
        ("/readyz", "GET"),
    ]:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            if method not in allowed.split(", "):
                answer = api.call(method, path)
                assert answer.status == 405
                assert answer.headers["allow"] == allowed
                assert answer.headers["content-type"] == "application/problem+json"


def fuzzed(seed: int, rounds: int) -> list[tuple[str, str, bytes]]:
    """Damage good bodies: flip, insert, repeat, cut and splice bytes."""
    rng = random.Random(seed)
    spice = [
        b'"',
        b"\\",
        b"{",
        b"[",
        b"\x00",
        b"\xff",
        b"\\ud800",
        b"NaN",
        b"1e999",
        b",",
        b":",
        b"9" * 30,
        b"\xed\xa0\x80",
    ]
    cases = []
    for _ in range(rounds):
        (method, path), good = rng.choice(list(GOOD.items()))
        body = bytearray(
            json.dumps([good] if path in ("/v1/outcomes", "/v1/events") and rng.random() < 0.3 else good), "utf-8"
        )
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(5):
                case 0 if body:
                    body[at - 1] ^= 1 << rng.randrange(8)
                case 1:
                    body[at:at] = rng.choice(spice)
                case 2:
                    body[at:at] = body[at : at + rng.randrange(20)]
                case 3:
                    del body[at : at + rng.randrange(1, 9)]
                case _:
                    body[at : at + 1] = bytes([rng.randrange(256)])
        cases.append((method, path, bytes(body)))
    return cases


def survives(api: Running, cases: list[tuple[str, str, bytes]]) -> None:
    seen = set()
    for method, path, body in cases:
        answer = api.call(method, path, body)
        assert answer.status in (200, 202, 400, 409, 422), (answer.status, path, body)
        seen.add(answer.status)
    assert {400, 422} <= seen


def test_damaged_bodies(api: Running) -> None:
    """Thousands of damaged bodies are all answered, and none with a 5xx."""
    survives(api, fuzzed(1, 10_000))


@pytest.mark.prove
def test_damaged_bodies_at_length(api: Running) -> None:
    """A hundred thousand damaged bodies are all answered, and none with a 5xx."""
    survives(api, fuzzed(2, 100_000))
