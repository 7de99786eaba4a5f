"""SQL text of a rule -> `decision.expression` tree. Decides which SQL is allowed; knows no catalogue and no data.

The text is parsed by sqlglot (dialect duckdb) and walked against a whitelist of node types and of their arguments:
whatever is not on it is refused with the position in the text and a remedy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

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
    children,
)

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH = 4_000, 200, 16
Symbols = Mapping[str, tuple[str, ...]]
"""Name of a column, context field or pseudo column -> its vocabulary; empty for a number."""

COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
ARITHMETIC: Mapping[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}
ARGUMENTS: Mapping[type[exp.Expr], frozenset[str]] = {
    **{kind: frozenset({"this", "expression"}) for kind in (*COMPARISONS, *ARITHMETIC, exp.And, exp.Or, exp.Is)},
    exp.Div: frozenset({"this", "expression", "typed", "safe"}),
    **{kind: frozenset({"this"}) for kind in (exp.Not, exp.Paren, exp.Neg, exp.Column, exp.Boolean)},
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Coalesce: frozenset({"this", "expressions"}),
    exp.Null: frozenset(),
}
ALLOWED = "AND, OR, NOT, = <> < <= > >=, + - * /, BETWEEN, IN (...), IS [NOT] NULL, COALESCE(...), TRUE, FALSE"


class RuleError(ValueError):
    """A rule's text is not allowed or not understood.

    Attributes:
        message: What is wrong, one sentence.
        remedy: What to do.
        position: Offset in the text at which to look, 0-based.
    """

    def __init__(self, message: str, remedy: str, position: int = 0) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy, self.position = message, remedy, position

    def caret(self, text: str) -> str:
        """Return the text with a caret below the position."""
        before = text[: self.position]
        line = text.splitlines()[before.count("\n")] if text.strip() else ""
        return f"{line}\n{' ' * (self.position - (before.rfind(chr(10)) + 1))}^"


@dataclass(frozen=True, slots=True)
class _Text:
    """A text literal that waits for the vocabulary of what it is compared with."""

    text: str


@dataclass(frozen=True, slots=True)
class _Operand:
    """A number or text: its tree, or the literal text, and its vocabulary (empty for a number, None for a literal)."""

    node: Number | _Text
    vocabulary: tuple[str, ...] | None


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
    _check_nodes(statements[0])
    node = _Reader(symbols).truth(statements[0])
    if (depth := _depth(node)) > MAX_DEPTH:
        raise RuleError(f"the rule is {depth} levels deep, {MAX_DEPTH} are allowed", "split it into two rules")
    return node


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
            raise RuleError(f"the rule has more than {MAX_NODES} nodes", "split it into two rules", _position(node))
        allowed = ARGUMENTS.get(type(node))
        if allowed is None:
            raise RuleError(f"{_sql(node)!r} is not allowed in a rule", f"allowed are {ALLOWED}", _position(node))
        for name, value in node.args.items():
            if name not in allowed and value not in (None, False, []):
                raise RuleError(
                    f"{_sql(node)!r} uses {name!r}, which is not allowed", f"allowed are {ALLOWED}", _position(node)
                )


def _sql(node: exp.Expr) -> str:
    try:
        text = node.sql(dialect="duckdb")
    except (SqlglotError, ValueError, RecursionError):
        text = type(node).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _position(node: exp.Expr) -> int:
    """Offset of the leftmost name under the node: sqlglot keeps positions of names only."""
    starts = [n.meta["start"] for n in node.find_all(exp.Identifier) if "start" in n.meta]
    return int(min(starts, default=0))


def _depth(node: Number | Expression) -> int:
    return 1 + max((_depth(child) for child in children(node)), default=0)


class _Reader:
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
        raise RuleError(f"{_sql(node)!r} is not TRUE or FALSE", "compare it with something", _position(node))

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
            raise RuleError(f"{_sql(node)!r} orders texts", "texts have no order here: use = or IN", _position(node))
        return Comparison(sign, *numbers)

    def _between(self, node: exp.Expr) -> All:
        operands = tuple(self._operand(node.args[name]) for name in ("this", "low", "high"))
        numbers, is_text = self._matched(operands, node)
        if is_text:
            raise RuleError(f"{_sql(node)!r} orders texts", "texts have no order here: use IN", _position(node))
        value, low, high = numbers
        return All((Comparison(">=", value, low), Comparison("<=", value, high)))

    def _membership(self, node: exp.Expr) -> In:
        members = node.args.get("expressions") or []
        if not members:
            raise RuleError(f"{_sql(node)!r} has an empty list", "name at least one value", _position(node))
        operands = (self._operand(node.this), *(self._operand(m) for m in members))
        numbers, _ = self._matched(operands, node)
        constants = tuple(n.value for n in numbers[1:] if isinstance(n, Constant))
        if len(constants) != len(members):
            raise RuleError(f"{_sql(node)!r} lists something other than constants", "use OR", _position(node))
        return In(numbers[0], constants)

    def _is_null(self, node: exp.Expr) -> IsNull:
        if type(node.expression) is not exp.Null:
            raise RuleError(f"{_sql(node)!r} is not allowed", "only IS NULL and IS NOT NULL are", _position(node))
        operand = self._operand(node.this)
        if isinstance(operand.node, _Text):
            raise RuleError(f"{_sql(node)!r} asks whether a text is NULL", "name a column", _position(node))
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
            raise RuleError("a comparison with NULL is never TRUE", "use IS NULL or IS NOT NULL", _position(node))
        raise RuleError(
            f"{_sql(node)!r} is TRUE or FALSE, a number is needed here", "use AND, OR, NOT", _position(node)
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
                f"{_sql(node)!r} is a text, arithmetic needs numbers", "use another column", _position(node)
            )
        return operand.node

    def _column(self, node: exp.Expr) -> _Operand:
        name = node.name.lower()
        if name == KNOWN:
            raise RuleError("known is TRUE or FALSE, not a number", "write known or NOT known", _position(node))
        if name not in self.symbols:
            raise RuleError(
                f"no column is called {node.name!r}", suggest(name, self.symbols, "see `nba facts`"), _position(node)
            )
        return _Operand(Column(name), self.symbols[name])

    def _matched(self, operands: Sequence[_Operand], node: exp.Expr) -> tuple[tuple[Number, ...], bool]:
        """Give all operands one type: numbers, or codes of one vocabulary."""
        vocabularies = {o.vocabulary for o in operands if o.vocabulary is not None}
        if len(vocabularies) > 1:
            raise RuleError(
                f"{_sql(node)!r} mixes types",
                "compare numbers with numbers, texts with texts of one column",
                _position(node),
            )
        vocabulary = next(iter(vocabularies), None)
        if vocabulary is None:
            raise RuleError(f"{_sql(node)!r} reads no column", "compare a column", _position(node))
        return tuple(_coded(o.node, vocabulary, node) for o in operands), bool(vocabulary)


def _coded(operand: Number | _Text, vocabulary: tuple[str, ...], node: exp.Expr) -> Number:
    if not isinstance(operand, _Text):
        return operand
    if not vocabulary:
        raise RuleError(
            f"the number in {_sql(node)!r} is compared with the text {operand.text!r}",
            "drop the quotes",
            _position(node),
        )
    if operand.text not in vocabulary:
        raise RuleError(
            f"{_sql(node)!r}: no such value as {operand.text!r}",
            suggest(operand.text, vocabulary, "one of " + ", ".join(vocabulary)),
            _position(node),
        )
    return Constant(float(vocabulary.index(operand.text)))


def _constant(node: exp.Expr) -> Constant:
    value = float(node.this)
    if not math.isfinite(value):
        raise RuleError(f"the number {node.this} is beyond float64", "write a smaller one")
    return Constant(value)


def suggest(name: str, names: Mapping[str, object] | Sequence[str], otherwise: str) -> str:
    """Return a remedy for a misspelt name: the nearest known one, or `otherwise`."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else otherwise
