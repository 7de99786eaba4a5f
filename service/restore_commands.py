"""`nba rebuild` and `nba skew`: bring back from the lake what a store lost; say whether what it served was right."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.settings import Settings

console = Console(stderr=True)
WIDE = 200


def rebuild(
    snapshots: Annotated[
        bool, typer.Option(help="Begin facts with the newest snapshots of the lake; else with nothing.")
    ] = True,
) -> None:
    """Put contacts, evidence, consents, ids, switches and facts from the lake back into an emptied store."""
    from service.rebuild import WorkersRun

    try:
        console.print(
            f"nba: {asyncio.run(_rebuild(Settings(), use_snapshots=snapshots))}", highlight=False, soft_wrap=True
        )
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


def skew(
    sample: Annotated[int, typer.Option(help="Decisions to compare.")] = 1000,
    lag_seconds: Annotated[
        float, typer.Option(help="What was acknowledged so shortly before a decision may not have been applied yet.")
    ] = 5.0,
) -> None:
    """Compare facts as decisions were served with facts recomputed from the lake, by view; exit code 1 on skew."""
    from service.skew import find_skew

    found = find_skew(Settings().lake, sample=sample, lag_seconds=lag_seconds)
    table = Table("view", "same", "in flight", "skewed", "verdict", "farthest", box=None, padding=(0, 2, 0, 0))
    for name, view in found.views.items():
        far = view.worst
        said = f"{far.fact} of {far.decision_id}: served {far.served:g}, recomputed {far.recomputed:g}" if far else ""
        table.add_row(name, str(view.same), str(view.in_flight), str(view.skewed), view.verdict, said)
    out = Console()
    out.print(table, width=None if out.is_terminal else WIDE)
    verdict = "skewed" if found.is_skewed else "no skew"
    console.print(f"nba: {verdict} in {found.decisions:,} decisions", highlight=False)
    raise typer.Exit(1 if found.is_skewed else 0)
