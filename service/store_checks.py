"""What `nba doctor` asks of the stores: reachable, safe for what is kept there, facts online, journal worked off.

Reads only. Knows which property of a server is dangerous for which store and what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import hiredis
import numpy as np

from features.contract import LAYOUT
from features.layout import SECONDS_PER_DAY
from service.adapters import redis_keys as keys
from service.adapters.connection import Link
from service.adapters.redis_state import RedisState
from service.decision.record import PARTITIONS
from service.ports import FactPlan, StoreUnavailable

Status = Literal["ok", "warning", "wrong"]
PATIENCE_SECONDS = 3.0
OLDEST_MAJOR = 6
FULL = 0.9
LOOPBACK = ("127.0.0.1", "localhost", "::1", None)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a remedy where something is to be done."""

    check: str
    status: Status
    found: str
    remedy: str = ""


async def check_server(name: str, url: str, *, keeps_state: bool) -> list[Finding]:
    """Look at one server.

    Args:
        name: features or state. keeps_state: Contacts, consent and journal live there: nothing may be lost.
    """
    where = urlsplit(url)
    address = f"{where.hostname or where.path}:{where.port or 6379}"
    link = Link(url, max_connections=1)
    try:
        [said] = await link.exchange([("INFO",)], deadline_seconds=PATIENCE_SECONDS, reason="")
    except StoreUnavailable as error:
        remedy = "start that server or correct NBA_REDIS_URL; decisions are degraded and outcomes refused until then"
        return [Finding(f"redis {name}", "wrong", f"{address} does not answer ({error})", remedy)]
    finally:
        await link.close()
    if isinstance(said, hiredis.ReplyError):
        return [Finding(f"redis {name}", "wrong", f"{address} refuses: {said}", "correct the user and password")]
    info = dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)
    major = int(info.get("redis_version", "0").split(".")[0])
    is_old = major < OLDEST_MAJOR
    product = f"valkey {info['valkey_version']}" if "valkey_version" in info else f"redis {info['redis_version']}"
    found = [
        Finding(
            f"redis {name}",
            "wrong" if is_old else "ok",
            f"{product} on {address}, {info.get('used_memory_human', '?')} used",
            f"use version {OLDEST_MAJOR} or newer" if is_old else "",
        )
    ]
    if where.hostname not in LOOPBACK and (not where.password or where.scheme != "rediss"):
        lacks = " nor a password" if not where.password else ""
        remedy = "use rediss:// with a password, or a network that only the service is on"
        found.append(Finding(f"redis {name} access", "warning", f"another machine without TLS{lacks}", remedy))
    return found + (dangers_of_state(info) if keeps_state else []) + fullness(name, info)


def dangers_of_state(info: dict[str, str]) -> list[Finding]:
    """Say what may lose contacts, consent or acknowledged outcomes."""
    policy, evicted = info.get("maxmemory_policy", "noeviction"), int(info.get("evicted_keys", "0"))
    found = []
    if policy != "noeviction":
        found.append(
            Finding(
                "state eviction",
                "wrong",
                f"maxmemory-policy is {policy}: caps and consent may vanish",
                "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
            )
        )
    if evicted:
        remedy = "set noeviction and more memory; caps undercount until their windows have passed"
        found.append(Finding("state evicted", "wrong", f"{evicted} keys were evicted", remedy))
    if info.get("loading") == "1":
        found.append(Finding("state loading", "warning", "still loading its files", "wait; decisions are degraded"))
    if info.get("role") == "slave":
        found.append(Finding("state role", "wrong", "it is a read-only replica", "name the primary's address"))
    if info.get("aof_enabled") != "1":
        remedy = "set appendonly yes, with appendfsync always or everysec"
        found.append(Finding("state durability", "warning", "no append-only file: a restart loses outcomes", remedy))
    elif info.get("aof_last_write_status", "ok") != "ok":
        found.append(Finding("state durability", "wrong", "the append-only file cannot be written", "free its disk"))
    return found or [Finding("state safety", "ok", "noeviction, append-only file on, nothing evicted")]


def fullness(name: str, info: dict[str, str]) -> list[Finding]:
    """Say whether a memory limit is near."""
    limit, used = int(info.get("maxmemory", "0")), int(info.get("used_memory", "0"))
    if not limit or used < FULL * limit:
        return []
    return [Finding(f"redis {name} memory", "warning", f"{used / limit:.0%} of maxmemory", "raise maxmemory")]


async def check_journal(url: str, lake_seconds: float) -> list[Finding]:
    """Say whether a worker lives and how far behind it is; and what stands aside or is paused."""
    link = Link(url, max_connections=1)
    names = [[keys.of_partition(p, name) for p in range(PARTITIONS)] for name in ("lease", "journal", "poison")]
    asked: list[Sequence[Any]] = [("TIME",), ("HKEYS", keys.SWITCHES), ("EXISTS", *names[0])]
    asked += [("XLEN", key) for key in names[1]] + [("XLEN", key) for key in names[2]]
    asked += [("XRANGE", key, "-", "+", "COUNT", 1) for key in names[1]]
    try:
        replies = await link.exchange(asked, deadline_seconds=PATIENCE_SECONDS, reason="")
    except StoreUnavailable:
        return [Finding("worker", "warning", "unknown, since the state store does not answer")]
    finally:
        await link.close()
    errors = [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
    if errors:
        return [Finding("worker", "wrong", f"the state store refuses: {errors[0]}", "correct its user's rights")]
    now = int(replies[0][0])
    lengths, rest = replies[3 : 3 + PARTITIONS], replies[3 + PARTITIONS :]
    waiting, aside = sum(lengths), sum(rest[:PARTITIONS])
    oldest = min((int(entry[0][0].split(b"-")[0]) / 1000 for entry in rest[PARTITIONS:] if entry), default=now)
    return [
        _worker(replies[2], waiting, max(now - oldest, 0.0), lake_seconds),
        Finding("set aside", "warning", f"{aside} entries could not be used", "read the streams nba:{pNN}:poison")
        if aside
        else Finding("set aside", "ok", "no entry"),
        Finding("switches", "warning", f"paused: {_names(replies[1])}", "resume with `nba switch ... --resume`")
        if replies[1]
        else Finding("switches", "ok", "nothing is paused"),
    ]


def _names(switches: Sequence[bytes]) -> str:
    return ", ".join(sorted(name.decode(errors="replace").replace("|", " ") for name in switches))


def _worker(leases: int, waiting: int, age_seconds: float, lake_seconds: float) -> Finding:
    lag = f"{waiting} entries not yet in the lake, the oldest {age_seconds:.0f} s old" if waiting else "nothing waits"
    if not leases:
        remedy = "start `nba worker`: until then events do not change facts"
        return Finding("worker", "wrong" if waiting else "warning", f"none is alive; {lag}", remedy)
    if waiting and age_seconds > max(60.0, 4 * lake_seconds):
        return Finding("worker", "warning", f"behind: {lag}", "read its log; is the disk full, or the server slow?")
    return Finding("worker", "ok", f"owns {leases} of {PARTITIONS} partitions; {lag}")


async def check_facts(
    features_url: str, state_url: str, plan: FactPlan, customers: Sequence[str], channel: str, now: float
) -> Finding:
    """Say how many of some customers have facts online, and how old these are."""
    features = Link(features_url, max_connections=1)
    state = features if state_url == features_url else Link(state_url, max_connections=1)
    reader = RedisState(features, state, LAYOUT)
    gathered = await reader.gather(plan, customers, channel, now, PATIENCE_SECONDS)
    await reader.close()
    batch = gathered.batch
    if "features_unavailable" in gathered.degraded_reasons:
        return Finding("facts online", "warning", "unknown, since the feature store does not answer")
    n_known = int(batch.is_known.sum())
    if not n_known:
        return Finding("facts online", "wrong", f"none of {len(customers)} customers of the lake", "`nba materialize`")
    newest = np.nanmax(batch.view_times, axis=0, where=np.isfinite(batch.view_times), initial=-np.inf)
    ages = (now - newest[np.isfinite(newest)]) / SECONDS_PER_DAY
    said = f"{n_known} of {len(customers)} customers of the lake; last changed {float(np.median(ages)):.1f} days ago"
    limit = min(view.max_age_days or np.inf for view in LAYOUT.views)
    if "features_stale" in gathered.degraded_reasons:
        remedy = "is the worker alive and do events come? then `nba backfill` and `nba materialize`"
        return Finding("facts online", "warning", f"{said}; some are older than their maximum age", remedy)
    if float(np.min(ages)) < -1 / 24 or float(np.median(ages)) > limit:
        return Finding("facts online", "warning", said, "the clock and the facts disagree: see the check `clock`")
    return Finding("facts online", "ok", said)


def plan_of(bundle: Path) -> FactPlan:
    """Read the plan of a bundle."""
    from service.adapters.bundle_dir import read_plan

    return read_plan(json.loads((bundle / "plan.json").read_bytes()))
