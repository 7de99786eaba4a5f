"""The simulated world against a running service: decisions and outcomes over HTTP, the clock stepped between them.

The service decides on its own facts, consents, contacts, model and catalogue; only the response is made up. It begins
where the history ends, so that the facts online are those of the world; they age with the clock. Decides nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from training.books import Books, Day
from training.contact_history import Tiredness
from training.simulator import ISSUES, SEEN, Setting
from training.traffic import Touch
from training.world import Pairs

MOST_IN_A_LIST = 500


class ServiceRefused(Exception):
    """The service did not do what the simulation needs; the sentence says what and what to do."""


class HttpSimulation:
    """One world, and a service that does not know that it is in it."""

    def __init__(self, setting: Setting, url: str, clock: Path, api_key: str = "") -> None:
        """Take a setting that starts where the history ends.

        Args:
            url: Of the service. clock: Its `clock.json`; the service must have been started on a simulated clock.
            api_key: With the scopes decide and outcome, where the service asks for one.
        """
        self.setting, self._clock = setting, clock
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx2.Client(base_url=url, headers=headers, timeout=30.0)
        self.tired = Tiredness(len(setting.customer_ids), setting.world.parameters.fatigue_days)
        self._actions = setting.base.catalogue.index
        self._treatments = {treatment.id: treatment for treatment in setting.base.catalogue.treatments}

    def run(self) -> Iterator[Day]:
        """Yield the books of each day; the service keeps what it was told.

        Raises:
            ServiceRefused: It is not there, does not follow the clock, or refused a request.
        """
        with self._client:
            self._step(self.setting.start)
            self._grant()
            for day in range(self.setting.days):
                books, reached = Books(day), 0
                for touch in self.setting.traffic.of_day(day):
                    self._step(touch.moment)
                    self.tired.fade(touch.moment)
                    reached += self._meet(touch, books)
                yield books.closed(reached, float(self.tired.contacts.mean()))

    def _step(self, now: float) -> None:
        partial = self._clock.with_name(f".{self._clock.name}.{os.getpid()}")
        partial.write_text(json.dumps({"mode": "simulated", "now": now}))
        partial.replace(self._clock)

    def _grant(self) -> None:
        """Tell the service which households consent, as the world has it."""
        events = [
            {
                "event_id": f"simulated-{self.setting.seed}-{channel}-{customer}",
                "customer_id": customer,
                "type": "consent_changed",
                "properties": {
                    "channel": channel, "purpose": "marketing", "source": "simulation",
                    "granted": self.setting.has_consent(channel, i),
                },
            }
            for channel in self.setting.channels
            for i, customer in enumerate(self.setting.customer_ids.tolist())
        ]  # fmt: skip
        self._tell("/v1/events", events)

    def _meet(self, touch: Touch, books: Books) -> int:
        """Ask for every household that is reached, and let it respond; return how many were shown something."""
        answers = [self._ask(customer, touch) for customer in self.setting.customer_ids[touch.households].tolist()]
        placed = [(i, shown) for i, answer in enumerate(answers) for shown in answer["actions"]]
        rows = np.array([i for i, _ in placed], dtype=np.int64)
        actions = np.array([self._actions[shown["action_id"]] for _, shown in placed], dtype=np.int64)
        as_of = self.setting.columns.as_of(self.setting.facts(touch.day)[:, touch.households], touch.moment)
        households, luck = touch.households[rows], self.setting.luck(touch, 0)[rows, actions]
        without, shown = self.setting.world.probabilities(
            Pairs(as_of, rows, actions), households, touch.channel, touch.moment, self.tired.contacts[households]
        )
        is_seen = luck < SEEN[touch.channel]
        is_positive = self.setting.luck(touch, 1)[rows, actions] < np.where(is_seen, shown, without)
        terms = [self.setting.base.catalogue.actions[a] for a in actions.tolist()]
        values = np.array([action.value for action in terms])
        costs = np.array(
            [a.cost + self._treatments[s["treatment_id"]].cost for a, (_, s) in zip(terms, placed, strict=True)]
        )
        gains = SEEN[touch.channel] * (shown - without) * values - costs
        books.add(
            [answer["arm"] for answer in answers], self.setting.stages(as_of), rows, [a.issue for a in terms], gains,
            is_positive * values, self.setting.world.segments(without, shown).tolist(),
        )  # fmt: skip
        self._respond(answers, placed, is_seen.tolist(), is_positive.tolist())
        self.tired.add(households[is_seen])
        return len(np.unique(rows))

    def _ask(self, customer: str, touch: Touch) -> Mapping[str, Any]:
        body = {"customer_id": customer, "channel": touch.channel, "issues": list(ISSUES)}
        answer: Mapping[str, Any] = self._post("/v1/decisions", body)
        decided = datetime.fromisoformat(answer["decision_time"]).astimezone(UTC).timestamp()
        if abs(decided - touch.moment) > 1.0:
            raise ServiceRefused(
                f"the service's time is not that of {self._clock.name}: write "
                '{"mode": "simulated", "now": 0} there, start the service again, and then simulate'
            )
        return answer

    def _respond(
        self, answers: list[Mapping[str, Any]], placed: list[tuple[int, Any]], seen: list[bool], positive: list[bool]
    ) -> None:
        outcomes = []
        for (i, shown), is_seen, is_positive in zip(placed, seen, positive, strict=True):
            said = [("impression", is_seen), ("conversion", is_seen and is_positive)]
            decision, action = answers[i]["decision_id"], shown["action_id"]
            outcomes += [
                {
                    "outcome_id": f"{decision}-{action}-{kind}",
                    "decision_id": decision,
                    "action_id": action,
                    "type": kind,
                }
                for kind, happened in said
                if happened
            ]
        self._tell("/v1/outcomes", outcomes)

    def _tell(self, path: str, items: list[dict[str, Any]]) -> None:
        for start in range(0, len(items), MOST_IN_A_LIST):
            self._post(path, items[start : start + MOST_IN_A_LIST])

    def _post(self, path: str, body: object) -> Any:
        try:
            response = self._client.post(path, json=body)
        except httpx2.HTTPError as error:
            raise ServiceRefused(f"no service answers ({type(error).__name__}); start one with `nba serve`") from error
        if response.status_code not in (200, 202):
            raise ServiceRefused(f"{path} was answered with {response.status_code}: {response.text[:300]}")
        return response.json()
