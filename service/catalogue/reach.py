"""How many customers a rule lets through: counted by the very circuit that decides, over facts as of a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from service.catalogue.population import Population
from service.catalogue.problems import suggest
from service.decision.circuit import Circuit
from service.decision.compiled import CompiledCatalogue
from service.decision.expression import Not, columns_read
from service.decision.model import Request, Rule

UNKNOWN_STAGE = "unknown"
"""Where no stage is known of a customer."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a rule says of a population.

    Attributes:
        passes, fails, unknown: How many it is TRUE, FALSE and NULL for; who is not TRUE is excluded.
        by_stage: Journey stage -> (passes, customers).
    """

    rule: Rule
    passes: int
    fails: int
    unknown: int
    by_stage: Mapping[str, tuple[int, int]]


def rules_named(rules: Sequence[Rule], name: str) -> list[Rule]:
    """Return the rule of a name; of one that stands for a rule of each action, all of these.

    Raises:
        KeyError: There is none; the message says what is near.
    """
    found = [rule for rule in rules if rule.id == name or rule.id.startswith(f"{name}.")]
    if not found:
        names = list(dict.fromkeys(rule.id.partition(".")[0] for rule in rules))
        raise KeyError(f"no rule is called {name!r}; {suggest(name, names, 'there are ' + ', '.join(names))}")
    return found


def reach(
    catalogue: CompiledCatalogue, rules: Sequence[Rule], population: Population, request: Request, now: float
) -> list[Reach]:
    """Count for each rule.

    Args:
        request: Its channel and context are what the rules read; context that is not there is NULL.
        now: As of when, Unix seconds UTC.
    """
    circuit = _circuit(catalogue, rules)
    stages = (*catalogue.columns.vocabulary("stage"), UNKNOWN_STAGE)
    passes = np.zeros((len(rules), len(stages)), dtype=np.int64)
    fails = np.zeros(len(rules), dtype=np.int64)
    customers = np.zeros(len(stages), dtype=np.int64)
    for batch in population.batches(catalogue, now):
        as_of = catalogue.columns.as_of(batch.facts, now)
        truths = circuit.evaluate(as_of, catalogue.extras.fill(batch, request, as_of, now))
        codes = as_of[catalogue.columns.index["stage"]]
        codes = np.where(np.isnan(codes), len(stages) - 1, codes).astype(np.int64)
        customers += np.bincount(codes, minlength=len(stages))
        for k, truth in enumerate(truths[: len(rules)]):
            passes[k] += np.bincount(codes[truth], minlength=len(stages))
        fails += truths[len(rules) :].sum(axis=1)
    n = int(customers.sum())
    return [
        Reach(
            rule,
            int(passes[k].sum()),
            int(fails[k]),
            n - int(passes[k].sum()) - int(fails[k]),
            {s: (int(passes[k, i]), int(customers[i])) for i, s in enumerate(stages) if customers[i]},
        )
        for k, rule in enumerate(rules)
    ]


def _circuit(catalogue: CompiledCatalogue, rules: Sequence[Rule]) -> Circuit:
    """Return a circuit of the rules, then of their negations: what is neither is NULL."""
    trees = [*(rule.expression for rule in rules), *(Not(rule.expression) for rule in rules)]
    names = tuple(dict.fromkeys(chain.from_iterable(columns_read(rule.expression) for rule in rules)))
    return Circuit(trees, names, catalogue.columns.index, catalogue.extras.names)
