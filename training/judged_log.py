"""What another policy would have done where the log decided: every decision anew, slot by slot.

Decides which rows may be used, and with what probability the new catalogue and model would have placed what the log
placed, on the facts as logged, given what the log had placed before. Knows no estimator.

Left out, with their number: dry runs, decisions that were selected again because a cap had gone, degraded ones (a
customer who is unknown is no degradation), those of who was held out, those whose response windows are still open, and
those of channels, slots or facts that the new catalogue does not have. What the log placed and nobody saw earned
nothing: a placement is what is judged.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.layout import Layout
from service.decision.channel_plan import ChannelPlan
from service.decision.compiled import CompiledCatalogue
from service.decision.contact_policy import UNBOUND
from service.decision.engine import decide
from service.decision.experiment import HOLDOUT, NBA
from service.decision.model import Catalogue, Evidence, Experiment, Scorer
from service.decision.record import DecisionRow, random_key
from service.decision.replay import batch_of, request_of
from service.decision.selection import slots_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HARMLESS = ("cold_start",)
NOTHING = ""
"""Stands for a slot that stayed empty."""
Earned = Mapping[tuple[str, str], float | None]
"""(decision_id, treatment_id) -> what the shown treatment earned; None where its window is still open."""


@dataclass(frozen=True)
class Slot:
    """One slot of a logged decision, under both policies.

    Attributes:
        placed: Treatment id, or NOTHING. logging: Its probability in the log, given arm and slots before.
        could: Treatments that the log could have placed.
        chances: Treatment id -> probability under the new policy. propensities: The new policy's, same order.
    """

    placed: str
    logging: float
    could: frozenset[str]
    chances: Mapping[str, float]
    propensities: Mapping[str, float]

    @property
    def target(self) -> float:
        """Return P(what was placed) under the new policy."""
        if self.placed == NOTHING:
            return 0.0 if self.chances else 1.0
        return self.chances.get(self.placed, 0.0)

    @property
    def off_support(self) -> float:
        """Return the new policy's probability on what the log could not have done."""
        if not self.chances:
            return float(self.placed != NOTHING)
        return 1.0 - sum(chance for treatment, chance in self.chances.items() if treatment in self.could)


@dataclass(frozen=True)
class Judged:
    """One logged decision with its slots."""

    decision_id: str
    customer_id: str
    arm: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class JudgedLog:
    """A log that a new policy was played against.

    Attributes:
        decisions: Usable ones. excluded: Reason -> rows left out.
        unknown_caps: Caps of the new catalogue for which the log kept no room; they bound nothing here.
    """

    decisions: tuple[Judged, ...]
    excluded: Mapping[str, int]
    unknown_caps: tuple[str, ...]


class Player:
    """The new policy, asked with what probability it would have placed what the log placed."""

    def __init__(self, compiled: CompiledCatalogue, scorer: Scorer | None, compiled_of: CompiledOf) -> None:
        self._compiled, self._scorer, self._compiled_of = compiled, scorer, compiled_of
        self._counters: dict[str, Ints] = {}
        self.unknown_caps: set[str] = set()

    @property
    def layout(self) -> Layout:
        """The facts that rows must have."""
        return self._compiled.columns.layout

    def why_not(self, row: DecisionRow) -> str:
        """Say why a row cannot be used, or ""."""
        plan = self._compiled.plans.get(row.channel)
        if row.dry_run:
            return "dry run"
        if row.reselected:
            return "selected again"
        if set(row.degraded_reasons) - set(HARMLESS):
            return "degraded"
        if row.arm == HOLDOUT or row.withheld:
            return "held out"
        if plan is None:
            return "of a channel that the new catalogue does not have"
        if tuple(slot[0] for slot in row.distributions) != slots_of(plan, request_of(row)):
            return "of other slots than the new catalogue has"
        if len(row.facts) != 8 * self.layout.width:
            return "of another layout of facts"
        return ""

    def play(self, row: DecisionRow) -> Judged:
        """Make the decision anew, each slot given what the log had placed before."""
        plan = self._compiled.plans[row.channel]
        logged = list(_logged_slots(row))
        places = {treatment: k for k, treatment in enumerate(plan.treatment_ids)}
        forced = np.array([places.get(placed, -1) for placed, _, _ in logged], dtype=np.int64)[:, None]
        decisions = decide(
            batch_of(row, self.layout),
            replace(request_of(row), context=_declared(row, self._compiled.catalogue)),
            self._compiled,
            self._scorer,
            row.decision_time,
            np.array([random_key(row.decision_id, row.customer_id)], dtype=np.uint64),
            room=self._room(row),
            evidence=self._evidence(row, plan),
            forced=forced,
        )
        propensities = decisions.propensities[0]
        slots = []
        for (placed, logging, could), chances in zip(logged, decisions.distributions[:, 0], strict=True):
            open_ones = np.flatnonzero(chances > 0)
            slots.append(
                Slot(
                    placed,
                    logging,
                    could,
                    {plan.treatment_ids[c]: float(chances[c]) for c in open_ones},
                    {plan.treatment_ids[c]: float(propensities[c]) for c in open_ones},
                )
            )
        return Judged(row.decision_id, row.customer_id, row.arm, tuple(slots))

    def _evidence(self, row: DecisionRow, plan: ChannelPlan) -> Evidence:
        actions = dict(zip(plan.treatment_ids, plan.actions.tolist(), strict=True))
        evidence = Evidence.none(len(self._compiled.catalogue.actions))
        for candidate, positives, expected in row.evidence:
            action = actions.get(row.treatment_ids[candidate])
            if action is not None:
                evidence.positives[action], evidence.expected[action] = positives, expected
        return evidence

    def _room(self, row: DecisionRow) -> Ints:
        """(1, n_counters) what the caps left, for the new catalogue's counters where the log kept them."""
        if row.catalogue_version not in self._counters:
            self._counters[row.catalogue_version] = self._same_counters(row.catalogue_version)
        places = self._counters[row.catalogue_version]
        logged = np.append(np.frombuffer(row.room, "<i2").astype(np.int64), UNBOUND)
        return logged[places][None]

    def _same_counters(self, version: str) -> Ints:
        """(n_counters,) place of each of the new catalogue's counters in the log's room, -1 where it has none."""
        old, new = self._compiled_of(version).caps, self._compiled.caps
        kept = {(old.policies[counter.policy], counter.key): k for k, counter in enumerate(old.counters)}
        places = [kept.get((new.policies[counter.policy], counter.key), -1) for counter in new.counters]
        self.unknown_caps |= {
            new.policies[counter.policy].id for counter, k in zip(new.counters, places, strict=True) if k < 0
        }
        return np.array(places, dtype=np.int64)


CompiledOf = Callable[[str], CompiledCatalogue]
"""Catalogue version -> catalogue that the log's decisions were made with."""


def alone(catalogue: Catalogue) -> Catalogue:
    """Return the catalogue with everybody in the arm nba: the policy itself, without its experiment."""
    experiment = catalogue.experiment
    return replace(catalogue, experiment=Experiment(experiment.id, experiment.salt, ((NBA, 1.0),)))


def play(
    rows: Iterable[DecisionRow],
    player: Player,
    earned: Earned,
    closes_at: Callable[[DecisionRow], float],
    as_of: float,
) -> JudgedLog:
    """Play the new policy against a log.

    Args:
        rows: The log's decisions. earned: What shown treatments earned; what is not in it was not shown.
        closes_at: When a decision's last response window ends. as_of: What ends later is left out, Unix seconds.
    """
    excluded: Tally[str] = Tally()
    judged = []
    for row in rows:
        reason = player.why_not(row)
        placed = [(row.decision_id, row.treatment_ids[candidate]) for candidate, _, _ in row.chosen]
        if not reason and (closes_at(row) > as_of or any(earned.get(one, 0.0) is None for one in placed)):
            reason = "with an open response window"
        if reason:
            excluded[reason] += 1
        else:
            judged.append(player.play(row))
    return JudgedLog(tuple(judged), dict(excluded), tuple(sorted(player.unknown_caps)))


def _logged_slots(row: DecisionRow) -> Iterable[tuple[str, float, frozenset[str]]]:
    """Yield of every slot what was placed, its probability, and what could have been."""
    placed = iter(row.chosen)
    for _, positions, probabilities in row.distributions:
        chances = np.frombuffer(probabilities, "<f8")
        could = frozenset(
            row.treatment_ids[c] for c in np.frombuffer(positions, "<i2")[chances > 0].tolist()
        )  # fmt: skip
        if could:
            candidate, _, probability = next(placed)
            yield row.treatment_ids[candidate], probability, could
        else:
            yield NOTHING, 1.0, frozenset((NOTHING,))


def _declared(row: DecisionRow, catalogue: Catalogue) -> dict[str, float]:
    """Return the context fields that the new catalogue knows."""
    names = {field.name for field in catalogue.context}
    return {name: value for name, value in row.context if name in names}
