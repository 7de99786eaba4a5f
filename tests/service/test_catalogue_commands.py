"""`nba catalogue ...` over a small lake: what it prints is what the lake and the catalogue say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from service.adapters.latest_facts import NoFacts, latest_facts
from service.catalogue.schema import catalogue_schema
from service.commands import app, explain_failure
from tests.service.decision.worlds import CATALOGUE, COLUMNS, LAYOUT, SMALL, random_batch
from training.backfill import view_table

NOW = datetime(2017, 12, 30, tzinfo=UTC)
N = 60


def write_lake(lake: Path, seed: int, moment: datetime, customers: slice) -> None:
    """Write snapshots of random customers as a backfill does."""
    batch = random_batch(N, seed)
    ids = np.array([f"c{i:02}" for i in range(N)], dtype=object)
    for view in LAYOUT.views:
        table = view_table(view, ids[customers], np.ascontiguousarray(batch.facts[:, customers]), moment)
        path = lake / "facts" / view.name / f"{moment:%Y%m%d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lake of three snapshots, of which the last is yet to come, and a clock that stands still."""
    write_lake(tmp_path / "lake", 1, NOW - timedelta(days=7), slice(0, N))
    write_lake(tmp_path / "lake", 2, NOW - timedelta(days=1), slice(0, N, 2))
    write_lake(tmp_path / "lake", 3, NOW + timedelta(days=1), slice(0, N))
    offset = NOW.timestamp() - datetime.now(UTC).timestamp()
    (tmp_path / "clock.json").write_text(json.dumps({"mode": "offset", "offset_seconds": offset}), encoding="utf-8")
    monkeypatch.setenv("NBA_VAR", str(tmp_path))
    return tmp_path


def said(*arguments: str) -> str:
    """Run a command and return its output, which must be of success."""
    done = CliRunner().invoke(app, ["catalogue", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_latest_facts_are_those_of_the_moment(var: Path) -> None:
    """Of each view a customer has the newest row that is not ahead of the moment, to the bit."""
    found = latest_facts(var / "lake", LAYOUT, NOW.timestamp())
    old, new = random_batch(N, 1), random_batch(N, 2)
    is_new = np.arange(N) % 2 == 0
    assert found.customer_ids == tuple(f"c{i:02}" for i in range(N))
    for v, view in enumerate(LAYOUT.views):
        block = slice(LAYOUT.slices[view.facts[0].name].start, LAYOUT.slices[view.facts[-1].name].stop)
        written = ~np.isnan(new.facts[block]).all(axis=0) & is_new
        expected = np.where(written, new.facts[block], old.facts[block])
        np.testing.assert_array_equal(found.facts[block], expected)
        stamps = np.where(written, NOW.timestamp() - 86_400, NOW.timestamp() - 7 * 86_400)
        stamps[~written & np.isnan(old.facts[block]).all(axis=0)] = np.nan
        np.testing.assert_array_equal(found.view_times[v], stamps)


def test_reach_in_a_table_and_for_machines(var: Path) -> None:
    """Reach says for each rule who passes, fails and is unknown; all sum to the customers."""
    one = json.loads(said("reach", "cross_sell_shops_here", "--json"))
    every = json.loads(said("reach", "--all", "--json"))
    assert [row["rule"] for row in one] == ["cross_sell_shops_here"]
    assert one[0] in every
    assert all(row["passes"] + row["fails"] + row["unknown"] == N for row in every)
    table = said("reach", "cross_sell_shops_here")
    assert f"{one[0]['passes']}" in table
    assert "issue cross_sell" in table


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reach", "nobody"], "no rule is called 'nobody'"),
        (["reach"], "name a rule, or say --all"),
        (["reach", "--all", "--channel", "apps"], "did you mean 'app'?"),
        (["reach", "--all", "--context", "devise=ios"], "did you mean 'device'?"),
        (["reach", "--all", "--context", "device=iso"], "one of ios, android, web"),
        (["reach", "--all", "--context", "basket_total=x"], "write a number"),
        (["check", "nowhere.yaml"], "nowhere.yaml:1: document: cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(var: Path, arguments: list[str], sentence: str) -> None:
    """A mistake in a command is told in one sentence that says what to do."""
    done = CliRunner().invoke(app, ["catalogue", *arguments])
    assert done.exception is not None
    assert sentence in (explain_failure(done.exception) or "")


def test_diff_and_schema(var: Path) -> None:
    """diff tells changes, and with --reach for how many customers; schema prints the schema."""
    other = var / "other.yaml"
    other.write_text(CATALOGUE.read_text(encoding="utf-8").replace("baskets_count >= 3", "baskets_count >= 999"))
    changes = said("diff", str(CATALOGUE), str(other))
    assert changes.splitlines() == [
        'rules.cross_sell_shops_here.rule: "baskets_count >= 3" -> "baskets_count >= 999" '
        "(binds 12 actions before, 12 after)"
    ]
    reached = said("diff", str(CATALOGUE), str(other), "--reach").splitlines()
    [app_line] = [line for line in reached if line.startswith("app: ")]
    assert app_line.endswith(f" of {N} customers would be shown something else")
    assert not app_line.startswith("app: 0 ")
    assert any(line.startswith("  - cross_sell_") for line in reached)
    assert not any(line.startswith("  + cross_sell_") for line in reached)
    assert said("diff", str(SMALL), str(SMALL), "--reach").splitlines() == [
        f"{channel}: 0 of {N} customers would be shown something else" for channel in ("app", "email")
    ]
    assert json.loads(said("schema")) == json.loads(json.dumps(catalogue_schema()))


def test_a_lake_without_facts(tmp_path: Path) -> None:
    """Without facts there is nothing to count, and what to do is said."""
    with pytest.raises(NoFacts, match="run `make demo` or `nba prepare` first"):
        latest_facts(tmp_path, COLUMNS.layout, NOW.timestamp())
