"""All rules of a catalogue as one columnar circuit, for one customer or many. Knows what a rule is, not what it is for.

A rule's NULL needs no third value here: each node becomes up to two two-valued literals, "is TRUE" and "is FALSE"; NaN
fails every comparison, so NULL is neither; NOT swaps the two. Comparisons with constants are one `v >= c` over
[X, -X] (strictness by nextafter), AND and OR are gates, and each level of gates is one numpy call a kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRRORED = {"=": "=", "!=": "!=", "<": ">", ">": "<", ">=": "<=", "<=": ">="}


@dataclass(frozen=True, slots=True)
class _Literal:
    """An atom (`ge`, `eq`, `null` on a value row; `true`, `false`) or a gate (`all`, `any` over other literals)."""

    kind: str
    row: int = 0
    constant: float = 0.0
    inputs: tuple[int, ...] = ()


class _Builder:
    """Collects value rows, steps and literals, each distinct one once."""

    def __init__(self, as_of_index: Mapping[str, int], extras: Sequence[str]) -> None:
        self.as_of_index = as_of_index
        self.extras = {name: i for i, name in enumerate(extras)}
        self.as_of_rows: list[int] = []
        self.rows: dict[object, int] = {}
        self.constants: list[tuple[int, float]] = []
        self.computed: list[tuple[int, str, tuple[int, ...]]] = []
        self.n_rows = 0
        self.literals: list[_Literal] = []
        self.levels: list[int] = []
        self._ids: dict[_Literal, int] = {}

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
                return self._add(_Literal("true" if value is truth else "false"))
            case Not(operand):
                return self.literal(operand, truth=not truth)
            case All(operands):
                return self._gate("all" if truth else "any", [self.literal(o, truth=truth) for o in operands])
            case AnyOf(operands):
                return self._gate("any" if truth else "all", [self.literal(o, truth=truth) for o in operands])
            case IsNull(operand):
                row = self.value(operand)
                return self._add(_Literal("null", row) if truth else _Literal("ge", row, -np.inf))
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
                return self._add(_Literal("eq", row, constant))
            case ">=":
                return self._add(_Literal("ge", row, constant))
            case ">":
                return self._add(_Literal("ge", row, float(np.nextafter(constant, np.inf))))
            case "<=":
                return self._add(_Literal("ge", ~row, -constant))
            case "<":
                return self._add(_Literal("ge", ~row, float(np.nextafter(-constant, np.inf))))
        return self._gate("any", [self._compare("<", row, constant), self._compare(">", row, constant)])

    def _gate(self, kind: str, inputs: Sequence[int]) -> int:
        distinct = tuple(sorted(set(inputs)))
        return distinct[0] if len(distinct) == 1 else self._add(_Literal(kind, inputs=distinct))

    def _add(self, literal: _Literal) -> int:
        known = self._ids.get(literal)
        if known is None:
            known = self._ids[literal] = len(self.literals)
            self.literals.append(literal)
            self.levels.append(1 + max((self.levels[i] for i in literal.inputs), default=-1))
        return known


def _coalesce(x: Floats, out: int, inputs: tuple[int, ...]) -> None:
    x[out] = x[inputs[-1]]
    for row in reversed(inputs[:-1]):
        np.copyto(x[out], x[row], where=~np.isnan(x[row]))


def _compute(x: Floats, out: int, sign: str, inputs: tuple[int, ...]) -> None:
    if sign == "coalesce":
        _coalesce(x, out, inputs)
        return
    a, b = x[inputs[0]], x[inputs[1]]
    if sign == "difference":
        np.subtract(a, b, out=x[out])
        return
    {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[sign](a, b, out=x[out])
    # x / 0 gives inf or NaN here, as does a result beyond float64: both are NULL.
    x[out][~np.isfinite(x[out])] = np.nan


@dataclass(frozen=True, slots=True)
class _Gates:
    """Gates of one level and kind: literals `start:stop`, each over a stretch of `inputs` that begins at `offsets`."""

    combine: np.ufunc
    inputs: Ints
    offsets: Ints
    start: int
    stop: int


class Circuit:
    """Which rules are TRUE for which customers.

    Args:
        expressions: The rules' trees, in order.
        names: The columns that they read.
        as_of_index: Name of a matrix column -> its row in the as-of matrix.
        extras: Names of context fields and pseudo columns, in the order in which `evaluate` gets them.
    """

    def __init__(
        self,
        expressions: Sequence[Expression],
        names: Sequence[str],
        as_of_index: Mapping[str, int],
        extras: Sequence[str],
    ) -> None:
        builder = _Builder(as_of_index, extras)
        builder.columns(names)
        roots = [builder.literal(e, truth=True) for e in expressions]
        self._as_of_rows = np.array(builder.as_of_rows, dtype=np.int64)
        self._n_rows = builder.n_rows
        self._n_plain = len(builder.as_of_rows) + len(extras)
        self._constants = tuple(builder.constants)
        self._computed = tuple(builder.computed)
        self._arrange(builder, roots)

    def _arrange(self, builder: _Builder, roots: list[int]) -> None:
        """Number the literals: atoms by kind, then gates by level and kind, so that each kind is one stretch."""
        ranks = {"ge": 0, "eq": 1, "null": 2, "true": 3, "false": 4, "all": 5, "any": 6}
        literals = builder.literals
        order = sorted(range(len(literals)), key=lambda i: (builder.levels[i], ranks[literals[i].kind]))
        position = {i: p for p, i in enumerate(order)}
        atoms = {kind: [literals[i] for i in order if literals[i].kind == kind] for kind in ("ge", "eq", "null")}
        rows = [a.row if a.row >= 0 else self._n_rows + ~a.row for a in atoms["ge"]]
        self._ge_rows = np.array(rows, dtype=np.int64)
        self._ge_constants = np.array([a.constant for a in atoms["ge"]])[:, None]
        self._eq_rows = np.array([a.row for a in atoms["eq"]], dtype=np.int64)
        self._eq_constants = np.array([a.constant for a in atoms["eq"]])[:, None]
        self._null_rows = np.array([a.row for a in atoms["null"]], dtype=np.int64)
        self.n_literals = len(literals)
        gates: dict[tuple[int, str], list[int]] = {}
        for i in order:
            if literals[i].inputs:
                gates.setdefault((builder.levels[i], literals[i].kind), []).append(i)
        self._always = tuple(position[i] for i in order if literals[i].kind == "true")
        self._never = tuple(position[i] for i in order if literals[i].kind == "false")
        self._gates = tuple(_gates(kind, members, literals, position) for (_, kind), members in gates.items())
        self._roots = np.array([position[i] for i in roots], dtype=np.int64)

    def evaluate(self, as_of: Floats, extras: Floats) -> Bools:
        """Evaluate all rules.

        Args:
            as_of: (n_columns + 1, n_customers), NaN where NULL.
            extras: (n_extras, n_customers).

        Returns:
            (n_expressions, n_customers), True where the rule is TRUE.
        """
        signed = np.empty((2 * self._n_rows, as_of.shape[1]))
        x = signed[: self._n_rows]
        x[: len(self._as_of_rows)] = as_of[self._as_of_rows]
        x[len(self._as_of_rows) : self._n_plain] = extras
        for row, value in self._constants:
            x[row] = value
        if self._computed:
            with np.errstate(all="ignore"):
                for out, sign, inputs in self._computed:
                    _compute(x, out, sign, inputs)
        np.negative(x, out=signed[self._n_rows :])
        return self._close(signed)

    def _close(self, signed: Floats) -> Bools:
        truths = np.empty((self.n_literals, signed.shape[1]), dtype=np.bool_)
        n_ge, n_eq, n_null = len(self._ge_rows), len(self._eq_rows), len(self._null_rows)
        np.greater_equal(signed[self._ge_rows], self._ge_constants, out=truths[:n_ge])
        if n_eq:
            np.equal(signed[self._eq_rows], self._eq_constants, out=truths[n_ge : n_ge + n_eq])
        if n_null:
            np.isnan(signed[self._null_rows], out=truths[n_ge + n_eq : n_ge + n_eq + n_null])
        for position in self._always:
            truths[position] = True
        for position in self._never:
            truths[position] = False
        for gates in self._gates:
            gates.combine.reduceat(truths[gates.inputs], gates.offsets, axis=0, out=truths[gates.start : gates.stop])
        return truths[self._roots]


def _gates(kind: str, members: list[int], literals: list[_Literal], position: Mapping[int, int]) -> _Gates:
    lengths = [len(literals[i].inputs) for i in members]
    inputs = [position[j] for i in members for j in literals[i].inputs]
    return _Gates(
        np.logical_and if kind == "all" else np.logical_or,
        np.array(inputs, dtype=np.int64),
        np.cumsum([0, *lengths[:-1]]),
        position[members[0]],
        position[members[-1]] + 1,
    )
