"""`nba rebuild`: what an emptied store lost comes back from the lake."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.settings import Settings

console = Console(stderr=True)


def rebuild(
    snapshots: Annotated[
        bool, typer.Option(help="Begin facts with the newest snapshots of the lake; else with nothing.")
    ] = True,
) -> None:
    """Put contacts, evidence, consents, ids, switches and facts from the lake back into an emptied store."""
    from service.rebuild import WorkersRun

    try:
        console.print(f"nba: {asyncio.run(_rebuild(Settings(), use_snapshots=snapshots))}", highlight=False)
    except WorkersRun as error:
        console.print(f"nba: {error}", style="bold red")
        raise typer.Exit(1) from None


async def _rebuild(settings: Settings, *, use_snapshots: bool) -> str:
    from features.contract import LAYOUT
    from service.adapters.bundle_dir import read_plan
    from service.adapters.clock import WallClock, open_clock
    from service.adapters.connection import Link
    from service.adapters.decision_log import CatalogueShelf
    from service.adapters.erasures import Erasures
    from service.adapters.feast_plan import resolve_plan
    from service.adapters.redis_facts import RedisFacts
    from service.adapters.redis_journal import RedisJournal
    from service.adapters.seal import open_seal
    from service.adapters.state_restore import DEADLINE_SECONDS, StateRestore
    from service.bootstrap import FEATURE_REPO, redis_urls
    from service.decision.record import PARTITIONS
    from service.rebuild import Rebuild

    async with AsyncExitStack() as stack:
        features_url, state_url = redis_urls(settings, stack)
        features, state = Link(features_url), Link(state_url)
        seal, idempotency = open_seal(settings.var), settings.idempotency_days * 86_400
        journal = RedisJournal(state_url, deadline_seconds=DEADLINE_SECONDS, idempotency_seconds=idempotency, seal=seal)
        for closing in (features.close, state.close, journal.close):
            stack.push_async_callback(closing)
        clock = open_clock(settings.var / "clock.json") if settings.clock == "auto" else WallClock()
        plan = read_plan(await asyncio.to_thread(resolve_plan, FEATURE_REPO, os.environ["NBA_FEAST_REGISTRY"]))
        restore = StateRestore(
            state, journal, CatalogueShelf(settings.var / "catalogues").find, clock.now(),
            decision_ttl_days=settings.decision_ttl_days, idempotency_seconds=idempotency,
        )  # fmt: skip
        rebuilding = Rebuild(
            state, settings.lake, Erasures(state, settings.lake, seal), restore,
            RedisFacts(features, plan, LAYOUT), clock.now(), use_snapshots=use_snapshots,
        )  # fmt: skip
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("partitions", total=PARTITIONS)
            return str(await rebuilding.run(lambda partition: progress.update(task, completed=partition + 1)))
