"""Who is measured: what each runs, and with what it is asked. A further contestant is one more entry."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.introduction import PATIENT
from benchmarks.world import World


@dataclass(frozen=True)
class Contestant:
    """Something that answers `POST /v1/decisions`.

    Attributes:
        name: In the JSON. title: In the table. command: Without the port. env: Beside the world's.
        fsync: How the server writes its log meanwhile. is_ours: Whether it is `nba serve`, which tells its metrics.
        is_bare: Whether it is asked to decide without caps, reservation and log.
        rounds: In how many rounds it takes part at most.
    """

    name: str
    title: str
    command: Sequence[str]
    env: Mapping[str, str]
    fsync: str = "everysec"
    is_ours: bool = False
    is_bare: bool = False
    rounds: int = 99


NOOP, STOCK, SERVICES, EXPERT, OURS, OURS_ALWAYS = "noop", "stock", "services", "expert", "ours", "ours_always"
SHIPPED, INTERPRETED, EXPLORING = "ours_shipped", "ours_interpreted", "ours_exploring"
FULL = (NOOP, STOCK, SERVICES, EXPERT, OURS, OURS_ALWAYS, SHIPPED, INTERPRETED, EXPLORING)
BARE = ("stock_bare", "expert_bare", "ours_bare")
REDIS_TITLES = {"redis_ping": "bare Redis: PING", "redis_hgetall": "bare Redis: HGETALL of a customer's facts"}
STOCK_TITLE = "A: FastAPI def + Feast SDK to_df + mlflow.pyfunc + pandas"
EXPERT_TITLE = "D: async FastAPI + get_online_features_async + numpy + Booster"


def contestants(world: World) -> list[Contestant]:
    """Return the web contestants, in the order of a round."""

    def peer(module: str) -> list[str]:
        served = ["--factory", f"benchmarks.peers.{module}:create_app", "--no-access-log", "--log-level", "warning"]
        return [sys.executable, "-m", "uvicorn", *served, "--port"]

    ours = [sys.executable, "-m", "service.cli", "serve"]
    services = [sys.executable, "-m", "benchmarks.peers.services"]
    env = {
        "PEER_VAR": str(world.var), "PEER_REDIS_URL": world.redis_url, "PEER_CATALOGUE": str(world.catalogue),
        "PEER_MODEL": str(world.model), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    bare, ours_bare = {**env, "PEER_CATALOGUE": str(world.bare_catalogue)}, {"NBA_CATALOGUE": str(world.bare_catalogue)}
    fast = {**PATIENT, "NBA_NATIVE_TREES": "true"}
    exploring = {**fast, "NBA_CATALOGUE": str(world.exploring_catalogue)}
    shipped = {"NBA_NATIVE_TREES": "true"}
    noop = {"PEER_ANSWER_BYTES": str(world.answer_bytes)}
    return [
        Contestant(NOOP, "no-op: FastAPI route, body of the same size", peer("noop"), noop),
        Contestant(STOCK, STOCK_TITLE, peer("stock"), env),
        Contestant(SERVICES, "B: feast serve + mlflow models serve + gateway", services, env, rounds=1),
        Contestant(EXPERT, EXPERT_TITLE, peer("expert"), env),
        Contestant(OURS, "nba serve, AOF everysec", ours, fast, is_ours=True),
        Contestant(OURS_ALWAYS, "nba serve, AOF always", ours, fast, "always", is_ours=True),
        Contestant(
            "ours_shipped", "nba serve, AOF always, deadlines as shipped", ours, shipped, "always", True, rounds=1
        ),
        Contestant(
            "ours_interpreted", "nba serve, AOF everysec, trees not compiled", ours, PATIENT, is_ours=True, rounds=1
        ),
        Contestant(
            EXPLORING, "nba serve, AOF everysec, exploration as shipped", ours, exploring, is_ours=True, rounds=1
        ),
        Contestant("stock_bare", STOCK_TITLE, peer("stock"), bare, is_bare=True, rounds=1),
        Contestant("expert_bare", EXPERT_TITLE, peer("expert"), bare, is_bare=True, rounds=1),
        Contestant("ours_bare", "nba serve", ours, {**fast, **ours_bare}, is_ours=True, is_bare=True, rounds=1),
    ]
