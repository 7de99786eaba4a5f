"""How the figures were made, in words: for the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.contestants import OURS
from benchmarks.crowd import ZIPF
from benchmarks.forest import LEAVES
from benchmarks.online import Plan


def method(plan: Plan, environment: Mapping[str, Any]) -> str:
    """Say how the table was made."""
    return (
        f"Medians of {plan.rounds} rounds (B and the last three rows of ours: one), contestants interleaved and "
        f"started afresh in each. First latencies: one connection, closed loop; rate: {plan.connections} "
        f"connections, closed loop, both by {environment['generator']}. Half load: open loop at half that "
        "contestant's own rate, Poisson arrivals, counted from the moment a question was due. CPU is user and "
        f"system time of all the contestant's processes a decision, in the window of {plan.connections} "
        "connections, where `nba serve` decides for several requests in one pass. The range behind a rate is the "
        "least and the greatest round."
    )


def what_was_asked(environment: Mapping[str, Any], means: Mapping[str, Mapping[str, float | None]]) -> str:
    """Say what a decision was."""
    ours = means[OURS]

    def mean(name: str) -> str:
        value = ours.get(name)
        return "?" if value is None else f"{value:.3g}"

    return "\n".join(
        (
            f"- {environment['customers']:,} customers, each a copy of one of the example's households as Feast "
            f"wrote it; the k-th asks in proportion to k^-{ZIPF:g}. {environment['slots']} slots of "
            f"`{environment['placement']}` on the channel `{environment['channel']}`, answers with reasons. All "
            "gave consent.",
            f"- A decision weighs {mean('candidates')} treatments, of which {mean('eligible')} reach arbitration "
            f"and {mean('scored')} actions are scored by the model ({environment['model']}, {environment['trees']} "
            f"trees of {LEAVES} leaves, {environment['inputs']} inputs; its labels are made up): means over rows "
            "of the log of these very loads.",
            "- Rules, consent, caps (counted, never full), experiment, exploration (softmax), reservation and log "
            "are on, and the same code for all: contestants differ in how features are read, how the model is "
            "scored and how HTTP is spoken. The worker is not running: it is off the path.",
            f"- No-op: the same question read, {environment['answer_bytes']} bytes returned.",
            f"- {environment['cores_used']} State log: {environment['server']} with AOF, fsync everysec but where "
            "the table says always.",
            "- `nba serve` scores with compiled trees (`NBA_NATIVE_TREES`, made by the agent before) but where "
            "the table says otherwise. Deadlines of the store are one second but where it says as shipped: every "
            "decision counted is a whole one.",
        )
    )
