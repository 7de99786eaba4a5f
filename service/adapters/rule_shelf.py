"""Trees of rules that were read before, in one file beside the catalogues, so that a start loads no SQL parser.

A tree is found only under the very text and names of its rule and the very code that made it. A file that is damaged
or of other code counts as none: the rules are then parsed, and the file is written anew. Knows no rule's meaning.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.adapters.durable import replaced_file
from service.catalogue.symbols import Symbols, parse
from service.catalogue.trees import from_plain, to_plain
from service.decision.expression import Expression

log = logging.getLogger("nba")
NAME = "rules.json"
_SERVICE = Path(__file__).resolve().parent.parent
_CODE = (
    *(f"catalogue/{name}.py" for name in ("rules", "rule_types", "operands", "sql_nodes", "texts", "symbols", "trees")),
    "decision/expression.py",
)
"""What a tree depends on besides its text and names, and the parser's version."""


class RuleShelf:
    """Reads rules, those of the last time from a file.

    Args:
        folder: Of the catalogues that were served.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._known: dict[str, Any] | None = None
        self._used: dict[str, Any] = {}
        self._names: tuple[Symbols, str] = ({}, "")

    def read(self, text: str, symbols: Symbols) -> Expression:
        """Return the tree of a rule. Raises RuleError, as the parser does."""
        if self._known is None:
            self._known = _read(self._path)
        key = sha256(f"{self._digest_of(symbols)}\n{text}".encode(errors="surrogatepass")).hexdigest()
        try:
            tree = from_plain(self._known[key])
        except (KeyError, ValueError):
            tree = parse(text, symbols)
        self._used[key] = to_plain(tree)
        return tree

    def keep(self) -> None:
        """Keep the rules that were read since the last call, and no others, where they are not all known."""
        used, self._used = self._used, {}
        if used == self._known:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(self._path) as file:
                file.write(_document(used))
        except OSError as error:  # the next start is slower, nothing else
            log.warning("the rules' trees could not be kept: %s", error.strerror)
        self._known = used

    def _digest_of(self, symbols: Symbols) -> str:
        if self._names[0] is not symbols:
            self._names = (symbols, sha256(json.dumps(dict(symbols)).encode()).hexdigest())
        return self._names[1]


def _document(trees: dict[str, Any]) -> bytes:
    text = json.dumps(trees, separators=(",", ":"))
    return f"{_code()} {sha256(text.encode()).hexdigest()}\n{text}\n".encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        head, text = path.read_text().split("\n", 1)
        text = text.removesuffix("\n")
        if head == f"{_code()} {sha256(text.encode()).hexdigest()}":
            return dict(json.loads(text))
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    return {}


@cache
def _code() -> str:
    """Return a digest of the code that makes trees; rules are read otherwise with other code."""
    said = sha256(version("sqlglot").encode())
    for name in _CODE:
        said.update((_SERVICE / name).read_bytes())
    return said.hexdigest()
