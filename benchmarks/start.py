"""`python -m benchmarks.start`: from the start of `nba serve` to its first decision, and the memory of each process.

Uses a copy of the bundle in use and a server of its own, started beside it. The first round of each row is told alone:
it parses the catalogue's rules, which later starts find parsed, and warms the disk. Goals: at most 2 s and 250 MB a
process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import ProcessFailed, await_first_answer, cpu_seconds, end, free_port, post, resident_mb
from service.adapters.bundle_dir import bundles_by_age, current_digest, set_challenger
from service.settings import CHECKOUT, Settings

GOAL_SECONDS, GOAL_MB = 2.0, 250.0
DECISIONS = 300
NOBODY = "127.0.0.1:1"


class Round(NamedTuple):
    """One start. `cpu` seconds of the slowest serving process; `megabytes` of each, after some hundred decisions."""

    seconds: float
    cpu: float
    megabytes: list[float]


def main() -> int:
    """Measure, print, and return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    settings = Settings()
    digest = current_digest(settings.var / "models")
    if digest is None:
        print("bench: there is no bundle to start with; run `make train` first", file=sys.stderr)
        return 1
    missed = False
    challenger = next((found for found in bundles_by_age(settings.var / "models") if found != digest), None)
    if challenger is None:
        print("bench: there is no second bundle to start with as challenger; that row is left out", file=sys.stderr)
    for title, workers, store, beside in (
        ("one process, embedded server", 1, None, None),
        ("two processes, embedded server", 2, None, None),
        ("one process, Redis, MLflow and registry down", 1, f"redis://{NOBODY}/0", None),
        *([("one process, embedded server, a challenger", 1, None, challenger)] if challenger else ()),
    ):
        with tempfile.TemporaryDirectory(prefix="nba-start-") as temporary:
            folder = Path(temporary)
            copy_bundles(settings, digest, beside, folder / "models")
            first, *rounds = [start_once(folder, workers, store) for _ in range(asked.rounds + 1)]
        seconds = [r.seconds for r in rounds]
        megabytes = max(m for r in rounds for m in r.megabytes)
        missed |= max(seconds) > GOAL_SECONDS or megabytes > GOAL_MB
        print(
            f"{title}: first decision after {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f}, {len(rounds)} starts; {first.seconds:.2f} the first), "
            f"{statistics.median(r.cpu for r in rounds):.2f} s of CPU and at most {megabytes:.0f} MB a process",
            flush=True,
        )
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"goals: {GOAL_SECONDS:g} s and {GOAL_MB:g} MB: {'missed' if missed else 'met'}")
    return int(missed)


def copy_bundles(settings: Settings, digest: str, challenger: str | None, models: Path) -> None:
    """Make a folder of bundles with the one in use and the challenger's, where there is one."""
    models.mkdir()
    shutil.copytree(settings.var / "models" / digest, models / digest)
    shutil.copy(settings.var / "models" / "current", models / "current")
    if challenger is not None:
        shutil.copytree(settings.var / "models" / challenger, models / challenger)
        set_challenger(models, challenger)


def start_once(var: Path, workers: int, store: str | None) -> Round:
    """Start, ask, count, stop."""
    port, log = free_port(), var / "serve.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("NBA_")}
    env |= {"NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_MLFLOW_URI": f"http://{NOBODY}"}
    env |= {"NBA_REDIS_URL": store} if store else {}
    command = [sys.executable, "-m", "service.cli", "serve", "--workers", str(workers)]
    with log.open("wb") as out:
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=out, stderr=out)
    try:
        await_first_answer(process, port, question(0), 30.0, log)
        seconds = time.perf_counter() - begun
        cpu = max(cpu_seconds(pid) for pid in serving(process.pid, workers))
        for n in range(DECISIONS):
            if post(port, "/v1/decisions", question(n))[0] != 200:
                raise ProcessFailed("a decision failed")
        return Round(seconds, cpu, [resident_mb(pid) for pid in serving(process.pid, workers)])
    finally:
        end(process)


def question(n: int) -> bytes:
    """Ask for a household."""
    return json.dumps({"customer_id": str(n), "channel": "app"}).encode()


def serving(pid: int, workers: int) -> list[int]:
    """Return the serving processes: the command itself, or its children by that name."""
    if workers == 1:
        return [pid]
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if b"--inherited" in Path(f"/proc/{child}/cmdline").read_bytes()]


if __name__ == "__main__":
    sys.exit(main())
