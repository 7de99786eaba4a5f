"""The names that rules may read, and what turns a rule's text into a tree. Loads no SQL parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.decision.expression import Expression

Symbols = Mapping[str, tuple[str, ...]]
"""Name of a column, context field or pseudo column -> its vocabulary; empty for a number."""

DECISION_TIME = "decision_time"
ReadRule = Callable[[str, Symbols], Expression]
"""Text of a rule and the names that it may read -> its tree. Raises RuleError."""


def parse(text: str, symbols: Symbols) -> Expression:
    """Parse a rule; the SQL parser is loaded with the first one, since who knows all trees needs none."""
    from service.catalogue.rules import parse_rule

    return parse_rule(text, symbols)
