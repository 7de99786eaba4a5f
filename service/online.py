"""One decision: gather (one deadline) -> decide -> record. Owns degradation.

What is not there makes the answer smaller, not late.

Knows the ports and the pure core; knows no store, wire format or framework.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from service.catalogue.time_zones import local_times
from service.decision import record as log
from service.decision.contact_counts import Windows
from service.decision.contact_scope import Policy, binds
from service.decision.engine import CompiledCatalogue, decide, select_again
from service.decision.experiment import CHALLENGER
from service.decision.log_row import LogRows
from service.decision.model import CustomerBatch, Decisions, Evidence, LocalTimes, Request, Scorer
from service.ports import (
    Bundle,
    CapCheck,
    Caps,
    CapTerms,
    Clock,
    CustomerState,
    EvidenceSource,
    Gathered,
    Offer,
    Recorded,
    StoreUnavailable,
)
from service.together import Together

MAX_RESELECTIONS = 2
MOST_TOGETHER, PASSES = 32, 1
"""Decisions that share a pass of gather and core, and passes at once: the core keeps a process busy, and who comes
meanwhile goes in the next pass."""
Tell = Callable[[Sequence[str]], None]
"""Takes the degraded reasons that a step met."""
_UNSEEN: AbstractContextManager[Tell] = nullcontext(lambda reasons: None)
Watch = Callable[["Decided"], None]
"""Takes a decision that was logged, at once."""


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
class Model:
    """A model version as it serves: its bundle, and its scorer for one catalogue."""

    bundle: Bundle
    scorer: Scorer

    @classmethod
    def of(cls, bundle: Bundle, catalogue: CompiledCatalogue) -> Model:
        """Bind a bundle to a catalogue."""
        return cls(bundle, bundle.scorer_for(catalogue))


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process decides with: swapped as one reference, so that an answer comes from exactly one of each.

    Attributes:
        bundle, scorer: Of the champion.
        challenger: Scores the customers of its arm; None: they are the champion's.
    """

    catalogue: CompiledCatalogue
    bundle: Bundle
    scorer: Scorer
    challenger: Model | None = None
    champion: Model = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "champion", Model(self.bundle, self.scorer))


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, as the API understood it."""

    customer_id: str
    request: Request
    digest: str = ""
    idempotency_key: str | None = None
    dry_run: bool = False
    require_known: bool = False


@dataclass(frozen=True, eq=False)
class Pass:
    """Customers who were decided together, and what is worked out once for all of them when the first needs it."""

    serving: Serving
    batch: CustomerBatch
    decisions: Decisions

    @cached_property
    def rows(self) -> LogRows:
        """The log's rows of the customers."""
        return LogRows(self.batch, self.decisions, self.serving.catalogue)

    @cached_property
    def caps(self) -> list[Caps]:
        """The caps on the channel for each customer, their windows resolved to moments by its calendar."""
        catalogue, decisions = self.serving.catalogue, self.decisions
        terms, windows = _cap_terms(catalogue, decisions.request.channel)
        local = self.batch.local or LocalTimes.utc(decisions.now, len(self.batch.customer_ids))
        return [Caps(terms, since) for since in windows.since(decisions.now, local).tolist()]

    @cached_property
    def used_up(self) -> list[list[Policy]]:
        """The contact policies that left each customer no room on some counter."""
        room, caps = self.decisions.room, self.serving.catalogue.caps
        if not room.size or room.min() > 0:
            return [[]] * len(self.batch.customer_ids)
        return [caps.used_up(row) for row in room]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with all that the answer is written from.

    Attributes:
        made_in: The pass that it was made in, perhaps with others. customer: Where the customer stands in it.
        denied_by: Caps that refused a reservation, one a refusal.
    """

    decision_id: str
    customer_id: str
    made_in: Pass
    degraded_reasons: tuple[str, ...]
    reselected: bool = False
    customer: int = 0
    denied_by: tuple[str, ...] = ()

    @property
    def serving(self) -> Serving:
        """What it was made with."""
        return self.made_in.serving

    @property
    def batch(self) -> CustomerBatch:
        """What was gathered, of all customers of the pass."""
        return self.made_in.batch

    @property
    def decisions(self) -> Decisions:
        """What was decided, for all customers of the pass."""
        return self.made_in.decisions

    @property
    def model(self) -> Model:
        """The version that scored for this customer: the challenger in its arm, else the champion."""
        serving = self.made_in.serving
        if serving.challenger is not None and self.decisions.arms[self.customer] == CHALLENGER:
            return serving.challenger
        return serving.champion


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What customers must have in common to be decided in one pass."""

    serving: Serving
    request: Request

    def __hash__(self) -> int:
        return hash((id(self.serving), self.request.channel))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self.serving is other.serving and self.request == other.request


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
        evidence: What came in since the model was made; None for nothing.
        watch: Told every decision that was logged, before its answer goes out: it must only take note.
    """

    state: CustomerState
    clock: Clock
    serving: Callable[[], Serving | None]
    gather_deadline_seconds: float
    record_deadline_seconds: float
    new_token: Callable[[], bytes] = field(default=lambda: secrets.token_bytes(16))
    step: Callable[[str], AbstractContextManager[Tell]] = unseen
    evidence: EvidenceSource | None = None
    watch: Watch = lambda decided: None

    def __post_init__(self) -> None:
        self.together: Together[_Question, tuple[str, str], Decided] = Together(self._decide_all, MOST_TOGETHER, PASSES)

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
        token = log.derived_token(ask.idempotency_key, ask.customer_id) if ask.idempotency_key else self.new_token()
        decision_id = log.decision_id_from(token, ask.customer_id)
        decided = await self.together.ask(_Question(serving, ask.request), (ask.customer_id, decision_id))
        if ask.require_known and "cold_start" in decided.degraded_reasons:
            raise UnknownCustomer
        if ask.dry_run:
            return decided, write_answer(decided)
        return await self._record(ask, decided, write_answer)

    async def _decide_all(self, question: _Question, asked: Sequence[tuple[str, str]]) -> list[Decided]:
        """Decide for (customer, decision id) of everybody who asks the same at once."""
        serving, request, now = question.serving, question.request, self.clock.now()
        with self.step("gather") as tell:
            gathered = await self.state.gather(
                serving.bundle.plan, [c for c, _ in asked], request.channel, now, self.gather_deadline_seconds
            )
            tell(gathered.degraded_reasons)
        with self.step("decide") as tell:
            evidence = self.evidence.of(serving.catalogue) if self.evidence else None
            decided = decide_all(serving, gathered, request, now, [d for _, d in asked], evidence)
            tell(tuple(sorted({reason for one in decided for reason in one.degraded_reasons})))
        return decided

    async def _record(
        self, ask: Ask, decided: Decided, write_answer: Callable[[Decided], bytes]
    ) -> tuple[Decided | Repeat, bytes]:
        for attempt in range(MAX_RESELECTIONS + 3):
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
                self.watch(decided)
                return decided, answer
            refused: Collection[str] = recorded.refused
            if attempt >= MAX_RESELECTIONS:
                # Enough new choices: keep what was not refused, and if that is refused too, nothing. An answer without
                # offers cannot be refused, so what is shown is always what was reserved.
                kept = {o.action_id for o in offers_of(decided)} - {*refused} if attempt == MAX_RESELECTIONS else set()
                refused = [action for action in decided.serving.catalogue.catalogue.index if action not in kept]
            decided = reselect(decided, refused, recorded.denied_by)
        return decided, write_answer(decided)

    async def _try_to_record(self, ask: Ask, decided: Decided, answer: bytes) -> Recorded | StoreUnavailable:
        kept = answer if ask.idempotency_key else None
        with self.step("record") as tell:
            try:
                return await record_one(self.state, decided, ask, kept, self.record_deadline_seconds)
            except StoreUnavailable as error:
                tell((error.reason,))
                return error


def decide_all(
    serving: Serving,
    gathered: Gathered,
    request: Request,
    now: float,
    decision_ids: Sequence[str],
    evidence: Evidence | None = None,
) -> list[Decided]:
    """Run the pure core over a batch, and hand each customer its decision."""
    gathered = localised(gathered, serving.catalogue.catalogue.zone.name, now)
    batch, keys = gathered.batch, keys_of(gathered.batch, decision_ids)
    challenger = serving.challenger.scorer if serving.challenger is not None else None
    decisions = decide(
        batch, request, serving.catalogue, serving.scorer, now, keys, evidence=evidence, challenger=challenger
    )
    made_in = Pass(serving, batch, decisions)
    return [
        Decided(decision_id, batch.customer_ids[i], made_in, degraded(gathered, i), customer=i)
        for i, decision_id in enumerate(decision_ids)
    ]


def localised(gathered: Gathered, default: str, now: float) -> Gathered:
    """Give customers the calendar of their own zone, or of `default`; one that is not known degrades the decision."""
    batch, reasons = gathered.batch, gathered.reasons
    names = batch.time_zones or ("",) * len(batch.customer_ids)
    local, is_unknown = local_times(names, default, now)
    if any(is_unknown):
        told = [{*mine, "time_zone_unknown"} if lost else mine for mine, lost in zip(reasons, is_unknown, strict=True)]
        reasons = tuple(tuple(sorted(mine)) for mine in told)
    return Gathered(replace(batch, local=local), reasons)


def keys_of(batch: CustomerBatch, decision_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return the random key of each decision, (n,)."""
    keys = [log.random_key(d, c) for d, c in zip(decision_ids, batch.customer_ids, strict=True)]
    return np.array(keys, dtype=np.uint64)


def degraded(gathered: Gathered, i: int) -> tuple[str, ...]:
    """Return a customer's sorted reasons, with `cold_start` where it is unknown to a store that answered."""
    reasons = gathered.reasons[i]
    if gathered.batch.is_known[i] or "features_unavailable" in reasons:
        return reasons
    return tuple(sorted({*reasons, "cold_start"}))


def without_log(decided: Decided, request: Request, reason: str) -> Decided:
    """Decide again for a decision that cannot be logged: only actions marked `may_be_unlogged` remain."""
    batch = replace(decided.batch.only(decided.customer), is_loggable=False)
    reasons = tuple(sorted({*decided.degraded_reasons, reason}))
    gathered, before = Gathered(batch, (reasons,)), decided.decisions
    return decide_all(decided.serving, gathered, request, before.now, [decided.decision_id], before.evidence)[0]


def reselect(decided: Decided, refused: Collection[str], denied_by: Sequence[str]) -> Decided:
    """Select again without the actions that these caps refused, for the customer alone."""
    catalogue, i = decided.serving.catalogue, decided.customer
    keys = np.array([log.random_key(decided.decision_id, decided.customer_id)], dtype=np.uint64)
    positions = [catalogue.catalogue.index[action] for action in refused]
    decisions = select_again(decided.decisions.take([i]), catalogue, 0, positions, keys)
    made_in = Pass(decided.serving, decided.batch.only(i), decisions)
    denied = (*decided.denied_by, *denied_by)
    return replace(decided, made_in=made_in, customer=0, reselected=True, denied_by=denied)


def offers_of(decided: Decided) -> list[Offer]:
    """Return the offers shown to the customer, in order."""
    decisions, catalogue = decided.decisions, decided.serving.catalogue
    showable, half_life_days = (
        _showable(catalogue, decisions.request.channel),
        catalogue.catalogue.exploration.half_life_days,
    )
    propensities, i = decisions.propensities, decided.customer
    return [
        Offer(*showable[candidate], placement, propensities.item(i, candidate), half_life_days)
        for candidate, placement, _ in decisions.chosen[i]
    ]


@lru_cache(maxsize=32)
def _showable(catalogue: CompiledCatalogue, channel: str) -> list[tuple[str, str, str, str, bool]]:
    """Return (action id, issue, group, treatment id, is marketing) of each candidate of a channel."""
    plan, terms = catalogue.plans[channel], catalogue.catalogue
    actions = [terms.actions[position] for position in plan.actions.tolist()]
    return [
        (action.id, action.issue, action.group, treatment_id, action.is_marketing)
        for action, treatment_id in zip(actions, plan.treatment_ids, strict=True)
    ]


@lru_cache(maxsize=32)
def _cap_terms(catalogue: CompiledCatalogue, channel: str) -> tuple[CapTerms, Windows]:
    """Return the caps on a channel and their windows."""
    caps = [cap for cap in catalogue.catalogue.caps if binds(cap, channel)]
    checks = tuple(
        CapCheck(c.id, c.scope, c.scope_id, c.counted, c.limit, c.channels, c.placements, c.unit) for c in caps
    )
    return CapTerms(checks, catalogue.catalogue.reservations), Windows.of(caps)


async def record_one(
    state: CustomerState, decided: Decided, ask: Ask, answer: bytes | None, deadline_seconds: float
) -> Recorded:
    """Reserve the offers and append the log row, atomically."""
    return await state.record(
        row_of(decided),
        offers_of(decided),
        decided.made_in.caps[decided.customer],
        answer=answer,
        request_digest=ask.digest,
        deadline_seconds=deadline_seconds,
    )


def row_of(decided: Decided) -> log.DecisionRow:
    """Return the decision log's row of a decision, which may share its batch with others."""
    model = decided.model
    return decided.made_in.rows.row(
        decided.customer,
        decided.decision_id,
        model_version=model.scorer.version,
        features_version=model.bundle.features_version,
        bundle_digest=model.bundle.digest,
        degraded_reasons=decided.degraded_reasons,
        reselected=decided.reselected,
    )
