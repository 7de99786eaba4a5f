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

from service.decision.expression import Expression
from service.decision.literals import Builder, Literal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


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
        builder = Builder(as_of_index, extras)
        builder.columns(names)
        roots = [builder.literal(e, truth=True) for e in expressions]
        self._as_of_rows = np.array(builder.as_of_rows, dtype=np.int64)
        self._n_rows = builder.n_rows
        self._n_plain = len(builder.as_of_rows) + len(extras)
        self._constants = tuple(builder.constants)
        self._computed = tuple(builder.computed)
        self._arrange(builder, roots)

    def _arrange(self, builder: Builder, roots: list[int]) -> None:
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


def _gates(kind: str, members: list[int], literals: list[Literal], position: Mapping[int, int]) -> _Gates:
    lengths = [len(literals[i].inputs) for i in members]
    inputs = [position[j] for i in members for j in literals[i].inputs]
    return _Gates(
        np.logical_and if kind == "all" else np.logical_or,
        np.array(inputs, dtype=np.int64),
        np.cumsum([0, *lengths[:-1]]),
        position[members[0]],
        position[members[-1]] + 1,
    )
