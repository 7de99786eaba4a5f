"""Puts the state of one partition back into an emptied store: contacts, evidence, consents, zones and known ids.

Decisions are written as `record.lua` leaves them; outcomes then run through `outcome.lua` itself, so evidence and
contacts move by the one rule there is. Doing it twice changes nothing. Knows keys and rows of the lake's tables, not
how the lake is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hiredis

from features.layout import SECONDS_PER_DAY
from service.adapters import redis_keys as keys
from service.adapters.connection import Command, Link
from service.adapters.journal_entries import KnownDecision, encode
from service.adapters.redis_journal import RedisJournal, stated_by
from service.decision.model import Catalogue
from service.decision.record import CONTACTS_DAYS, customer_digest
from service.lake_files import LOG_TABLES, files
from service.ports import Event, Outcome, StoreUnavailable

REASON = "state_unavailable"
DEADLINE_SECONDS = 30.0
PIPELINE = 500
KEPT_SECONDS = 600.0
"""A decision too old to be asked about any more is kept this long: until its outcomes have been put back."""
Row = Mapping[str, Any]
CatalogueOf = Callable[[str], Catalogue | None]


class StateRestore:
    """Writes what the lake knows into the state store.

    Args:
        journal: Runs outcomes through their script. catalogue_of: Version -> catalogue, for what was offered.
        now: Unix seconds. decision_ttl_days: How long outcomes find their decision.
        idempotency_seconds: How long ids are remembered.
    """

    def __init__(
        self,
        link: Link,
        journal: RedisJournal,
        catalogue_of: CatalogueOf,
        now: float,
        *,
        decision_ttl_days: float,
        idempotency_seconds: float,
    ) -> None:
        self._link, self._journal, self._catalogue_of, self._now = link, journal, catalogue_of, now
        self._decision_ttl = decision_ttl_days * SECONDS_PER_DAY
        self._seen_seconds = idempotency_seconds
        self._oldest = now - CONTACTS_DAYS * SECONDS_PER_DAY
        self._offers: dict[str, dict[str, tuple[Any, ...]]] = {}

    async def decisions(self, rows: Sequence[Row]) -> int:
        """Put back decisions with their reservations. Returns how many; one whose catalogue is gone is left out."""
        commands: list[Command] = []
        restored = 0
        for row in rows:
            offers = self._offers_of(row)
            if offers is None:
                continue
            restored += 1
            at, where = row["decision_seconds"], keys.contacts(row["customer_id"])
            propensities = tuple(row["propensities"][placed["candidate"]] for placed in row["chosen"])
            known = KnownDecision(
                row["customer_id"], customer_digest(row["customer_id"]), at, row["channel"], offers, propensities,
                self._half_life_of(row),
            )  # fmt: skip
            left = max(at + self._decision_ttl - self._now, KEPT_SECONDS)
            stored = b"\x92" + encode(row["journal_id"]) + encode(known)
            commands.append(("SET", keys.decision(row["decision_id"]), stored, "PX", round(left * 1000)))
            for offer in offers if at >= self._oldest else ():
                action, issue, group, treatment, is_marketing, placement = offer
                member = "|".join(
                    ("decision", row["decision_id"], action, issue, group, treatment, row["channel"],
                     "1" if is_marketing else "0", placement)
                )  # fmt: skip
                commands.append(("ZADD", where, "NX", repr(at), member))
            commands.append(("PEXPIRE", where, round(CONTACTS_DAYS * SECONDS_PER_DAY * 1000)))
        await self._send(commands)
        return restored

    async def outcomes(self, rows: Sequence[Row]) -> None:
        """Let outcomes move contacts and evidence as they did, and remember their ids."""
        outcomes = [
            Outcome(
                row["outcome_id"], row["decision_id"], row["action_id"], row["type"], row["value"], row["seconds"],
                row["body_digest"] or "", tuple(row["flags"]),
            )
            for row in rows
        ]  # fmt: skip
        for start in range(0, len(outcomes), PIPELINE):
            await self._journal.settle_known(outcomes[start : start + PIPELINE])
        await self._remember(
            (keys.seen(keys.partition_of_id(row["decision_id"]), "o", row["outcome_id"]), row) for row in rows
        )

    async def events(self, partition: int, rows: Sequence[Row]) -> None:
        """Put back what customers stated, the newest word on each thing, and remember the ids of events."""
        words: dict[tuple[str, str], tuple[float, bool, str]] = {}
        for row in rows:
            event = Event(
                row["event_id"], row["customer_id"], row["type"], row["seconds"], json.loads(row["properties"])
            )
            field, value = stated_by(event)
            if field:  # the newer word counts; of two of the same moment the refusal: as in event.lua
                word = (event.occurred_at, value.startswith("0"), value)
                known = words.get((event.customer_id, field))
                if known is None or word[:2] > known[:2]:
                    words[event.customer_id, field] = word
        await self._send(
            [("HSET", keys.consent(customer), field, word[2]) for (customer, field), word in words.items()]
        )
        await self._remember((keys.seen(partition, "e", row["event_id"]), row) for row in rows)

    async def switches(self, rows: Iterable[Row]) -> int:
        """Put back the pauses in force, from all that was ever switched, oldest first. Returns how many there are."""
        held: dict[str, str] = {}
        for row in rows:
            field = f"{row['scope']}|{row['scope_id']}"
            held.pop(field, None)
            if row["paused"]:
                held[field] = json.dumps({"who": row["who"], "why": row["why"], "at": row["seconds"]})
        await self._send([("HSET", keys.SWITCHES, field, value) for field, value in held.items()])
        return len(held)

    async def forget_old_contacts(self, customers: Iterable[str]) -> None:
        """Remove contacts that outcomes of old decisions brought back, as every new decision would."""
        await self._send([("ZREMRANGEBYSCORE", keys.contacts(c), "-inf", repr(self._oldest)) for c in customers])

    async def _remember(self, seen: Iterable[tuple[str, Row]]) -> None:
        commands: list[Command] = []
        for key, row in seen:
            left = row["logged_seconds"] + self._seen_seconds - self._now
            if row["body_digest"] and left > 0:
                commands.append(("SET", key, row["body_digest"], "PX", round(left * 1000), "NX"))
        await self._send(commands)

    async def _send(self, commands: Sequence[Command]) -> None:
        for start in range(0, len(commands), PIPELINE):
            some = commands[start : start + PIPELINE]
            for reply in await self._link.exchange(some, deadline_seconds=DEADLINE_SECONDS, reason=REASON):
                if isinstance(reply, hiredis.ReplyError):
                    raise StoreUnavailable(REASON, str(reply))

    def _offers_of(self, row: Row) -> tuple[Any, ...] | None:
        version = row["catalogue_version"]
        if version not in self._offers:
            catalogue = self._catalogue_of(version)
            actions = {a.id: a for a in catalogue.actions} if catalogue else {}
            self._offers[version] = {
                t.id: (a.id, a.issue, a.group, t.id, a.is_marketing)
                for t in (catalogue.treatments if catalogue else ())
                for a in (actions[t.action_id],)
            }
        known = self._offers[version]
        placed = row["chosen"]
        if any(one["treatment_id"] not in known for one in placed):
            return None
        return tuple((*known[one["treatment_id"]], one["placement"]) for one in placed)

    def _half_life_of(self, row: Row) -> float:
        catalogue = self._catalogue_of(row["catalogue_version"])
        days = catalogue.exploration.half_life_days if catalogue else 28.0
        return days * SECONDS_PER_DAY


async def mark_whole(link: Link, now: float, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Say that the store holds all that was acknowledged; without it caps fail closed. Raises StoreUnavailable."""
    await link.exchange([("SET", keys.EPOCH, repr(now), "NX")], deadline_seconds=deadline_seconds, reason=REASON)


async def begin_epoch(link: Link, lake: Path, now: float, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Mark the store of an installation that has logged nothing yet. One that has and lost it has to be rebuilt."""
    if not any(files(lake, table) for table in LOG_TABLES):
        await mark_whole(link, now, deadline_seconds)
