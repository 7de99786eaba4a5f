"""A rule's tree goes to plain data and back to the bit."""

from __future__ import annotations

import json
import math

import pytest

from service.catalogue.loader import load_catalogue
from service.catalogue.rules import parse_rule
from service.catalogue.trees import from_plain, to_plain
from service.decision.expression import NULL, Comparison
from service.settings import Settings
from tests.service.decision.fuzzed_rules import SYMBOLS, Fuzz, plain


def there_and_back(tree: object) -> object:
    return from_plain(json.loads(json.dumps(to_plain(tree))))  # type: ignore[arg-type]


def test_every_fuzzed_rule_comes_back() -> None:
    """Of 500 random rules of every kind each is the very tree again, also where it holds NULL."""
    trees = [parse_rule(plain(text), SYMBOLS) for text in Fuzz(11).rules(500)]
    assert len(trees) == 500
    for tree in trees:
        found = there_and_back(tree)
        assert found == tree
        assert repr(found) == repr(tree)
        assert hash(found) == hash(tree)


def test_every_rule_of_the_example_comes_back() -> None:
    """So does each rule of the example's catalogue."""
    rules = load_catalogue(Settings().catalogue).rules
    assert rules
    assert [there_and_back(rule.expression) for rule in rules] == [rule.expression for rule in rules]


def test_there_is_but_one_null() -> None:
    """NULL comes back as the one that equals itself; an unknown truth stays unknown."""
    found = from_plain(["Comparison", "=", ["Column", "n0"], ["Constant", None]])
    assert isinstance(found, Comparison)
    assert found.right is NULL
    assert math.isnan(NULL.value)
    unknown = parse_rule("CASE WHEN n0 > 1 THEN n1 > 1 ELSE NULL END", SYMBOLS)
    assert "Truth(value=None)" in repr(unknown)
    assert repr(there_and_back(unknown)) == repr(unknown)


@pytest.mark.parametrize(
    "data", [None, 1, "All", [], {}, ["Nothing"], ["All"], ["Column", "n0"], ["", ["Truth", True]], [["All"]], ["Not"]]
)
def test_what_is_no_tree_is_refused(data: object) -> None:
    """Whatever else a file may hold is no tree."""
    with pytest.raises(ValueError, match="no tree of a rule"):
        from_plain(data)
