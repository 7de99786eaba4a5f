"""Circuit, closure and DuckDB give one answer to one rule: fuzzed rules over fuzzed rows with holes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from service.catalogue.rules import parse_rule
from service.decision import expression
from service.decision.circuit import Circuit
from service.decision.closure import closure
from service.decision.expression import Call, Expression, Number, children, columns_read, renamed
from service.decision.functions import FUNCTIONS
from tests.service.decision.fuzzed_rules import AS_OF, EXTRAS, SYMBOLS, Fuzz, Oracle, plain, rows


def circuit_of(trees: list[Expression]) -> Circuit:
    names = tuple(dict.fromkeys(name for tree in trees for name in columns_read(tree)))
    return Circuit(trees, names, {name: i for i, name in enumerate(AS_OF)}, EXTRAS)


def agree(seed: int, n_rules: int, n_rows: int) -> list[Expression]:
    """Hold circuit, closure and DuckDB against each other over every pair of rule and row; return the rules."""
    texts = Fuzz(seed).rules(n_rules)
    trees = [parse_rule(plain(text), SYMBOLS) for text in texts]
    as_of, extras, moments = rows(n_rows, seed)
    by_circuit = circuit_of(trees).evaluate(as_of, extras)
    by_closure = np.empty_like(by_circuit)
    closures = [closure(tree) for tree in trees]
    names, stacked = (*AS_OF, "", *EXTRAS), np.vstack([as_of, extras])
    for i in range(n_rows):
        values = dict(zip(names, stacked[:, i].tolist(), strict=True))
        by_closure[:, i] = [evaluate(values) is True for evaluate in closures]
    by_duckdb = Oracle(as_of, extras, moments).is_true(texts)
    assert by_circuit.shape == (n_rules, n_rows)
    assert 0.1 < by_duckdb.mean() < 0.9
    for other, name in ((by_closure, "closure"), (by_duckdb, "DuckDB")):
        wrong = np.argwhere(by_circuit != other)
        assert len(wrong) == 0, f"{name}: {texts[wrong[0][0]]} on {stacked[:, wrong[0][1]]}"
    return trees


def nodes(node: Expression | Number) -> Iterator[Expression | Number]:
    yield node
    for child in children(node):
        yield from nodes(child)


@pytest.mark.parametrize("seed", range(3))
def test_circuit_closure_and_duckdb_agree(seed: int) -> None:
    """Circuit, closure and DuckDB agree on whether a rule is TRUE, for every fuzzed rule and row."""
    agree(seed, 150, 40)


@pytest.mark.prove
def test_a_hundred_thousand_pairs_agree() -> None:
    """Over 100,000 fuzzed pairs of rule and row, with every node and function there is, nothing differs."""
    trees = [tree for seed in range(1_000, 1_010) for tree in agree(seed, 250, 40)]
    seen = [node for tree in trees for node in nodes(tree)]
    assert len(trees) * 40 == 100_000
    assert {type(node) for node in seen} == {
        getattr(expression, name)
        for name in (
            "Constant", "Column", "Call", "Lookup", "Case", "Truth", "Comparison", "In", "IsNull", "Is", "Not", "All",
            "AnyOf",
        )
    }  # fmt: skip
    assert {node.function for node in seen if isinstance(node, Call)} == set(FUNCTIONS)


def test_negation_closure_agrees() -> None:
    """A closure tells unknown from FALSE: NOT rule is TRUE exactly where the rule is False, not where it is None."""
    fuzz = Fuzz(99)
    trees = [parse_rule(plain(text), SYMBOLS) for text in fuzz.rules(100)]
    negated = [parse_rule(plain(f"NOT ({Fuzz(99).rules(1)[0]})"), SYMBOLS)]
    as_of, extras, _ = rows(30, 5)
    by_circuit = circuit_of([*trees, *negated]).evaluate(as_of, extras)
    names = (*AS_OF, "", *EXTRAS)
    for i in range(30):
        values = dict(zip(names, np.vstack([as_of, extras])[:, i].tolist(), strict=True))
        assert by_circuit[100, i] == (closure(trees[0])(values) is False)


def test_batch_is_many_of_one() -> None:
    """Evaluating many customers gives what evaluating each alone gives."""
    circuit = circuit_of([parse_rule(plain(text), SYMBOLS) for text in Fuzz(3).rules(60)])
    as_of, extras, _ = rows(33, 1)
    together = circuit.evaluate(as_of, extras)
    for i in range(33):
        alone = circuit.evaluate(as_of[:, i : i + 1].copy(), extras[:, i : i + 1].copy())
        assert np.array_equal(alone[:, 0], together[:, i])


def test_identical_parts_are_evaluated_once() -> None:
    """A hundred rules that share their parts need the literals of the parts once."""
    once = circuit_of([parse_rule("n0 > 1 AND t0 IN ('red', 'blue') OR n1 / n2 > 3", SYMBOLS)])
    often = circuit_of([parse_rule("n0 > 1 AND t0 IN ('red', 'blue') OR n1 / n2 > 3", SYMBOLS)] * 100)
    assert often.n_literals == once.n_literals


def test_comparison_is_exact_at_the_edge() -> None:
    """Strict and inclusive comparisons differ by exactly the constant itself, down to neighbouring floats."""
    trees = [parse_rule(f"n0 {sign} 0.3", SYMBOLS) for sign in ("<", "<=", "=", ">=", ">")]
    as_of = np.full((len(AS_OF) + 1, 3), np.nan)
    as_of[0] = [np.nextafter(0.3, 0), 0.3, np.nextafter(0.3, 1)]
    result = circuit_of(trees).evaluate(as_of, np.zeros((len(EXTRAS), 3)))
    assert result.tolist() == [
        [True, False, False],
        [True, True, False],
        [False, True, False],
        [False, True, True],
        [False, False, True],
    ]


def test_renamed_reads_other_columns() -> None:
    """Renaming columns of a tree changes what it reads and nothing else."""
    text = "n0 > 1 AND NOT (COALESCE(n1, n0) IN (1, 2) OR CASE WHEN n0 > 2 THEN n0 / n2 END IS NULL OR TRUE)"
    tree = parse_rule(text, SYMBOLS)
    assert renamed(tree, {"n0": "n3"}) == parse_rule(text.replace("n0", "n3"), SYMBOLS)
    assert renamed(tree, {}) == tree
