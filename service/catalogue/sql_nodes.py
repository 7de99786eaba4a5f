"""What a message says of an SQL node: its text and its place. Knows sqlglot's nodes, not what they are for."""

from __future__ import annotations

from sqlglot import exp
from sqlglot.errors import SqlglotError


def sql_of(node: exp.Expr) -> str:
    """Return a node as SQL, cut to a length fit for a message."""
    try:
        text = node.sql(dialect="duckdb")
    except (SqlglotError, ValueError, RecursionError):
        text = type(node).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def position_of(node: exp.Expr) -> int:
    """Offset of the leftmost name under the node: sqlglot keeps positions of names only."""
    starts = [n.meta["start"] for n in node.find_all(exp.Identifier) if "start" in n.meta]
    return int(min(starts, default=0))


def literal_near(text: str) -> str:
    """Return a text as it stands in a rule, to look for it there."""
    return "'" + text.replace("'", "''") + "'"
