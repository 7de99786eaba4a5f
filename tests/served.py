"""A whole service over a small world for end-to-end tests: real server, real Feast, real model, real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Served:
    """A running service.

    Attributes:
        base: Its address. env: The environment that another command needs to join it.
    """

    base: str
    var: Path
    env: dict[str, str]

    def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Call it; return status and parsed body."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.base + path, data, {"Content-Type": "application/json", **named}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def decide(self, customer_id: str, channel: str = "app", **more: Any) -> Any:
        """Ask for a decision that must succeed."""
        status, answer = self.call("POST", "/v1/decisions", {"customer_id": customer_id, "channel": channel, **more})
        if status != 200:
            raise AssertionError(f"{status}: {answer}")
        return answer

    def set_clock(self, now: float) -> None:
        """Set the simulated clock of all processes."""
        partial = self.var / "clock.partial"
        partial.write_text(json.dumps({"mode": "simulated", "now": now}))
        partial.replace(self.var / "clock.json")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the service beside it."""
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments], env=self.env, capture_output=True, text=True, check=False
        )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def plain_environment() -> dict[str, str]:
    """Return the environment without what this project or another tool of these tests has set in it."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("NBA_", "MLFLOW_", "PROMETHEUS_"))}


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(env: dict[str, str], log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of the service and end it by its id; it drains for no time unless `env` says so."""
    env = {"NBA_DRAIN_SECONDS": "0", **env}
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, "-m", "service.cli", *arguments], env=env, stdout=out, stderr=out)
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(5)


def wait_until(check: Any, seconds: float, log: Path) -> None:
    """Wait for a condition, or fail with the end of the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if check():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not reached in {seconds} s; log:\n" + log.read_text()[-3000:])


@contextmanager
def serve(var: Path, mlflow_uri: str, now: float, tmp: Path) -> Iterator[Served]:
    """Materialize the world into an embedded server of its own, then serve it with a worker until the block ends."""
    own = tmp / "var"
    shutil.copytree(var, own)
    port = free_port()
    env = {
        **plain_environment(),
        "NBA_VAR": str(own), "NBA_MLFLOW_URI": mlflow_uri, "NBA_PORT": str(port),
        "NBA_GATHER_DEADLINE_MS": "1000", "NBA_RECORD_DEADLINE_MS": "1000", "NBA_INTAKE_DEADLINE_MS": "5000",
        "NBA_LAKE_SECONDS": "0.5",
    }  # fmt: skip
    served = Served(f"http://127.0.0.1:{port}", own, env)
    served.set_clock(now)
    log = tmp / "serve.log"
    with process(env, log, "serve"), process(env, tmp / "worker.log", "worker"):
        wait_until(lambda: served.call("GET", "/livez")[0] == 200, 30, log)
        done = served.run("apply")
        if done.returncode == 0:
            done = served.run("materialize")
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        wait_until(lambda: served.call("GET", "/readyz")[0] == 200, 10, log)
        yield served
