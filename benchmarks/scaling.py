"""docs/scaling.md: what a large deployment needs, computed from the figures of the same run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestants import OURS
from benchmarks.figures import medians
from benchmarks.report import Run

CUSTOMERS, PEAK, MEAN_OF_PEAK = 100_000_000, 50_000, 0.4
"""Decisions a second at the peak, and the mean over a day as a share of it."""
BUSY = 0.6
"""Share of a core that is planned with: the rest is for bursts and for the loss of a machine."""
SHARD_BYTES = 50e9
OVERHEAD = 1.25
"""Memory of a server over what its keys take, and room for a copy-on-write while it saves."""
DAY_SECONDS = 86_400
DECISION_TTL_DAYS, CONTACT_BYTES, CONTACTS_EACH = 45, 160.0, 20


def write_scaling(run: Run, folder: Path) -> None:
    """Write the page."""
    cpu_ms = medians(run.rounds[OURS])["cpu_ms"] or float("nan")
    weights, workers = run.studies["weights"], run.studies["workers"]
    cores = PEAK * cpu_ms / 1000 / BUSY
    redis_cores = PEAK * weights["redis_cpu_ms"] / 1000 / BUSY
    daily = PEAK * MEAN_OF_PEAK * DAY_SECONDS
    memory = CUSTOMERS * (weights["customer_bytes"] + CONTACTS_EACH * CONTACT_BYTES) * OVERHEAD
    shards = max(memory / SHARD_BYTES, redis_cores)
    lake, aof = daily * weights["lake_bytes"], daily * weights["aof_bytes"]
    lines = [
        "# Scale",
        f"On paper, from the figures of the run in [performance.md](performance.md): {CUSTOMERS:,} customers, "
        f"{PEAK:,} decisions a second at the peak, {MEAN_OF_PEAK:.0%} of it on average. Nobody has run this; each line "
        "says what it was computed from, so that your own figures can take the place of ours.",
        "| what | how much | from |",
        "| --- | ---: | --- |",
        f"| serving processes, one a core | {cores:,.0f} | {PEAK:,}/s x {cpu_ms:.3f} ms of CPU, {BUSY:.0%} busy |",
        f"| Redis shards | {shards:,.0f} | the greater of the two lines below |",
        f"| ... by CPU | {redis_cores:,.0f} | {weights['redis_cpu_ms']:.3f} ms of one server's core a decision |",
        f"| ... by memory | {memory / SHARD_BYTES:,.0f} of {SHARD_BYTES / 1e9:.0f} GB | "
        f"{weights['customer_bytes']:,.0f} bytes of facts and consent a customer, {CONTACTS_EACH} contacts of "
        f"{CONTACT_BYTES:.0f}, x {OVERHEAD} |",
        f"| memory of all shards | {memory / 1e12:.2f} TB | as above; each replica as much again |",
        f"| append-only logs | {aof / 1e12:.1f} TB a day | {weights['aof_bytes']:,.0f} bytes a decision, not "
        "rewritten |",
        f"| lake | {lake / 1e12:.2f} TB a day | {weights['lake_bytes']:,.0f} bytes a decision as Parquet with zstd |",
        f"| decisions that outcomes find | {daily * DECISION_TTL_DAYS / 1e9:,.0f} billion | {DECISION_TTL_DAYS} days "
        "(`NBA_DECISION_TTL_DAYS`): at this size shorten it, or memory goes there |",
        "",
        "What makes it divide: a customer's state, journal and script keys carry the tag of one of 64 partitions, so a "
        "decision's reservation and log touch one shard, and at most 64 shards can share the state; feature hashes are "
        "spread by Feast's own keys. Serving processes hold no state and share nothing but Redis.",
        "",
        f"CPU of a decision by processes: {workers['cpu_ms_1']:.3f} ms with one, {workers['cpu_ms_2']:.3f} ms with two "
        f"on a core each at as many connections each, {workers['cpu_ms_2_shared']:.3f} ms with two at as many in all, "
        "where each finds fewer requests to share a pass. The second's core is also the load generator's and Redis's.",
        "",
        "What this does not say: network between machines (here Redis is on the same one), TLS, replicas, and the "
        "worker, which is measured by `python -m benchmarks.feedback`.",
    ]
    (folder / "scaling.md").write_text("\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n")
