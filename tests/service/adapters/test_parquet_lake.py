"""The lake: each record exactly once, whatever dies when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from service.adapters.journal_entries import KnownDecision, OutcomeEntry, SwitchEntry, encode, encode_decision
from service.adapters.lake_tables import SCHEMAS
from service.adapters.parquet_lake import KEPT_COMMITS, NOTHING, LakeConflict, ParquetLake, UnreadableEntry, id_order
from service.decision.record import customer_digest
from service.lake_files import files
from service.ports import Event, Outcome
from tests.service.rows import decision_row

NOW = 1_770_000_000.0
P = 7
OUTCOME = Outcome("o1", "d1", "upsell_cheese", "accept", 3.5, NOW + 5)
KNOWN = KnownDecision(
    "a", customer_digest("a"), NOW, "app", (("upsell_cheese", "upsell", "dairy", "cheese_app", True, "app_home"),)
)


def events(first: int, count: int) -> list[tuple[str, str, bytes]]:
    """Return journal entries of events with ids `1000000000000-first` on."""
    return [
        (f"1000000000000-{i}", "event", encode(Event(f"e{i}", "a", "purchase", NOW + i, {"lines": [{"n": i}]})))
        for i in range(first, first + count)
    ]


def ids_in(lake: ParquetLake, table: str = "events", column: str = "event_id") -> list[str]:
    """Return all ids of a table, read by DuckDB, in order of writing."""
    files = f"{lake.folder}/{table}/*.parquet"
    rows = duckdb.sql(f"SELECT {column}, journal_id FROM read_parquet('{files}')").fetchall()
    return [name for name, journal_id in sorted(rows, key=lambda row: id_order(row[1]))]


def test_all_kinds_of_one_batch_become_readable_tables(tmp_path: Path) -> None:
    """Decisions, outcomes, orphans, events and switches of a batch are rows of named columns in DuckDB."""
    lake = ParquetLake(tmp_path)
    row = decision_row("a", NOW)
    lake.write(
        P,
        [
            ("1000000000000-0", "decision", encode_decision(row)),
            ("1000000000000-1", "outcome", encode(OutcomeEntry(KNOWN, OUTCOME))),
            ("1000000000000-2", "orphan", encode(OutcomeEntry(None, OUTCOME))),
            *events(3, 1),
            ("1000000000001-0", "switch", encode(SwitchEntry("all", "", True, "ana", "why", NOW))),
        ],
    )
    assert lake.last_id(P) == "1000000000001-0"
    names = {path.name for table in SCHEMAS for path in map(Path, files(tmp_path, table))}
    assert names == {"p07-1000000000000_0-1000000000001_0.parquet"}
    duckdb.sql("SET TimeZone = 'UTC'")
    decision = duckdb.sql(
        f"""SELECT decision_id, customer_id, epoch(decision_time), treatment_ids, stages, propensities, priorities,
        facts, chosen[1].treatment_id, chosen[1].placement, chosen[1].selection_probability, withheld, journal_id,
        epoch(logged_at) FROM read_parquet('{tmp_path}/decisions/*.parquet')"""
    ).fetchall()
    assert decision[0][:6] == (row.decision_id, "a", NOW, ["deli_app", "cheese_app"], [11, 0], [0.01, 0.02])
    assert np.isnan(decision[0][6][0])
    assert decision[0][7] == row.facts
    assert decision[0][8:] == ("cheese_app", "app_home", 0.9, [], "1000000000000-0", 1e9)
    outcomes = duckdb.sql(
        f"""SELECT outcome_id, type, value, is_orphan, customer_id, issue, treatment_id, epoch(occurred_at)
        FROM read_parquet('{tmp_path}/outcomes/*.parquet') ORDER BY journal_id"""
    ).fetchall()
    assert outcomes == [
        ("o1", "accept", 3.5, False, "a", "upsell", "cheese_app", NOW + 5),
        ("o1", "accept", 3.5, True, None, None, None, NOW + 5),
    ]
    assert ids_in(lake, "switches", "who") == ["ana"]
    [(properties,)] = duckdb.sql(f"SELECT properties FROM read_parquet('{tmp_path}/events/*.parquet')").fetchall()
    assert json.loads(properties) == {"lines": [{"n": 3}]}


def test_batches_follow_each_other(tmp_path: Path) -> None:
    """Each batch goes on from the last id; partitions do not see each other; the order of ids is numeric."""
    lake = ParquetLake(tmp_path)
    assert lake.last_id(P) == NOTHING
    lake.write(P, events(1, 9))
    lake.write(P, events(10, 3), after="1000000000000-9")
    lake.write(P + 1, events(1, 1))
    assert ParquetLake(tmp_path).last_id(P) == "1000000000000-12"
    assert ids_in(lake) == ["e1", "e1", *(f"e{i}" for i in range(2, 13))]
    found = lake.file_with("events", P, "1000000000000-11")
    assert found is not None
    assert found.name == "p07-1000000000000_10-1000000000000_12.parquet"
    assert lake.file_with("events", P, "1000000000000-13") is None


def test_of_two_owners_only_one_commits_what_follows_an_id(tmp_path: Path) -> None:
    """An owner that lost its partition unknowingly cannot add records that its successor wrote already."""
    stale, fresh = ParquetLake(tmp_path), ParquetLake(tmp_path)
    stale.write(P, events(1, 2))
    after = stale.last_id(P)
    assert fresh.take_over(P) == after
    with pytest.raises(LakeConflict, match="another owner"):
        stale.write(P, events(3, 2), after)
    assert fresh.last_id(P) == after
    fresh.write(P, events(3, 4), after)
    with pytest.raises(LakeConflict, match="another owner"):
        stale.write(P, events(3, 2), after)
    with pytest.raises(LakeConflict, match="has already"):
        stale.write(P, events(2, 2))
    assert ids_in(fresh) == [f"e{i}" for i in range(1, 7)]


DYING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from service.adapters import parquet_lake
from service.adapters.parquet_lake import ParquetLake
from service.adapters.journal_entries import OutcomeEntry, encode
from tests.service.adapters.test_parquet_lake import OUTCOME, events

where, calls = sys.argv[2].split(":"), 0
lake = ParquetLake(Path(sys.argv[1]))
after = lake.take_over(7)
def dying(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(where[1]):
            if where[2] == "after":
                real(*arguments, **options)
            os.kill(os.getpid(), 9)
        return real(*arguments, **options)
    return call
setattr(os, where[0], dying(getattr(os, where[0])))
entries = events(3, 2) + [("1000000000000-5", "orphan", encode(OutcomeEntry(None, OUTCOME)))]
lake.write(7, entries, after)
"""


@pytest.mark.parametrize(
    ("moment", "is_committed"),
    [
        ("fsync:1:before", False),
        ("fsync:3:before", False),
        ("rename:1:before", False),
        ("rename:1:after", True),
        ("link:1:before", True),
        ("link:1:after", True),
        ("link:2:before", True),
        ("link:2:after", True),
    ],
)
def test_a_writer_killed_at_any_moment_leaves_all_or_nothing(tmp_path: Path, moment: str, is_committed: bool) -> None:
    """kill -9 before, at or after the commit: the next owner finds the batch whole in all tables or not at all."""
    ParquetLake(tmp_path).write(P, events(1, 2))
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), moment, root], check=False)
    assert done.returncode == -9
    lake = ParquetLake(tmp_path)
    last = lake.take_over(P)
    assert last == ("1000000000000-5" if is_committed else "1000000000000-2")
    if not is_committed:
        lake.write(P, [*events(3, 2), ("1000000000000-5", "orphan", encode(OutcomeEntry(None, OUTCOME)))], last)
    assert ids_in(lake) == ["e1", "e2", "e3", "e4"]
    assert ids_in(lake, "outcomes", "outcome_id") == ["o1"]
    assert lake.last_id(P) == "1000000000000-5"
    assert not list(tmp_path.glob("commits/*/.dead-*"))
    assert not list(tmp_path.glob("commits/*/.owner-*/*"))
    assert len(list(tmp_path.glob("commits/*/.owner-*"))) == 1


def test_an_owner_with_a_lesser_token_cannot_take_over(tmp_path: Path) -> None:
    """Whoever was given the partition earlier comes too late, even if it asks the lake last."""
    lake, late = ParquetLake(tmp_path), ParquetLake(tmp_path)
    lake.take_over(P, 7)
    with pytest.raises(LakeConflict, match="after token 6"):
        late.take_over(P, 6)
    lake.write(P, events(1, 1))
    assert lake.fence(P) == 7
    assert ids_in(lake) == ["e1"]


def test_old_commits_leave_no_folders(tmp_path: Path) -> None:
    """After many batches only the folders of the last ones are there, and the last id is still known."""
    lake = ParquetLake(tmp_path)
    for i in range(1, 40):
        lake.write(P, events(i, 1))
    assert len(list(tmp_path.glob("commits/p07/[0-9]*"))) == KEPT_COMMITS
    assert ParquetLake(tmp_path).last_id(P) == "1000000000000-39"
    assert len(ids_in(lake)) == 39


def test_a_file_that_was_removed_later_does_not_come_back(tmp_path: Path) -> None:
    """Taking a partition over publishes only what was never published: compaction may remove files."""
    lake = ParquetLake(tmp_path)
    lake.write(P, events(1, 2))
    Path(files(tmp_path, "events")[0]).unlink()
    assert lake.take_over(P) == "1000000000000-2"
    assert files(tmp_path, "events") == []


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("event", b""),
        ("event", b"\xc1"),
        ("riddle", encode(1)),
        ("decision", encode({"decision_id": 1})),
        ("", b""),
        ("event", encode(Event("e", "a", "purchase", 1e300, {}))),
    ],
)
def test_an_unreadable_entry_is_named_and_nothing_is_written(tmp_path: Path, kind: str, payload: bytes) -> None:
    """A damaged entry stops its batch with the entry's id, so that it can be set aside."""
    lake = ParquetLake(tmp_path)
    with pytest.raises(UnreadableEntry) as error:
        lake.write(P, [*events(1, 1), ("1000000000000-2", kind, payload)])
    assert error.value.entry_id == "1000000000000-2"
    assert lake.last_id(P) == NOTHING
