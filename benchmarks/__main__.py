"""`python -m benchmarks`: the core alone, then the yardstick; writes docs/performance.md and docs/performance.json."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from benchmarks import picture, report, scaling, studies
from benchmarks.contestants import EXPERT, NOOP, OURS, STOCK, contestants
from benchmarks.forest import TREES
from benchmarks.introduction import CHANNEL, PLACEMENT, SLOTS
from benchmarks.load import Load, LoadFailed
from benchmarks.machine import describe_machine
from benchmarks.online import Bench, Plan, run_rounds
from benchmarks.processes import Cores, ProcessFailed, busy_share, choose_cores
from benchmarks.world import NotReady, World, open_world
from features.matrix import Columns, ModelInput
from service.adapters.embedded import EmbeddedServerError
from service.settings import CHECKOUT, Settings

SEED = 20171231
QUIET_SECONDS, BUSY = 2.0, 0.05


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=("core", "online"), help="one part; the files are written by `online`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-seconds", type=float, default=2.0, help="window at one connection")
    parser.add_argument("--many-seconds", type=float, default=2.0, help="window at many connections")
    parser.add_argument("--half-seconds", type=float, default=2.0, help="window at half load")
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs", help="folder of performance.md and .json")
    parser.add_argument("--python-load", action="store_true", help="use the bundled generator even where wrk is")
    return parser.parse_args()


def main() -> None:
    """Run the parts; what a person can mend is one sentence and exit code 1."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        core = "" if asked.only == "online" else measure_core()
        if asked.only != "core":
            measure_online(asked, core)
    except (NotReady, ProcessFailed, LoadFailed, EmbeddedServerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bench: stopped; everything that was started is ended", file=sys.stderr)
        sys.exit(130)


def say(text: str) -> None:
    """Print progress at once."""
    print(text, flush=True)


def measure_core() -> str:
    """Run `benchmarks.core` and return what it printed."""
    command = [sys.executable, "-m", "benchmarks.core"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode:
        raise ProcessFailed(f"benchmarks.core failed: {done.stderr.strip()[-300:]}")
    say(done.stdout.rstrip())
    return done.stdout


def measure_online(asked: argparse.Namespace, core: str) -> None:
    """Prepare a world, run the rounds and the studies, write the report."""
    settings, cores = Settings(), choose_cores()
    plan = Plan(asked.rounds, asked.one_seconds, asked.many_seconds, asked.half_seconds, asked.connections)
    before = busy_share(QUIET_SECONDS)
    if before > BUSY:
        say(f"other programs use {before:.0%} of this machine: the figures will be too low, and the ratios uncertain")
    with tempfile.TemporaryDirectory(prefix="nba-bench-") as temporary:
        folder = Path(temporary)
        say(f"preparing: a server of its own, facts through Feast, a model, {asked.customers:,} customers")
        with open_world(settings, folder, cores, SEED, asked.customers) as world:
            load = Load(folder, "full", world.bodies, use_wrk=False if asked.python_load else None)
            bare = Load(folder, "bare", world.bare_bodies, use_wrk=False if asked.python_load else None)
            bench = Bench(world, load, bare, folder, cores, plan, say)
            say(f"load by {load.name}; contestants on core {cores.service}, all else on core {cores.others}")
            entered = {contestant.name: contestant for contestant in contestants(world)}
            rounds = run_rounds(bench, list(entered.values()))
            rates = {name: max(one.many.per_second for one in done) for name, done in rounds.items()}
            found: dict[str, Any] = {
                "reads": studies.reads(bench),
                "swaps": studies.swaps(bench, entered[OURS], rates[OURS] / 2),
                "generator": studies.generator(bench, entered[NOOP], rates[OURS] / 2),
                "weights": studies.weights(bench, entered[OURS]),
                "workers": studies.workers(bench, entered[OURS]),
                "profile": studies.profile(bench, entered[OURS]),
            }
            over_load = {
                name: studies.latency_over_load(bench, entered[name], rates[name]) for name in (OURS, EXPERT, STOCK)
            }
            others = {"others_before": before, "others_after": busy_share(QUIET_SECONDS)}
            environment = {**others, **describe_machine(), **describe_run(world, cores, load)}
    titles = {name: contestant.title for name, contestant in entered.items()}
    run = report.Run(plan, titles, rounds, environment, core, found, over_load)
    report.write_report(run, asked.out)
    picture.draw(over_load, titles, asked.out / report.PICTURE)
    scaling.write_scaling(run, asked.out)
    say(f"written: {asked.out / 'performance.md'}, performance.json, {report.PICTURE} and scaling.md")


def describe_run(world: World, cores: Cores, load: Load) -> dict[str, Any]:
    """Return what was measured with, beside the machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=CHECKOUT
    )
    with redis.Redis.from_url(world.redis_url) as server:
        about = server.info("server")
    name = about.get("server_name", "redis")
    number = about.get(f"{name}_version", about["redis_version"])
    apart = "Contestant on one core; Redis and the load on the other."
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip() or "unknown",
        "server": f"{name} {number}",
        "generator": load.name,
        "cores_used": apart if cores.service != cores.others else "All on one core: figures are not comparable.",
        "customers": len(world.customers),
        "channel": CHANNEL,
        "placement": PLACEMENT,
        "slots": SLOTS,
        "answer_bytes": world.answer_bytes,
        "model": "benchmark-forest",
        "trees": TREES,
        "inputs": len(ModelInput(Columns()).names),
    }


if __name__ == "__main__":
    main()
