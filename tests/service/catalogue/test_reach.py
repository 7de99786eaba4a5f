"""Reach is counted by the circuit; DuckDB over the same facts counts the same."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from service.catalogue.loader import load_catalogue
from service.catalogue.population import CHUNK, Population
from service.catalogue.reach import UNKNOWN_STAGE, reach, rules_named
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.expression import columns_read
from service.decision.model import Request
from tests.service.decision.worlds import CATALOGUE, COLUMNS, LAYOUT, NOW, random_batch

N = CHUNK + 76


@pytest.fixture(scope="module")
def catalogue() -> CompiledCatalogue:
    return compile_catalogue(load_catalogue(CATALOGUE), COLUMNS)


@pytest.fixture(scope="module")
def population() -> Population:
    batch = random_batch(N, 8, missing=0.2)
    return Population(batch.customer_ids, batch.facts, batch.view_times)


def test_reach_is_what_duckdb_counts(catalogue: CompiledCatalogue, population: Population) -> None:
    """TRUE, FALSE and NULL of every shipped rule, and TRUE by stage, are DuckDB's counts over the same columns."""
    as_of = COLUMNS.as_of(population.facts, NOW)
    read = {name for rule in catalogue.catalogue.rules for name in columns_read(rule.expression)} & set(COLUMNS.names)
    columns: dict[str, Any] = {"known": [True] * N, "basket_total": pa.nulls(N, pa.float64())}
    for name in read | {"stage"}:
        values, texts = as_of[COLUMNS.index[name]], COLUMNS.vocabulary(name)
        told = [None if np.isnan(v) else texts[int(v)] for v in values] if texts else None
        columns[name] = pa.array(values, from_pandas=True) if told is None else pa.array(told, pa.string())
    connection = duckdb.connect(config={"threads": 1})
    connection.register("t", pa.table(columns))
    found = reach(catalogue, catalogue.catalogue.rules, population, Request("app"), NOW)
    assert len(found) == len(catalogue.catalogue.rules)
    for one in found:
        counts = "count(*) FILTER (x), count(*) FILTER (NOT x), count(*) FILTER (x IS NULL)"
        query = f"SELECT {counts} FROM (SELECT ({one.rule.text}) x FROM t)"
        assert (one.passes, one.fails, one.unknown) == connection.execute(query).fetchone(), one.rule.text
        stages = connection.execute(
            f"SELECT coalesce(stage, '{UNKNOWN_STAGE}'), count(*) FILTER ({one.rule.text}), count(*) FROM t GROUP BY 1"
        ).fetchall()
        assert one.by_stage == {stage: (passes, n) for stage, passes, n in stages}
    assert any(one.unknown for one in found)


def test_context_and_channel_are_what_is_asked(catalogue: CompiledCatalogue, population: Population) -> None:
    """A rule on context passes where the context that was given says so."""
    rules = rules_named(catalogue.catalogue.rules, "checkout_small_baskets")
    small, large = (
        reach(catalogue, rules, population, Request("app", context={"basket_total": total}), NOW)[0]
        for total in (20.0, 400.0)
    )
    assert (small.passes, large.passes) == (N, 0)


def test_stale_facts_count_as_missing(catalogue: CompiledCatalogue, population: Population) -> None:
    """Reach is of what serving would see: facts beyond their view's maximum age are NULL."""
    rules = rules_named(catalogue.catalogue.rules, "cross_sell_shops_here")
    later = NOW + 86_400 * (max(view.max_age_days for view in LAYOUT.views) + 1)
    [stale] = reach(catalogue, rules, population, Request("app"), later)
    assert (stale.passes, stale.fails, stale.unknown) == (0, 0, N)


def test_names_of_rules(catalogue: CompiledCatalogue) -> None:
    """A rule that stands for one of each action is counted for each; a misspelt name is answered with the nearest."""
    rules = catalogue.catalogue.rules
    assert len(rules_named(rules, "upsell_current_buyer")) == 14
    with pytest.raises(KeyError, match="did you mean 'retention_needed'"):
        rules_named(rules, "retention_neded")
