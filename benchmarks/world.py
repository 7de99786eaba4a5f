"""The world that contestants are measured in: trained data as it is, a server, state and catalogue of its own.

Nothing is written into the prepared `var`. Decides who the customers are, that all may be contacted, and that caps are
there and counted but never full, so that no figure is flattered by customers to whom nothing may be proposed any more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.introduction import introduce, question
from benchmarks.processes import (
    Cores,
    ProcessFailed,
    last_lines,
    on_core,
    pin,
)
from features.contract import LAYOUT
from service.adapters.bundle_dir import current_digest, read_plan
from service.adapters.embedded import EmbeddedServer
from service.adapters.feast_reader import FactReader
from service.bootstrap import all_customers, feast_environment
from service.catalogue.loader import load_catalogue
from service.settings import CHECKOUT, Settings

CAP_LIMIT = 1_000_000
REFUSED = "there is nothing to measure: {} is missing; run `make train` first"


class NotReady(RuntimeError):
    """The data that the yardstick needs are not there; one sentence says what to do."""


@dataclass(frozen=True)
class World:
    """What every contestant is given.

    Attributes:
        env: For our own commands. bodies: One question a customer, in a seeded order.
        model_uri: The served model's version in MLflow. eligible: File of customer -> actions for the model to score.
        answer_bytes: Mean size of our answers. catalogue: The copy with caps that never fill.
        facts_key: Where one customer's facts lie in Redis.
    """

    var: Path
    env: dict[str, str]
    redis_url: str
    mlflow_uri: str
    model_uri: str
    bodies: list[bytes]
    customers: list[str]
    catalogue: Path
    eligible: Path
    answer_bytes: int
    facts_key: bytes


def served_model(settings: Settings) -> str:
    """Return the URI in MLflow of the model that the current bundle was made from.

    Raises:
        NotReady: Any of the prepared data is missing.
    """
    var = settings.var
    for what, is_there in (
        (f"{var / 'history'}", (var / "history" / "lines.parquet").exists()),
        (f"{var / 'lake' / 'facts'}", any(var.glob("lake/facts/*/*.parquet"))),
        (f"Feast's registry {var / 'registry.db'}", (var / "registry.db").exists()),
        (f"a model bundle in {var / 'models'}", current_digest(var / "models") is not None),
    ):
        if not is_there:
            raise NotReady(REFUSED.format(what))
    digest = current_digest(var / "models")
    name, _, version = json.loads((var / "models" / str(digest) / "manifest.json").read_text())[
        "model_version"
    ].partition("/")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database = settings.mlflow_uri.removeprefix("sqlite:///")
    try:
        if database != settings.mlflow_uri and not Path(database).exists():
            raise NotReady(REFUSED.format(f"MLflow's {database}"))
        MlflowClient(settings.mlflow_uri, settings.mlflow_uri).get_model_version(name, version)
    except MlflowException:
        raise NotReady(REFUSED.format(f"{name}/{version}, which the bundle was made from, in MLflow")) from None
    return f"models:/{name}/{version}"


@contextmanager
def open_world(settings: Settings, folder: Path, cores: Cores, seed: int) -> Iterator[World]:
    """Prepare a world under `folder` and take its server down at the end.

    Raises:
        NotReady: Any of the prepared data is missing.
    """
    model_uri = served_model(settings)
    var = copy_var(settings.var, folder / "var")
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(uncapped(settings.catalogue.read_text()))
    load_catalogue(catalogue)
    with on_core(cores.others), EmbeddedServer(var) as url:
        pin(json.loads((var / "redis" / "server.json").read_text())["pid"], cores.others)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("NBA_", "PEER_"))},
            **feast_environment(Settings(var=var, mlflow_uri=settings.mlflow_uri), url),
            "PYTHONPATH": str(CHECKOUT), "NBA_REDIS_URL": url, "NBA_CATALOGUE": str(catalogue),
            "NBA_MLFLOW_URI": settings.mlflow_uri,
        }  # fmt: skip
        materialize(env, folder)
        customers = all_customers(var / "lake")
        order = np.random.default_rng(seed).permutation(len(customers))
        bodies = [question(customers[i]) for i in order]
        eligible, answer_bytes = introduce(env, folder, cores, customers, catalogue)
        yield World(
            var, env, url, settings.mlflow_uri, model_uri, bodies, customers, catalogue, eligible, answer_bytes,
            facts_key(var, customers[0]),
        )  # fmt: skip


def copy_var(source: Path, target: Path) -> Path:
    """Make a `var` of its own: what is only read as links, what may be written as copies, no state."""
    target.mkdir()
    (target / "lake").mkdir()
    (target / "history").symlink_to((source / "history").resolve())
    (target / "lake" / "facts").symlink_to((source / "lake" / "facts").resolve())
    digest = current_digest(source / "models")
    shutil.copytree(source / "models" / str(digest), target / "models" / str(digest))
    shutil.copy(source / "models" / "current", target / "models" / "current")
    shutil.copy(source / "registry.db", target / "registry.db")
    if (source / "clock.json").exists():
        shutil.copy(source / "clock.json", target / "clock.json")
    return target


def facts_key(var: Path, customer: str) -> bytes:
    """Return the key of a customer's facts by the read plan of the served bundle."""
    bundle = var / "models" / str(current_digest(var / "models"))
    return FactReader(read_plan(json.loads((bundle / "plan.json").read_text())), LAYOUT).key(customer)


def uncapped(catalogue: str) -> str:
    """Return a catalogue whose caps are all there and never full."""
    document = yaml.safe_load(catalogue)
    for cap in document.get("caps", {}).values():
        cap["limit"] = CAP_LIMIT
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def materialize(env: dict[str, str], folder: Path) -> None:
    """Bring the newest facts into the world's own server, through Feast."""
    log = folder / "materialize.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "service.cli", "materialize"]
        done = subprocess.run(command, env=env, cwd=folder, stdout=out, stderr=out, check=False, timeout=300)
    if done.returncode:
        raise ProcessFailed(f"`nba materialize` failed: {last_lines(log)}")
