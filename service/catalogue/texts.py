"""Functions of texts that rules may call, on the words of a vocabulary: all they can ever see is known at load.

They answer as DuckDB does: case by single characters, LIKE with % and _ and no escape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def lower(text: str) -> str:
    """Return the text in lower case, as many characters as before."""
    return "".join(character.lower()[0] for character in text)


def upper(text: str) -> str:
    """Return the text in upper case, as many characters as before."""
    return "".join(_upper(character) for character in text)


def _upper(character: str) -> str:
    singles = (c for c in (character.upper(), character.title()) if len(c) == 1)
    return "ẞ" if character == "ß" else next(singles, character)


def trim(text: str) -> str:
    """Return the text without the spaces around it."""
    return text.strip(" ")


def like(text: str, pattern: str) -> bool:
    """Say whether a text is like a pattern: % stands for any characters, _ for one."""
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


TO_TEXT: Mapping[str, Callable[[str], str]] = {"lower": lower, "upper": upper, "trim": trim}
PREDICATES: Mapping[str, Callable[[str, str], bool]] = {
    "like": like,
    "ilike": lambda text, pattern: like(lower(text), lower(pattern)),
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}
