"""The only place that builds adapters: settings in, a running set of ports and use cases out."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from features.contract import LAYOUT
from service.adapters.breaker import Breaker
from service.adapters.bundle_dir import BundleDir
from service.adapters.clock import WallClock, open_clock
from service.adapters.connection import Link
from service.adapters.decision_log import CatalogueShelf, StoredDecisions
from service.adapters.embedded import EmbeddedServer
from service.adapters.erasures import Erasures
from service.adapters.evidence_reader import EvidenceReader
from service.adapters.explainer import ChildExplainer
from service.adapters.past_versions import PastVersions
from service.adapters.redis_gather import FactSource
from service.adapters.redis_journal import RedisJournal
from service.adapters.redis_state import RedisState
from service.adapters.rule_shelf import RuleShelf
from service.adapters.seal import open_seal
from service.adapters.server_keeper import keep_running
from service.adapters.shadow_log import JournalShadows
from service.adapters.state_restore import begin_epoch
from service.decision.model import Request
from service.feedback import Feedback
from service.online import Ask, Decided, Online
from service.ports import (
    Clock,
    CustomerState,
    DecisionLog,
    Explainer,
    Journal,
    StoreUnavailable,
)
from service.reloader import Reloader
from service.settings import Settings
from service.shadow import Shadowing

log = logging.getLogger("nba")
WARM_SECONDS = 0.2
LATE_STORE_SECONDS, LATE_STORE_DEADLINE_SECONDS = 0.25, 5.0
EVIDENCE_SECONDS = 1.0
"""How often the evidence is read again."""
FEATURE_REPO = Path(__file__).resolve().parent.parent / "features"


@dataclass(frozen=True)
class Runtime:
    """What the entry points use.

    Attributes:
        breakers: By dependency: features, state, journal; two names may share one. For metrics and readiness.
    """

    settings: Settings
    clock: Clock
    state: CustomerState
    journal: Journal
    online: Online
    feedback: Feedback
    reloader: Reloader
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    decisions: DecisionLog | None = None
    past: PastVersions | None = None
    explainer: Explainer | None = None
    erasures: Erasures | None = None
    shadowing: Shadowing | None = None


def join_server(settings: Settings, stack: AsyncExitStack) -> tuple[EmbeddedServer | None, str]:
    """Return the feature store's URL, starting or joining the embedded server where none is set."""
    if settings.redis_url is not None:
        return None, settings.redis_url.get_secret_value()
    server = EmbeddedServer(settings.var)
    url = server.acquire()
    stack.callback(server.release)
    return server, url


def redis_urls(settings: Settings, stack: AsyncExitStack) -> tuple[str, str]:
    """Return the URLs of the feature and the state store, starting or joining the embedded server where none is set."""
    _, features = join_server(settings, stack)
    return features, settings.state_redis_url.get_secret_value() if settings.state_redis_url else features


def feast_environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """Return what feature_store.yaml expands; Feast takes `host:port,password=...` where others take a URL."""
    url = urlsplit(redis_url)
    parts = [f"{url.hostname or '127.0.0.1'}:{url.port or 6379}"]
    if url.password:
        parts.append(f"password={url.password}")
    if url.username:
        parts.append(f"username={url.username}")
    if url.path.strip("/"):
        parts.append(f"db={url.path.strip('/')}")
    if url.scheme == "rediss":
        parts.append("ssl=true")
    return {
        "NBA_VAR": str(settings.var),
        "NBA_MLFLOW_URI": settings.mlflow_uri,
        "NBA_FEAST_REDIS": ",".join(parts),
        "NBA_FEAST_REGISTRY": f"sqlite:///{settings.var / 'registry.db'}",
    }


@asynccontextmanager
async def open_runtime(settings: Settings, *, follow: bool = True) -> AsyncIterator[Runtime]:
    """Build everything, load what is there, and take it down in reverse order.

    Args:
        follow: Keep looking for new bundles and catalogues.
    """
    async with AsyncExitStack() as stack:
        server, features_url = join_server(settings, stack)
        own_state_url = settings.state_redis_url.get_secret_value() if settings.state_redis_url else None
        state_url = own_state_url or features_url
        clock = open_clock(settings.var / "clock.json") if settings.clock == "auto" else WallClock()
        features_link = Link(features_url, breaker=Breaker())
        state_link = features_link if state_url == features_url else Link(state_url, breaker=Breaker())
        facts = sdk_reader(settings, features_url) if settings.fact_reader == "sdk" else None
        seal = open_seal(settings.var)
        ttl_days = settings.decision_ttl_days
        state = RedisState(
            features_link, state_link, LAYOUT, decision_ttl_days=ttl_days, facts=facts, seal=seal, needs_epoch=True
        )
        stack.push_async_callback(state.close)
        journal_breaker = Breaker()
        journal = RedisJournal(
            state_url,
            deadline_seconds=settings.intake_deadline_ms / 1000,
            idempotency_seconds=settings.idempotency_days * 86_400,
            breaker=journal_breaker,
            seal=seal,
        )
        stack.push_async_callback(journal.close)
        if server is not None:

            def move(url: str) -> None:
                features_link.move(url)
                if own_state_url is None:
                    journal.move(url)

            stop = asyncio.Event()
            keeping = asyncio.create_task(keep_running(server, features_url, stop, move))
            stack.push_async_callback(_stop, keeping, stop)
        shelf, rules = CatalogueShelf(settings.var / "catalogues"), RuleShelf(settings.var / "catalogues")
        bundles = BundleDir(settings.var / "models", native=settings.native_trees)
        reloader = Reloader(settings.catalogue, bundles, shelf, rules)
        await asyncio.to_thread(reloader.look)
        evidence = EvidenceReader(state_link, clock)
        online = Online(
            state,
            clock,
            lambda: reloader.serving,
            settings.gather_deadline_ms / 1000,
            settings.record_deadline_ms / 1000,
            evidence=evidence,
        )
        # A store that hangs must not hold up the first answer: what is not told at once is asked for again later.
        is_begun = await _begin_epoch(state_link, settings.lake, clock, WARM_SECONDS)
        with suppress(StoreUnavailable, TimeoutError):  # exploration then starts from the model alone
            async with asyncio.timeout(WARM_SECONDS):
                await evidence.look()
        await warm(online)
        if follow:
            late = [] if is_begun else [_begin_epoch_late(state_link, settings.lake, clock)]
            for following in (reloader.follow(settings.reload_seconds), evidence.follow(EVIDENCE_SECONDS), *late):
                stack.push_async_callback(_cancel, asyncio.create_task(following))
        shadowing: Shadowing | None = None
        if follow and settings.shadow_share > 0:
            shadowing = Shadowing(JournalShadows(state_link, seal), settings.shadow_share)
            online.watch = shadowing.watch
            stack.push_async_callback(_cancel, asyncio.create_task(shadowing.follow()))
        breakers = {**state.breakers, "journal": journal_breaker}
        decisions = StoredDecisions(state, settings.lake)
        past = PastVersions(shelf, reloader.bundles, lambda: reloader.serving)
        explainer = ChildExplainer(settings.var / "models")
        stack.push_async_callback(explainer.close)
        feedback = Feedback(journal, clock)
        erasures = Erasures(state_link, settings.lake, seal)
        yield Runtime(
            settings,
            clock,
            state,
            journal,
            online,
            feedback,
            reloader,
            breakers,
            decisions,
            past,
            explainer,
            erasures,
            shadowing,
        )


def sdk_reader(settings: Settings, features_url: str) -> FactSource:
    """Return the reader that asks Feast's SDK; only now is anything of Feast touched."""
    from service.adapters.feast_sdk import FeastSdk

    return FeastSdk(FEATURE_REPO, {**os.environ, **feast_environment(settings, features_url)}, LAYOUT, Breaker())


async def warm(online: Online) -> None:
    """Open connections and decide for a customer that does not exist, so that no caller pays for what comes first."""
    serving = online.serving()
    if serving is None:
        return
    asking = replace(online, gather_deadline_seconds=WARM_SECONDS)
    for channel in serving.catalogue.catalogue.channels:
        decided, _ = await asking.decide(Ask("nba-warm-up", Request(channel), dry_run=True), lambda decided: b"")
        if isinstance(decided, Decided) and "features_unavailable" in decided.degraded_reasons:
            asking = online  # a store that is away must not hold up the first answer


def all_customers(lake: Path) -> list[str]:
    """Return the ids of all customers that the lake has facts of, sorted; none where it has no facts."""
    import duckdb

    if not list(lake.glob("facts/*/*.parquet")):
        return []
    files = f"{lake}/facts/*/*.parquet"
    query = "SELECT DISTINCT customer_id FROM read_parquet(?, union_by_name=true) ORDER BY ALL"
    return [customer for (customer,) in duckdb.execute(query, [files]).fetchall()]


async def _begin_epoch(state: Link, lake: Path, clock: Clock, deadline_seconds: float) -> bool:
    """Mark a new store as whole; False where it does not answer."""
    try:
        await begin_epoch(state, lake, clock.now(), deadline_seconds)
    except StoreUnavailable:
        return False
    return True


async def _begin_epoch_late(state: Link, lake: Path, clock: Clock) -> None:
    """Mark a new store as whole as soon as it answers: without the mark its contacts would never be believed."""
    while not await _begin_epoch(state, lake, clock, LATE_STORE_DEADLINE_SECONDS):
        await asyncio.sleep(LATE_STORE_SECONDS)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _stop(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    await task
