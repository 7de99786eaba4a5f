"""Whitelisted SQL nodes that stand for a truth -> typed tree.

Knows sqlglot's nodes; which are allowed at all is `rules`', what numbers and texts are is `operands`'.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from service.catalogue.operands import OperandReader, case_conditions
from service.catalogue.problems import RuleError
from service.catalogue.sql_nodes import position_of, sql_of
from service.catalogue.symbols import Symbols
from service.catalogue.texts import PREDICATES
from service.decision.expression import (
    KNOWN,
    NULL,
    All,
    AnyOf,
    Column,
    Comparison,
    Constant,
    Expression,
    Is,
    IsNull,
    Not,
    Truth,
)

COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
MATCHING: Mapping[type[exp.Expr], str] = {
    exp.Like: "like", exp.ILike: "ilike", exp.StartsWith: "starts_with", exp.EndsWith: "ends_with",
    exp.Contains: "contains",
}  # fmt: skip
TRUTHS = (*COMPARISONS, *MATCHING, exp.And, exp.Or, exp.Not, exp.Boolean, exp.Between, exp.In, exp.Is)


class RuleReader:
    """Turns whitelisted SQL nodes into typed nodes."""

    def __init__(self, symbols: Symbols) -> None:
        self._operands = OperandReader(symbols, self.truth)

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
            return self._operands.comparison(COMPARISONS[kind], node.this, node.expression, node)
        if kind in MATCHING:
            found = self._operands.matching(node, MATCHING[kind], PREDICATES[MATCHING[kind]])
            return Not(found) if node.args.get("negate") else found
        if kind is exp.Between:
            return self._between(node)
        if kind is exp.In:
            return self._operands.membership(node)
        if kind is exp.Is:
            return self._is(node)
        if kind is exp.Column and node.name.lower() == KNOWN:
            return Comparison("=", Column(KNOWN), Constant(1.0))
        if self._is_truth(node):
            return self._case(node) if kind is exp.Case else self._coalesce(node)
        if kind is exp.Column:
            self._operands.operand(node)  # a misspelt name is told as one
        raise RuleError(f"{sql_of(node)!r} is not TRUE or FALSE", "compare it with something", position_of(node))

    def _is_truth(self, node: exp.Expr) -> bool:
        """Say whether a node is TRUE or FALSE; of CASE and COALESCE the first value that is not NULL tells."""
        kind = type(node)
        if kind is exp.Paren:
            return self._is_truth(node.this)
        if kind is exp.Case:
            values = [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default")]
            return self._is_truth(next((v for v in values if v is not None and type(v) is not exp.Null), node.this))
        if kind is exp.Coalesce:
            return self._is_truth(node.this)
        return kind in TRUTHS or (kind is exp.Column and node.name.lower() == KNOWN)

    def _flat(self, node: exp.Expr, kind: type[exp.Expr]) -> list[Expression]:
        """Read the operands of a chain a AND b AND c, which sqlglot nests to the left."""
        operands: list[Expression] = []
        while type(node) is kind:
            operands.append(self.truth(node.expression))
            node = node.this
        operands.append(self.truth(node))
        return operands[::-1]

    def _between(self, node: exp.Expr) -> All:
        value, low, high = (node.args[name] for name in ("this", "low", "high"))
        return All(
            (self._operands.comparison(">=", value, low, node), self._operands.comparison("<=", value, high, node))
        )

    def _is(self, node: exp.Expr) -> Expression:
        kind = type(node.expression)
        if kind is exp.Boolean:
            return Is(self.truth(node.this), bool(node.expression.this))
        if kind is not exp.Null:
            message = f"{sql_of(node)!r} is not allowed"
            raise RuleError(message, "IS [NOT] goes with NULL, TRUE and FALSE", position_of(node))
        if self._is_truth(node.this):
            return _unknown(self.truth(node.this))
        operand = self._operands.operand(node.this)
        if operand.node is None or operand.node is NULL:
            raise RuleError(f"{sql_of(node)!r} asks whether a constant is NULL", "name a column", position_of(node))
        return IsNull(operand.node)

    def _case(self, node: exp.Expr) -> Expression:
        """Read a CASE of truths: for one branch alone the conditions before it are not TRUE and its own is."""
        before: list[Expression] = []
        branches: list[Expression] = []
        for condition, branch in zip(
            case_conditions(node, self.truth, self._operands.comparison), node.args["ifs"], strict=True
        ):
            branches.append(All((*before, Is(condition, True), self._value(branch.args["true"]))))
            before.append(Not(Is(condition, True)))
        branches.append(All((*before, self._value(node.args.get("default")))))
        return AnyOf(tuple(branches))

    def _value(self, node: exp.Expr | None) -> Expression:
        return Truth(None) if node is None or type(node) is exp.Null else self.truth(node)

    def _coalesce(self, node: exp.Expr) -> Expression:
        """Read a COALESCE of truths: TRUE where the first known one is."""
        *operands, found = [self._value(o) for o in (node.this, *node.args.get("expressions", []))]
        for operand in reversed(operands):
            found = AnyOf((Is(operand, True), All((_unknown(operand), found))))
        return found


def _unknown(operand: Expression) -> Expression:
    return All((Not(Is(operand, True)), Not(Is(operand, False))))
