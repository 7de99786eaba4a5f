"""Lets a policy loose on a world with known truth, day by day, through the very core that serves.

Decides how simulated time passes: who is reached when (`traffic`), what the core decides on the contacts so far, what
comes of it (`world`), when the policy learns from its own log (`policies`). Gains are booked at their true expectation,
so that the value of a policy carries no luck. Serving never imports it, and nothing of it is a finding about customers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.contract import LAYOUT, STAGES
from features.layout import SECONDS_PER_DAY
from features.matrix import ModelInput
from service.catalogue.time_zones import local_times
from service.decision.engine import CompiledCatalogue, decide
from service.decision.model import CustomerBatch, Decisions, Evidence, Request, Scorer, Stage
from service.decision.record import random_key
from training.books import Books, Day
from training.contact_history import ContactHistory, Tiredness, longest_window, within
from training.learner import Rows, context, recent_contacts
from training.past import Past
from training.traffic import Touch, Traffic
from training.world import Pairs, Parameters, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ISSUES = ("upsell", "cross_sell", "retention")
"""What is simulated: service actions are no offers."""
SEEN = {"app": 0.9, "email": 0.35, "mailer": 0.5, "till": 0.8}
"""Channel -> chance that what was placed is looked at; what is not seen changes nothing."""
CONSENTING = 0.85
"""Share of households with consent, a channel."""
LEARNS_EVERY_DAYS = 30


class Policy(Protocol):
    """What is let loose: a catalogue and a scorer, which may change as the log grows."""

    name: str

    def catalogue(self) -> CompiledCatalogue:
        """Return the catalogue in force."""

    def scorer(self, simulation: Simulation) -> Scorer | None:
        """Return what scores now; None for the catalogue's priors."""

    def learn(self, simulation: Simulation) -> None:
        """Learn from the log so far."""


class Setting:
    """What is the same for every policy: households, their real facts week by week, the truth and the traffic.

    Attributes:
        customer_ids: (n,). channels: In the order of their codes.
    """

    def __init__(
        self,
        history: Path,
        base: CompiledCatalogue,
        start: datetime,
        days: int,
        seed: int,
        households: int | None = None,
    ) -> None:
        """Make a setting.

        Args:
            history: Folder of the tidy tables. base: Whose actions and channels exist.
            start: First local midnight; aware. days: How long. seed: Of all that is drawn.
            households: Take so many, drawn by the seed; None takes all.
        """
        self.columns, self.base, self.days, self.seed = base.columns, base, days, seed
        self.channels = list(base.plans)
        self.start = start.timestamp()
        with Past(history, threads=1) as past:
            moments = [self.start + week * 7 * SECONDS_PER_DAY for week in range((days + 6) // 7)]
            first = past.facts_at(moments[0])
            known = np.flatnonzero(~np.isnan(first).all(axis=0))
            draw = np.random.default_rng((seed, 1))
            if households is not None and households < len(known):
                known = np.sort(draw.choice(known, households, replace=False))
            self.customer_ids = past.customer_ids[known].astype(str)
            self._facts = [first[:, known], *(past.facts_at(moment)[:, known] for moment in moments[1:])]
        self._consents = draw.random((len(base.plans), len(known))) < CONSENTING
        self.traffic = Traffic(history, self.customer_ids, start, days, seed)
        self.world = World(self.columns, base.catalogue, self.first_columns(), self.start, seed, Parameters())
        self.position = {customer: i for i, customer in enumerate(self.customer_ids.tolist())}
        self.input = ModelInput(self.columns)

    def first_columns(self) -> Floats:
        """Return the columns of all households at the start, (n_columns + 1, n)."""
        return self.columns.as_of(self._facts[0], self.start)

    def stages(self, as_of: Floats) -> list[str]:
        """Name the journey stage of each customer of as-of columns."""
        codes = as_of[self.columns.index["stage"]].tolist()
        return ["unknown" if code != code else STAGES[int(code)] for code in codes]

    def facts(self, day: int) -> Floats:
        """Return the facts of all households as of the Monday before a day, (layout.width, n)."""
        return self._facts[day // 7]

    def luck(self, touch: Touch, kind: int) -> Floats:
        """(n_reached, n_actions) uniforms, the same for every policy."""
        seed = (self.seed, 2 + kind, touch.day, self.channels.index(touch.channel))
        return np.random.default_rng(seed).random((len(touch.households), len(self.base.catalogue.actions)))

    def has_consent(self, channel: str, household: int) -> bool:
        """Say whether a household consents to marketing on a channel."""
        return bool(self._consents[self.channels.index(channel), household])

    def batch(self, touch: Touch, history: ContactHistory) -> CustomerBatch:
        """Gather what a decision for the reached households reads."""
        reached = touch.households
        facts = np.ascontiguousarray(self.facts(touch.day)[:, reached])
        code = self.channels.index(touch.channel)
        times = np.full((len(LAYOUT.views), len(reached)), touch.moment)
        return CustomerBatch(
            customer_ids=tuple(self.customer_ids[reached].tolist()),
            facts=facts,
            view_times=times,
            is_known=np.ones(len(reached), dtype=np.bool_),
            consents=tuple({"marketing": int(granted)} for granted in self._consents[code, reached]),
            contacts=history.of(reached, touch.moment),
            local=local_times(("",) * len(reached), self.base.catalogue.zone.name, touch.moment)[0],
        )


class Simulation:
    """One policy in one setting.

    Attributes:
        log: What the policy may learn from. channel, now: Of the touch under way.
        recent: (n_reached, 2) contacts of those reached, see `learner.recent_contacts`.
        evidence: What became of each action since the model was made, as of `now`.
    """

    def __init__(self, setting: Setting, policy: Policy) -> None:
        self.setting, self.policy = setting, policy
        self.history = ContactHistory(len(setting.customer_ids))
        self.tired = Tiredness(len(setting.customer_ids), setting.world.parameters.fatigue_days)
        self.log: list[Rows] = []
        self.channel, self.now = "", setting.start
        self.recent: Floats = np.empty((0, 2))
        self.forget_evidence()

    def forget_evidence(self) -> None:
        """Begin to count again: a new model knows what came before."""
        self.evidence = Evidence.none(len(self.setting.base.catalogue.actions))

    def run(self) -> Iterator[Day]:
        """Yield the books of each day."""
        for day in range(self.setting.days):
            if day and day % LEARNS_EVERY_DAYS == 0:
                self.policy.learn(self)
            books = Books(day)
            for touch in self.setting.traffic.of_day(day):
                self._meet(touch, books)
            month = self.now - 30 * SECONDS_PER_DAY
            yield books.closed(self.history.reached(month), float(self.tired.contacts.mean()))

    def _meet(self, touch: Touch, books: Books) -> None:
        """Decide for all who are reached, and let them respond."""
        catalogue = self.policy.catalogue()
        faded = 2.0 ** -((touch.moment - self.now) / SECONDS_PER_DAY / catalogue.catalogue.exploration.half_life_days)
        self.evidence = Evidence(self.evidence.positives * faded, self.evidence.expected * faded)
        self.channel, self.now = touch.channel, touch.moment
        self.tired.fade(touch.moment)
        batch = self.setting.batch(touch, self.history)
        self.recent = recent_contacts(batch.contacts, len(touch.households), touch.moment)
        longest = longest_window(catalogue.catalogue.caps)
        batch = replace(batch, contacts=within(batch.contacts, touch.moment - longest))
        ids = [f"{touch.day}-{touch.channel}-{customer}" for customer in batch.customer_ids]
        drawn = [random_key(f"{self.setting.seed}-{i}", c) for i, c in zip(ids, batch.customer_ids, strict=True)]
        request, keys = Request(channel=touch.channel, issues=ISSUES), np.array(drawn, dtype=np.uint64)
        scorer = self.policy.scorer(self)
        decisions = decide(batch, request, catalogue, scorer, touch.moment, keys, evidence=self.evidence)
        self._respond(touch, decisions, catalogue, ids, books)
        self._keep_controls(touch, decisions, catalogue)

    def _respond(
        self, touch: Touch, decisions: Decisions, catalogue: CompiledCatalogue, ids: list[str], books: Books
    ) -> None:
        terms = catalogue.catalogue
        placed = [(i, choice) for i, choices in enumerate(decisions.chosen) for choice in choices]
        rows = np.array([i for i, _ in placed], dtype=np.int64)
        candidates = np.array([choice.candidate for _, choice in placed], dtype=np.int64)
        actions, households = decisions.actions[candidates], touch.households[rows]
        pairs = Pairs(decisions.as_of, rows, actions)
        without, shown = self.setting.world.probabilities(
            pairs, households, touch.channel, touch.moment, self.tired.contacts[households]
        )
        is_seen = self.setting.luck(touch, 0)[rows, actions] < SEEN[touch.channel]
        is_positive = self.setting.luck(touch, 1)[rows, actions] < np.where(is_seen, shown, without)
        values = np.array([action.value for action in terms.actions])[actions]
        treatments = decisions.candidates[candidates]
        costs = np.array(
            [terms.actions[a].cost + terms.treatments[t].cost for a, t in zip(actions, treatments, strict=True)]
        )
        gains = SEEN[touch.channel] * (shown - without) * values - costs
        books.add(
            decisions.arms,
            self.setting.stages(decisions.as_of),
            rows,
            [terms.actions[a].issue for a in actions.tolist()],
            gains,
            is_positive * values,
            self.setting.world.segments(without, shown).tolist(),
        )
        chances = np.array([choice.selection_probability for _, choice in placed]) * decisions.arm_probabilities[rows]
        self._write(pairs, households, touch, is_positive, is_seen, chances)
        k = len(terms.actions)
        propensities = decisions.propensities[rows, candidates]
        self.evidence = Evidence(
            self.evidence.positives + np.bincount(actions[is_seen], is_positive[is_seen], minlength=k),
            self.evidence.expected + np.bincount(actions[is_seen], propensities[is_seen], minlength=k),
        )
        self.tired.add(households[is_seen])
        for (i, choice), seen in zip(placed, is_seen.tolist(), strict=True):
            self.history.show(int(touch.households[i]), touch, ids[i], decisions, terms, choice, is_seen=seen)

    def _keep_controls(self, touch: Touch, decisions: Decisions, catalogue: CompiledCatalogue) -> None:
        """Write down how held-out households respond to what they were not shown."""
        held = np.array([arm == "holdout" for arm in decisions.arms])
        is_open = np.isin(decisions.stages, (Stage.HELD_OUT, Stage.NOT_SELECTED)) & held[:, None]
        rows, candidates = np.nonzero(is_open)
        if not len(rows):
            return
        actions, households = decisions.actions[candidates], touch.households[rows]
        pairs = Pairs(decisions.as_of, rows, actions)
        without, _ = self.setting.world.probabilities(
            pairs, households, touch.channel, touch.moment, self.tired.contacts[households]
        )
        is_positive = self.setting.luck(touch, 1)[rows, actions] < without
        self._write(pairs, households, touch, is_positive, None, decisions.arm_probabilities[rows])

    def _write(
        self,
        pairs: Pairs,
        households: Ints,
        touch: Touch,
        is_positive: NDArray[np.bool_],
        is_seen: NDArray[np.bool_] | None,
        chances: Floats,
    ) -> None:
        """Add rows to the log: what was seen, or where `is_seen` is None what was not shown on purpose."""
        kept = np.ones(len(households), dtype=np.bool_) if is_seen is None else is_seen
        rows, actions, n = pairs.rows[kept], pairs.actions[kept], int(kept.sum())
        self.log.append(
            Rows(
                inputs=self.setting.input.rows(pairs.as_of, rows, actions, self.setting.base.action_table),
                context=context(actions, self.setting.channels.index(touch.channel), self.recent[rows]),
                labels=is_positive[kept].astype(np.float64),
                is_shown=np.full(n, is_seen is not None),
                chances=chances[kept],
                moments=np.full(n, touch.moment),
                customers=households[kept],
            )
        )
