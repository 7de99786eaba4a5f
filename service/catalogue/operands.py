"""Whitelisted SQL nodes that stand for a number or a text -> typed numbers. Decides what fits what.

A text is the code of its place in the texts that its column can hold: so a function of texts is a table, a comparison
of texts one of codes, and a misspelt text is found at load. Knows sqlglot's nodes; which are allowed is `rules`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from service.catalogue.problems import RuleError, suggest
from service.catalogue.sql_nodes import literal_near, position_of, sql_of
from service.catalogue.symbols import DECISION_TIME, Symbols
from service.catalogue.texts import TO_TEXT
from service.decision.expression import (
    KNOWN,
    MOMENT_PARTS,
    NULL,
    Call,
    Case,
    Column,
    Comparison,
    Constant,
    Expression,
    In,
    Lookup,
    Not,
    Number,
    age_column,
    part_column,
)

ARITHMETIC: Mapping[type[exp.Expr], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
}  # fmt: skip
NUMERIC: Mapping[type[exp.Expr], str] = {exp.Abs: "abs", exp.Floor: "floor", exp.Ceil: "ceil", exp.Round: "round"}
CHOOSING: Mapping[type[exp.Expr], str] = {exp.Coalesce: "coalesce", exp.Least: "least", exp.Greatest: "greatest"}
TEXTUAL: Mapping[type[exp.Expr], str] = {exp.Lower: "lower", exp.Upper: "upper", exp.Trim: "trim"}
PARTS: Mapping[type[exp.Expr], str] = {
    exp.Hour: "hour", exp.Day: "day", exp.Month: "month", exp.Year: "year",
    exp.DayOfWeek: "dayofweek", exp.DayOfWeekIso: "isodow",
}  # fmt: skip
NAMED = ("age_days", "date_part")
FUNCTION_NAMES = (
    *NUMERIC.values(), "ceiling", *CHOOSING.values(), "ifnull", "nullif", *TEXTUAL.values(), "length", "starts_with",
    "ends_with", "contains", *PARTS.values(), *NAMED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operand:
    """A number or a text.

    Attributes:
        node: Its tree; None for a text literal.
        texts: What each code stands for; of a literal itself alone; None for a number.
    """

    node: Number | None
    texts: tuple[str, ...] | None = None


class OperandReader:
    """Turns nodes into numbers.

    Args:
        truth: Reads the conditions of a CASE.
    """

    def __init__(self, symbols: Symbols, truth: Callable[[exp.Expr], Expression]) -> None:
        self.symbols, self._truth = symbols, truth

    def operand(self, node: exp.Expr) -> Operand:
        """Read a number or text."""
        kind = type(node)
        if kind is exp.Paren:
            return self.operand(node.this)
        if kind is exp.Column:
            return self._column(node)
        if kind is exp.Literal:
            return Operand(None, (node.this,)) if node.is_string else Operand(_constant(node))
        if kind is exp.Null:
            return Operand(NULL)
        if kind is exp.Neg:
            return self._negative(node)
        if kind in ARITHMETIC:
            return Operand(Call(ARITHMETIC[kind], (self.number(node.this), self.number(node.expression))))
        if kind in NUMERIC:
            return Operand(Call(NUMERIC[kind], (self.number(node.this),)))
        if kind in PARTS:
            return self._part(PARTS[kind], node.this, node)
        if kind is exp.Anonymous:
            return self._named(node)
        return self._choosing_or_textual(node)

    def _choosing_or_textual(self, node: exp.Expr) -> Operand:
        kind = type(node)
        if kind in CHOOSING:
            return self._choosing(node, CHOOSING[kind])
        if kind is exp.Nullif:
            return self._nullif(node)
        if kind is exp.Case:
            return self._case(node)
        if kind is exp.Length:
            text, texts = self._text(node.this)
            return Operand(Lookup(text, tuple(float(len(t)) for t in texts)))
        if kind in TEXTUAL:
            text, texts = self._text(node.this)
            return Operand(text, tuple(TO_TEXT[TEXTUAL[kind]](t) for t in texts))
        raise RuleError(
            f"{sql_of(node)!r} is TRUE or FALSE, a number is needed here", "use AND, OR, NOT", position_of(node)
        )

    def number(self, node: exp.Expr) -> Number:
        """Read a number."""
        operand = self.operand(node)
        if operand.node is None or operand.texts is not None:
            raise RuleError(
                f"{sql_of(node)!r} is a text, a number is needed here", "use another column", position_of(node)
            )
        if operand.node is NULL:
            raise RuleError("what is computed with NULL is NULL", "use IS NULL or COALESCE", position_of(node))
        return operand.node

    def _text(self, node: exp.Expr) -> tuple[Number, tuple[str, ...]]:
        """Read a text that is no literal: its code and what each code stands for."""
        operand = self.operand(node)
        if operand.node is None or operand.texts is None:
            raise RuleError(
                f"{sql_of(node)!r} is not a column of texts", "name a column that holds texts", position_of(node)
            )
        return operand.node, operand.texts

    def comparison(self, sign: str, left: exp.Expr, right: exp.Expr, node: exp.Expr) -> Expression:
        """Read `left sign right`."""
        sides = (self._side(left), self._side(right))
        texts = self._same_type(sides, node)
        if texts and sign not in ("=", "!="):
            raise RuleError(
                f"{sql_of(node)!r} orders texts", "texts have no order here: use = or IN", position_of(node)
            )
        for literal, other, is_left in ((sides[0], sides[1], True), (sides[1], sides[0], False)):
            if literal.node is None and other.node is not None:
                codes = _codes(literal, other, node)
                if len(codes) > 1:
                    found = In(other.node, codes)
                    return found if sign == "=" else Not(found)
                code = Constant(codes[0])
                return Comparison(sign, code, other.node) if is_left else Comparison(sign, other.node, code)
        (a, b), _ = _unified(sides, node, may_add=False)
        if texts and not set(sides[0].texts or ()) & set(sides[1].texts or ()):
            raise RuleError(f"{sql_of(node)!r} mixes types", "these texts have no value in common", position_of(node))
        return Comparison(sign, a, b)

    def _side(self, node: exp.Expr) -> Operand:
        operand = self.operand(node)
        if operand.node is NULL:
            raise RuleError("a comparison with NULL is never TRUE", "use IS NULL or IS NOT NULL", position_of(node))
        return operand

    def membership(self, node: exp.Expr) -> In:
        """Read `this IN (constant, ...)`."""
        members = node.args.get("expressions") or []
        if not members:
            raise RuleError(f"{sql_of(node)!r} has an empty list", "name at least one value", position_of(node))
        operand, values = self._side(node.this), [self._side(m) for m in members]
        is_text = self._same_type((operand, *values), node)
        if operand.node is None:
            raise RuleError(f"{sql_of(node)!r} reads no column", "compare a column", position_of(node))
        if not all(v.node is None if is_text else isinstance(v.node, Constant) for v in values):
            raise RuleError(f"{sql_of(node)!r} lists something other than constants", "use OR", position_of(node))
        if is_text:
            codes = [code for value in values for code in _codes(value, operand, node)]
            return In(operand.node, tuple(dict.fromkeys(codes)))
        return In(operand.node, tuple(v.node.value for v in values if isinstance(v.node, Constant)))

    def matching(self, node: exp.Expr, name: str, matches: Callable[[str, str], bool]) -> In:
        """Read a predicate of a text and a literal."""
        text, texts = self._text(node.this)
        pattern = self.operand(node.expression)
        if pattern.node is not None or pattern.texts is None:
            raise RuleError(f"{sql_of(node)!r} needs a text in quotes", "write it in quotes", position_of(node))
        codes = tuple(float(code) for code, t in enumerate(texts) if matches(t, pattern.texts[0]))
        if not codes:
            raise RuleError(
                f"{sql_of(node)!r} fits no value that is there", "there are " + ", ".join(texts), position_of(node),
                literal_near(pattern.texts[0]),
            )  # fmt: skip
        return In(text, codes)

    def _same_type(self, operands: Sequence[Operand], node: exp.Expr) -> bool:
        """Say whether all are texts; refuse a mixture."""
        known = [o for o in operands if o.node is not NULL]
        kinds = {o.texts is not None for o in known}
        if len(kinds) < 2:
            return kinds == {True}
        stray = next((o.texts[0] for o in known if o.node is None and o.texts), None)
        has_column = any(o.texts is not None and o.node is not None for o in known)
        if stray is not None and not has_column:
            message = f"the number in {sql_of(node)!r} is compared with the text {stray!r}"
            raise RuleError(message, "drop the quotes", position_of(node), literal_near(stray))
        raise RuleError(f"{sql_of(node)!r} mixes types", "numbers go with numbers, texts with texts", position_of(node))

    def _negative(self, node: exp.Expr) -> Operand:
        number = self.number(node.this)
        if isinstance(number, Constant):
            return Operand(Constant(-number.value))
        return Operand(Call("-", (Constant(0.0), number)))

    def _choosing(self, node: exp.Expr, function: str) -> Operand:
        operands = [self.operand(o) for o in (node.this, *node.args.get("expressions", []))]
        is_text = self._same_type(operands, node)
        if is_text and function != "coalesce":
            raise RuleError(f"{sql_of(node)!r} orders texts", "texts have no order here", position_of(node))
        numbers, texts = _unified(operands, node, may_add=False)
        return Operand(Call(function, numbers), texts)

    def _nullif(self, node: exp.Expr) -> Operand:
        operands = (self._side(node.this), self._side(node.expression))
        self._same_type(operands, node)
        numbers, texts = _unified(operands, node, may_add=False)
        return Operand(Call("nullif", numbers), texts)

    def _case(self, node: exp.Expr) -> Operand:
        conditions = case_conditions(node, self._truth, self.comparison)
        values = [self.operand(branch.args["true"]) for branch in node.args["ifs"]]
        default = node.args.get("default")
        operands = (*values, Operand(NULL) if default is None else self.operand(default))
        self._same_type(operands, node)
        numbers, texts = _unified(operands, node, may_add=True)
        return Operand(Case(tuple(zip(conditions, numbers[:-1], strict=True)), numbers[-1]), texts)

    def _named(self, node: exp.Expr) -> Operand:
        name, arguments = str(node.this).lower(), node.args.get("expressions") or []
        if name == "age_days" and len(arguments) == 1 and type(arguments[0]) is exp.Column:
            view = arguments[0].name.lower()
            if age_column(view) not in self.symbols:
                views = [name[len("age_days(") : -1] for name in self.symbols if name.startswith("age_days(")]
                remedy = suggest(view, views, "one of " + ", ".join(views))
                raise RuleError(f"no view is called {arguments[0].name!r}", remedy, position_of(node))
            return Operand(Column(age_column(view)))
        if name == "date_part" and len(arguments) == 2 and arguments[0].is_string:
            part = str(arguments[0].this).lower()
            if part not in MOMENT_PARTS:
                remedy = suggest(part, MOMENT_PARTS, "one of " + ", ".join(MOMENT_PARTS))
                raise RuleError(f"no part of a moment is called {part!r}", remedy, position_of(node))
            return self._part(part, arguments[1], node)
        if name in NAMED:
            usage = "age_days(view)" if name == "age_days" else "date_part('hour', decision_time)"
            raise RuleError(f"{sql_of(node)!r} is not how {name} is called", f"write {usage}", position_of(node))
        remedy = suggest(name, FUNCTION_NAMES, "there are " + ", ".join(FUNCTION_NAMES))
        raise RuleError(f"no function is called {name!r}", remedy, position_of(node), name)

    def _part(self, part: str, moment: exp.Expr, node: exp.Expr) -> Operand:
        if type(moment) is not exp.Column or moment.name.lower() != DECISION_TIME:
            raise RuleError(f"{sql_of(node)!r} asks for a part of no moment", f"write {part}(decision_time)",
                            position_of(node))  # fmt: skip
        return Operand(Column(part_column(part)))

    def _column(self, node: exp.Expr) -> Operand:
        name = node.name.lower()
        if name == KNOWN:
            raise RuleError("known is TRUE or FALSE, not a number", "write known or NOT known", position_of(node))
        if name == DECISION_TIME:
            raise RuleError("decision_time is a moment", "ask for a part of it: hour(decision_time)", position_of(node))
        if name not in self.symbols:
            raise RuleError(
                f"no column is called {node.name!r}",
                suggest(name, self.symbols, "the columns are those of features/contract.py, as of now"),
                position_of(node),
            )
        return Operand(Column(name), self.symbols[name] or None)


def case_conditions(
    node: exp.Expr,
    truth: Callable[[exp.Expr], Expression],
    comparison: Callable[[str, exp.Expr, exp.Expr, exp.Expr], Expression],
) -> list[Expression]:
    """Read the conditions of a CASE; of `CASE x WHEN y` they are x = y."""
    subject = node.args.get("this")
    return [
        truth(branch.this) if subject is None else comparison("=", subject, branch.this, node)
        for branch in node.args["ifs"]
    ]


def _unified(
    operands: Sequence[Operand], node: exp.Expr, *, may_add: bool
) -> tuple[tuple[Number, ...], tuple[str, ...] | None]:
    """Give all operands one type: numbers, or codes of the same texts (literals among them if they `may_add`)."""
    if all(o.texts is None for o in operands):
        return tuple(o.node for o in operands if o.node is not None), None
    if not may_add and all(o.node is None or o.texts is None for o in operands):
        raise RuleError(f"{sql_of(node)!r} reads no column", "compare a column", position_of(node))
    sources = [o.texts or () for o in operands if may_add or o.node is not None]
    texts = tuple(dict.fromkeys(text for source in sources for text in source))
    return tuple(_coded(o, texts, node) for o in operands), texts


def _coded(operand: Operand, texts: tuple[str, ...], node: exp.Expr) -> Number:
    if operand.node is None:
        return Constant(_codes(operand, Operand(NULL, texts), node)[0])
    if operand.texts is None or operand.texts == texts[: len(operand.texts)]:
        return operand.node
    return Lookup(operand.node, tuple(float(texts.index(text)) for text in operand.texts))


def _codes(literal: Operand, other: Operand, node: exp.Expr) -> tuple[float, ...]:
    """Return the codes of a literal among another's texts."""
    [text], texts = literal.texts or ("",), other.texts or ()
    codes = tuple(float(code) for code, known in enumerate(texts) if known == text)
    if not codes:
        remedy = suggest(text, texts, "one of " + ", ".join(dict.fromkeys(texts)))
        raise RuleError(f"{sql_of(node)!r}: no such value as {text!r}", remedy, position_of(node), literal_near(text))
    return codes


def _constant(node: exp.Expr) -> Constant:
    value = float(node.this)
    if not math.isfinite(value):
        raise RuleError(f"the number {node.this} is beyond float64", "write a smaller one")
    return Constant(value)
