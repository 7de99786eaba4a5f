"""Counters with a business meaning for Prometheus. No label ever holds a customer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.api.tally import SHARE_SECONDS, Tally
from service.online import Decided, Serving

REQUEST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """The metrics of one process, or of all that share a folder.

    Args:
        folder: Where several processes on one port add up their counts, as `shared_folder` says.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.registry, self.tally = CollectorRegistry(), Tally()
        self.decisions, self.shown, self.empty, self.degraded, self.cap_denied = (
            self.tally.counts(Counter(name, words, labels, registry=self.registry))
            for name, words, labels in (
                ("nba_decisions", "Decisions", ["channel", "arm"]),
                ("nba_actions_shown", "Actions shown", ["issue", "arm", "channel"]),
                ("nba_decisions_without_action", "Decisions that show nothing", ["channel", "arm"]),
                ("nba_degraded", "Degraded decisions", ["reason"]),
                (
                    "nba_cap_denied",
                    "Decisions in which a contact policy left no room (filter), reservations that it refused"
                    " (reservation)",
                    ["cap", "at"],
                ),
            )
        )
        self.taken = {
            "outcome": Counter("nba_outcomes", "Outcomes by what became of them", ["result"], registry=self.registry),
            "event": Counter("nba_events", "Events by what became of them", ["result"], registry=self.registry),
        }
        self.flagged = Counter(
            "nba_intake_flagged", "Outcomes and events told late or with a clock ahead", ["kind", "flag"],
            registry=self.registry,
        )  # fmt: skip
        self.problems = Counter("nba_problems", "Requests that ended in a problem", ["status"], registry=self.registry)
        self.refused = Counter(
            "nba_refused", "Requests that ended before any route, by the HTTP status", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.reloads = Counter(
            "nba_reload", "Loads of a bundle or catalogue", ["kind", "result"], registry=self.registry
        )
        self.shadows = Counter(
            "nba_shadows",
            "Decisions that the challenger scored as well (scored), or should have (dropped, failed)",
            ["result"],
            registry=self.registry,
        )
        self.model = Gauge(
            "nba_model_info",
            "Processes that serve this model and catalogue now",
            ["model", "catalogue", "features"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.challenger = Gauge(
            "nba_challenger_info",
            "Processes that score the challenger's arm with this model now",
            ["model"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._served: Gauge | None = None
        self._challenging: Gauge | None = None
        seconds = Histogram(
            "nba_request_seconds", "Time in the service", ["route"], buckets=REQUEST_BUCKETS, registry=self.registry
        )
        self.decision_seconds = self.tally.times(seconds.labels("decisions"), REQUEST_BUCKETS)

    def decided(self, decided: Decided) -> None:
        """Count a decision."""
        decisions = decided.decisions
        channel, arm = decisions.request.channel, decisions.arms[decided.customer]
        self.decisions.add(channel, arm)
        for reason in decided.degraded_reasons:
            self.degraded.add(reason)
        chosen, catalogue = decisions.chosen[decided.customer], decided.serving.catalogue
        if not chosen:
            self.empty.add(channel, arm)
        actions = catalogue.catalogue.actions
        for choice in chosen:
            self.shown.add(actions[decisions.actions[choice.candidate]].issue, arm, channel)
        for policy in decided.made_in.used_up[decided.customer]:
            self.cap_denied.add(policy.id, "filter")
        for cap in decided.denied_by:
            self.cap_denied.add(cap, "reservation")

    def refuse(self, status: int) -> None:
        """Count a request that ended before any route was asked."""
        self.refused.labels(str(status)).inc()

    def serves(self, serving: Serving) -> None:
        """Say what serves now; what served before falls to 0, since shared series cannot be removed."""
        now = self.model.labels(
            serving.scorer.version, serving.catalogue.catalogue.version, serving.bundle.features_version
        )
        if self._served is not None:
            self._served.set(0)
        now.set(1)
        self._served = now
        if self._challenging is not None:
            self._challenging.set(0)
            self._challenging = None
        if serving.challenger is not None:
            self._challenging = self.challenger.labels(serving.challenger.scorer.version)
            self._challenging.set(1)

    async def text(self) -> bytes:
        """Return the exposition format; of all processes, what each has counted until now."""
        if self.folder is None:
            self.tally.hand_on()
            return generate_latest(self.registry)
        await asyncio.sleep(2 * SHARE_SECONDS)
        self.tally.hand_on()
        shared = CollectorRegistry()
        MultiProcessCollector(shared, path=str(self.folder))  # type: ignore[no-untyped-call]
        return generate_latest(shared)

    async def share(self) -> None:
        """Let other processes show what this one counts."""
        try:
            while self.folder is not None:
                self.tally.hand_on()
                await asyncio.sleep(SHARE_SECONDS)
        finally:
            self.tally.hand_on()


def shared_folder() -> Path | None:
    """Return where prometheus_client keeps the counts of several processes; the supervisor of `nba serve` says it."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None
