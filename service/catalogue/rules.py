"""SQL text of a rule -> `decision.expression` tree. Decides which SQL is allowed; knows no catalogue and no data.

The text is parsed by sqlglot (dialect duckdb) and walked against a whitelist of node types and of their arguments:
whatever is not on it is refused with the position in the text and a remedy.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from service.catalogue.operands import ARITHMETIC, CHOOSING, FUNCTION_NAMES, NUMERIC, PARTS, TEXTUAL
from service.catalogue.problems import RuleError
from service.catalogue.rule_types import COMPARISONS, MATCHING, RuleReader
from service.catalogue.sql_nodes import position_of, sql_of
from service.catalogue.symbols import Symbols
from service.decision.expression import Expression

__all__ = ["RuleError", "parse_rule"]

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH = 4_000, 200, 16
ONE, TWO, MANY = frozenset({"this"}), frozenset({"this", "expression"}), frozenset({"this", "expressions"})
ARGUMENTS: Mapping[type[exp.Expr], frozenset[str]] = {
    **dict.fromkeys((*COMPARISONS, *ARITHMETIC, exp.And, exp.Or, exp.Is, exp.Nullif), TWO),
    **dict.fromkeys((exp.Not, exp.Paren, exp.Neg, exp.Column, exp.Boolean, exp.Length), ONE),
    **dict.fromkeys((*NUMERIC, *TEXTUAL, *PARTS), ONE),
    **dict.fromkeys(CHOOSING, MANY | {"ignore_nulls"}),
    **dict.fromkeys(MATCHING, TWO | {"negate"}),
    exp.Anonymous: MANY,
    exp.Between: frozenset({"this", "low", "high"}),
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.Div: TWO | {"typed", "safe"},
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.If: frozenset({"this", "true"}),
    exp.In: MANY,
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Null: frozenset(),
}
ALLOWED = (
    "AND, OR, NOT, = <> < <= > >=, + - * / %, BETWEEN, IN (...), LIKE, IS [NOT] NULL|TRUE|FALSE, CASE, TRUE, FALSE and "
    "the functions " + ", ".join(FUNCTION_NAMES)
)


def parse_rule(text: str, symbols: Symbols) -> Expression:
    """Parse one SQL boolean expression.

    Args:
        text: The rule as written.
        symbols: Every name that it may read, with its vocabulary.

    Returns:
        The typed tree.

    Raises:
        RuleError: The text is too long, not SQL, not on the whitelist, or does not fit the columns' types.
    """
    if len(text) > MAX_CHARACTERS:
        raise RuleError(f"the rule has {len(text)} characters, {MAX_CHARACTERS} are allowed", "split it into two rules")
    try:
        statements = [s for s in sqlglot.parse(text, dialect="duckdb") if s is not None]
    except SqlglotError as error:
        raise _syntax_error(text, error) from None
    except RecursionError:
        raise RuleError("the rule is nested too deeply", "remove brackets") from None
    if len(statements) != 1:
        raise RuleError(f"the rule holds {len(statements)} statements", "write one boolean expression")
    try:
        _check_nodes(statements[0])
        if (depth := _depth(statements[0])) > MAX_DEPTH:
            raise RuleError(f"the rule is {depth} levels deep, {MAX_DEPTH} are allowed", "split it into two rules")
        return RuleReader(symbols).truth(statements[0])
    except RuleError as error:
        raise error.in_text(text) from None


def _syntax_error(text: str, error: SqlglotError) -> RuleError:
    details = (getattr(error, "errors", None) or [{}])[0]
    line, column = details.get("line") or 1, details.get("col") or 1
    highlight = details.get("highlight") or ""
    start = sum(len(row) + 1 for row in text.splitlines()[: line - 1])
    position = max(0, start + column - max(1, len(highlight)))
    near = f" near {highlight!r}" if highlight else ""
    return RuleError(
        f"the rule is not a valid SQL expression{near}", f"allowed are {ALLOWED}", min(position, len(text))
    )


def _check_nodes(root: exp.Expr) -> None:
    for count, node in enumerate(root.walk(), start=1):
        if count > MAX_NODES:
            raise RuleError(f"the rule has more than {MAX_NODES} nodes", "split it into two rules", position_of(node))
        allowed = ARGUMENTS.get(type(node))
        if allowed is None:
            raise RuleError(f"{sql_of(node)!r} is not allowed in a rule", f"allowed are {ALLOWED}", position_of(node))
        for name, value in node.args.items():
            if name not in allowed and value not in (None, False, []):
                raise RuleError(
                    f"{sql_of(node)!r} uses {name!r}, which is not allowed", f"allowed are {ALLOWED}", position_of(node)
                )


def _depth(node: exp.Expr) -> int:
    """Count levels as a reader does: brackets are none, and a chain of ANDs or ORs is one."""
    is_chained = isinstance(node, exp.And | exp.Or) and type(node.parent) is type(node)
    is_free = is_chained or isinstance(node, exp.Paren | exp.If | exp.Identifier)
    return (0 if is_free else 1) + max((_depth(child) for child in node.iter_expressions()), default=0)
