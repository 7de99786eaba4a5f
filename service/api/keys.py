"""API keys: who may call what. Only their SHA-256 is kept; a key is 256 random bits, so a fast hash is enough.

Decides whether a key opens a scope. Knows no route and no HTTP; `routes` asks, `nba key new` makes keys.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.settings import Settings

SCOPES = ("decide", "outcome", "read", "admin", "erase")
"""decide: POST decisions. outcome: POST outcomes and events. read: customers, catalogue, metrics. admin: switches.
erase: forget a customer."""


class KeysError(ValueError):
    """The keys of the settings cannot be used; the sentence says which entry and what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry: several may share a name, so that a key can be replaced while the old one still works."""

    name: str
    scopes: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that open the service; without any, everything is open."""

    keys: tuple[Key, ...] = ()

    def find(self, sent: bytes) -> Key | None:
        """Return the entry of a key, or None. Takes the same time whichever entry it is, and for none."""
        digest = sha256(sent).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, str]:
    """Make a key: (the key, to be shown once; its entry as JSON, to be kept).

    Raises:
        KeysError: The name or a scope cannot be used.
    """
    secret = f"nba_{secrets.token_urlsafe(32)}"
    entry = {"name": name, "scopes": list(scopes), "sha256": sha256(secret.encode()).hexdigest()}
    return secret, json.dumps(asdict(_entry(entry, "the new key")))


def read_keys(settings: Settings) -> KeyRing:
    """Read the keys of the settings: NBA_API_KEYS, and NBA_API_KEY as one key with all scopes.

    Raises:
        KeysError: naming the entry.
    """
    keys: list[Key] = []
    if settings.api_key is not None:
        secret = settings.api_key.get_secret_value()
        if not secret:
            raise KeysError("NBA_API_KEY is empty; set a long random text, or unset it")
        keys.append(Key("NBA_API_KEY", SCOPES, sha256(secret.encode()).hexdigest()))
    if settings.api_keys is not None:
        keys += _entries(settings.api_keys.strip())
    return KeyRing(tuple(keys))


def _entries(said: str) -> list[Key]:
    where = "NBA_API_KEYS"
    if not said.startswith("["):
        where = f"NBA_API_KEYS, file {said},"
        try:
            said = Path(said).read_text()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a text"
            raise KeysError(f"{where} cannot be read ({reason}); name a file that can, or give a JSON list") from None
    try:
        entries = json.loads(said)
    except ValueError:
        raise KeysError(f"{where} is not valid JSON; give a list of what `nba key new` prints") from None
    if not isinstance(entries, list) or not entries:
        raise KeysError(f"{where} must be a list of at least one entry; `nba key new` prints one")
    return [_entry(entry, f"{where} entry {i}") for i, entry in enumerate(entries, start=1)]


def _entry(said: Any, where: str) -> Key:
    if not isinstance(said, dict) or set(said) != {"name", "scopes", "sha256"}:
        raise KeysError(f"{where}: must have name, scopes and sha256 and nothing else; `nba key new` prints one")
    name, scopes, digest = said["name"], said["scopes"], said["sha256"]
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
        raise KeysError(f"{where}: name must be a text of 1 to 64 characters")
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise KeysError(f"{where}: scopes must be a list of some of {', '.join(SCOPES)}")
    if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise KeysError(f"{where}: sha256 must be 64 lower-case hex digits, never the key itself")
    return Key(name, tuple(scopes), digest)
