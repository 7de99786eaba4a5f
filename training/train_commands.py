"""The commands `nba train`, by hand or by cron, and `nba tune`."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from training.pipeline import CHECKOUT, Step, run_steps

Var = Annotated[Path, typer.Option(envvar="NBA_VAR", help="Folder of everything that is written.")]
MlflowUri = Annotated[str, typer.Option(envvar="NBA_MLFLOW_URI", help="MLflow tracking and registry.")]
DEFAULT_VAR = CHECKOUT / "var"
DEFAULT_MLFLOW = f"sqlite:///{CHECKOUT / 'mlruns' / 'mlflow.db'}"
BUSY = 75
"""Exit code where another training holds the lock: try again later (EX_TEMPFAIL)."""
console = Console(stderr=True)
StepsOf = Callable[..., list[Step]]


def register(app: typer.Typer, steps_of: StepsOf) -> None:
    """Add the commands to `nba`."""

    @app.command("train")
    def train(
        var: Var = DEFAULT_VAR,
        mlflow_uri: MlflowUri = DEFAULT_MLFLOW,
        schedule: Annotated[
            bool, typer.Option("--schedule", help="For cron: all steps that changed, and a report under var/reports.")
        ] = False,
        log: Annotated[
            bool, typer.Option("--log", help="Learn from the answers in the decision log, too: NBA_VAR/lake.")
        ] = False,
    ) -> None:
        """Train, evaluate and register a model; it becomes champion if the gate lets it through."""
        with _alone(var):
            steps = steps_of(var, mlflow_uri, learns_from_log=log)
            if schedule:
                typer.echo(str(scheduled(steps, var, mlflow_uri)))
            else:
                run_steps(steps, var / "stamps", console, only="train")

    @app.command("tune")
    def tune_command(
        trials: Annotated[int, typer.Option(min=1, help="How many, those in the code being the first.")] = 20,
        var: Var = DEFAULT_VAR,
        mlflow_uri: MlflowUri = DEFAULT_MLFLOW,
    ) -> None:
        """Search the model's parameters; the next training takes the best ones. Every trial is a nested MLflow run."""
        from training.dataset import build_dataset, feast_facts, label_rows, monthly_moments
        from training.tune import FILE, tune

        with _alone(var):
            history = var / "history"
            with console.status("Joining facts point in time to the labelled rows, through Feast"):
                dataset = build_dataset(label_rows(history, monthly_moments(history)), feast_facts())
            with console.status(f"Fitting {trials} times; each trial is in the MLflow UI as it ends"):
                found = tune(dataset, mlflow_uri, trials)
            partial = var / f".{FILE}"
            partial.write_text(json.dumps(found, indent=1))
            partial.replace(var / FILE)
        said = f"log loss {found['log_loss']:.6f}, with the parameters in the code {found['first']:.6f}"
        typer.echo(f"{trials} trials, {found['pruned']} cut short; {said}; `nba train` takes them from var/{FILE}")


@contextmanager
def _alone(var: Path) -> Iterator[None]:
    """Hold the lock of training, or end: two at once would register two versions of the same data."""
    var.mkdir(parents=True, exist_ok=True)
    with (var / "train.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            typer.echo("another training is at work here; try again when it has ended", err=True)
            raise typer.Exit(BUSY) from None
        yield


def scheduled(steps: list[Step], var: Path, mlflow_uri: str) -> Path:
    """Run what changed and write down what became of it, also where it failed.

    Returns:
        The report: `ran`, `champion`, `champion_before`, `refusals`, `seconds`, `error`.

    Raises:
        Exception: whatever ended a step, after the report was written.
    """
    from training.promotion import CHALLENGER, CHAMPION, Registry
    from training.tracking import quiet_mlflow

    started, at = time.monotonic(), datetime.now(UTC)
    report: dict[str, Any] = {"at": at.isoformat(timespec="seconds"), "ran": [], "error": None}

    def champion() -> tuple[str | None, str | None]:
        with quiet_mlflow():
            registry = Registry(mlflow_uri)
            return registry.version_of(CHAMPION), registry.version_of(CHALLENGER)

    report["champion_before"] = champion()[0]
    path = var / "reports" / f"train-{at:%Y%m%dT%H%M%SZ}.json"
    try:
        report["ran"] = run_steps(steps, var / "stamps", console)
        report["champion"], report["challenger"] = champion()
        report["refusals"] = _refusals(mlflow_uri, report)
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        report["seconds"] = round(time.monotonic() - started, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1))
    return path


def _refusals(mlflow_uri: str, report: dict[str, Any]) -> list[str]:
    """Return what the gate has against a challenger that was trained now and did not become champion."""
    from training.promotion import Registry
    from training.tracking import quiet_mlflow

    if "train" not in report["ran"] or report["champion"] == report["challenger"]:
        return []
    with quiet_mlflow():
        return list(Registry(mlflow_uri).verdict(str(report["challenger"])).refusals)
