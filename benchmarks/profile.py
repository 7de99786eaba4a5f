"""Where a decision's time goes: shares of stages from sampled stacks, as a picture of characters. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = (
    ("HTTP: parse and write", ("uvicorn.protocols", "service.api.wire", "starlette")),
    ("request id, access log", ("service.api.observed _say", "service.logs", "logging")),
    ("body, question, metrics", ("service.api.shortcut", "service.api.decisions", "service.api.body",
                                 "service.api.replies", "service.api.metrics", "service.api.vitals",
                                 "service.api.access")),
    ("gather: Redis client", ("service.adapters.connection", "service.adapters.wire")),
    ("gather: decode", ("service.adapters.redis_gather", "service.adapters.feast_reader",
                        "service.adapters.state_rep")),
    ("columns as of now", ("features.matrix as_of", "features.matrix journey_columns")),
    ("rules and filters", ("service.decision.circuit", "service.decision.network", "service.decision.eligibility",
                           "service.decision.contact_policy")),
    ("score", ("service.decision.propensity", "service.decision.bundle_scorer")),
    ("select", ("service.decision.selection", "service.decision.strategy", "service.decision.engine _place")),
    ("core, the rest", ("service.decision.engine", "service.online decide_all")),
    ("log row and script call", ("service.online record_one", "service.decision.log_row",
                                 "service.adapters.redis_state")),
    ("answer", ("service.answer",)),
    ("online, passes", ("service.online", "service.together")),
)  # fmt: skip
"""A stage and how its functions begin; a stack belongs to the stage of its outermost function that has one, going from
the last stage that encloses others to the first."""
ENCLOSING = ("online, passes", "body, question, metrics", "core, the rest", "log row and script call")
WIDTH = 40


def shares(stacks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of each stage of all samples that were not spent waiting, the greatest first."""
    counts: dict[str, int] = {}
    for one in stacks:
        stage = stage_of(one["stack"])
        if stage:
            counts[stage] = counts.get(stage, 0) + int(one["samples"])
    total = max(sum(counts.values()), 1)
    return {stage: n / total for stage, n in sorted(counts.items(), key=lambda item: -item[1])}


def stage_of(stack: Sequence[str]) -> str:
    """Return the stage of a stack: of its innermost function that names one which encloses no other, else of any."""
    found = [stage for name in stack for stage, starts in STAGES if name.startswith(starts)]
    inner = [stage for stage in found if stage not in ENCLOSING and not stage.startswith("HTTP")]
    return inner[-1] if inner else found[-1] if found else ""


def picture(stacks: Sequence[Mapping[str, Any]], cpu_ms: float) -> str:
    """Draw the shares as bars, with the microseconds of a decision that each stands for."""
    found = shares(stacks)
    greatest = max(found.values(), default=1.0)
    lines = [
        f"{stage:<26} {share:6.1%} {share * cpu_ms * 1000:5.0f} us  {'#' * max(round(share / greatest * WIDTH), 1)}"
        for stage, share in found.items()
    ]
    return "\n".join(lines)
