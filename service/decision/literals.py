"""Rules broken down into what a circuit evaluates: rows of values and two-valued literals, each distinct one once.

Load-time work; knows the trees, not how or for whom the literals are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.decision.expression import (
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

OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRRORED = {"=": "=", "!=": "!=", "<": ">", ">": "<", ">=": "<=", "<=": ">="}


@dataclass(frozen=True, slots=True)
class Literal:
    """An atom (`ge`, `eq`, `null` on a value row; `true`, `false`) or a gate (`all`, `any` over other literals)."""

    kind: str
    row: int = 0
    constant: float = 0.0
    inputs: tuple[int, ...] = ()


class Builder:
    """Collects value rows, steps and literals, each distinct one once."""

    def __init__(self, as_of_index: Mapping[str, int], extras: Sequence[str]) -> None:
        self.as_of_index = as_of_index
        self.extras = {name: i for i, name in enumerate(extras)}
        self.as_of_rows: list[int] = []
        self.rows: dict[object, int] = {}
        self.constants: list[tuple[int, float]] = []
        self.computed: list[tuple[int, str, tuple[int, ...]]] = []
        self.n_rows = 0
        self.literals: list[Literal] = []
        self.levels: list[int] = []
        self._ids: dict[Literal, int] = {}

    def columns(self, names: Sequence[str]) -> None:
        """Lay out the plain columns first: those as of now, then all extras."""
        for name in names:
            if name not in self.extras:
                self.rows[Column(name)] = len(self.as_of_rows)
                self.as_of_rows.append(self.as_of_index[name])
        for name, i in self.extras.items():
            self.rows[Column(name)] = len(self.as_of_rows) + i
        self.n_rows = len(self.as_of_rows) + len(self.extras)

    def value(self, node: Number) -> int:
        """Return the row that holds a number."""
        if node in self.rows:
            return self.rows[node]
        match node:
            case Constant(value):
                row = self._new_row(node)
                self.constants.append((row, value))
                return row
            case Arithmetic(sign, left, right):
                return self._computed_row(node, sign, (left, right))
            case Coalesce(operands):
                return self._computed_row(node, "coalesce", operands)
            case Column(name):
                raise KeyError(f"column {name!r} is not laid out")

    def difference(self, left: Number, right: Number) -> int:
        """Return the row of `left - right`; IEEE subtraction is 0 only for equal numbers, so its sign compares them."""
        key = ("difference", left, right)
        return self.rows[key] if key in self.rows else self._computed_row(key, "difference", (left, right))

    def _computed_row(self, key: object, sign: str, operands: Sequence[Number]) -> int:
        inputs = tuple(self.value(operand) for operand in operands)
        row = self._new_row(key)
        self.computed.append((row, sign, inputs))
        return row

    def _new_row(self, key: object) -> int:
        row = self.rows[key] = self.n_rows
        self.n_rows += 1
        return row

    def literal(self, node: Expression, *, truth: bool) -> int:
        """Return the literal "node is TRUE" or "node is FALSE"."""
        match node:
            case Truth(value):
                return self._add(Literal("true" if value is truth else "false"))
            case Not(operand):
                return self.literal(operand, truth=not truth)
            case All(operands):
                return self._gate("all" if truth else "any", [self.literal(o, truth=truth) for o in operands])
            case AnyOf(operands):
                return self._gate("any" if truth else "all", [self.literal(o, truth=truth) for o in operands])
            case IsNull(operand):
                row = self.value(operand)
                return self._add(Literal("null", row) if truth else Literal("ge", row, -np.inf))
            case In(operand, values):
                sign = "=" if truth else "!="
                atoms = [self._compare(sign, self.value(operand), v) for v in values]
                return self._gate("any" if truth else "all", atoms)
            case Comparison(sign, left, right):
                sign = sign if truth else OPPOSITE[sign]
                if isinstance(right, Constant):
                    return self._compare(sign, self.value(left), right.value)
                if isinstance(left, Constant):
                    return self._compare(MIRRORED[sign], self.value(right), left.value)
                return self._compare(sign, self.difference(left, right), 0.0)

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
        distinct = tuple(sorted(set(inputs)))
        return distinct[0] if len(distinct) == 1 else self._add(Literal(kind, inputs=distinct))

    def _add(self, literal: Literal) -> int:
        known = self._ids.get(literal)
        if known is None:
            known = self._ids[literal] = len(self.literals)
            self.literals.append(literal)
            self.levels.append(1 + max((self.levels[i] for i in literal.inputs), default=-1))
        return known
