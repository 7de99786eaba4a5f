"""All rules of a catalogue as one columnar circuit, for one customer or many. Knows what a rule is, not what it is for.

A rule's NULL needs no third value here: each node becomes up to two two-valued literals, "is TRUE" and "is FALSE"; NaN
fails every comparison, so NULL is neither; NOT swaps the two. Comparisons with constants are one `v >= c` over
[X, -X] (strictness by nextafter), AND and OR are gates, and each level of gates is one numpy call a kind.

The shape is (rows, customers): all is elementwise over the last axis, so many customers get what each gets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.expression import Expression
from service.decision.functions import FUNCTIONS, choose, look_up
from service.decision.literals import Literals
from service.decision.network import Network
from service.decision.rows import CHOICE, DIFFERENCE, LOOKUP, Layer, Rows, Step

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Compute = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class _Stage:
    """One layer: rows to compute, then conditions to tell (network None where there are none) into rows."""

    steps: tuple[tuple[int, Compute], ...]
    network: Network | None
    condition_rows: list[int]


class Circuit:
    """Which rules are TRUE for which customers.

    Args:
        expressions: The rules' trees, in order.
        names: The columns that they read.
        as_of_index: Name of a matrix column -> its row in the as-of matrix.
        extras: Names of context fields and pseudo columns, in the order in which `evaluate` gets them.

    Attributes:
        n_literals: Of the rules; a part that several share counts once.
    """

    def __init__(
        self,
        expressions: Sequence[Expression],
        names: Sequence[str],
        as_of_index: Mapping[str, int],
        extras: Sequence[str],
    ) -> None:
        rows = Rows(as_of_index, extras, names)
        literals = Literals(rows)
        roots = [literals.literal(e, truth=True) for e in expressions]
        self._as_of_rows = np.array(rows.as_of_rows, dtype=np.int64)
        self._n_rows, self._n_plain = rows.n_rows, rows.n_plain
        self._constants = tuple(rows.constants)
        self._stages = tuple(_stage(layer, rows.n_rows) for layer in rows.layers if layer.steps or layer.conditions)
        self._rules = Network(literals, roots, rows.n_rows)
        self.n_literals = self._rules.n_literals

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
        x[: len(self._as_of_rows)] = as_of.take(self._as_of_rows, axis=0)
        x[len(self._as_of_rows) : self._n_plain] = extras
        for row, value in self._constants:
            x[row] = value
        if self._stages:
            with np.errstate(all="ignore"):
                for stage in self._stages:
                    self._compute(stage, signed)
        np.negative(x, out=signed[self._n_rows :])
        return self._rules.evaluate(signed)

    def _compute(self, stage: _Stage, signed: Floats) -> None:
        x = signed[: self._n_rows]
        for row, compute in stage.steps:
            x[row] = compute(x)
        if stage.network is not None:
            np.negative(x, out=signed[self._n_rows :])
            x[stage.condition_rows] = stage.network.evaluate(signed)


def _stage(layer: Layer, n_rows: int) -> _Stage:
    outputs = [literal for literal, _ in layer.conditions]
    return _Stage(
        tuple((step.row, _computation(step)) for step in layer.steps),
        Network(layer.literals, outputs, n_rows) if outputs else None,
        [row for _, row in layer.conditions],
    )


def _computation(step: Step) -> Compute:
    """Return the function from all rows to the step's row."""
    inputs = step.inputs
    if step.function == LOOKUP:
        values = np.array([*step.values, np.nan])
        return lambda x: look_up(x[inputs[0]], values)
    if step.function == CHOICE:
        pairs = tuple(zip(inputs[:-1:2], inputs[1::2], strict=True))
        return lambda x: choose([(x[condition], x[value]) for condition, value in pairs], x[inputs[-1]])
    if step.function == DIFFERENCE:
        return lambda x: x[inputs[0]] - x[inputs[1]]
    call = FUNCTIONS[step.function].columnar
    return lambda x: call(*[x[row] for row in inputs])
