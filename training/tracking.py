"""MLflow without its talk: what is printed of a step is the step's own."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


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
