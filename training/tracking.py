"""MLflow without its talk, and the one experiment that all runs belong to."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPERIMENT = "nba"


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's and Alembic's notes from the terminal; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.models.model")]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def experiment_of(client: Any, mlflow_uri: str) -> str:
    """Return the id of the experiment, made where it is not there; for SQLite, artifacts lie beside the database."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if mlflow_uri.startswith("sqlite:///"):
        location = (Path(mlflow_uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))
