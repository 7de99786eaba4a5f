"""The commands of `nba`: each reads the settings, opens what it needs and says in one sentence what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from contextlib import AsyncExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.catalogue_commands import CatalogueStop, catalogue_app
from service.log_commands import log_app
from service.logs import set_up_logs
from service.privacy_commands import export_app, forget
from service.restore_commands import rebuild, skew
from service.serve import Stop, listening_socket
from service.settings import Settings, explain_settings
from service.switch_commands import switch_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Next best action.")
app.add_typer(catalogue_app, name="catalogue")
key_app = typer.Typer(no_args_is_help=True, help="Make API keys.")
app.add_typer(key_app, name="key")
doctor_app = typer.Typer(help="What is configured, reachable, stale or dangerous, and what to do.")
app.add_typer(doctor_app, name="doctor")
app.add_typer(log_app, name="log")
app.add_typer(export_app, name="export")
app.command()(forget)
app.command()(rebuild)
app.command()(skew)
app.add_typer(switch_app, name="switch")
console = Console(stderr=True)
NEEDS_FEAST = ("apply", "materialize", "replay", "train", "tune", "prepare", "agent", "worker", "rebuild", "demo")


@app.callback()
def before(ctx: typer.Context) -> None:
    """Give the commands that use Feast its environment, and the embedded server where no URL is set."""
    if ctx.invoked_subcommand not in NEEDS_FEAST or any(arg in sys.argv for arg in ("--help",)):
        return
    from service.bootstrap import feast_environment, redis_urls

    settings = Settings()
    settings.var.mkdir(parents=True, exist_ok=True)
    stack = AsyncExitStack()
    features_url, _ = redis_urls(settings, stack)
    os.environ.update(feast_environment(settings, features_url))
    ctx.call_on_close(lambda: asyncio.run(stack.aclose()))


@app.command()
def serve(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Serving processes on the one port.")] = 1,
) -> None:
    """Serve decisions, outcomes and events over HTTP."""
    from service.serve import serve as serve_until_a_signal

    serve_until_a_signal(workers)


@app.command()
def worker() -> None:
    """Apply events and outcomes from the journal to the feature store and write the lake."""
    from service.worker import run_worker

    settings = Settings()
    set_up_logs(settings.log_level)
    run_worker(settings, os.environ["NBA_FEAST_REDIS"])


@app.command()
def agent(
    once: Annotated[bool, typer.Option("--once", help="Look once, make the bundle, stop.")] = False,
) -> None:
    """Follow champion and challenger in MLflow: check each version and make it the bundle that is served."""
    from service.model_agent import follow, sync_challenger, sync_once

    settings = Settings()
    set_up_logs(settings.log_level, trusts_all=True)
    models, registry = settings.var / "models", os.environ["NBA_FEAST_REGISTRY"]
    if not once:
        follow(models, settings.mlflow_uri, registry, native=settings.native_trees)
        return
    with console.status("Checking the champion and making its bundle"):
        digest = sync_once(models, settings.mlflow_uri, registry, native=settings.native_trees)
    if digest is None:
        raise Stop("no bundle was made: MLflow has no champion, or it was refused (var/models/refused.json says why)")
    console.print(f"nba: bundle {digest[:12]} is current")
    challenger = sync_challenger(models, settings.mlflow_uri, registry, native=settings.native_trees)
    if challenger is not None:
        console.print(f"nba: bundle {challenger[:12]} is the challenger's")


@app.command()
def batch(
    channel: Annotated[str, typer.Option(help="Channel to decide for.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    customers: Annotated[
        Path | None, typer.Option(help="Text file, one customer id a line; default: all in the lake.")
    ] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Reserve contact caps and log every decision.")] = False,
    run_id: Annotated[str, typer.Option(help="Names the run: the same run again gives the same draws.")] = "",
) -> None:
    """Decide for every customer and write the decisions to a file."""
    done = asyncio.run(_batch(Settings(), channel, out, customers, commit, run_id))
    console.print(f"nba: {done} customers decided into {out}")


async def _batch(settings: Settings, channel: str, out: Path, customers: Path | None, commit: bool, run_id: str) -> int:
    from service.batch import Batch
    from service.bootstrap import all_customers, open_runtime
    from service.decision.model import Request

    ids = customers.read_text().split() if customers else all_customers(settings.lake)
    if not ids:
        raise Stop("no customer to decide for: the lake has no facts yet; run `nba prepare` first, or name --customers")
    done = 0
    async with open_runtime(settings, follow=False) as runtime:
        serving = runtime.reloader.serving
        if serving and channel not in serving.catalogue.catalogue.channels:
            raise Stop(f"--channel must be one of {', '.join(serving.catalogue.catalogue.channels)}")
        source = runtime.online.evidence
        evidence = source.of(serving.catalogue) if source and serving else None
        name = run_id or f"batch-{channel}-{runtime.clock.now():.3f}"
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("deciding", total=len(ids))
            job = Batch(runtime.state, runtime.clock, serving, name, commit, evidence)
            async for done in job.run(ids, Request(channel), out):
                progress.update(task, completed=done)
    return done


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000) -> None:
    """Open MLflow on this machine: runs, metrics, plots, model versions."""
    settings = Settings()
    listening_socket("127.0.0.1", port, "--port").close()
    console.print(f"nba: MLflow on http://127.0.0.1:{port}")
    arguments = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", *arguments, "--backend-store-uri", settings.mlflow_uri])


@app.command()
def demo(once: Annotated[bool, typer.Option("--once", help="Stop at the end.")] = False) -> None:
    """Run the whole pipe on the example and show it, then keep serving."""
    from service.demo import run_demo

    run_demo(Settings(), once=once)


@doctor_app.callback(invoke_without_command=True)
def doctor(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Say what is configured, reachable, stale or dangerous, and what to do; exit code 1 when something is wrong."""
    if ctx.invoked_subcommand is not None:
        return
    from service import doctor as examination

    set_up_logs("CRITICAL")  # what other packages have to say is no finding
    with contextlib.redirect_stdout(sys.stderr):
        found = examination.examine(Settings())
    if as_json:
        typer.echo(examination.as_json(found))
    else:
        table = Table("", "check", "found", "what to do", box=None, padding=(0, 2, 0, 0))
        styles = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
        for one in found:
            table.add_row(one.status, one.check, escape(one.found), escape(one.remedy), style=styles[one.status])
        Console().print(table)
    raise typer.Exit(0 if examination.is_healthy(found) else 1)


@key_app.command("new")
def key_new(
    name: Annotated[str, typer.Option(help="Who will use it.")],
    scopes: Annotated[str, typer.Option(help="Some of decide, outcome, read, admin, erase, with commas.")],
) -> None:
    """Make an API key: the key on the first line, once and never again; its entry for NBA_API_KEYS on the second."""
    from service.api.keys import new_key

    secret, entry = new_key(name, [scope.strip() for scope in scopes.split(",")])
    console.print("nba: give the first line to the caller; add the second to the list of NBA_API_KEYS and start again")
    typer.echo(f"{secret}\n{entry}")


def explain_failure(error: BaseException) -> str | None:
    """Return the one sentence for a failure that a person can mend, or None for a defect."""
    from service.adapters.clock import ClockFileError
    from service.adapters.embedded import EmbeddedServerError
    from service.api.keys import KeysError
    from service.catalogue.loader import CatalogueError
    from service.lake_files import LogError
    from service.online import NothingLoaded
    from service.ports import BundleRefused, StoreUnavailable

    if (said := explain_settings(error)) is not None:
        return said
    told = (Stop, CatalogueStop, CatalogueError, ClockFileError, EmbeddedServerError, KeysError, LogError)
    if isinstance(error, told):
        return str(error)
    if isinstance(error, BundleRefused):
        return f"a model was refused and the bundle in use stays: {error}"
    if isinstance(error, NothingLoaded):
        return "no model bundle was made yet; run `make train` (or `nba prepare` and `nba agent --once`) first"
    if isinstance(error, StoreUnavailable):
        return f"the store does not answer ({error}); check NBA_REDIS_URL, or unset it to use the embedded server"
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "disk is full" in str(error):
        return "the disk is full; free some room and run the same command again: what was finished is kept"
    return None


def main() -> None:
    """Run a command; a failure that a person can mend is one sentence and exit code 1."""
    # Read when the first library with OpenMP is loaded: threads that wait for each other must not hold the cores that
    # others could use. On a busy machine training takes several times as long else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for entry in entry_points(group="nba.commands"):
        entry.load()(app)
    try:
        app()
    except Exception as error:
        if not tell(error):
            raise
        sys.exit(1)


def tell(error: BaseException) -> bool:
    """Say a failure that a person can mend in one sentence; False for a defect."""
    sentence = explain_failure(error)
    if sentence is not None:
        console.print(f"nba: {sentence}", style="bold red", highlight=False, soft_wrap=True, markup=False)
    return sentence is not None
