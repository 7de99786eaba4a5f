"""Whitelisted SQL nodes -> typed tree: decides what fits what: numbers, texts of one vocabulary, truths.

Knows sqlglot's nodes and the columns' vocabularies; which nodes are allowed at all is `rules`'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import SqlglotError

from service.catalogue.problems import RuleError, suggest
from service.decision.expression import (
    KNOWN,
    All,
    AnyOf,
    Arithmetic,
    Coalesce,
    Column,
    Comparison,
    Constant,
    Expression,
    In,
    IsNull,
    Not,
    Number,
    Truth,
)

Symbols = Mapping[str, tuple[str, ...]]
"""Name of a column, context field or pseudo column -> its vocabulary; empty for a number."""

COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
ARITHMETIC: Mapping[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}


@dataclass(frozen=True, slots=True)
class _Text:
    """A text literal that waits for the vocabulary of what it is compared with."""

    text: str


@dataclass(frozen=True, slots=True)
class _Operand:
    """A number or text: its tree, or the literal text, and its vocabulary (empty for a number, None for a literal)."""

    node: Number | _Text
    vocabulary: tuple[str, ...] | None


class RuleReader:
    """Turns whitelisted SQL nodes into typed nodes."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols

    def truth(self, node: exp.Expr) -> Expression:
        """Read a boolean."""
        kind = type(node)
        if kind is exp.Paren:
            return self.truth(node.this)
        if kind is exp.And:
            return All(tuple(self._flat(node, exp.And)))
        if kind is exp.Or:
            return AnyOf(tuple(self._flat(node, exp.Or)))
        if kind is exp.Not:
            return Not(self.truth(node.this))
        if kind is exp.Boolean:
            return Truth(bool(node.this))
        if kind in COMPARISONS:
            return self._comparison(node, COMPARISONS[kind])
        if kind is exp.Between:
            return self._between(node)
        if kind is exp.In:
            return self._membership(node)
        if kind is exp.Is:
            return self._is_null(node)
        if kind is exp.Column and node.name.lower() == KNOWN:
            return Comparison("=", Column(KNOWN), Constant(1.0))
        raise RuleError(f"{sql_of(node)!r} is not TRUE or FALSE", "compare it with something", position_of(node))

    def _flat(self, node: exp.Expr, kind: type[exp.Expr]) -> list[Expression]:
        """Read the operands of a chain a AND b AND c, which sqlglot nests to the left."""
        operands: list[Expression] = []
        while type(node) is kind:
            operands.append(self.truth(node.expression))
            node = node.this
        operands.append(self.truth(node))
        return operands[::-1]

    def _comparison(self, node: exp.Expr, sign: str) -> Comparison:
        left, right = self._operand(node.this), self._operand(node.expression)
        numbers, is_text = self._matched((left, right), node)
        if is_text and sign not in ("=", "!="):
            raise RuleError(
                f"{sql_of(node)!r} orders texts", "texts have no order here: use = or IN", position_of(node)
            )
        return Comparison(sign, *numbers)

    def _between(self, node: exp.Expr) -> All:
        operands = tuple(self._operand(node.args[name]) for name in ("this", "low", "high"))
        numbers, is_text = self._matched(operands, node)
        if is_text:
            raise RuleError(f"{sql_of(node)!r} orders texts", "texts have no order here: use IN", position_of(node))
        value, low, high = numbers
        return All((Comparison(">=", value, low), Comparison("<=", value, high)))

    def _membership(self, node: exp.Expr) -> In:
        members = node.args.get("expressions") or []
        if not members:
            raise RuleError(f"{sql_of(node)!r} has an empty list", "name at least one value", position_of(node))
        operands = (self._operand(node.this), *(self._operand(m) for m in members))
        numbers, _ = self._matched(operands, node)
        constants = tuple(n.value for n in numbers[1:] if isinstance(n, Constant))
        if len(constants) != len(members):
            raise RuleError(f"{sql_of(node)!r} lists something other than constants", "use OR", position_of(node))
        return In(numbers[0], constants)

    def _is_null(self, node: exp.Expr) -> IsNull:
        if type(node.expression) is not exp.Null:
            raise RuleError(f"{sql_of(node)!r} is not allowed", "only IS NULL and IS NOT NULL are", position_of(node))
        operand = self._operand(node.this)
        if isinstance(operand.node, _Text):
            raise RuleError(f"{sql_of(node)!r} asks whether a text is NULL", "name a column", position_of(node))
        return IsNull(operand.node)

    def _operand(self, node: exp.Expr) -> _Operand:
        """Read a number or text."""
        kind = type(node)
        if kind is exp.Paren:
            return self._operand(node.this)
        if kind is exp.Column:
            return self._column(node)
        if kind is exp.Literal:
            return _Operand(_Text(node.this), None) if node.is_string else _Operand(_constant(node), ())
        if kind is exp.Neg:
            return self._negative(node)
        if kind in ARITHMETIC:
            return _Operand(Arithmetic(ARITHMETIC[kind], self._number(node.this), self._number(node.expression)), ())
        if kind is exp.Coalesce:
            operands = tuple(self._operand(o) for o in (node.this, *node.args.get("expressions", [])))
            numbers, _ = self._matched(operands, node)
            vocabulary = next((o.vocabulary for o in operands if o.vocabulary), ())
            return _Operand(Coalesce(numbers), vocabulary)
        if kind is exp.Null:
            raise RuleError("a comparison with NULL is never TRUE", "use IS NULL or IS NOT NULL", position_of(node))
        raise RuleError(
            f"{sql_of(node)!r} is TRUE or FALSE, a number is needed here", "use AND, OR, NOT", position_of(node)
        )

    def _negative(self, node: exp.Expr) -> _Operand:
        number = self._number(node.this)
        if isinstance(number, Constant):
            return _Operand(Constant(-number.value), ())
        return _Operand(Arithmetic("-", Constant(0.0), number), ())

    def _number(self, node: exp.Expr) -> Number:
        operand = self._operand(node)
        if isinstance(operand.node, _Text) or operand.vocabulary:
            raise RuleError(
                f"{sql_of(node)!r} is a text, arithmetic needs numbers", "use another column", position_of(node)
            )
        return operand.node

    def _column(self, node: exp.Expr) -> _Operand:
        name = node.name.lower()
        if name == KNOWN:
            raise RuleError("known is TRUE or FALSE, not a number", "write known or NOT known", position_of(node))
        if name not in self.symbols:
            raise RuleError(
                f"no column is called {node.name!r}",
                suggest(name, self.symbols, "the columns are those of features/contract.py, as of now"),
                position_of(node),
            )
        return _Operand(Column(name), self.symbols[name])

    def _matched(self, operands: Sequence[_Operand], node: exp.Expr) -> tuple[tuple[Number, ...], bool]:
        """Give all operands one type: numbers, or codes of one vocabulary."""
        vocabularies = {o.vocabulary for o in operands if o.vocabulary is not None}
        if len(vocabularies) > 1:
            raise RuleError(
                f"{sql_of(node)!r} mixes types",
                "compare numbers with numbers, texts with texts of one column",
                position_of(node),
            )
        vocabulary = next(iter(vocabularies), None)
        if vocabulary is None:
            raise RuleError(f"{sql_of(node)!r} reads no column", "compare a column", position_of(node))
        return tuple(_coded(o.node, vocabulary, node) for o in operands), bool(vocabulary)


def _coded(operand: Number | _Text, vocabulary: tuple[str, ...], node: exp.Expr) -> Number:
    if not isinstance(operand, _Text):
        return operand
    if not vocabulary:
        raise RuleError(
            f"the number in {sql_of(node)!r} is compared with the text {operand.text!r}",
            "drop the quotes",
            position_of(node),
        )
    if operand.text not in vocabulary:
        raise RuleError(
            f"{sql_of(node)!r}: no such value as {operand.text!r}",
            suggest(operand.text, vocabulary, "one of " + ", ".join(vocabulary)),
            position_of(node),
        )
    return Constant(float(vocabulary.index(operand.text)))


def _constant(node: exp.Expr) -> Constant:
    value = float(node.this)
    if not math.isfinite(value):
        raise RuleError(f"the number {node.this} is beyond float64", "write a smaller one")
    return Constant(value)


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
