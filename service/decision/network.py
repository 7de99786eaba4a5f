"""Literals arranged for evaluation: atoms by kind, then gates by level and kind, each stretch one numpy call.

Knows rows of numbers, not what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.literals import Literal, Literals

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
RANKS = {"ge": 0, "eq": 1, "null": 2, "true": 3, "false": 4, "none": 5, "all": 6, "any": 7}
COMBINE = {"all": np.logical_and, "any": np.logical_or}


@dataclass(frozen=True, slots=True)
class _Gates:
    """Gates of one level and kind: literals `start:stop`, each over a stretch of `inputs` that begins at `offsets`.

    A `none` gate has one input, so its stretch is that one.
    """

    kind: str
    inputs: Ints
    offsets: Ints
    start: int
    stop: int

    def close(self, truths: Bools) -> None:
        out = truths[self.start : self.stop]
        if self.kind == "none":
            np.logical_not(truths.take(self.inputs, axis=0), out=out)
        else:
            COMBINE[self.kind].reduceat(truths.take(self.inputs, axis=0), self.offsets, axis=0, out=out)


class Network:
    """Which of some literals are true for which customers.

    Args:
        collected: All literals.
        outputs: Those to tell, in order.
        n_rows: How many rows of values there are; atoms may also read the rows of their negatives, which follow.
    """

    def __init__(self, collected: Literals, outputs: Sequence[int], n_rows: int) -> None:
        literals = collected.literals
        order = sorted(range(len(literals)), key=lambda i: (collected.levels[i], RANKS[literals[i].kind]))
        position = {i: p for p, i in enumerate(order)}
        atoms = {kind: [literals[i] for i in order if literals[i].kind == kind] for kind in ("ge", "eq", "null")}
        rows = [a.row if a.row >= 0 else n_rows + ~a.row for a in atoms["ge"]]
        self._ge_rows = np.array(rows, dtype=np.int64)
        self._ge_constants = np.array([a.constant for a in atoms["ge"]])[:, None]
        self._eq_rows = np.array([a.row for a in atoms["eq"]], dtype=np.int64)
        self._eq_constants = np.array([a.constant for a in atoms["eq"]])[:, None]
        self._null_rows = np.array([a.row for a in atoms["null"]], dtype=np.int64)
        self.n_literals = len(literals)
        gates: dict[tuple[int, str], list[int]] = {}
        for i in order:
            if literals[i].inputs:
                gates.setdefault((collected.levels[i], literals[i].kind), []).append(i)
        self._always = tuple(position[i] for i in order if literals[i].kind == "true")
        self._never = tuple(position[i] for i in order if literals[i].kind == "false")
        self._gates = tuple(_gates(kind, members, literals, position) for (_, kind), members in gates.items())
        self._outputs = np.array([position[i] for i in outputs], dtype=np.int64)

    def evaluate(self, signed: Floats) -> Bools:
        """Tell the outputs.

        Args:
            signed: (2 n_rows, n_customers) the values, then their negatives.

        Returns:
            (n_outputs, n_customers).
        """
        truths = np.empty((self.n_literals, signed.shape[1]), dtype=np.bool_)
        n_ge, n_eq, n_null = len(self._ge_rows), len(self._eq_rows), len(self._null_rows)
        np.greater_equal(signed.take(self._ge_rows, axis=0), self._ge_constants, out=truths[:n_ge])
        if n_eq:
            np.equal(signed.take(self._eq_rows, axis=0), self._eq_constants, out=truths[n_ge : n_ge + n_eq])
        if n_null:
            np.isnan(signed.take(self._null_rows, axis=0), out=truths[n_ge + n_eq : n_ge + n_eq + n_null])
        for position in self._always:
            truths[position] = True
        for position in self._never:
            truths[position] = False
        for gates in self._gates:
            gates.close(truths)
        return truths.take(self._outputs, axis=0)


def _gates(kind: str, members: list[int], literals: list[Literal], position: Mapping[int, int]) -> _Gates:
    lengths = [len(literals[i].inputs) for i in members]
    inputs = [position[j] for i in members for j in literals[i].inputs]
    return _Gates(
        kind,
        np.array(inputs, dtype=np.int64),
        np.cumsum([0, *lengths[:-1]]),
        position[members[0]],
        position[members[-1]] + 1,
    )
