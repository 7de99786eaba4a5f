"""`ports.Lake` on a folder: Parquet files by table, each journal entry in them exactly once.

The files of one batch of entries become true in one step, whatever tables they go to. They are written into a folder of
their owner, `commits/pNN/.owner-<token>/<attempt>`, with a note of the batch's last id; renaming that folder to
`commits/pNN/<last id before the batch>` is the commit. A rename is whole or not at all, and fails where the target
exists or the owner's folder is gone. Who takes a partition over removes the folders of owners with a lesser token
first, so an owner that slept through its lease can commit nothing, and "the last id" is a fact that cannot be torn.
Then the files are linked to `<table>/pNN-<first>-<last>.parquet` and unlinked from the commit; a crash in between is
made good by the next owner (`take_over`). A file leaves its commit once, so one that was compacted away later cannot
come back. Readers ask `lake_files.files`.

Works on local disks and NFS; object stores need conditional puts instead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.adapters.durable import sync_folder, synced_file, write_synced
from service.adapters.lake_tables import SCHEMAS, UnreadableEntry, row_of
from service.decision.record import PARTITIONS
from service.lake_files import read_manifest, small_files

__all__ = ["NOTHING", "LakeConflict", "ParquetLake", "UnreadableEntry"]

NOTHING = "0-0"
_NOTE = "commit.json"
_OWNER = ".owner-"
KEPT_COMMITS = 8
"""Folders of past commits that are kept: they are empty by then, and only the last one is ever asked."""


class LakeConflict(Exception):
    """Another owner of the partition has committed meanwhile: give the partition up and read `last_id` again."""


class ParquetLake:
    """The log tables of the lake: decisions, outcomes, events, switches.

    Args:
        folder: The lake; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owned: dict[int, Path] = {}

    def last_id(self, partition: int) -> str:
        """Return the id of the last journal entry of the partition that is in the lake; "0-0" for none."""
        last = self._last_commit(self._commits(partition))
        return NOTHING if last is None else str(_note(last)["last"])

    def fence(self, partition: int) -> int:
        """Return the greatest token of an owner that the partition has seen, 0 for none."""
        commits = self._commits(partition)
        owners = (path.name.removeprefix(_OWNER) for path in commits.glob(f"{_OWNER}*"))
        return max((int(token) for token in owners), default=0)

    def take_over(self, partition: int, token: int | None = None) -> str:
        """Become the partition's only writer, finish or clear away what earlier ones left. Returns as `last_id`.

        Args:
            token: Fencing token; None for one more than the greatest.

        Raises:
            LakeConflict: An owner with a greater token is there.
        """
        commits = self._commits(partition)
        commits.mkdir(parents=True, exist_ok=True)
        token = self.fence(partition) + 1 if token is None else token
        own = commits / f"{_OWNER}{token}"
        own.mkdir(exist_ok=True)
        if self.fence(partition) > token:
            _discard(own)
            raise LakeConflict(f"partition {partition}: an owner after token {token} writes the lake")
        for left in [path for path in commits.iterdir() if path.name.startswith(".") and path != own]:
            _discard(left)
        for left in own.iterdir():
            _discard(left)
        self._owned[partition] = own
        last = self._last_commit(commits)
        if last is None:
            return NOTHING
        self._publish(partition, last)
        self._clear(commits)
        return str(_note(last)["last"])

    def write(self, partition: int, entries: Sequence[tuple[str, str, bytes]], after: str | None = None) -> None:
        """Write journal entries (id, kind, payload), ascending by id, as one commit.

        Args:
            after: The id that this owner believes to be the lake's last; None to look it up.

        Raises:
            UnreadableEntry: One of them cannot be read; nothing was written.
            LakeConflict: Another owner took over or went on from `after`; nothing was written.
        """
        if not entries:
            return
        if partition not in self._owned:
            self.take_over(partition)
        after = self.last_id(partition) if after is None else after
        rows: dict[str, list[dict[str, Any]]] = {}
        for entry_id, kind, payload in entries:
            table, row = row_of(entry_id, kind, payload)
            row["partition"] = partition
            rows.setdefault(table, []).append(row)
        tables = {table: _as_table(table, table_rows) for table, table_rows in rows.items()}
        first, last = entries[0][0], entries[-1][0]
        if id_order(first) <= id_order(after):
            raise LakeConflict(f"partition {partition}: entry {first} is not after {after}, which the lake has already")
        commits, own = self._commits(partition), self._owned[partition]
        attempt, commit = own / secrets.token_hex(8), commits / after
        try:
            attempt.mkdir()
            for name, content in tables.items():
                _write_table(attempt / f"{name}.parquet", content)
            note = {"first": first, "last": last, "entries": len(entries)}
            write_synced(attempt / _NOTE, json.dumps(note).encode(), mode="xb")
            sync_folder(attempt)
            os.rename(attempt, commit)
        except OSError as error:
            _discard(attempt)
            if commit.exists() or not own.exists():
                raise LakeConflict(f"partition {partition}: another owner writes what follows {after}") from error
            raise
        sync_folder(commits)
        self._publish(partition, commit)
        self._clear(commits)

    def file_with(self, table: str, partition: int, entry_id: str) -> Path | None:
        """Return the file of a table that has a journal id, or None where the lake does not have it."""
        wanted, folder = id_order(entry_id), self.folder / table
        manifest = read_manifest(folder)
        for path in small_files(folder, manifest):
            of, first, last = covered(path)
            if of == partition and id_order(first) <= wanted <= id_order(last):
                return path
        is_it = [("journal_id", "==", entry_id), ("partition", "==", partition)]
        for name in manifest.days.get(day_of(wanted[0]), ()):
            if pq.read_table(folder / "days" / name, columns=["journal_id"], filters=is_it).num_rows:
                return folder / "days" / name
        return None

    def _commits(self, partition: int) -> Path:
        if not 0 <= partition < PARTITIONS:
            raise ValueError(f"partition {partition} is none of 0..{PARTITIONS - 1}")
        return self.folder / "commits" / f"p{partition:02d}"

    @staticmethod
    def _in_order(commits: Path) -> list[Path]:
        found = (path for path in commits.glob("[0-9]*"))
        return sorted(found, key=lambda path: id_order(path.name))

    def _last_commit(self, commits: Path) -> Path | None:
        return next(reversed(self._in_order(commits)), None)

    def _clear(self, commits: Path) -> None:
        """Remove the folders of old commits, whose files have all left; a fenced owner cannot use their names again."""
        for old in self._in_order(commits)[:-KEPT_COMMITS]:
            if not any(old.glob("*.parquet")):
                _discard(old)

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


def day_of(milliseconds: int) -> str:
    """Return the day, UTC, of a moment of the journal as YYYY-MM-DD."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def covered(path: Path) -> tuple[int, str, str]:
    """Return partition, first and last id of a small file, from its name."""
    partition, first, last = path.stem.split("-")
    return int(partition[1:]), first.replace("_", "-"), last.replace("_", "-")


def _note(commit: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((commit / _NOTE).read_bytes())
    return note


def _discard(folder: Path) -> None:
    """Remove a folder; renamed first, so that nobody can commit it half removed."""
    dead = folder.with_name(f".dead-{secrets.token_hex(8)}")
    try:
        os.rename(folder, dead)
    except OSError:
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
    with synced_file(path, mode="xb") as file:
        pq.write_table(content, file, compression="zstd", use_dictionary=True)
