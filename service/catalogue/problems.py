"""How a mistake in a catalogue is told: what is wrong, where, and what to do. Knows nothing of catalogues."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong in a document: 1-based line, path such as `actions.x.value`, message and remedy."""

    line: int
    path: str
    message: str
    remedy: str


class CatalogueError(ValueError):
    """A catalogue cannot be used.

    Attributes:
        file: The file as it was named.
        problems: Everything that is wrong, each once, in order of line.
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file, self.problems = file, tuple(sorted(set(problems)))
        super().__init__("\n".join(f"{file}:{p.line}: {p.path}: {p.message}; {p.remedy}" for p in self.problems))


class RuleError(ValueError):
    """A rule's text is not allowed or not understood.

    Attributes:
        message: What is wrong, one sentence.
        remedy: What to do.
        position: Offset in the text at which to look, 0-based.
        near: What stands there, where it is known better than its place; "" otherwise.
    """

    def __init__(self, message: str, remedy: str, position: int = 0, near: str = "") -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy, self.position, self.near = message, remedy, position, near

    def in_text(self, text: str) -> RuleError:
        """Return the error with its position looked up in the text of the rule."""
        if not self.near:
            return self
        places = (text.lower().find(self.near.lower(), start) for start in (self.position, 0))
        return RuleError(self.message, self.remedy, next((p for p in places if p >= 0), self.position))

    def caret(self, text: str) -> str:
        """Return the text with a caret below the position."""
        before = text[: self.position]
        line = text.splitlines()[before.count("\n")] if text.strip() else ""
        return f"{line}\n{' ' * (self.position - (before.rfind(chr(10)) + 1))}^"


def suggest(name: str, names: Mapping[str, object] | Sequence[str], otherwise: str) -> str:
    """Return a remedy for a misspelt name: the nearest known one, or `otherwise`."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else otherwise
