"""Turns away what would only wait: so many requests at once a process works on, the others ask again a moment later.

Decides by the number of requests in the process; health, metrics and what people look at are never turned away.
"""

from __future__ import annotations

import random
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from service.api.problems import ProblemError

CLASSES = {"/v1/decisions": "decide", "/v1/outcomes": "intake", "/v1/events": "intake"}
LONGEST_RETRY_SECONDS = 3


class Shedding:
    """Counts the requests that a process works on.

    Args:
        most: So many at once.
    """

    def __init__(self, most: int, registry: CollectorRegistry) -> None:
        self.most, self.now = most, 0
        counter = Counter("nba_shed", "Requests turned away since too many were there", ["class"], registry=registry)
        self._shed = {name: counter.labels(name) for name in dict.fromkeys(CLASSES.values())}

    def refusal(self, scope: MutableMapping[str, Any]) -> ProblemError | None:
        """Return the problem of a request that is one too many, else None."""
        if self.now < self.most or scope["method"] != "POST":
            return None
        name = CLASSES.get(scope["path"])
        if name is None:
            return None
        self._shed[name].inc()
        wait = random.randint(1, LONGEST_RETRY_SECONDS)
        return ProblemError(503, "overloaded", "Too many requests are waiting; send it again.", retry_after=wait)
