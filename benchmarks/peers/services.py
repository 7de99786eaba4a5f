"""Starts contestant B: Feast's server, MLflow's server and the gateway, and ends them together.

`python -m benchmarks.peers.services PORT`; reads what the gateway reads, and PEER_MODEL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import uvicorn

from benchmarks.peers.engine import FEATURE_REPO, model_folder
from benchmarks.processes import ProcessFailed, free_port

START_SECONDS, END_SECONDS = 90.0, 2.0


def main() -> None:
    """Start both, wait until they answer, serve."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # uvicorn hands the signal on when it is done
    here = Path(sys.executable).parent
    feast, mlflow = free_port(), free_port()
    commands = {
        feast: [str(here / "feast"), "-c", str(FEATURE_REPO), "serve", "-p", str(feast), "--no-access-log"],
        mlflow: [
            str(here / "mlflow"), "models", "serve", "-m", model_folder(), "-p", str(mlflow), "--env-manager", "local",
            "-w", "1",
        ],
    }  # fmt: skip
    health = {feast: "health", mlflow: "ping"}
    os.environ["PEER_FEAST_PORT"], os.environ["PEER_MLFLOW_PORT"] = str(feast), str(mlflow)
    env = {**os.environ, "PATH": f"{here}:{os.environ.get('PATH', '')}"}
    with ExitStack() as stack:
        for port, command in commands.items():
            process = subprocess.Popen(command, env=env, start_new_session=True)
            stack.callback(end_session, process)
            await_health(process, f"http://127.0.0.1:{port}/{health[port]}")
        uvicorn.run(
            "benchmarks.peers.gateway:create_app", factory=True, port=int(sys.argv[1]), access_log=False,
            log_level="warning",
        )  # fmt: skip


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a server with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def await_health(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a server says that it is well."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ProcessFailed(f"a server of contestant B ended with code {process.returncode}")
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise ProcessFailed(f"{url} did not answer within {START_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
