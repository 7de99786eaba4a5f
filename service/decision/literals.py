"""Truths broken down into two-valued literals, "is TRUE" and "is FALSE", each distinct one once.

Load-time work; knows the trees, not how or for whom the literals are evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Protocol

import numpy as np

from service.decision.expression import (
    All,
    AnyOf,
    Call,
    Comparison,
    Constant,
    Expression,
    In,
    Is,
    IsNull,
    Not,
    Number,
    Truth,
)
from service.decision.functions import COMPARATORS

OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRRORED = {"=": "=", "!=": "!=", "<": ">", ">": "<", ">=": "<=", "<=": ">="}


@dataclass(frozen=True, slots=True)
class Literal:
    """An atom (`ge`, `eq`, `null` on a value row; `true`, `false`) or a gate (`all`, `any`, `none`) over others."""

    kind: str
    row: int = 0
    constant: float = 0.0
    inputs: tuple[int, ...] = ()


class ValueRows(Protocol):
    """Says which row holds a number."""

    def value(self, node: Number) -> int:
        """Return the row that holds a number."""

    def difference(self, left: Number, right: Number) -> int:
        """Return the row that holds `left - right`."""


class Literals:
    """Collects literals.

    Attributes:
        levels: Of each literal: 0 for an atom, for a gate one more than the highest of its inputs.
    """

    def __init__(self, rows: ValueRows) -> None:
        self._rows = rows
        self.literals: list[Literal] = []
        self.levels: list[int] = []
        self._ids: dict[Literal, int] = {}

    def literal(self, node: Expression, *, truth: bool) -> int:
        """Return the literal "node is TRUE" or "node is FALSE"."""
        match node:
            case Truth(value):
                return self._add(Literal("true" if value is truth else "false"))
            case Not(operand):
                return self.literal(operand, truth=not truth)
            case Is(operand, value):
                literal = self.literal(operand, truth=value)
                return literal if truth else self._add(Literal("none", inputs=(literal,)))
            case All(operands):
                return self._gate("all" if truth else "any", [self.literal(o, truth=truth) for o in operands])
            case AnyOf(operands):
                return self._gate("any" if truth else "all", [self.literal(o, truth=truth) for o in operands])
            case IsNull(Constant(value)):
                return self._add(Literal("true" if isnan(value) is truth else "false"))
            case IsNull(Call("coalesce", operands)):
                return self._gate("all" if truth else "any", [self.literal(IsNull(o), truth=truth) for o in operands])
            case IsNull(number):
                row = self._rows.value(number)
                return self._add(Literal("null", row) if truth else Literal("ge", row, -np.inf))
            case In(number, values):
                sign = "=" if truth else "!="
                atoms = [self._against(sign, number, v) for v in values]
                return self._gate("any" if truth else "all", atoms)
            case Comparison(sign, left, right):
                sign = sign if truth else OPPOSITE[sign]
                if isinstance(right, Constant):
                    return self._against(sign, left, right.value)
                if isinstance(left, Constant):
                    return self._against(MIRRORED[sign], right, left.value)
                return self._compare(sign, self._rows.difference(left, right), 0.0)

    def _against(self, sign: str, number: Number, constant: float) -> int:
        """`number sign constant`; of a coalesce no value is computed: its first operand decides unless it is NULL."""
        match number:
            case Constant(value):
                holds = not (isnan(value) or isnan(constant)) and COMPARATORS[sign](value, constant)
                return self._add(Literal("true" if holds else "false"))
            case Call("coalesce", (only,)):
                return self._against(sign, only, constant)
            case Call("coalesce", (first, *others)):
                otherwise = self._against(sign, Call("coalesce", tuple(others)), constant)
                is_left_to_others = self._gate("all", [self.literal(IsNull(first), truth=True), otherwise])
                return self._gate("any", [self._against(sign, first, constant), is_left_to_others])
        return self._compare(sign, self._rows.value(number), constant)

    def _compare(self, sign: str, row: int, constant: float) -> int:
        """`row sign constant` as atoms over [X, -X]; a negative row number ~r stands for the row of -X."""
        match sign:
            case "=":
                return self._add(Literal("eq", row, constant))
            case ">=":
                return self._add(Literal("ge", row, constant))
            case ">":
                return self._add(Literal("ge", row, float(np.nextafter(constant, np.inf))))
            case "<=":
                return self._add(Literal("ge", ~row, -constant))
            case "<":
                return self._add(Literal("ge", ~row, float(np.nextafter(-constant, np.inf))))
        return self._gate("any", [self._compare("<", row, constant), self._compare(">", row, constant)])

    def _gate(self, kind: str, inputs: Sequence[int]) -> int:
        neutral, absorbing = ("true", "false") if kind == "all" else ("false", "true")
        if any(self.literals[i].kind == absorbing for i in inputs):
            return self._add(Literal(absorbing))
        distinct = tuple(sorted({i for i in inputs if self.literals[i].kind != neutral}))
        if not distinct:
            return self._add(Literal(neutral))
        return distinct[0] if len(distinct) == 1 else self._add(Literal(kind, inputs=distinct))

    def _add(self, literal: Literal) -> int:
        known = self._ids.get(literal)
        if known is None:
            known = self._ids[literal] = len(self.literals)
            self.literals.append(literal)
            self.levels.append(1 + max((self.levels[i] for i in literal.inputs), default=-1))
        return known
