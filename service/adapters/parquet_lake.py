"""`ports.Lake` on a folder: Parquet files by table, each journal entry in them exactly once.

The files of one batch of entries become true in one step, whatever tables they go to. They are written into a folder of
their own, `commits/pNN/.attempt-...`, with a note of the batch's last id; renaming that folder to
`commits/pNN/<last id before the batch>` is the commit. A rename is whole or not at all, and fails where the target
exists, so of two owners that go on from the same id only one commits, and "the last id" is a fact that cannot be torn.
Then the files are linked to `<table>/pNN-<first>-<last>.parquet` and unlinked from the commit; a crash in between is
made good by the next owner (`last_id`). Readers glob the tables only; a commit's folder is never removed, its files
leave it once, so a file that was compacted away later cannot come back.

Works on local disks and NFS; object stores need conditional puts instead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.adapters.durable import sync_folder, write_synced
from service.adapters.lake_tables import SCHEMAS, UnreadableEntry, row_of
from service.decision.record import PARTITIONS

__all__ = ["NOTHING", "LakeConflict", "ParquetLake", "UnreadableEntry"]

NOTHING = "0-0"
_NOTE = "commit.json"


class LakeConflict(Exception):
    """Another owner of the partition has committed meanwhile: give the partition up and read `last_id` again."""


class ParquetLake:
    """The log tables of the lake: decisions, outcomes, events, switches.

    Args:
        folder: The lake; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def last_id(self, partition: int) -> str:
        """Return the id of the last journal entry of the partition that is in the lake; "0-0" for none.

        To be called when a partition is taken over: it also finishes or clears away what a dead owner left behind.
        """
        commits = self._commits(partition)
        if not commits.is_dir():
            return NOTHING
        for left in [path for path in commits.iterdir() if path.name.startswith(".")]:
            _discard(left)
        last = self._last_commit(commits)
        if last is None:
            return NOTHING
        self._publish(partition, last)
        return str(_note(last)["last"])

    def write(self, partition: int, entries: Sequence[tuple[str, str, bytes]], after: str | None = None) -> None:
        """Write journal entries (id, kind, payload), ascending by id, as one commit.

        Args:
            after: The id that this owner believes to be the lake's last; None to look it up.

        Raises:
            UnreadableEntry: One of them cannot be read; nothing was written.
            LakeConflict: Another owner went on from `after`; nothing was written.
        """
        if not entries:
            return
        after = self.last_id(partition) if after is None else after
        rows: dict[str, list[dict[str, Any]]] = {}
        for entry_id, kind, payload in entries:
            table, row = row_of(entry_id, kind, payload)
            rows.setdefault(table, []).append(row)
        tables = {table: _as_table(table, table_rows) for table, table_rows in rows.items()}
        first, last = entries[0][0], entries[-1][0]
        if id_order(first) <= id_order(after):
            raise LakeConflict(f"partition {partition}: entry {first} is not after {after}, which the lake has already")
        commits = self._commits(partition)
        commits.mkdir(parents=True, exist_ok=True)
        attempt = commits / f".attempt-{secrets.token_hex(8)}"
        attempt.mkdir()
        for name, content in tables.items():
            _write_table(attempt / f"{name}.parquet", content)
        write_synced(
            attempt / _NOTE, json.dumps({"first": first, "last": last, "entries": len(entries)}).encode(), mode="xb"
        )
        sync_folder(attempt)
        commit = commits / after
        try:
            os.rename(attempt, commit)
        except OSError as error:
            _discard(attempt)
            if commit.exists() or not attempt.parent.exists():
                raise LakeConflict(f"partition {partition}: another owner wrote what follows {after}") from error
            raise
        sync_folder(commits)
        self._publish(partition, commit)

    def files(self, table: str) -> list[Path]:
        """Return the files of a table, sorted by name."""
        return sorted((self.folder / table).glob("p*.parquet"))

    def file_with(self, table: str, partition: int, entry_id: str) -> Path | None:
        """Return the file of a table that covers a journal id, or None where the lake does not have it."""
        wanted = id_order(entry_id)
        for path in (self.folder / table).glob(f"p{partition:02d}-*.parquet"):
            _, first, last = path.stem.replace("-", " ").replace("_", "-").split()
            if id_order(first) <= wanted <= id_order(last):
                return path
        return None

    def _commits(self, partition: int) -> Path:
        if not 0 <= partition < PARTITIONS:
            raise ValueError(f"partition {partition} is none of 0..{PARTITIONS - 1}")
        return self.folder / "commits" / f"p{partition:02d}"

    @staticmethod
    def _last_commit(commits: Path) -> Path | None:
        return max(
            (path for path in commits.iterdir() if not path.name.startswith(".")),
            key=lambda path: id_order(path.name),
            default=None,
        )

    def _publish(self, partition: int, commit: Path) -> None:
        """Move the commit's files to their tables; does nothing the second time."""
        waiting = sorted(commit.glob("*.parquet"))
        if not waiting:
            return
        note = _note(commit)
        name = f"p{partition:02d}-{note['first'].replace('-', '_')}-{note['last'].replace('-', '_')}.parquet"
        for path in waiting:
            table = self.folder / path.stem
            table.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, table / name)
            except FileExistsError:
                pass  # linked before a crash, or by another owner that found the same commit
            except FileNotFoundError:
                continue  # published and unlinked by another owner a moment ago
            sync_folder(table)
            path.unlink(missing_ok=True)


def id_order(entry_id: str) -> tuple[int, int]:
    """Return a journal id as numbers that sort as the stream does."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _note(commit: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((commit / _NOTE).read_bytes())
    return note


def _discard(folder: Path) -> None:
    """Remove a folder that never became a commit; renamed first, so that its owner cannot commit it half removed."""
    dead = folder.with_name(f".dead-{secrets.token_hex(8)}")
    try:
        os.rename(folder, dead)
    except FileNotFoundError:
        return
    shutil.rmtree(dead, ignore_errors=True)


def _as_table(table: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMAS[table])
    except (pa.ArrowException, OverflowError, TypeError) as error:
        for row in rows:
            try:
                pa.Table.from_pylist([row], schema=SCHEMAS[table])
            except (pa.ArrowException, OverflowError, TypeError) as found:
                raise UnreadableEntry(row["journal_id"], f"{table}: {found}") from error
        raise


def _write_table(path: Path, content: pa.Table) -> None:
    with open(path, "xb") as file:
        pq.write_table(content, file, compression="zstd", use_dictionary=True)
        file.flush()
        os.fsync(file.fileno())
