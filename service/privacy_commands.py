"""`nba forget` and `nba export`: what is held of a customer, its removal, and the log for other people's tools."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.lake_files import LogError
from service.log_commands import plain
from service.settings import Settings

export_app = typer.Typer(no_args_is_help=True, help="Write out what is held of a customer, or the log for other tools.")
console = Console(stderr=True)
LOOK_SECONDS = 0.5

CustomerId = Annotated[str, typer.Argument(help="The customer's id.")]


def forget(
    customer_id: CustomerId,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the receipt; 0: do not wait.")] = 60.0,
) -> None:
    """Remove a customer from everywhere; prints the signed receipt. A worker does the work."""
    receipt = asyncio.run(_forget(Settings(), customer_id, wait))
    typer.echo(json.dumps(receipt, indent=2))
    if receipt["status"] != "done" and wait:
        raise LogError(f"the customer is blocked, but not removed after {wait:g} s; start `nba worker` and ask again")


async def _forget(settings: Settings, customer_id: str, wait: float) -> dict[str, Any]:
    from service.adapters.clock import WallClock
    from service.adapters.erasures import Erasures
    from service.adapters.seal import open_seal

    async with _state(settings) as link:
        erasures = Erasures(link, settings.lake, open_seal(settings.var))
        receipt_id = await erasures.ask(customer_id, "nba forget", WallClock().now())
        end = asyncio.get_running_loop().time() + wait
        while (found := await erasures.find(receipt_id)) is None or found["status"] != "done":
            if asyncio.get_running_loop().time() >= end:
                return found or {"receipt_id": receipt_id, "status": "pending"}
            await asyncio.sleep(LOOK_SECONDS)
        return found


@export_app.command("customer")
def export_customer(customer_id: CustomerId) -> None:
    """Print all that is held of a customer as JSON: facts, contacts, consents, log, rows in other files."""
    held = asyncio.run(_held(Settings(), customer_id))
    json.dump(plain(held), sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


async def _held(settings: Settings, customer_id: str) -> dict[str, Any]:
    from service.adapters.held_data import files_with, logged_of
    from service.bootstrap import open_runtime
    from service.customer import customer_view

    async with open_runtime(settings, follow=False) as runtime, _state(settings) as link:
        now, serving = runtime.clock.now(), runtime.reloader.serving
        known = await customer_view(runtime.state, serving, customer_id, now) if serving is not None else None
        return {
            "customer_id": customer_id,
            "online": known or await runtime.state.contacts_of(customer_id, now),
            "log": await logged_of(customer_id, link, settings.lake),
            "files": await asyncio.to_thread(files_with, customer_id, settings.var, settings.lake),
        }


@export_app.command("pdstools")
def export_pdstools(
    out: Annotated[Path, typer.Option(help="Folder to write into; made where it is missing.")],
) -> None:
    """Write the log as Pega's open-source pdstools reads it: for its DecisionAnalyzer and its IH."""
    from service.adapters.pdstools_export import export

    settings = Settings()
    written = export(settings.lake, settings.var / "catalogues", out)
    console.print("nba: " + ", ".join(f"{count} rows in {path}" for path, count in written.items()))


@asynccontextmanager
async def _state(settings: Settings) -> AsyncIterator[Any]:
    from service.adapters.connection import Link
    from service.bootstrap import redis_urls

    async with AsyncExitStack() as stack:
        link = Link(redis_urls(settings, stack)[1])
        stack.push_async_callback(link.close)
        yield link
