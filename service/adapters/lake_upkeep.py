"""Keeps the lake's log tables in few files and no longer than wanted: compaction by day, retention, rows taken out.

Whatever changes which files count does so by one rename of the table's manifest (`service.lake_files`), under the
table's lock, after the new files are on the disk. So a crash at any point leaves the table as it was before or as it is
after, and at most files that nobody counts, which the next run removes. Knows files, days and rows; no store, no clock.
"""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.adapters.durable import replaced_file, sync_folder, synced_file
from service.adapters.parquet_lake import covered, day_of, id_order
from service.lake_files import LOG_TABLES, MANIFEST, REPLACED_SECONDS, Manifest, read_manifest, small_files

MIN_FILES = 64
"""So many small files are worth a round of compaction."""
ROUND_FILES, ROUND_BYTES = 1_000, 200_000_000
"""What one round reads at most: it is held in memory."""
ROW_GROUP = 20_000
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Compacted:
    """What became of a table: how many files counted before and after."""

    table: str
    before: int
    after: int


@contextmanager
def locked(table: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a table's lock; without `wait`, yields False where another process has it. The system frees a dead one's."""
    with open(table / ".lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def compact(lake: Path, now: float, *, whole: bool = False) -> list[Compacted]:
    """Put small files together, and the files of a day that is over into one.

    Args:
        now: Unix seconds. whole: Put all together, however few, today's too.
    """
    done = []
    for name in LOG_TABLES:
        table = lake / name
        if not table.is_dir():
            continue
        with locked(table, wait=whole) as is_ours:
            if not is_ours:
                continue
            manifest = _sweep(table, read_manifest(table), now)
            before = _count(table, manifest)
            while small := _round(table, manifest, 1 if whole else MIN_FILES):
                manifest = _gather(table, manifest, small, now)
            today = day_of(int(now * 1000))
            for day in [d for d, parts in manifest.days.items() if len(parts) > 1 and (whole or d < today)]:
                manifest = _merge(table, manifest, day, now)
            if (after := _count(table, manifest)) != before:
                done.append(Compacted(name, before, after))
    return done


def prune(lake: Path, retention_days: Mapping[str, int], now: float) -> dict[str, int]:
    """Let go of days that are older than wanted. Returns how many files each table lost."""
    lost = {}
    for name, days in retention_days.items():
        table = lake / name
        if not table.is_dir():
            continue
        oldest = day_of(int((now - days * SECONDS_PER_DAY) * 1000))
        with locked(table, wait=True):
            manifest = read_manifest(table)
            gone = [f"days/{file}" for day, parts in manifest.days.items() if day < oldest for file in parts]
            gone += [p.name for p in _settled(table, manifest) if day_of(id_order(covered(p)[2])[0]) < oldest]
            if gone:
                _commit(table, _without(manifest, gone, now))
                lost[name] = len(gone)
    return lost


def take_out(lake: Path, name: str, which: pc.Expression, columns: Sequence[str]) -> int:
    """Take rows out of a table for good, also out of files that were replaced. Returns how many there were.

    Args:
        which: Of the rows, over `columns`.
    """
    table = lake / name
    if not table.is_dir():
        return 0
    rows = 0
    with locked(table, wait=True):
        manifest = _sweep(table, read_manifest(table), float("inf"))
        for day, parts in list(manifest.days.items()):
            for part in parts:
                path = table / "days" / part
                if found := count_rows(path, which, columns):
                    new = f"{day}-{secrets.token_hex(8)}.parquet"
                    _write(table / "days" / new, pq.ParquetFile(path).schema_arrow, _remaining(path, which))
                    kept = tuple(new if p == part else p for p in manifest.days[day])
                    manifest = replace(manifest, days={**manifest.days, day: kept})
                    _commit(table, manifest)
                    path.unlink()
                    rows += found
        for path in table.glob("p*.parquet"):
            rows += take_out_of_file(path, which, columns)
    return rows


def take_out_of_file(path: Path, which: pc.Expression, columns: Sequence[str]) -> int:
    """Take rows out of one file, which is replaced in one step. Returns how many there were."""
    found = count_rows(path, which, columns)
    if found:
        schema = pq.ParquetFile(path).schema_arrow
        with replaced_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in _remaining(path, which):
                writer.write_table(batch, row_group_size=ROW_GROUP)
    return found


def count_rows(path: Path, which: pc.Expression, columns: Sequence[str]) -> int:
    """Return how many rows of a file match; none where the file lacks one of the columns."""
    if not set(columns) <= set(pq.ParquetFile(path).schema_arrow.names):
        return 0
    return int(pq.read_table(path, columns=list(columns), filters=which, partitioning=None).num_rows)


def _settled(table: Path, manifest: Manifest) -> list[Path]:
    """Return the small files that have left their commit: of others a second name could bring the rows back."""
    return [path for path in small_files(table, manifest) if path.stat().st_nlink == 1]


def _round(table: Path, manifest: Manifest, least: int) -> list[Path]:
    """Return what the next round puts together, or nothing where it is not worth it."""
    found, size = [], 0
    settled = _settled(table, manifest)
    if len(settled) < least:
        return []
    for path in settled[:ROUND_FILES]:
        size += path.stat().st_size
        found.append(path)
        if size > ROUND_BYTES:
            break
    return found


def _gather(table: Path, manifest: Manifest, small: Sequence[Path], now: float) -> Manifest:
    """Put small files together, a new file for each day that they touch."""
    rows = pa.concat_tables([pq.ParquetFile(path).read() for path in small], promote_options="permissive")
    sequence = pc.cast(pc.list_element(pc.split_pattern(rows["journal_id"], "-"), 1), pa.int64())
    order = pa.table({"at": rows["logged_at"], "partition": rows["partition"], "sequence": sequence})
    keys = [(name, "ascending") for name in order.column_names]
    rows = rows.take(pc.sort_indices(order, sort_keys=keys))
    days = pc.strftime(rows["logged_at"], format="%Y-%m-%d")
    (table / "days").mkdir(exist_ok=True)
    parts = dict(manifest.days)
    for day in pc.unique(days).to_pylist():
        name = f"{day}-{secrets.token_hex(8)}.parquet"
        _write(table / "days" / name, rows.schema, [rows.filter(pc.equal(days, day))])
        parts[day] = (*parts.get(day, ()), name)
    manifest = _without(replace(manifest, days=parts), [path.name for path in small], now)
    return _commit(table, manifest)


def _merge(table: Path, manifest: Manifest, day: str, now: float) -> Manifest:
    """Put a day's files into one, a row group at a time."""
    parts = [table / "days" / name for name in manifest.days[day]]
    schema = pa.unify_schemas([pq.ParquetFile(p).schema_arrow for p in parts], promote_options="permissive")
    name = f"{day}-{secrets.token_hex(8)}.parquet"
    rows = (batch for path in parts for batch in _batches(path))
    _write(table / "days" / name, schema, rows)
    left = _without(manifest, [f"days/{path.name}" for path in parts], now)
    return _commit(table, replace(left, days={**left.days, day: (name,)}))


def _batches(path: Path) -> Iterator[pa.Table]:
    for batch in pq.ParquetFile(path).iter_batches(ROW_GROUP):
        yield pa.Table.from_batches([batch])


def _remaining(path: Path, which: pc.Expression) -> Iterator[pa.Table]:
    """Return what does not match, a row group at a time; a NULL does not match."""
    schema = pq.ParquetFile(path).schema_arrow
    for rows in _batches(path):
        numbered = rows.append_column("#", pa.array(range(rows.num_rows)))
        hits = numbered.filter(which)["#"]
        yield rows.filter(pc.invert(pc.is_in(numbered["#"], value_set=hits))).cast(schema)


def _write(path: Path, schema: pa.Schema, rows: Iterable[pa.Table]) -> None:
    with synced_file(path, mode="xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_table(_conformed(batch, schema), row_group_size=ROW_GROUP)
    sync_folder(path.parent)


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with all columns of the schema, NULL where an older file has none."""
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _without(manifest: Manifest, names: Iterable[str], now: float) -> Manifest:
    """Return the manifest with files replaced; names of days begin with `days/`."""
    gone = dict.fromkeys(names, now)
    days = {day: tuple(n for n in parts if f"days/{n}" not in gone) for day, parts in manifest.days.items()}
    return Manifest({day: parts for day, parts in days.items() if parts}, {**manifest.replaced, **gone})


def _commit(table: Path, manifest: Manifest) -> Manifest:
    with replaced_file(table / MANIFEST) as file:
        file.write(json.dumps({"days": manifest.days, "replaced": manifest.replaced}).encode())
    return manifest


def _sweep(table: Path, manifest: Manifest, now: float) -> Manifest:
    """Remove files that were replaced long enough ago, and those that a crash left before they counted."""
    old = [name for name, since in manifest.replaced.items() if now - since >= REPLACED_SECONDS]
    for name in old:
        (table / name).unlink(missing_ok=True)
    counted = {name for parts in manifest.days.values() for name in parts}
    counted |= {name.removeprefix("days/") for name in manifest.replaced}
    for path in (table / "days").glob("*"):
        if path.name not in counted:
            path.unlink(missing_ok=True)
    for left in table.glob(".p*.parquet-*"):
        left.unlink(missing_ok=True)
    if not old:
        return manifest
    return _commit(table, replace(manifest, replaced={n: at for n, at in manifest.replaced.items() if n not in old}))


def _count(table: Path, manifest: Manifest) -> int:
    return sum(map(len, manifest.days.values())) + len(small_files(table, manifest))
