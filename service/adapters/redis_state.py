"""`ports.CustomerState` on Redis: gather in one pipeline, record in one atomic script. Keys: `redis_keys.py`.

Decides what is degraded when a store does not answer; knows nothing of rules, scores or HTTP. The feature store and the
state may be two servers: then two pipelines run side by side and fail each for itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import hiredis
import numpy as np

from features.layout import SECONDS_PER_DAY, Layout
from features.matrix import mask_stale
from service.adapters import redis_keys as keys
from service.adapters.breaker import Breaker
from service.adapters.connection import Call, Command, Link, Reply, Script
from service.adapters.feast_reader import FactReader, FactRows
from service.adapters.journal_entries import KnownDecision, SwitchEntry, decode_decision, decode_stored_decision, encode
from service.adapters.state_replies import (
    UNKNOWN,
    consent_as_data,
    consent_code,
    contacts_as_data,
    contacts_of_batch,
    switch_of,
)
from service.decision.model import Contacts, CustomerBatch
from service.decision.record import CONTACTS_DAYS, RESERVATION_SECONDS, DecisionRow, customer_digest
from service.ports import CapCheck, FactPlan, Gathered, Offer, Recorded, StoreUnavailable

ANSWER_DAYS = 1.0


class FactSource(Protocol):
    """Where facts come from, if not from the server that Feast writes to."""

    breaker: Breaker

    async def fetch(self, customer_ids: Sequence[str], now: float, deadline_seconds: float) -> FactRows | None:
        """Return the customers' facts, or None where they did not come in time. Never raises."""

    async def close(self) -> None:
        """Let go of the store."""


class RedisState:
    """Facts, contacts, consent, switches and the decision log.

    Args:
        features: The server that Feast writes to. state: The server of contacts and journal; may be the same object.
        layout: Of the facts.
        decision_ttl_days: How long outcomes find their decision.
        facts: Where facts come from instead of `features`; the read plan then plays no part.
    """

    def __init__(
        self,
        features: Link,
        state: Link,
        layout: Layout,
        *,
        decision_ttl_days: float = 45.0,
        facts: FactSource | None = None,
    ) -> None:
        self._features, self._state, self._layout, self._facts = features, state, layout, facts
        self._decision_ttl_ms = int(decision_ttl_days * SECONDS_PER_DAY * 1000)
        self._record, self._switch = Script.read("record"), Script.read("switch")
        self._paused: frozenset[tuple[str, str]] = frozenset()
        self._reader: tuple[FactPlan, FactReader] | None = None

    async def gather(
        self, plan: FactPlan, customer_ids: Sequence[str], channel: str, now: float, deadline_seconds: float
    ) -> Gathered:
        """Read all that a decision needs: one pipeline, one deadline. Never raises: what is not there is degraded."""
        state_asked = _state_commands(customer_ids, channel, now)
        rows, state_replies = await self._ask_both(plan, customer_ids, state_asked, now, deadline_seconds)
        n = len(customer_ids)
        reasons: set[str] = set()
        facts, view_times, is_known = self._believed(rows, n, now, reasons)
        contacts, consents, is_loggable = self._decode_state(state_replies, n, channel, now, reasons)
        batch = CustomerBatch(
            customer_ids=tuple(customer_ids),
            facts=facts,
            view_times=view_times,
            is_known=is_known,
            consents=consents,
            contacts=contacts,
            paused=self._paused,
            is_loggable=is_loggable,
        )
        return Gathered(batch, tuple(sorted(reasons)))

    async def record(
        self,
        row: DecisionRow,
        offers: Sequence[Offer],
        caps: Sequence[CapCheck],
        *,
        answer: bytes | None,
        request_digest: str,
        deadline_seconds: float,
    ) -> Recorded:
        """Check all caps, reserve all offers, append the row to the journal: all or nothing, once for a decision id."""
        call = self._record_call(row, offers, caps, answer, request_digest)
        [reply] = await self._state.run([call], deadline_seconds=deadline_seconds, reason="log_unavailable")
        match reply[0]:
            case b"recorded":
                return Recorded()
            case b"repeat":
                return Recorded(repeat=reply[1])
            case b"conflict":
                return Recorded(conflict=True)
            case _:
                return Recorded(refused=tuple(action.decode() for action in reply[1:]))

    async def find_answer(self, decision_id: str, *, deadline_seconds: float = 1.0) -> tuple[str, bytes] | None:
        """Return (request digest, answer) kept for a decision made under an Idempotency-Key."""
        [kept] = await self._ask([("GET", keys.answer(decision_id))], deadline_seconds)
        if kept is None:
            return None
        digest, _, answer = kept.partition(b"\n")
        return digest.decode(), answer

    async def find_decision(
        self, decision_id: str, *, deadline_seconds: float = 1.0
    ) -> tuple[str, KnownDecision, DecisionRow | None] | None:
        """Return (journal id, what outcomes know of it, its log row while it is still in the journal), or None."""
        [stored] = await self._ask([("GET", keys.decision(decision_id))], deadline_seconds)
        if stored is None:
            return None
        entry_id, decision = decode_stored_decision(stored)
        journal = keys.of_partition(keys.partition_of_id(decision_id), "journal")
        [entries] = await self._ask([("XRANGE", journal, entry_id, entry_id)], deadline_seconds)
        return entry_id, decision, decode_decision(entries[0][1][3]) if entries else None

    async def contacts_of(self, customer_id: str, now: float, *, deadline_seconds: float = 1.0) -> Mapping[str, Any]:
        """Return consents and contacts for `GET /v1/customers/{id}`. Raises StoreUnavailable."""
        since = repr(now - CONTACTS_DAYS * SECONDS_PER_DAY)
        stored, consents = await self._ask(
            [
                ("ZRANGEBYSCORE", keys.contacts(customer_id), since, "+inf", "WITHSCORES"),
                ("HGETALL", keys.consent(customer_id)),
            ],
            deadline_seconds,
        )
        return {
            "contacts": contacts_as_data(stored),
            "consents": [
                consent_as_data(field.decode(), value.decode())
                for field, value in zip(consents[::2], consents[1::2], strict=True)
            ],
        }

    async def set_switch(
        self, scope: str, scope_id: str, *, paused: bool, who: str, why: str, now: float, deadline_seconds: float = 1.0
    ) -> None:
        """Pause or resume; the next decision of every process obeys. Raises StoreUnavailable."""
        held = json.dumps({"who": who, "why": why, "at": now}) if paused else ""
        entry = encode(SwitchEntry(scope, scope_id, paused, who, why, now))
        call = Call(
            self._switch, [keys.SWITCHES, keys.of_partition(0, "journal")], [f"{scope}|{scope_id}", held, entry]
        )
        await self._state.run([call], deadline_seconds=deadline_seconds, reason="state_unavailable", is_guarded=False)

    async def ping(self, *, deadline_seconds: float = 0.25) -> bool:
        """Say whether both servers answer."""
        try:
            for link in {self._features, self._state}:
                pong = await link.exchange([("PING",)], deadline_seconds=deadline_seconds, reason="", is_guarded=False)
                if pong != [b"PONG"]:
                    return False
        except StoreUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        if self._facts is not None:
            await self._facts.close()
        await self._features.close()
        await self._state.close()

    @property
    def breakers(self) -> Mapping[str, Breaker]:
        """Return the breakers of the dependencies `features` and `state`; one and the same where the server is."""
        features = self._facts.breaker if self._facts is not None else self._features.breaker
        found = {"features": features, "state": self._state.breaker}
        return {name: breaker for name, breaker in found.items() if breaker is not None}

    def _reader_of(self, plan: FactPlan) -> FactReader:
        if self._reader is None or self._reader[0] is not plan:
            self._reader = (plan, FactReader(plan, self._layout))
        return self._reader[1]

    async def _ask_both(
        self,
        plan: FactPlan,
        customer_ids: Sequence[str],
        state_asked: Sequence[Command],
        now: float,
        deadline_seconds: float,
    ) -> tuple[FactRows | None, list[Reply] | None]:
        """Return facts and the replies of the state; None for either that did not come."""
        if self._facts is not None:
            return await asyncio.gather(
                self._facts.fetch(customer_ids, now, deadline_seconds),
                _replies(self._state, state_asked, deadline_seconds),
            )
        reader = self._reader_of(plan)
        facts_asked: list[Command] = [("HGETALL", reader.key(c)) for c in customer_ids]
        if self._features is self._state:
            n, both = len(facts_asked), await _all_replies(self._state, [*facts_asked, *state_asked], deadline_seconds)
            found, state_replies = _whole(both[:n]), _whole(both[n:])
        else:
            found, state_replies = await asyncio.gather(
                _replies(self._features, facts_asked, deadline_seconds),
                _replies(self._state, state_asked, deadline_seconds),
            )
        return None if found is None else reader.rows(found, now), state_replies

    def _believed(self, rows: FactRows | None, n: int, now: float, reasons: set[str]) -> tuple[Any, Any, Any]:
        if rows is None:
            reasons.add("features_unavailable")
            rows = FactRows.empty(self._layout, n)
        if rows.is_partial:
            reasons.add("features_partial")
        facts, view_times = np.ascontiguousarray(rows.facts.T), np.ascontiguousarray(rows.view_times.T)
        if mask_stale(self._layout, facts, view_times, now).any():
            reasons.add("features_stale")
        return facts, view_times, rows.is_known

    def _decode_state(
        self, replies: list[Reply] | None, n: int, channel: str, now: float, reasons: set[str]
    ) -> tuple[Contacts, Any, bool]:
        consents = np.full(n, UNKNOWN, dtype=np.int8)
        if replies is None:
            reasons.update(("state_unavailable", "log_unavailable"))
            return contacts_of_batch([], now), consents, False
        for i in range(n):
            [consent] = replies[n + i]
            if consent is not None:
                consents[i] = consent_code(consent.decode(), now)
        switches = replies[-1]
        if switches or self._paused:
            self._paused = frozenset(switch_of(field) for field in switches[::2])
        return contacts_of_batch(replies[:n], now), consents, True

    async def _ask(self, commands: Sequence[Command], deadline_seconds: float) -> list[Reply]:
        replies = await self._state.exchange(
            commands, deadline_seconds=deadline_seconds, reason="state_unavailable", is_guarded=False
        )
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable("state_unavailable", str(reply))
        return replies

    def _record_call(
        self, row: DecisionRow, offers: Sequence[Offer], caps: Sequence[CapCheck], answer: bytes | None, digest: str
    ) -> Call:
        offered = [(o.action_id, o.issue, o.group, o.treatment_id, o.is_marketing) for o in offers]
        for text in (row.channel, *(t for o in offered for t in o[:4])):
            if "|" in text:
                raise ValueError(f"{text!r} has a '|', which no id of a catalogue may have: rename it")
        known = KnownDecision(
            row.customer_id, customer_digest(row.customer_id), row.decision_time, row.channel, tuple(offered)
        )
        journal = keys.of_partition(keys.partition_of_id(row.decision_id), "journal")
        return Call(
            self._record,
            [keys.contacts(row.customer_id), keys.decision(row.decision_id), keys.answer(row.decision_id), journal],
            [
                repr(row.decision_time),
                digest,
                answer or b"",
                encode(known),
                self._decision_ttl_ms,
                int(ANSWER_DAYS * SECONDS_PER_DAY * 1000),
                encode(row),
                RESERVATION_SECONDS,
                repr(row.decision_time - CONTACTS_DAYS * SECONDS_PER_DAY),
                int(CONTACTS_DAYS * SECONDS_PER_DAY * 1000),
                row.decision_id,
                row.channel,
                encode(offered),
                encode([(c.scope, c.scope_id, c.counted, c.limit, c.since, c.channels) for c in caps]),
            ],
        )


def _state_commands(customer_ids: Sequence[str], channel: str, now: float) -> list[Command]:
    since = repr(now - CONTACTS_DAYS * SECONDS_PER_DAY)
    purpose = f"{channel}|{keys.MARKETING}"
    return [
        *(("ZRANGEBYSCORE", keys.contacts(c), since, "+inf", "WITHSCORES") for c in customer_ids),
        *(("HMGET", keys.consent(c), purpose) for c in customer_ids),
        ("HGETALL", keys.SWITCHES),
    ]


async def _replies(link: Link, commands: Sequence[Command], deadline_seconds: float) -> list[Reply] | None:
    """Return the replies, or None where the server did not answer or refused any of it."""
    return _whole(await _all_replies(link, commands, deadline_seconds))


async def _all_replies(link: Link, commands: Sequence[Command], deadline_seconds: float) -> list[Reply]:
    """Return the replies; of a server that did not answer, refusals."""
    try:
        return await link.exchange(commands, deadline_seconds=deadline_seconds, reason="")
    except StoreUnavailable as error:
        return [hiredis.ReplyError(str(error))] * len(commands)


def _whole(replies: list[Reply]) -> list[Reply] | None:
    return None if any(isinstance(reply, hiredis.ReplyError) for reply in replies) else replies
