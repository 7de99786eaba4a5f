"""`ports.CustomerState` on Redis: gather in one pipeline, record in one atomic script. Keys: `redis_keys.py`.

Knows how decisions, contacts and switches are stored; nothing of rules, scores or HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import hiredis

from features.layout import SECONDS_PER_DAY, Layout
from service.adapters import redis_keys as keys
from service.adapters.breaker import Breaker
from service.adapters.connection import Call, Command, Link, Reply, Script
from service.adapters.journal_entries import (
    EVIDENCE_SECONDS,
    KnownDecision,
    Offered,
    SwitchEntry,
    decode_decision,
    decode_stored_decision,
    encode,
    encode_decisions,
)
from service.adapters.redis_gather import FactSource, RedisGather
from service.adapters.seal import UNKEYED, Seal
from service.adapters.state_replies import consents_as_data, contacts_as_data, switch_of, time_zone_as_data
from service.decision.record import CONTACTS_DAYS, RESERVATION_SECONDS, DecisionRow, customer_digest
from service.ports import Caps, CapTerms, FactPlan, Gathered, Offer, Recorded, StoreUnavailable
from service.together import Together

ANSWER_DAYS = 1.0
_Record = tuple[DecisionRow, Sequence[Offer], Caps, bytes | None, str]
"""Row, offers, caps, the answer to keep, the request's digest."""
MOST_TOGETHER, PASSES = 64, 2
"""Records that share a pipeline, and pipelines at once."""


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % int(seconds * 1000)


_ANSWER_MS, _CONTACTS_MS = _milliseconds(ANSWER_DAYS * SECONDS_PER_DAY), _milliseconds(CONTACTS_DAYS * SECONDS_PER_DAY)
_RESERVATION = repr(RESERVATION_SECONDS).encode()


class RedisState:
    """Facts, contacts, consent, switches and the decision log.

    Args:
        features: The server that Feast writes to. state: The server of contacts and journal; may be the same object.
        layout: Of the facts.
        decision_ttl_days: How long outcomes find their decision.
        facts: Where facts come from instead of `features`; the read plan then plays no part.
        needs_epoch: Of a store that does not say that it is whole, contacts and consents are not believed.
        seal: Under which erased customers are known.
    """

    def __init__(
        self,
        features: Link,
        state: Link,
        layout: Layout,
        *,
        decision_ttl_days: float = 45.0,
        facts: FactSource | None = None,
        seal: Seal = UNKEYED,
        needs_epoch: bool = False,
    ) -> None:
        self._seal = seal
        self._features, self._state, self._facts = features, state, facts
        self._gathering = RedisGather(features, state, layout, facts, needs_epoch=needs_epoch)
        self._decision_ttl_ms = _milliseconds(decision_ttl_days * SECONDS_PER_DAY)
        self._record, self._switch = Script.read("record"), Script.read("switch")
        self._recording: Together[float, _Record, Reply] = Together(self._record_all, MOST_TOGETHER, PASSES)

    async def gather(
        self, plan: FactPlan, customer_ids: Sequence[str], channel: str, now: float, deadline_seconds: float
    ) -> Gathered:
        """Read all that a decision needs: one pipeline, one deadline. Never raises: what is not there is degraded."""
        return await self._gathering.gather(plan, customer_ids, channel, now, deadline_seconds)

    async def record(
        self,
        row: DecisionRow,
        offers: Sequence[Offer],
        caps: Caps,
        *,
        answer: bytes | None,
        request_digest: str,
        deadline_seconds: float,
    ) -> Recorded:
        """Check all caps, reserve all offers, append the row to the journal: all or nothing, once for a decision id."""
        reply = await self._recording.ask(deadline_seconds, (row, offers, caps, answer, request_digest))
        if isinstance(reply, StoreUnavailable):
            raise reply
        match reply[0]:
            case b"recorded":
                return Recorded()
            case b"repeat":
                return Recorded(repeat=reply[1])
            case b"conflict":
                return Recorded(conflict=True)
            case _:
                denied_by = tuple(caps.terms.checks[position - 1].id for position in reply[2::2])
                return Recorded(refused=tuple(action.decode() for action in reply[1::2]), denied_by=denied_by)

    async def _record_all(self, deadline_seconds: float, asked: Sequence[_Record]) -> list[Reply]:
        """Run the scripts of all who record at once in one pipeline; what was refused is its error."""
        payloads = encode_decisions([one[0] for one in asked])
        calls = [self._record_call(one, payload) for one, payload in zip(asked, payloads, strict=True)]
        try:
            return await self._state.try_each(calls, deadline_seconds=deadline_seconds, reason="log_unavailable")
        except StoreUnavailable as error:
            return [error] * len(asked)

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
        """Return consents, time zone and contacts for `GET /v1/customers/{id}`. Raises StoreUnavailable."""
        since = repr(now - CONTACTS_DAYS * SECONDS_PER_DAY)
        stored, stated = await self._ask(
            [
                ("ZRANGEBYSCORE", keys.contacts(customer_id), since, "+inf", "WITHSCORES"),
                ("HGETALL", keys.consent(customer_id)),
            ],
            deadline_seconds,
        )
        return {
            "contacts": contacts_as_data(stored),
            "consents": consents_as_data(stated),
            "time_zone": time_zone_as_data(stated),
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

    async def switches(self, *, deadline_seconds: float = 1.0) -> list[Mapping[str, Any]]:
        """Return what is paused: scope, id, who, why, at. Raises StoreUnavailable."""
        [held] = await self._ask([("HGETALL", keys.SWITCHES)], deadline_seconds)
        paused = []
        for field, value in zip(held[::2], held[1::2], strict=True):
            scope, scope_id = switch_of(field)
            paused.append({"scope": scope, "id": scope_id, **json.loads(value)})
        return sorted(paused, key=lambda one: (one["scope"], one["id"]))

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
        return self._gathering.breakers

    async def _ask(self, commands: Sequence[Command], deadline_seconds: float) -> list[Reply]:
        replies = await self._state.exchange(
            commands, deadline_seconds=deadline_seconds, reason="state_unavailable", is_guarded=False
        )
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable("state_unavailable", str(reply))
        return replies

    def _record_call(self, asked: _Record, payload: bytes) -> Call:
        row, offers, caps, answer, digest = asked
        known = KnownDecision(
            row.customer_id,
            customer_digest(row.customer_id),
            row.decision_time,
            row.channel,
            tuple([_offered(row.channel, offer[:6]) for offer in offers]),
            tuple([offer.propensity for offer in offers]),
            offers[0].half_life_days * SECONDS_PER_DAY if offers else EVIDENCE_SECONDS,
        )
        now, horizon = _moments(row.decision_time)
        return Call(
            self._record,
            keys.of_record(row.decision_id, row.customer_id, self._seal.digest(row.customer_id)),
            (
                now,
                digest,
                answer or b"",
                encode(known),
                self._decision_ttl_ms,
                _ANSWER_MS,
                payload,
                horizon,
                _CONTACTS_MS,
                row.decision_id,
                _encoded(caps.terms),
                encode(caps.since),
                _RESERVATION,
            ),
        )


@lru_cache(maxsize=10_000)
def _offered(channel: str, offered: Offered) -> Offered:
    """Return an offer as it is stored; there are as many as catalogues have treatments and placements."""
    action_id, issue, group, treatment_id, _, placement = offered
    for text in (channel, action_id, issue, group, treatment_id, placement):
        if "|" in text:
            raise ValueError(f"{text!r} has a '|', which no id of a catalogue may have: rename it")
    return offered


@lru_cache(maxsize=64)
def _encoded(terms: CapTerms) -> bytes:
    """Return caps as the script reads them."""
    checks = [
        (c.scope, c.scope_id, c.counted, c.limit, c.channels or False, c.placements or False, c.unit)
        for c in terms.checks
    ]
    return encode((checks, terms.reservations))


@lru_cache(maxsize=16)
def _moments(now: float) -> tuple[bytes, bytes]:
    """Return a moment and how far back from it contacts are kept, to the bit."""
    return repr(now).encode(), repr(now - CONTACTS_DAYS * SECONDS_PER_DAY).encode()
