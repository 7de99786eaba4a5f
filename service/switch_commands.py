"""`nba switch`: pause, resume, list. Decides what may be named; the next decision of every process obeys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.settings import Settings

switch_app = typer.Typer(no_args_is_help=True, help="Pause and resume: acts on the next decision of every process.")
console = Console(stderr=True)
ScopeArgument = Annotated[
    str, typer.Argument(help="all, channel, placement, issue, group, action or treatment.", metavar="SCOPE")
]
IdArgument = Annotated[str, typer.Argument(help="Which one; `all` for scope all.", metavar="ID")]
WhoOption = Annotated[str, typer.Option(help="Who decided.")]
WhyOption = Annotated[str, typer.Option(help="Why.")]


@switch_app.command()
def pause(scope: ScopeArgument, scope_id: IdArgument, who: WhoOption, why: WhyOption) -> None:
    """Pause."""
    settings = Settings()
    check_known(settings, scope, scope_id)
    _set(settings, scope, scope_id, who, why, paused=True)


@switch_app.command()
def resume(scope: ScopeArgument, scope_id: IdArgument, who: WhoOption, why: WhyOption) -> None:
    """Resume; also what the catalogue does not have any more."""
    _set(Settings(), scope, scope_id, who, why, paused=False)


@switch_app.command("list")
def list_switches() -> None:
    """Show what is paused, by whom and why."""
    from service.answer import iso
    from service.bootstrap import open_runtime

    async def read() -> list[Mapping[str, Any]]:
        async with open_runtime(Settings(), follow=False) as runtime:
            return list(await runtime.state.switches())

    paused = asyncio.run(read())
    if not paused:
        console.print("nba: nothing is paused")
        return
    table = Table("scope", "id", "since", "who", "why", box=None, padding=(0, 2, 0, 0))
    for one in paused:
        words = [escape(str(one[name])) for name in ("scope", "id", "who", "why")]
        table.add_row(*words[:2], iso(float(one["at"])), *words[2:])
    Console().print(table)


def check_known(settings: Settings, scope: str, scope_id: str) -> None:
    """Refuse what the catalogue does not have: a pause that stops nothing is worse than none."""
    from service.catalogue.loader import load_catalogue
    from service.decision.switches import SCOPES, switchable

    if scope not in SCOPES:
        raise typer.BadParameter(f"SCOPE must be one of {', '.join(SCOPES)}")
    known = switchable(load_catalogue(settings.catalogue))[scope]
    if scope_id not in known:
        raise typer.BadParameter(f"the catalogue has no {scope} {scope_id!r}; it has {', '.join(sorted(known))}")


def _set(settings: Settings, scope: str, scope_id: str, who: str, why: str, *, paused: bool) -> None:
    from service.bootstrap import open_runtime

    async def set_it() -> None:
        async with open_runtime(settings, follow=False) as runtime:
            now = runtime.clock.now()
            await runtime.state.set_switch(scope, scope_id, paused=paused, who=who, why=why, now=now)

    asyncio.run(set_it())
    console.print(f"nba: {scope} {escape(scope_id)} {'paused' if paused else 'resumed'}")
