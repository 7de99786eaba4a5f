"""`ports.Journal` on Redis streams: outcomes and events, each through one atomic script. Keys: `redis_keys.py`.

What is acknowledged is in the stream; when the store does not answer in time nothing is acknowledged, and sending the
same again is harmless. An id is known within a partition: an outcome's is its decision's, an event's its customer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import hiredis

from service.adapters import redis_keys as keys
from service.adapters.breaker import Breaker
from service.adapters.connection import Call, Command, Link, Reply, Script
from service.adapters.journal_entries import as_text, decode_parked, encode
from service.adapters.seal import UNKEYED, Seal
from service.decision.record import CONTACTS_DAYS, PARTITIONS, partition_of, tag
from service.ports import Backlog, Event, Outcome, Receipt, StoreUnavailable
from service.together import Together

CONSENT_EVENT, TIME_ZONE_EVENT = "consent_changed", "time_zone_changed"
REASON = "log_unavailable"
PARKED_DAYS = 1.0
"""How long an outcome waits for its decision in the state; it stays in the lake, where reports find the decision."""
MOST_TOGETHER, PASSES = 64, 64
"""Single items of one turn of the event loop share a round trip; none waits for another's."""
_CONTACTS_MS, _PARKED_MS = int(CONTACTS_DAYS * 86_400_000), int(PARKED_DAYS * 86_400_000)


class RedisJournal:
    """Appends to the partitioned journal.

    Args:
        url: The state store. deadline_seconds: For one call, however many items it carries.
        idempotency_seconds: How long the id of an outcome or event is remembered.
        breaker: Says when the store is not to be asked. seal: Under which erased customers are known.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_seconds: float,
        idempotency_seconds: float,
        breaker: Breaker | None = None,
        seal: Seal = UNKEYED,
    ) -> None:
        self._seal = seal
        self._link = Link(url, breaker=breaker)
        self._deadline_seconds = deadline_seconds
        self._seen_ms = int(idempotency_seconds * 1000)
        self._outcome, self._event = Script.read("outcome"), Script.read("event")
        self._together: Together[None, Call, Reply] = Together(self._try_each, MOST_TOGETHER, PASSES)

    async def append_outcomes(self, outcomes: Sequence[Outcome], now: float) -> list[Receipt]:
        """Deduplicate, append, and move contacts and evidence: one atomic script each. Raises StoreUnavailable."""
        statuses = await self._append([self._outcome_call(outcome) for outcome in outcomes])
        return [Receipt(o.outcome_id, status) for o, status in zip(outcomes, statuses, strict=True)]

    async def append_events(self, events: Sequence[Event], now: float) -> list[Receipt]:
        """Deduplicate, append, and apply consent: one atomic script each. Raises StoreUnavailable."""
        statuses = await self._append([self._event_call(event) for event in events])
        return [Receipt(e.event_id, status) for e, status in zip(events, statuses, strict=True)]

    async def backlog(self) -> Backlog:
        """Count what the worker has not yet brought into the lake. Raises StoreUnavailable."""
        names = [keys.of_partition(partition, "journal") for partition in range(PARTITIONS)]
        found = await self._ask(
            [*(("XLEN", name) for name in names), *(("MEMORY", "USAGE", name, "SAMPLES", 1) for name in names)]
        )
        return Backlog(sum(found[:PARTITIONS]), sum(size or 0 for size in found[PARTITIONS:]))

    async def settle(self, decision_ids: Sequence[str]) -> int:
        """Let outcomes that came before these decisions move contacts and evidence. Returns how many there were.

        Doing it again changes nothing. Raises StoreUnavailable.
        """
        names = [keys.parked(decision_id) for decision_id in decision_ids]
        found = await self._ask([("LRANGE", name, 0, -1) for name in names])
        waiting = [(name, blobs) for name, blobs in zip(names, found, strict=True) if blobs]
        outcomes = [decode_parked(blob) for _, blobs in waiting for blob in blobs]
        await self.settle_known(outcomes)
        await self._ask([("DEL", name) for name, _ in waiting])
        return len(outcomes)

    async def settle_known(self, outcomes: Sequence[Outcome]) -> None:
        """Let outcomes that are in the journal or the lake move contacts and evidence, where they have not yet."""
        await self._run([self._outcome_call(outcome, "settle") for outcome in outcomes])

    def move(self, url: str) -> None:
        """Append at another address from now on."""
        self._link.move(url)

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()

    async def _ask(self, commands: Sequence[Command]) -> list[Reply]:
        if not commands:
            return []
        replies = await self._link.exchange(commands, deadline_seconds=self._deadline_seconds, reason=REASON)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable(REASON, str(reply))
        return replies

    async def _append(self, calls: Sequence[Call]) -> list[str]:
        """Run the calls of one request: a list by itself, a single one with those of the same turn of the loop."""
        if len(calls) != 1:
            return await self._run(calls)
        reply = await self._together.ask(None, calls[0])
        if isinstance(reply, StoreUnavailable):
            raise StoreUnavailable(REASON, str(reply))
        return [as_text(reply)]

    async def _try_each(self, key: None, calls: Sequence[Call]) -> list[Reply]:
        """Return each call's reply, or why there is none: what the store refuses of one is no other's failure."""
        try:
            return await self._link.try_each(calls, deadline_seconds=self._deadline_seconds, reason=REASON)
        except StoreUnavailable as error:
            return [error] * len(calls)

    async def _run(self, calls: Sequence[Call]) -> list[str]:
        if not calls:
            return []
        replies = await self._link.run(calls, deadline_seconds=self._deadline_seconds, reason=REASON)
        return [as_text(reply) for reply in replies]

    def _outcome_call(self, outcome: Outcome, mode: str = "take") -> Call:
        partition = keys.partition_of_id(outcome.decision_id)
        return Call(
            self._outcome,
            [
                keys.decision(outcome.decision_id),
                keys.seen(partition, "o", outcome.outcome_id),
                keys.of_partition(partition, "journal"),
                keys.of_partition(partition, "evidence"),
                keys.parked(outcome.decision_id),
            ],
            [
                outcome.body_digest or _digest(encode(outcome)),
                self._seen_ms,
                encode(outcome),
                outcome.decision_id,
                outcome.action_id,
                outcome.type,
                repr(outcome.occurred_at),
                f"nba:{tag(partition)}:contacts:",
                _CONTACTS_MS,
                mode,
                _PARKED_MS,
            ],
        )

    def _event_call(self, event: Event) -> Call:
        partition = partition_of(event.customer_id)
        field, value = stated_by(event)
        return Call(
            self._event,
            [
                keys.seen(partition, "e", event.event_id),
                keys.of_partition(partition, "journal"),
                keys.consent(event.customer_id),
                keys.erased(partition, self._seal.digest(event.customer_id)),
            ],
            [
                event.body_digest or _digest(encode(event)),
                self._seen_ms,
                encode(event),
                field,
                value,
                repr(event.occurred_at),
            ],
        )


def stated_by(event: Event) -> tuple[str, str]:
    """Return the field and value of what a customer says about itself by an event; "" for other events."""
    said = event.properties
    if event.type == TIME_ZONE_EVENT:
        return keys.TIME_ZONE.decode(), f"{said['time_zone']}|{said.get('source') or ''}|{event.occurred_at!r}"
    if event.type != CONSENT_EVENT:
        return "", ""
    expiry = "" if said.get("expiry") is None else repr(float(said["expiry"]))
    value = f"{int(bool(said['granted']))}|{expiry}|{said.get('source') or ''}|{event.occurred_at!r}"
    return f"{said['channel']}|{said['purpose']}", value


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()
