"""API keys: which are understood, which open."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service import commands, serve
from service.api.app import create_app
from service.api.keys import SCOPES, KeysError, new_key, read_keys
from service.settings import Settings
from tests.service.api.serving import Running

ENTRY = {"name": "shop", "scopes": ["decide"], "sha256": "0" * 64}
OPEN = ("/livez", "/readyz", "/openapi.json")
CALLS = [
    ("POST", "/v1/decisions", {"customer_id": "1", "channel": "app"}, "decide", 200),
    ("POST", "/v1/outcomes", [{}], "outcome", 202),
    ("POST", "/v1/events", [{}], "outcome", 202),
    ("GET", "/v1/catalogue", None, "read", 200),
    ("GET", "/v1/customers/nobody-at-all", None, "read", 404),
    ("GET", f"/v1/decisions/07-{'0' * 32}", None, "read", 404),
    ("GET", "/metrics", None, "read", 200),
    ("GET", "/v1/switches", None, "read", 200),
    ("GET", "/statusz", None, "read", 200),
    ("PUT", "/v1/switches/all/all", {"paused": False, "who": "me", "why": "test"}, "admin", 200),
    ("DELETE", "/v1/customers/nobody-at-all", None, "erase", 202),
    ("GET", f"/v1/erasures/07-{'0' * 32}", None, "erase", 404),
]


def settings(**said: object) -> Settings:
    return Settings(**{"api_key": None, "api_keys": None, **said})  # type: ignore[arg-type]


def test_a_new_key_opens() -> None:
    """The entry that is printed with a key lets this key in, with its scopes, and no other."""
    secret, entry = new_key("shop", ["decide", "read"])
    ring = read_keys(settings(api_keys=f"[{entry}]"))
    found = ring.find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes) == ("shop", ("decide", "read"))
    assert ring.find(b"") is ring.find(secret[:-1].encode()) is ring.find(entry.encode()) is None
    assert secret not in entry


def test_two_keys_of_one_name() -> None:
    """While a key is replaced, the old and the new one both open."""
    (old, first), (new, second) = new_key("shop", ["decide"]), new_key("shop", ["decide"])
    ring = read_keys(settings(api_keys=f"[{first},{second}]"))
    assert ring.find(old.encode()) is not None
    assert ring.find(new.encode()) is not None


def test_the_single_key_has_all_scopes() -> None:
    """NBA_API_KEY is one key that may do all, beside those of NBA_API_KEYS; it is kept as a hash."""
    ring = read_keys(settings(api_key="s3cret", api_keys=json.dumps([ENTRY])))
    assert [key.scopes for key in ring.keys] == [SCOPES, ("decide",)]
    assert ring.keys[0].sha256 == sha256(b"s3cret").hexdigest()
    assert "s3cret" not in repr(ring)


def test_keys_from_a_file(tmp_path: Path) -> None:
    """NBA_API_KEYS may name a file that holds the list."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([ENTRY]))
    assert [key.name for key in read_keys(settings(api_keys=str(file))).keys] == ["shop"]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("[]", "at least one entry"),
        ("[", "not valid JSON"),
        ("", "cannot be read"),
        ("/not/there.json", "/not/there.json"),
        ('["nba_key"]', "entry 1"),
        (json.dumps([ENTRY, {**ENTRY, "key": "x"}]), "entry 2"),
        (json.dumps([{**ENTRY, "sha256": "F" * 64}]), "sha256"),
        (json.dumps([{**ENTRY, "sha256": "nba_abc"}]), "never the key itself"),
        (json.dumps([{**ENTRY, "scopes": []}]), "scopes"),
        (json.dumps([{**ENTRY, "scopes": "decide"}]), "scopes"),
        (json.dumps([{**ENTRY, "scopes": ["decide", "root"]}]), "decide, outcome, read, admin"),
        (json.dumps([{**ENTRY, "name": ""}]), "name"),
        (json.dumps([{**ENTRY, "name": "a\nb"}]), "name"),
    ],
)
def test_bad_keys_are_one_sentence(said: str, word: str) -> None:
    """Keys that cannot be used stop the service with a sentence that says which and why."""
    with pytest.raises(KeysError, match="NBA_API_KEYS") as caught:
        create_app(settings(api_keys=said))
    assert word in str(caught.value)


@pytest.mark.parametrize(("method", "path", "body", "scope", "status"), CALLS)
def test_scopes(guarded: Running, method: str, path: str, body: object, scope: str, status: int) -> None:
    """Each route opens to the key with its scope, is 401 without a valid key and 403 with any other."""
    assert guarded.call(method, path, body, key=scope).status == status
    assert guarded.call(method, path, body, key="all").status == status
    for other in set(SCOPES) - {scope}:
        assert guarded.call(method, path, body, key=other).status == 403
    for headers in (
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer nonsense")],
        [("Authorization", f"Basic {guarded.keys[scope]}")],
        [("Authorization", guarded.keys[scope])],
        [("Authorization", f"Bearer {guarded.keys[scope]}x")],
        [("Authorization", f"Bearer {guarded.keys[scope]}"), ("Authorization", "Bearer nonsense")],
        [("Authorization", "Bearer \xff\xfe")],
    ):
        answer = guarded.call(method, path, body, headers, key=None)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_every_route_is_guarded(guarded: Running) -> None:
    """Every route of the document but health needs a key, and the table of this module knows each of them."""
    document = guarded.call("GET", "/openapi.json", key=None).json
    open_to_all = {
        path for path, operations in document["paths"].items() for o in operations.values() if not o.get("security")
    }
    assert open_to_all == {"/livez", "/readyz"}
    assert len([o for operations in document["paths"].values() for o in operations]) == len(CALLS) + 2
    assert all(guarded.call("GET", path, key=None).status == 200 for path in OPEN)


def test_without_keys_all_is_open(api: Running) -> None:
    """Where no key is set, every route answers, and the document asks for none."""
    for method, path, body, _, status in CALLS:
        assert api.call(method, path, body).status == status
    assert "securitySchemes" not in api.call("GET", "/openapi.json").json["components"]


@pytest.mark.parametrize(
    ("host", "docs", "has_docs"),
    [("127.0.0.1", None, True), ("0.0.0.0", None, False), ("0.0.0.0", True, True), ("127.0.0.1", False, False)],
)
def test_documentation_stays_home(host: str, docs: bool | None, has_docs: bool) -> None:
    """The documentation is served on loopback only, unless NBA_DOCS says otherwise."""
    app = create_app(settings(host=host, docs=docs))
    paths = {getattr(route, "path", None) for route in app.routes}
    assert ("/docs" in paths) == ("/openapi.json" in paths) == has_docs


def test_the_command_prints_a_key_once() -> None:
    """`nba key new` prints the key and then its entry, which opens to this key."""
    done = CliRunner().invoke(commands.app, ["key", "new", "--name", "shop", "--scopes", "decide, outcome"])
    assert done.exit_code == 0
    secret, entry = done.stdout.splitlines()
    found = read_keys(settings(api_keys=f"[{entry}]")).find(secret.encode())
    assert found is not None
    assert found.scopes == ("decide", "outcome")


@pytest.mark.parametrize("scopes", ["", "decide,root", "decide outcome"])
def test_the_command_knows_the_scopes(scopes: str) -> None:
    """A scope that is none is refused with those that are."""
    done = CliRunner().invoke(commands.app, ["key", "new", "--name", "shop", "--scopes", scopes])
    assert isinstance(done.exception, KeysError)
    assert "decide, outcome, read, admin" in str(done.exception)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_world_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Off loopback the service does not even bind its port without a key."""
    monkeypatch.chdir(tmp_path)
    for name in ("NBA_API_KEY", "NBA_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NBA_HOST", host)
    with pytest.raises(serve.Stop, match="NBA_API_KEYS"):
        serve.serve()
