"""`nba log`: what is in the lake, in SQL and as files, without a way to change it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.embedded import EmbeddedServer
from service.adapters.journal_entries import KnownDecision, OutcomeEntry, encode, encode_decision
from service.adapters.log_views import VIEWS, ask, open_log
from service.adapters.parquet_lake import ParquetLake
from service.commands import app
from service.decision.record import customer_digest
from service.lake_files import LogError
from service.ports import Event, Outcome
from tests.service.rows import decision_row

NOW = 1_770_000_000.0
FORMULA = "=1+cmd"


def fill(var: Path) -> str:
    """Write a decision with an outcome, and an event of a customer whose id is a formula; return the decision's id."""
    row = decision_row("a", NOW)
    offer = ("upsell_cheese", "upsell", "dairy", "c", True, "app_home")
    known = KnownDecision("a", customer_digest("a"), NOW, "app", (offer,))
    outcome = Outcome("o1", row.decision_id, "upsell_cheese", "accept", 3.5, NOW + 5)
    ParquetLake(var / "lake").write(
        3,
        [
            ("1770000000000-0", "decision", encode_decision(row)),
            ("1770000000000-1", "outcome", encode(OutcomeEntry(known, outcome))),
            ("1770000000001-0", "event", encode(Event("e1", FORMULA, "purchase", NOW, {"lines": [{"n": 1}]}))),
        ],
    )
    return row.decision_id


def nba(var: Path, *arguments: str, **env: str) -> str:
    """Run a command in this process and return its stdout."""
    done = CliRunner().invoke(app, list(arguments), env={"NBA_VAR": str(var), **env}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_view_answers_on_an_empty_lake(tmp_path: Path) -> None:
    """Before anything is logged each view is there with its columns and without rows."""
    with open_log(tmp_path / "lake", tmp_path / "catalogues") as con:
        for view in VIEWS:
            assert ask(con, f"SELECT count(*) FROM {view}")[1] == [(0,)]


def test_candidates_are_rows(tmp_path: Path) -> None:
    """Each candidate of a decision is a row with its stage in words, and with rank and probability where chosen."""
    decision_id = fill(tmp_path)
    with open_log(tmp_path / "lake", tmp_path / "catalogues") as con:
        asked = "decision_id, treatment_id, stage, propensity, rank, placement, selection_probability"
        rows = ask(con, f"SELECT {asked} FROM candidates ORDER BY treatment_id")[1]
    assert rows == [
        (decision_id, "cheese_app", "ranked", 0.02, 1, "app_home", 0.9),
        (decision_id, "deli_app", "not_selected", 0.01, None, None, None),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM decisions",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO 'x.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/hostname')",
        "ATTACH 'x.db'",
        "SET enable_external_access = true",
        "SELECT nothing FROM decisions",
        "this is no SQL",
        "",
    ],
)
def test_only_a_select_over_the_lake_is_answered(tmp_path: Path, query: str) -> None:
    """Whatever would write, read another file or change the settings is refused with one sentence."""
    fill(tmp_path)
    with open_log(tmp_path / "lake", tmp_path / "catalogues") as con, pytest.raises(LogError):
        ask(con, query)
    assert not Path("x.csv").exists()


def test_a_query_is_answered_in_three_forms(tmp_path: Path) -> None:
    """The same rows as a table, as CSV whose texts cannot be formulas, and as JSON lines with the values untouched."""
    fill(tmp_path)
    asked = ("log", "query", 'SELECT customer_id, -1.5 AS "=x" FROM events', "--format")
    [head, row] = list(csv.reader(io.StringIO(nba(tmp_path, *asked, "csv"))))
    assert (head, row) == (["customer_id", "'=x"], [f"'{FORMULA}", "-1.5"])
    assert json.loads(nba(tmp_path, *asked, "json")) == {"customer_id": FORMULA, "=x": -1.5}
    assert FORMULA in nba(tmp_path, *asked, "table")


@pytest.mark.parametrize("view", VIEWS)
def test_tail_shows_the_last_rows(tmp_path: Path, view: str) -> None:
    """`nba log tail` shows the last rows of each view, oldest first."""
    fill(tmp_path)
    lines = nba(tmp_path, "log", "tail", view, "-n", "1", "--format", "json").splitlines()
    assert len(lines) == (0 if view in ("switches", "shadows") else 1)
    if lines:
        assert json.loads(lines[0])["logged_at"].startswith("2026-02-02T02:40:00")


def test_compact_and_prune_by_command(tmp_path: Path) -> None:
    """Compaction leaves every row; pruning takes the days that the setting does not keep, and nothing without it."""
    fill(tmp_path)
    ParquetLake(tmp_path / "lake").write(
        4, [("1770000000000-0", "event", encode(Event("e2", "b", "purchase", NOW, {})))]
    )
    counted = ("log", "query", "SELECT (SELECT count(*) FROM events) e, (SELECT count(*) FROM decisions) d")
    nba(tmp_path, "log", "compact")
    assert len(list((tmp_path / "lake" / "events" / "days").iterdir())) == 1
    nba(tmp_path, "log", "prune")
    assert json.loads(nba(tmp_path, *counted, "--format", "json")) == {"e": 2, "d": 1}
    nba(tmp_path, "log", "prune", NBA_RETENTION_DAYS='{"events": 30}')
    assert json.loads(nba(tmp_path, *counted, "--format", "json")) == {"e": 0, "d": 1}


def test_poison_is_listed_and_given_back(tmp_path: Path) -> None:
    """Entries that were set aside are listed with their error; given back, they stand in the journal, once."""
    with EmbeddedServer(tmp_path / "redis") as url:
        journal, aside = keys.of_partition(9, "journal"), keys.of_partition(9, "poison")

        def redis(*command: str) -> object:
            async def send() -> object:
                link = Link(url)
                [reply] = await link.exchange([command], deadline_seconds=5, reason="")
                await link.close()
                return reply

            return asyncio.run(send())

        redis("XADD", aside, "*", "id", "1-1", "k", "event", "v", "payload", "error", "UnreadableEntry: why")
        env = {"NBA_REDIS_URL": url}
        listed = json.loads(nba(tmp_path, "log", "poison", "--format", "json", **env))
        assert {name: listed[name] for name in ("partition", "journal_id", "kind", "bytes", "error")} == {
            "partition": 9, "journal_id": "1-1", "kind": "event", "bytes": 7, "error": "UnreadableEntry: why",
        }  # fmt: skip
        nba(tmp_path, "log", "poison", "--apply", **env)
        nba(tmp_path, "log", "poison", "--apply", **env)
        [[_, pairs]] = redis("XRANGE", journal, "-", "+")  # type: ignore[misc]
        assert pairs == [b"k", b"event", b"v", b"payload"]
        assert redis("XLEN", aside) == 0
        assert nba(tmp_path, "log", "poison", "--format", "json", **env) == ""


def test_the_views_are_documented_by_their_columns(tmp_path: Path) -> None:
    """DuckDB describes every view; no column is nameless and none twice."""
    with open_log(tmp_path / "lake", tmp_path / "catalogues") as con:
        for view in VIEWS:
            names = [name for name, *_ in con.execute(f"SELECT * FROM {view}").description or ()]
            assert len(names) == len(set(names))
            assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
