"""The Feast repo on real parts: DuckDB offline, a real server online, a real registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from features.contract import FEATURE_SERVICE, JOIN_KEY, LAYOUT
from features.facts import Floats, fold, from_view, unknown
from service.adapters.embedded import EmbeddedServer
from training.backfill import backfill, facts_at
from training.feast_steps import apply, facts_as_of, materialize, open_store, push

MOMENTS = [datetime(2017, 3, 6, 5, tzinfo=UTC), datetime(2017, 8, 7, 5, tzinfo=UTC)]


@pytest.fixture(scope="module")
def lake(small_history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feast") / "lake"
    backfill(small_history, folder, MOMENTS)
    return folder


@pytest.fixture(scope="module")
def store(lake: Path) -> Iterator[Any]:
    var = lake.parent
    before = dict(os.environ)
    with EmbeddedServer(var) as url:
        place = urlsplit(url)
        os.environ["NBA_FEAST_REDIS"] = f"{place.hostname}:{place.port},password={place.password}"
        os.environ["NBA_FEAST_REGISTRY"] = f"sqlite:///{var}/registry.db"
        opened = open_store()
        apply(opened, facts_folder=lake / "facts")
        yield opened
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def online(store: Any) -> Any:
    materialize(MOMENTS[1] - timedelta(days=1), MOMENTS[1], store)
    return store


def _facts(found: dict[str, Any]) -> Floats:
    row = unknown()
    for view in LAYOUT.views:
        from_view(found, view.name, row)
    return row


def _read_online(store: Any, customer_id: str) -> Floats:
    found = store.get_online_features(store.get_feature_service(FEATURE_SERVICE), [{JOIN_KEY: customer_id}]).to_dict()
    return _facts({name: values[0] for name, values in found.items()})


def test_registry_holds_the_contract(store: Any) -> None:
    """The registry holds exactly the contract's views and facts, of the right type, described, without expiry."""
    views = {view.name: view for view in store.list_feature_views()}
    assert views.keys() == {view.name for view in LAYOUT.views}
    for declared in LAYOUT.views:
        view = views[declared.name]
        assert view.ttl == timedelta(0)
        assert view.description == declared.description
        types = {field.name: str(field.dtype) for field in view.features}
        assert types == {
            fact.name: "Array(Float64)" if fact.length > 1 else "String" if fact.vocabulary else "Float64"
            for fact in declared.facts
        }
    service = store.get_feature_service(FEATURE_SERVICE)
    assert {projection.name for projection in service.feature_view_projections} == views.keys()


def _assert_same(found: Floats, facts: Floats) -> None:
    """Compare with facts computed a second time: threads add in another order, so the last bits may differ."""
    np.testing.assert_allclose(found, facts, rtol=1e-12)


def test_point_in_time_join_returns_the_snapshots(store: Any, small_history: Path) -> None:
    """The join at two moments returns what the backfill wrote for that moment, and nothing for a stranger."""
    pairs: list[tuple[str, datetime]] = []
    expected: list[Floats] = []
    for moment in MOMENTS:
        ids, facts = facts_at(small_history, moment)
        pairs += [(customer, moment) for customer in ids]
        expected += list(facts.T)
    pairs.append(("stranger", MOMENTS[1]))
    expected.append(unknown())
    table = facts_as_of([customer for customer, _ in pairs], [moment for _, moment in pairs], store)
    found = table.sort_by("row_id").to_pylist()
    assert [row["row_id"] for row in found] == list(range(len(pairs)))
    for row, facts in zip(found, expected, strict=True):
        _assert_same(_facts(row), facts)


def test_join_between_snapshots_takes_the_earlier(store: Any, small_history: Path) -> None:
    """A moment just before a snapshot gets the one before it: nothing of the future."""
    ids, facts = facts_at(small_history, MOMENTS[0])
    table = facts_as_of([ids[0]], [MOMENTS[1] - timedelta(seconds=1)], store)
    _assert_same(_facts(table.to_pylist()[0]), facts[:, 0])


def test_online_holds_the_latest_snapshot(online: Any, small_history: Path) -> None:
    """After materialize the online store returns each customer's latest snapshot."""
    ids, facts = facts_at(small_history, MOMENTS[1])
    for i in (0, 7, len(ids) - 1):
        _assert_same(_read_online(online, ids[i]), facts[:, i])


def test_push_moves_one_view(online: Any, small_history: Path) -> None:
    """A pushed view is served at once, the other views stay, and an older push changes nothing."""
    ids, facts = facts_at(small_history, MOMENTS[1])
    customer, at = ids[3], MOMENTS[1].timestamp() + 3600
    lines = [{"aisle": "pet", "quantity": 2, "sales_value": 12.5}]
    event = {"type": "purchase", "occurred_at": at, "properties": {"lines": lines}}
    row, _ = fold(facts[:, 3].copy(), event)
    assert push("purchases", {customer: row}, [at], online) == 1
    served = _read_online(online, customer)
    block = slice(LAYOUT.slices["purchases_anchor_at"].start, LAYOUT.slices["fuel_spend_h91"].stop)
    np.testing.assert_array_equal(served[block], row[block])
    _assert_same(np.delete(served, np.r_[block]), np.delete(facts[:, 3], np.r_[block]))
    push("purchases", {customer: facts[:, 3].copy()}, [at - 7200], online)
    np.testing.assert_array_equal(_read_online(online, customer)[block], row[block])
