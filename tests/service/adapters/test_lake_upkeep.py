"""Compaction, retention and taking rows out: what counts is whole at every moment, whatever dies when."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pyarrow.compute as pc
import pytest

from service.adapters.journal_entries import encode, encode_decision
from service.adapters.lake_upkeep import Compacted, compact, locked, prune, take_out
from service.adapters.parquet_lake import ParquetLake, id_order
from service.lake_files import REPLACED_SECONDS, files, read_manifest
from service.ports import Event
from tests.service.rows import decision_row

DAY = 86_400
MONDAY = 1_769_990_400
"""2026-02-02 00:00 UTC."""
NOW = float(MONDAY + 3 * DAY)


def event(i: int, at: float, customer: str = "a") -> tuple[str, str, bytes]:
    """Return the journal entry of an event that was logged at a moment."""
    return (f"{int(at * 1000)}-{i}", "event", encode(Event(f"e{i}", customer, "purchase", at, {"n": i})))


def fill(folder: Path, *, per_day: int = 4, days: int = 3) -> list[str]:
    """Write a small file for each event, in two partitions; return the ids of the events."""
    lake, names = ParquetLake(folder), []
    for partition in (1, 2):
        for n in range(days * per_day):
            i = n * 2 + partition
            at = MONDAY + (n // per_day) * DAY + (n % per_day) * 60
            lake.write(partition, [event(i, at, "ab"[partition - 1])])
            names.append(f"e{i}")
    return sorted(names)


def found(folder: Path, table: str = "events", column: str = "event_id") -> list[str]:
    """Return a column of a table, sorted."""
    asked = "SELECT " + column + " FROM read_parquet(?, union_by_name=true)"
    with duckdb.connect() as con:
        return sorted(name for (name,) in con.execute(asked, [files(folder, table)]).fetchall())


def test_a_day_becomes_one_file_and_every_row_stays_once(tmp_path: Path) -> None:
    """Small files become one file of each day, in the order of the journal; the old ones go after a while."""
    names = fill(tmp_path)
    assert compact(tmp_path, NOW, whole=True) == [Compacted("events", 24, 3)]
    assert found(tmp_path) == names
    assert [Path(path).name[:10] for path in files(tmp_path, "events")] == ["2026-02-02", "2026-02-03", "2026-02-04"]
    assert len(list(tmp_path.glob("events/p*.parquet"))) == 24
    rows = duckdb.sql(f"SELECT journal_id FROM read_parquet('{files(tmp_path, 'events')[0]}')").fetchall()
    assert [id_order(i) for (i,) in rows] == sorted(id_order(i) for (i,) in rows)
    assert compact(tmp_path, NOW + REPLACED_SECONDS, whole=True) == []
    assert list(tmp_path.glob("events/p*.parquet")) == []
    assert found(tmp_path) == names


def test_later_files_join_their_day(tmp_path: Path) -> None:
    """What is written after a compaction counts at once, and the next one makes one file of the day again."""
    names = fill(tmp_path)
    compact(tmp_path, NOW, whole=True)
    lake = ParquetLake(tmp_path)
    lake.write(3, [event(100, MONDAY + 3 * DAY - 1), event(101, MONDAY + 3 * DAY)])
    assert found(tmp_path) == sorted([*names, "e100", "e101"])
    assert compact(tmp_path, NOW) == [], "one file is not worth a round"
    compact(tmp_path, NOW, whole=True)
    assert found(tmp_path) == sorted([*names, "e100", "e101"])
    assert {day: len(parts) for day, parts in read_manifest(tmp_path / "events").days.items()} == {
        "2026-02-02": 1, "2026-02-03": 1, "2026-02-04": 1, "2026-02-05": 1,
    }  # fmt: skip


def test_a_file_that_has_not_left_its_commit_stays(tmp_path: Path) -> None:
    """A writer that died between linking and unlinking could bring its file back: such a file is not compacted."""
    names = fill(tmp_path)
    half = sorted(tmp_path.glob("events/p01*.parquet"))[-1]
    commit = max((tmp_path / "commits" / "p01").glob("[0-9]*"), key=lambda path: id_order(path.name))
    (commit / "events.parquet").hardlink_to(half)
    compact(tmp_path, NOW, whole=True)
    assert half.name not in read_manifest(tmp_path / "events").replaced
    ParquetLake(tmp_path).take_over(1)
    compact(tmp_path, NOW + REPLACED_SECONDS, whole=True)
    assert found(tmp_path) == names
    assert not list(commit.glob("*.parquet"))


def test_a_decision_is_found_before_and_after(tmp_path: Path) -> None:
    """The file with a decision is named while it is small and when it is part of a day, by partition and id."""
    lake = ParquetLake(tmp_path)
    row, entry_id = decision_row("a", float(MONDAY)), f"{MONDAY * 1000}-0"
    lake.write(5, [(entry_id, "decision", encode_decision(row))])
    lake.write(6, [(entry_id, "decision", encode_decision(decision_row("b", float(MONDAY))))])
    small = lake.file_with("decisions", 5, entry_id)
    assert small is not None
    assert small.name.startswith("p05-")
    compact(tmp_path, NOW, whole=True)
    of_day = lake.file_with("decisions", 5, entry_id)
    assert of_day is not None
    assert of_day.parent.name == "days"
    assert lake.file_with("decisions", 7, entry_id) is None
    assert sorted(found(tmp_path, "decisions", "customer_id")) == ["a", "b"]


def test_readers_are_not_disturbed(tmp_path: Path) -> None:
    """Queries that run all through writing and compaction see every acknowledged row exactly once, never fail."""
    names = fill(tmp_path)
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                rows = found(tmp_path)
                if len(rows) != len(set(rows)) or not set(names) <= set(rows):
                    wrong.append(rows)
            except duckdb.Error as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    lake = ParquetLake(tmp_path)
    for i in range(200, 240):
        lake.write(3, [event(i, MONDAY + 2 * DAY + i)])
        if i % 4 == 0:
            compact(tmp_path, NOW, whole=True)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(found(tmp_path)) == len(names) + 40


DYING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from service.adapters import lake_upkeep
from tests.service.adapters.test_lake_upkeep import NOW, pc

left = int(sys.argv[2])
def dying(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return real(*arguments, **options)
    return call
for name in ("fsync", "replace", "unlink"):
    setattr(os, name, dying(name))
lake = Path(sys.argv[1])
if sys.argv[4] == "compact":
    lake_upkeep.compact(lake, NOW, whole=True)
else:
    lake_upkeep.take_out(lake, "events", pc.field("customer_id") == "a", ["customer_id"])
"""


@pytest.mark.parametrize(
    ("work", "step"), [*(("compact", n) for n in (1, 3, 5, 6, 7)), *(("take_out", n) for n in (1, 4, 5, 6, 9, 12))]
)
def test_killed_at_any_step_nothing_is_lost_or_doubled(tmp_path: Path, step: int, work: str) -> None:
    """kill -9 at any file operation leaves every row once; doing it again finishes and leaves no stray file."""
    names = fill(tmp_path, per_day=2, days=2)
    if work == "take_out":
        compact(tmp_path, NOW - REPLACED_SECONDS, whole=True)
        ParquetLake(tmp_path).write(1, [event(77, NOW)])
        names.append("e77")
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), str(step), root, work], check=False)
    assert done.returncode == -9, "the step is beyond the end: choose fewer"
    now_there = found(tmp_path)
    assert len(now_there) == len(set(now_there))
    kept = {name for name in names if int(name[1:]) % 2 == 0}
    assert kept <= set(now_there) <= set(names)
    if work == "compact":
        assert now_there == sorted(names)
        compact(tmp_path, NOW, whole=True)
        compact(tmp_path, NOW + REPLACED_SECONDS, whole=True)
        assert found(tmp_path) == sorted(names)
        assert len(list(tmp_path.glob("events/**/*.parquet"))) == 2
    else:
        take_out(tmp_path, "events", pc.field("customer_id") == "a", ["customer_id"])
        assert found(tmp_path) == sorted(kept)
        assert not list(tmp_path.glob("events/**/.p*"))


def test_days_beyond_retention_go(tmp_path: Path) -> None:
    """Days older than wanted stop counting at once, small files too, and leave the disk later; other tables stay."""
    fill(tmp_path)
    ParquetLake(tmp_path).write(
        5, [(f"{MONDAY * 1000}-9", "decision", encode_decision(decision_row("a", float(MONDAY))))]
    )
    compact(tmp_path, NOW, whole=True)
    ParquetLake(tmp_path).write(4, [event(300, MONDAY + 60.0)])
    assert prune(tmp_path, {"events": 2}, NOW) == {"events": 2}
    assert set(found(tmp_path)) == {f"e{n * 2 + p}" for n in range(4, 12) for p in (1, 2)}
    assert len(found(tmp_path, "decisions", "decision_id")) == 1
    assert prune(tmp_path, {"events": 2}, NOW) == {}


def test_a_customers_rows_leave_every_file(tmp_path: Path) -> None:
    """Rows taken out are in no file any more, not even in those that a compaction had replaced."""
    fill(tmp_path)
    compact(tmp_path, NOW, whole=True)
    ParquetLake(tmp_path).write(1, [event(400, NOW, "a"), event(401, NOW + 1, "c")])
    assert take_out(tmp_path, "events", pc.field("customer_id") == "a", ["customer_id"]) == 13
    everywhere = [str(path) for path in tmp_path.rglob("*.parquet")]
    left = duckdb.execute("SELECT DISTINCT customer_id FROM read_parquet(?) ORDER BY 1", [everywhere]).fetchall()
    assert left == [("b",), ("c",)]
    assert take_out(tmp_path, "events", pc.field("customer_id") == "a", ["customer_id"]) == 0


def test_only_one_process_keeps_a_table(tmp_path: Path) -> None:
    """While another holds the table's lock, compaction leaves it alone and comes back later."""
    fill(tmp_path)
    with locked(tmp_path / "events", wait=True):
        assert compact(tmp_path, NOW) == []
        with locked(tmp_path / "events", wait=False) as is_ours:
            assert not is_ours
