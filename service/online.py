"""One decision: gather (one deadline) -> decide -> record. Owns degradation.

What is not there makes the answer smaller, not late.

Knows the ports and the pure core; knows no store, wire format or framework.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from service.decision import record as log
from service.decision.engine import CompiledCatalogue, decide, select_again
from service.decision.model import Choice, Contacts, CustomerBatch, Decisions, Floats, Request, Scorer
from service.decision.selection import slots_of
from service.ports import Bundle, CapCheck, Clock, CustomerState, Gathered, Offer, Recorded, StoreUnavailable

MAX_RESELECTIONS = 2
Tell = Callable[[Sequence[str]], None]
"""Takes the degraded reasons that a step met."""
_UNSEEN: AbstractContextManager[Tell] = nullcontext(lambda reasons: None)


def unseen(step: str) -> AbstractContextManager[Tell]:
    """Stand around a step and look away."""
    return _UNSEEN


class NothingLoaded(Exception):
    """No catalogue and bundle were ever loaded, so there is nothing to decide with."""


class UnknownCustomer(Exception):
    """The caller asked for a known customer and the store has no fact of this one."""


class IdempotencyConflict(Exception):
    """The same Idempotency-Key was used for another request."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process decides with: swapped as one reference, so that an answer comes from exactly one version."""

    catalogue: CompiledCatalogue
    bundle: Bundle
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, as the API understood it."""

    customer_id: str
    request: Request
    digest: str = ""
    idempotency_key: str | None = None
    dry_run: bool = False
    require_known: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with all that the answer is written from."""

    decision_id: str
    customer_id: str
    serving: Serving
    batch: CustomerBatch
    decisions: Decisions
    degraded_reasons: tuple[str, ...]
    reselected: bool = False


@dataclass(frozen=True, slots=True)
class Repeat:
    """The answer that was given before under the same Idempotency-Key."""

    answer: bytes


@dataclass
class Online:
    """Answers single questions.

    Attributes:
        serving: Returns what to decide with now, or None before anything was loaded.
        step: Stands around each of the steps gather, decide and record, to time or trace it.
    """

    state: CustomerState
    clock: Clock
    serving: Callable[[], Serving | None]
    gather_deadline_seconds: float
    record_deadline_seconds: float
    new_token: Callable[[], bytes] = field(default=lambda: secrets.token_bytes(16))
    step: Callable[[str], AbstractContextManager[Tell]] = unseen

    async def decide(self, ask: Ask, write_answer: Callable[[Decided], bytes]) -> tuple[Decided | Repeat, bytes]:
        """Decide for one customer, record it unless it is a dry run, and return it with its answer.

        Args:
            write_answer: Turns a decision into the bytes of its answer; they are kept for repeats.

        Raises:
            NothingLoaded, UnknownCustomer, IdempotencyConflict.
        """
        serving = self.serving()
        if serving is None:
            raise NothingLoaded
        now = self.clock.now()
        token = log.derived_token(ask.idempotency_key, ask.customer_id) if ask.idempotency_key else self.new_token()
        decision_id = log.decision_id_from(token, ask.customer_id)
        with self.step("gather") as tell:
            gathered = await self.state.gather(
                serving.bundle.plan, (ask.customer_id,), ask.request.channel, now, self.gather_deadline_seconds
            )
            tell(gathered.degraded_reasons)
        batch = gathered.batch
        if ask.require_known and not batch.is_known[0] and "features_unavailable" not in gathered.degraded_reasons:
            raise UnknownCustomer
        reasons = degraded(gathered.degraded_reasons, batch)
        with self.step("decide") as tell:
            decided = decide_one(serving, batch, ask.request, now, decision_id, reasons)
            tell(reasons)
        if ask.dry_run:
            return decided, write_answer(decided)
        return await self._record(ask, decided, write_answer)

    async def _record(
        self, ask: Ask, decided: Decided, write_answer: Callable[[Decided], bytes]
    ) -> tuple[Decided | Repeat, bytes]:
        for attempt in range(MAX_RESELECTIONS + 2):
            answer = write_answer(decided)
            if not decided.batch.is_loggable:
                return decided, answer
            recorded = await self._try_to_record(ask, decided, answer)
            if isinstance(recorded, StoreUnavailable):
                decided = without_log(decided, ask.request, recorded.reason)
                continue
            if recorded.conflict:
                raise IdempotencyConflict
            if recorded.repeat is not None:
                return Repeat(recorded.repeat), recorded.repeat
            if not recorded.refused:
                return decided, answer
            refused = recorded.refused if attempt < MAX_RESELECTIONS else tuple(o.action_id for o in offers_of(decided))
            decided = reselect(decided, refused)
        return decided, write_answer(decided)

    async def _try_to_record(self, ask: Ask, decided: Decided, answer: bytes) -> Recorded | StoreUnavailable:
        kept = answer if ask.idempotency_key else None
        with self.step("record") as tell:
            try:
                return await record_one(self.state, decided, ask, kept, self.record_deadline_seconds)
            except StoreUnavailable as error:
                tell((error.reason,))
                return error


def degraded(reasons: Sequence[str], batch: CustomerBatch) -> tuple[str, ...]:
    """Return the sorted reasons, with `cold_start` where the only customer is unknown to a store that answered."""
    found = set(reasons)
    if not batch.is_known.all() and "features_unavailable" not in found:
        found.add("cold_start")
    return tuple(sorted(found))


def decide_one(
    serving: Serving, batch: CustomerBatch, request: Request, now: float, decision_id: str, reasons: tuple[str, ...]
) -> Decided:
    """Run the pure core over a batch of one."""
    keys = np.array([log.random_key(decision_id, batch.customer_ids[0])], dtype=np.uint64)
    decisions = decide(batch, request, serving.catalogue, serving.scorer, now, keys)
    return Decided(decision_id, batch.customer_ids[0], serving, batch, decisions, reasons)


def without_log(decided: Decided, request: Request, reason: str) -> Decided:
    """Decide again for a decision that cannot be logged: only actions marked `may_be_unlogged` remain."""
    batch = replace(decided.batch, is_loggable=False)
    reasons = tuple(sorted({*decided.degraded_reasons, reason}))
    return decide_one(decided.serving, batch, request, decided.decisions.now, decided.decision_id, reasons)


def take_customer(
    decision_id: str, serving: Serving, gathered: Gathered, decisions: Decisions, customer: int
) -> Decided:
    """Return one customer of a batch as a batch of one, so that what follows is the same for one and for many."""
    batch = gathered.batch
    one = slice(customer, customer + 1)
    mine = batch.contacts.customers == customer
    where = np.flatnonzero(mine)
    contacts = Contacts(
        np.zeros(len(where), dtype=np.int64),
        batch.contacts.times[where],
        tuple(batch.contacts.kinds[j] for j in where),
        tuple(batch.contacts.action_ids[j] for j in where),
        tuple(batch.contacts.channels[j] for j in where),
    )
    single = replace(
        batch,
        customer_ids=batch.customer_ids[one],
        facts=np.ascontiguousarray(batch.facts[:, one]),
        view_times=np.ascontiguousarray(batch.view_times[:, one]),
        is_known=batch.is_known[one],
        consents=batch.consents[one],
        contacts=contacts,
    )
    alone = replace(
        decisions,
        stages=decisions.stages[one],
        reasons=decisions.reasons[one],
        propensities=decisions.propensities[one],
        priorities=decisions.priorities[one],
        chosen=decisions.chosen[one],
        withheld=decisions.withheld[one],
        arms=decisions.arms[one],
        arm_probabilities=decisions.arm_probabilities[one],
        as_of=np.ascontiguousarray(decisions.as_of[:, one]),
        extras=np.ascontiguousarray(decisions.extras[:, one]),
        room=decisions.room[one],
        distributions=np.ascontiguousarray(decisions.distributions[:, one]),
    )
    reasons = degraded(gathered.degraded_reasons, single)
    return Decided(decision_id, single.customer_ids[0], serving, single, alone, reasons)


def reselect(decided: Decided, refused: Sequence[str]) -> Decided:
    """Select again without the refused actions."""
    keys = np.array([log.random_key(decided.decision_id, decided.customer_id)], dtype=np.uint64)
    catalogue = decided.serving.catalogue
    positions = [catalogue.catalogue.index[action] for action in refused]
    decisions = select_again(decided.decisions, catalogue, 0, positions, keys)
    return replace(decided, decisions=decisions, reselected=True)


def offers_of(decided: Decided, customer: int = 0) -> Iterator[Offer]:
    """Yield the offers shown to a customer of the decision's batch."""
    catalogue = decided.serving.catalogue.catalogue
    for choice in decided.decisions.chosen[customer]:
        action = catalogue.actions[decided.decisions.actions[choice.candidate]]
        treatment = catalogue.treatments[decided.decisions.candidates[choice.candidate]]
        yield Offer(action.id, action.issue, action.group, treatment.id, action.is_marketing)


def cap_checks(catalogue: CompiledCatalogue, channel: str, now: float) -> tuple[CapCheck, ...]:
    """Return the catalogue's caps on a channel with their windows resolved to a moment."""
    return tuple(
        CapCheck(cap.id, cap.scope, cap.scope_id, cap.counted, cap.limit, now - cap.window_seconds, cap.channels)
        for cap in catalogue.catalogue.caps
        if not cap.channels or channel in cap.channels
    )


async def record_one(
    state: CustomerState, decided: Decided, ask: Ask, answer: bytes | None, deadline_seconds: float
) -> Recorded:
    """Reserve the offers and append the log row, atomically."""
    decisions = decided.decisions
    return await state.record(
        row_of(decided),
        tuple(offers_of(decided)),
        cap_checks(decided.serving.catalogue, decisions.request.channel, decisions.now),
        answer=answer,
        request_digest=ask.digest,
        deadline_seconds=deadline_seconds,
    )


def row_of(decided: Decided, customer: int = 0) -> log.DecisionRow:
    """Return the decision log's row of one customer of the batch."""
    decisions, serving, batch = decided.decisions, decided.serving, decided.batch
    catalogue, request = serving.catalogue.catalogue, decisions.request
    plan = serving.catalogue.plans[request.channel]
    arm, probability = decisions.arms[customer], float(decisions.arm_probabilities[customer])
    return log.DecisionRow(
        decision_id=decided.decision_id,
        customer_id=decided.customer_id,
        decision_time=decisions.now,
        channel=request.channel,
        placements=request.placements,
        context=tuple(request.context.items()),
        issues=request.issues,
        limit=request.limit,
        locale=request.locale,
        arm=arm,
        arm_probability=probability,
        layers=((catalogue.experiment.id, arm, probability),),
        catalogue_version=catalogue.version,
        model_version=serving.scorer.version,
        features_version=serving.bundle.features_version,
        bundle_digest=serving.bundle.digest,
        treatment_ids=plan.treatment_ids,
        stages=decisions.stages[customer].tobytes(),
        reasons=decisions.reasons[customer].tobytes(),
        propensities=decisions.propensities[customer].tobytes(),
        priorities=decisions.priorities[customer].tobytes(),
        evidence=b"",
        uplifts=b"",
        facts=batch.facts[:, customer].tobytes(),
        view_times=batch.view_times[:, customer].tobytes(),
        consents=(("marketing", int(batch.consents[customer])),) if batch.consents[customer] >= 0 else (),
        time_zone="",
        paused=tuple(sorted(batch.paused)),
        room=np.clip(decisions.room[customer], log.LEAST_ROOM, log.MOST_ROOM).astype("<i2").tobytes(),
        is_known=bool(batch.is_known[customer]),
        is_loggable=batch.is_loggable,
        chosen=_placed(decisions.chosen[customer]),
        withheld=_placed(decisions.withheld[customer]),
        distributions=tuple(
            _sparse(placement, decisions.distributions[k, customer])
            for k, placement in enumerate(slots_of(plan, request))
        ),
        degraded_reasons=decided.degraded_reasons,
        reselected=decided.reselected,
        dry_run=False,
    )


def _placed(choices: tuple[Choice, ...]) -> tuple[log.Placed, ...]:
    return tuple([(c.candidate, c.placement, c.selection_probability) for c in choices])


def _sparse(placement: str, probabilities: Floats) -> tuple[str, bytes, bytes]:
    """Return a slot's distribution without its zeros."""
    possible = probabilities.nonzero()[0]
    return placement, possible.astype("<i2").tobytes(), probabilities[possible].tobytes()
