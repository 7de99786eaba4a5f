"""The world that contestants are measured in: a server, customers, catalogue and model of its own.

Facts are those of the prepared households, through Feast; nothing is written into the prepared `var`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis

from benchmarks import assortment, crowd, forest
from benchmarks.introduction import introduce, question
from benchmarks.processes import Cores, ProcessFailed, last_lines, on_core, pin
from features.contract import LAYOUT
from features.matrix import Columns
from service.adapters.bundle_dir import current_digest, read_plan, set_current
from service.adapters.clock import open_clock
from service.adapters.embedded import EmbeddedServer
from service.adapters.feast_reader import FactReader
from service.bootstrap import all_customers, feast_environment
from service.catalogue.loader import load_catalogue
from service.decision.compiled import action_table
from service.settings import CHECKOUT, Settings

REFUSED = "there is nothing to measure: {} is missing; run `make demo ONCE=1` first"
QUESTIONS = 50_000


class NotReady(RuntimeError):
    """The data that the benchmark needs are not there; one sentence says what to do."""


@dataclass(frozen=True)
class World:
    """What every contestant is given.

    Attributes:
        env: For our own commands. bodies: Questions in the order of asking. bare_bodies: The same, to be answered
            without reserving and logging.
        catalogue, bare_catalogue: With and without caps. exploring_catalogue: With caps, exploring as shipped.
        model: Folder of the model as MLflow saved it. bundles: Digests of two bundles of it; the first is current.
        answer_bytes: Mean size of our answers. facts_key: Where one customer's facts lie in Redis.
    """

    var: Path
    env: dict[str, str]
    redis_url: str
    bodies: list[bytes]
    bare_bodies: list[bytes]
    customers: list[str]
    catalogue: Path
    bare_catalogue: Path
    exploring_catalogue: Path
    model: Path
    bundles: tuple[str, str]
    answer_bytes: int
    facts_key: bytes


def check_prepared(settings: Settings) -> None:
    """Raise NotReady where any of the prepared data is missing."""
    var = settings.var
    for what, is_there in (
        (f"{var / 'lake' / 'facts'}", any(var.glob("lake/facts/*/*.parquet"))),
        (f"Feast's registry {var / 'registry.db'}", (var / "registry.db").exists()),
        (f"a model bundle in {var / 'models'}", current_digest(var / "models") is not None),
        (
            f"the clock {var / 'clock.json'} (by the wall clock all facts of the example are stale)",
            (var / "clock.json").exists(),
        ),
    ):
        if not is_there:
            raise NotReady(REFUSED.format(what))


@contextmanager
def open_world(settings: Settings, folder: Path, cores: Cores, seed: int, n_customers: int) -> Iterator[World]:
    """Prepare a world under `folder` and take its server down at the end.

    Raises:
        NotReady: Any of the prepared data is missing.
    """
    check_prepared(settings)
    var = copy_var(settings.var, folder / "var")
    catalogue, bare_catalogue, shipped = (folder / f"{name}.yaml" for name in ("catalogue", "bare", "shipped"))
    shipped.write_text(assortment.widen(settings.catalogue.read_text(), explores_as_shipped=True))
    catalogue.write_text(assortment.widen(settings.catalogue.read_text()))
    bare_catalogue.write_text(assortment.widen(settings.catalogue.read_text(), is_capped=False))
    with on_core(cores.others), EmbeddedServer(var) as url:
        pin(json.loads((var / "redis" / "server.json").read_text())["pid"], cores.others)
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("NBA_", "PEER_"))},
            **feast_environment(Settings(var=var), url),
            "PYTHONPATH": str(CHECKOUT), "NBA_REDIS_URL": url, "NBA_CATALOGUE": str(catalogue),
        }  # fmt: skip
        materialize(env, folder)
        households, reader = all_customers(var / "lake"), reader_of(var)
        bundles = plant_forest(url, var, folder, reader, households, catalogue, seed)
        with redis.Redis.from_url(url) as server:
            server.config_set("appendonly", "no")  # the crowd is copied, not written: the log begins after it
            answer_bytes = introduce(env, folder, cores, households)
            people = crowd.crowd_of(n_customers)
            crowd.settle(url, reader, households, people, seed)
            begin_log(server)
        asking = crowd.askers(people, QUESTIONS, seed)
        yield World(
            var, env, url, [question(c) for c in asking], [question(c, dry_run=True) for c in asking], people,
            catalogue, bare_catalogue, shipped, folder / "mlflow", bundles, answer_bytes, reader.key(people[0]),
        )  # fmt: skip


def begin_log(server: redis.Redis) -> None:
    """Begin the append-only log with all that is there, and never compact it: that would disturb a contestant."""
    server.config_set("auto-aof-rewrite-percentage", 0)
    server.config_set("appendonly", "yes")
    about = {"aof_rewrite_in_progress": 1}
    while about["aof_rewrite_in_progress"] or about.get("aof_rewrite_scheduled"):
        time.sleep(0.1)
        about = server.info("persistence")


def plant_forest(
    url: str, var: Path, folder: Path, reader: FactReader, households: list[str], catalogue: Path, seed: int
) -> tuple[str, str]:
    """Train the benchmark's model on what the households are, and make it the current bundle, twice."""
    now = open_clock(var / "clock.json").now()
    with redis.Redis.from_url(url) as server, server.pipeline(transaction=False) as pipe:
        for household in households:
            pipe.execute_command("HGETALL", reader.key(household))
        replies = [[part for pair in reply.items() for part in pair] for reply in pipe.execute()]
    facts = np.ascontiguousarray(reader.rows(replies).facts.T)
    table = action_table(load_catalogue(catalogue).actions, Columns())
    booster, rows = forest.grow(facts, now, table, seed)
    forest.save(booster, rows, folder / "mlflow")
    second, first = (forest.plant(booster, rows, var / "models", f"benchmark-forest/{n}") for n in (2, 1))
    set_current(var / "models", first)
    return first, second


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


def reader_of(var: Path) -> FactReader:
    """Return what reads facts by the read plan of the current bundle."""
    bundle = var / "models" / str(current_digest(var / "models"))
    return FactReader(read_plan(json.loads((bundle / "plan.json").read_text())), LAYOUT)


def materialize(env: dict[str, str], folder: Path) -> None:
    """Bring the newest facts into the world's own server, through Feast."""
    log = folder / "materialize.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "service.cli", "materialize"]
        done = subprocess.run(command, env=env, cwd=folder, stdout=out, stderr=out, check=False, timeout=300)
    if done.returncode:
        raise ProcessFailed(f"`nba materialize` failed: {last_lines(log)}")
