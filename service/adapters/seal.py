"""The secret of an installation under which erased customers are known and receipts signed. Knows one file."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from service.adapters.durable import write_synced

KEY_FILE = "erasure.key"


@dataclass(frozen=True)
class Seal:
    """The secret; without a key a hash hides nobody who can be guessed."""

    key: bytes = b""

    def digest(self, customer_id: str) -> str:
        """Return the keyed hash that a tombstone is known by."""
        return blake2b(customer_id.encode("utf-8", "surrogatepass"), digest_size=16, key=self.key).hexdigest()

    def sign(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """Return the receipt with its signature: a keyed BLAKE2b of everything else."""
        said = {name: value for name, value in receipt.items() if name != "signature"}
        body = json.dumps(said, sort_keys=True).encode()
        return {**said, "signature": blake2b(body, digest_size=32, key=self.key).hexdigest()}

    def is_signed(self, receipt: Mapping[str, Any]) -> bool:
        """Say whether a receipt is as it was signed here."""
        return hmac.compare_digest(self.sign(receipt)["signature"], str(receipt.get("signature")))


UNKEYED = Seal()
"""For stores of which nobody is ever erased."""


def open_seal(var: Path) -> Seal:
    """Read the installation's secret, made on first use; all processes of one `var` share it."""
    path = var / KEY_FILE
    if not path.exists():
        var.mkdir(parents=True, exist_ok=True)
        new = var / f".{KEY_FILE}-{secrets.token_hex(4)}"
        write_synced(new, secrets.token_hex(32).encode(), mode="xb")
        new.chmod(0o600)
        try:
            os.link(new, path)  # of several processes the first one wins
        except FileExistsError:
            pass
        finally:
            new.unlink()
    return Seal(bytes.fromhex(path.read_text().strip()))
