"""`nba rebuild`: an emptied store gets back what the lake knows: contacts, evidence, consents, ids, switches and facts.

Owns all partitions meanwhile, so that no worker applies events to facts that are half there; afterwards workers go on
with what the journal holds beyond the lake. What was acknowledged, lost with the store and not yet in the lake is gone:
at most the last `lake_seconds` before the loss. Facts are the newest snapshots of the lake with all later events folded
in. Only then does the store carry its epoch again, without which caps fail closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import LAYOUT
from features.facts import EVENT_TYPES, Floats, fold, unknown
from service.adapters.connection import Link
from service.adapters.erasures import Erasures
from service.adapters.fact_store import Change, FactStore
from service.adapters.fact_stream import next_stamp
from service.adapters.latest_facts import NoFacts, latest_facts
from service.adapters.parquet_lake import ParquetLake
from service.adapters.partition_owner import PartitionOwner
from service.adapters.state_restore import StateRestore, mark_whole
from service.decision.record import CONTACTS_DAYS, PARTITIONS
from service.lake_files import files

DAY = 86_400.0
BATCH = 10_000
ATTEMPTS = 5

_COLUMNS = {
    "decisions": "journal_id, decision_id, customer_id, decision_seconds, channel, catalogue_version, chosen, "
    "propensities",
    "outcomes": "outcome_id, decision_id, action_id, type, value, flags, body_digest, "
    "epoch_us(occurred_at) / 1e6 AS seconds, epoch_us(logged_at) / 1e6 AS logged_seconds",
    "events": "event_id, customer_id, type, properties, body_digest, "
    "epoch_us(occurred_at) / 1e6 AS seconds, epoch_us(logged_at) / 1e6 AS logged_seconds",
    "switches": 'scope, scope_id, paused, who, why, epoch_us("at") / 1e6 AS seconds',
}
_WHERE = {
    "decisions": "NOT dry_run AND len(chosen) > 0 AND (decision_seconds > {oldest} OR decision_id IN {answered})",
    "outcomes": "true",
    "events": "true",
    "switches": "true",
}


class WorkersRun(Exception):
    """Other processes own partitions; they would apply events to facts that are half there."""


@dataclass
class Rebuilt:
    """What was put back.

    Attributes:
        covered: Events older than the snapshots, which are taken to hold them.
        without_catalogue: Decisions whose catalogue is not kept any more, so that their contacts are unknown.
        newest: Moment of the lake's newest entry, by the clock of the lost store; NaN for none.
        waiting: Entries that the journal holds beyond the lake, which workers will apply.
    """

    decisions: int = 0
    outcomes: int = 0
    events: int = 0
    customers: int = 0
    covered: int = 0
    without_catalogue: int = 0
    switches: int = 0
    tombstones: int = 0
    waiting: int = 0
    newest: float = np.nan

    def __str__(self) -> str:
        newest = (
            "never" if np.isnan(self.newest) else f"{datetime.fromtimestamp(self.newest, UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
        return (
            f"put back {self.decisions:,} decisions, {self.outcomes:,} outcomes, what {self.events:,} events say, "
            f"{self.switches:,} pauses, {self.tombstones:,} tombstones and the facts of {self.customers:,} customers; "
            f"{self.covered:,} events are older than the snapshots; {self.without_catalogue:,} decisions have no "
            f"catalogue any more. The lake's newest entry is of {newest}: what was acknowledged later and is not among "
            f"the {self.waiting:,} entries of the journal is lost."
        )


@dataclass
class Rebuild:
    """Puts a lake's content back into a store.

    Args:
        link: The state store. restore: Writes state. store: Writes facts. now: Unix seconds.
        use_snapshots: Begin facts with the newest snapshots; else with nothing.
    """

    link: Link
    lake: Path
    erasures: Erasures
    restore: StateRestore
    store: FactStore
    now: float
    use_snapshots: bool = True
    done: Rebuilt = field(default_factory=Rebuilt)
    _partitions: dict[str, set[int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import duckdb

        self._con = duckdb.connect(config={"threads": 1})
        self._con.execute("SET TimeZone = 'UTC'")

    async def run(self, tell: Callable[[int], None] = lambda partition: None) -> Rebuilt:
        """Put everything back; doing it again changes nothing. Raises WorkersRun, StoreUnavailable.

        Args:
            tell: Called with each partition that is done.
        """
        lake = ParquetLake(self.lake)
        owner = PartitionOwner(self.link, lease_seconds=120.0, fence_of=lake.fence)
        try:
            self.done.tombstones = await self.erasures.restore()
            base = self._snapshots()
            for partition in range(PARTITIONS):
                await owner.take(range(PARTITIONS))
                if len(owner.tokens) < PARTITIONS:
                    raise WorkersRun("stop the workers first: they own partitions that are to be rebuilt")
                last = lake.last_id(partition)
                await self._partition(partition, base)
                await owner.applied({partition: last})
                self._note_newest(last)
                tell(partition)
                self.done.waiting += len(await owner.entries(partition, last, "+"))
            await self._write_facts(base)
            rows = [row for rows in self._rows("switches", None) for row in rows]
            self.done.switches = await self.restore.switches(sorted(rows, key=lambda row: float(row["seconds"])))
            await mark_whole(self.link, self.now)
        finally:
            await owner.leave()
        return self.done

    async def _partition(self, partition: int, base: dict[str, tuple[Floats, float]]) -> None:
        for rows in self._rows("decisions", partition):
            restored = await self.restore.decisions(rows)
            self.done.decisions += restored
            self.done.without_catalogue += len(rows) - restored
        for rows in self._rows("outcomes", partition):
            await self.restore.outcomes(rows)
            self.done.outcomes += len(rows)
        facts: dict[str, Floats] = {}
        customers: set[str] = set()
        for rows in self._rows("events", partition):
            await self.restore.events(partition, rows)
            self.done.events += len(rows)
            customers.update(row["customer_id"] for row in rows)
            self.done.covered += fold_rows(rows, facts, base)
        await self.restore.forget_old_contacts(customers)
        await self._write(facts)
        for customer in facts:
            base.pop(customer, None)

    async def _write_facts(self, base: Mapping[str, tuple[Floats, float]]) -> None:
        """Write the snapshots of customers without later events."""
        await self._write({customer: facts for customer, (facts, _) in base.items()})

    async def _write(self, facts: Mapping[str, Floats]) -> None:
        names = list(facts)
        for start in range(0, len(names), BATCH):
            waiting = set(names[start : start + BATCH])
            for _ in range(ATTEMPTS):
                known = await self.store.read(sorted(waiting))
                changes = {
                    customer: Change(
                        known[customer], facts[customer], views_of(facts[customer]),
                        max(round(self.now * 1e6), next_stamp(known[customer])),
                    )
                    for customer in waiting
                }  # fmt: skip
                waiting = await self.store.write(changes)
                if not waiting:
                    break
            else:
                raise WorkersRun("somebody else writes facts; stop the workers and materialization first")
        self.done.customers += len(names)

    def _snapshots(self) -> dict[str, tuple[Floats, float]]:
        """Return customer -> facts of the newest snapshots, and their moment."""
        if not self.use_snapshots:
            return {}
        try:
            found = latest_facts(self.lake, LAYOUT, self.now)
        except NoFacts:
            return {}
        moments = np.nanmax(found.view_times, axis=0)
        return {c: (found.facts[:, i].copy(), float(moments[i])) for i, c in enumerate(found.customer_ids)}

    def _rows(self, table: str, partition: int | None) -> Iterator[Sequence[dict[str, Any]]]:
        """Yield a table's rows, of one partition, in batches."""
        if partition not in self._present(table):
            return
        told = files(self.lake, "outcomes")
        answered = f"(SELECT decision_id FROM {_source(told)})" if told else "('')"
        where = _WHERE[table].format(oldest=self.now - CONTACTS_DAYS * DAY, answered=answered)
        mine = "true" if partition is None else f"partition = {partition}"
        query = f"SELECT {_COLUMNS[table]} FROM {_source(files(self.lake, table))} WHERE {mine} AND {where}"
        rows = self._con.execute(f"{query} ORDER BY logged_at, journal_id")
        names = [column[0] for column in rows.description or ()]
        while batch := rows.fetchmany(BATCH):
            yield [dict(zip(names, row, strict=True)) for row in batch]

    def _present(self, table: str) -> set[int | None]:
        """Return the partitions of which a table has rows, and None for all of it if there are any."""
        if table not in self._partitions:
            found = files(self.lake, table)
            rows = self._con.execute(f"SELECT DISTINCT partition FROM {_source(found)}").fetchall() if found else []
            self._partitions[table] = {None, *(int(partition) for (partition,) in rows)} if rows else set()
        return self._partitions[table]

    def _note_newest(self, last: str) -> None:
        at = int(last.partition("-")[0]) / 1000
        if at:
            self.done.newest = float(np.nanmax([self.done.newest, at]))


def _source(found: Sequence[str]) -> str:
    return f"read_parquet({list(found)!r}, union_by_name = true)"


def fold_rows(
    rows: Sequence[Mapping[str, Any]], facts: dict[str, Floats], base: Mapping[str, tuple[Floats, float]]
) -> int:
    """Fold rows of the table `events` into customers' facts, in place; return how many the snapshots cover."""
    covered = 0
    for row in rows:
        if row["type"] not in EVENT_TYPES:
            continue
        snapshot, moment = base.get(row["customer_id"], (None, -np.inf))
        if row["seconds"] < moment:
            covered += 1
            continue
        known = facts.get(row["customer_id"])
        if known is None:
            known = unknown() if snapshot is None else snapshot
        event = {"type": row["type"], "occurred_at": row["seconds"], "properties": json.loads(row["properties"])}
        facts[row["customer_id"]], _ = fold(known, event)
    return covered


def views_of(facts: Floats) -> frozenset[str]:
    """Return the views of which anything is known."""
    return frozenset(
        view.name
        for view in LAYOUT.views
        if not np.isnan(facts[LAYOUT.slices[view.facts[0].name].start : LAYOUT.slices[view.facts[-1].name].stop]).all()
    )
