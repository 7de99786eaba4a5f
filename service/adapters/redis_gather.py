"""Gathers all that a decision needs: facts from the feature store, contacts, consents and switches from the state.

Decides what is degraded when a store does not answer; knows nothing of rules, scores or HTTP. The feature store and the
state may be two servers, or facts may come from any other source: then two requests run side by side and fail each for
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import hiredis
import numpy as np

from features.layout import SECONDS_PER_DAY, Layout
from features.matrix import mask_stale
from service.adapters import redis_keys as keys
from service.adapters.breaker import Breaker
from service.adapters.connection import Command, Link, Reply
from service.adapters.feast_reader import FactReader, FactRows
from service.adapters.state_replies import Stated, contacts_of_batch, stated, switch_of
from service.decision.model import Contacts, CustomerBatch
from service.decision.record import CONTACTS_DAYS
from service.ports import FactPlan, Gathered, StoreUnavailable


class FactSource(Protocol):
    """Where facts come from, if not from the server that Feast writes to."""

    breaker: Breaker

    async def fetch(self, customer_ids: Sequence[str], deadline_seconds: float) -> FactRows | None:
        """Return the customers' facts, or None where they did not come in time. Never raises."""

    async def close(self) -> None:
        """Let go of the store."""


class RedisGather:
    """Reads; arguments as of `RedisState`."""

    def __init__(
        self, features: Link, state: Link, layout: Layout, facts: FactSource | None, *, needs_epoch: bool
    ) -> None:
        self._features, self._state, self._layout, self._facts = features, state, layout, facts
        self._needs_epoch = needs_epoch
        self._paused: frozenset[tuple[str, str]] = frozenset()
        self._reader: tuple[FactPlan, FactReader] | None = None

    @property
    def breakers(self) -> Mapping[str, Breaker]:
        """Return the breakers of the dependencies `features` and `state`; one and the same where the server is."""
        features = self._facts.breaker if self._facts is not None else self._features.breaker
        found = {"features": features, "state": self._state.breaker}
        return {name: breaker for name, breaker in found.items() if breaker is not None}

    async def gather(
        self, plan: FactPlan, customer_ids: Sequence[str], channel: str, now: float, deadline_seconds: float
    ) -> Gathered:
        """Read all that a decision needs: one pipeline, one deadline. Never raises: what is not there is degraded."""
        state_asked = _state_commands(customer_ids, now)
        rows, state_replies = await self._ask_both(plan, customer_ids, state_asked, deadline_seconds)
        n = len(customer_ids)
        common: set[str] = set()  # reasons that hold for all
        facts, view_times, is_known, own = self._believed(rows, n, now, common)
        contacts, (consents, time_zones), is_loggable = self._decode_state(state_replies, n, channel, now, common)
        batch = CustomerBatch(
            customer_ids=tuple(customer_ids),
            facts=facts,
            view_times=view_times,
            is_known=is_known,
            consents=consents,
            contacts=contacts,
            paused=self._paused,
            is_loggable=is_loggable,
            time_zones=time_zones,
        )
        shared = tuple(sorted(common))
        return Gathered(batch, tuple(tuple(sorted({*common, *mine})) if mine else shared for mine in own))

    def _reader_of(self, plan: FactPlan) -> FactReader:
        if self._reader is None or self._reader[0] is not plan:
            self._reader = (plan, FactReader(plan, self._layout))
        return self._reader[1]

    async def _ask_both(
        self,
        plan: FactPlan,
        customer_ids: Sequence[str],
        state_asked: Sequence[Command],
        deadline_seconds: float,
    ) -> tuple[FactRows | None, list[Reply] | None]:
        """Return facts and the replies of the state; None for either that did not come."""
        if self._facts is not None:
            return await asyncio.gather(
                self._facts.fetch(customer_ids, deadline_seconds),
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
        return None if found is None else reader.rows(found), state_replies

    def _believed(
        self, rows: FactRows | None, n: int, now: float, common: set[str]
    ) -> tuple[Any, Any, Any, list[tuple[str, ...]]]:
        """Return facts, view times, who is known, and for each customer the reasons that are its own."""
        if rows is None:
            common.add("features_unavailable")
            rows = FactRows.empty(self._layout, n)
        facts, view_times = np.ascontiguousarray(rows.facts.T), np.ascontiguousarray(rows.view_times.T)
        is_stale = mask_stale(self._layout, facts, view_times, now)
        own: list[tuple[str, ...]] = [()] * n
        if np.count_nonzero(rows.is_partial) or np.count_nonzero(is_stale):
            told = {"features_partial": rows.is_partial.tolist(), "features_stale": is_stale.any(axis=0).tolist()}
            own = [tuple(reason for reason, is_so in told.items() if is_so[i]) for i in range(n)]
        return facts, view_times, rows.is_known, own

    def _decode_state(
        self, replies: list[Reply] | None, n: int, channel: str, now: float, common: set[str]
    ) -> tuple[Contacts, Stated, bool]:
        if replies is None:
            common.update(("state_unavailable", "log_unavailable"))
            return Contacts.none(), (({},) * n, ("",) * n), False
        *_, switches, epoch = replies
        if switches or self._paused:
            self._paused = frozenset(switch_of(field) for field in switches[::2])
        if epoch is None and self._needs_epoch:  # it was emptied: what was shown and agreed to is not known
            common.add("state_rebuilding")
            return Contacts.none(), (({},) * n, ("",) * n), False
        return contacts_of_batch(replies[:n]), stated(replies[n : 2 * n], channel, now), True


def _state_commands(customer_ids: Sequence[str], now: float) -> list[Command]:
    since = repr(now - CONTACTS_DAYS * SECONDS_PER_DAY)
    return [
        *(("ZRANGEBYSCORE", keys.contacts(c), since, "+inf", "WITHSCORES") for c in customer_ids),
        *(("HGETALL", keys.consent(c)) for c in customer_ids),
        ("HGETALL", keys.SWITCHES),
        ("GET", keys.EPOCH),
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
