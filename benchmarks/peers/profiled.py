"""`nba serve` with a sampler in it: `python -m benchmarks.peers.profiled FILE`. Writes what it saw to FILE at the end.

A thread looks a thousand times a second at what the event loop's thread is doing: shares of wall time, also where it
waits. Its own cost, some percent, falls evenly on all.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from service.commands import app

SECONDS = 0.001
ROOTS = ("service", "features")


def stack_of(frame: FrameType | None) -> tuple[str, ...]:
    """Return our own functions on a stack, outermost first, as `module function`; `waiting` where the loop waits."""
    found: list[str] = []
    innermost = frame
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] in (*ROOTS, "uvicorn", "starlette", "prometheus_client", "logging", "lignum"):
            found.append(f"{module} {frame.f_code.co_name}")
        frame = frame.f_back
    if innermost is not None and innermost.f_code.co_name in ("run", "run_until_complete"):
        return ("waiting",)
    return tuple(reversed(found))


def sample(thread: int, stop: threading.Event, seen: Counter[tuple[str, ...]]) -> None:
    """Look until told to stop."""
    while not stop.wait(SECONDS):
        seen[stack_of(sys._current_frames().get(thread))] += 1


def main() -> None:
    """Serve, looked at."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # uvicorn hands the signal on when it is done
    target = Path(sys.argv[1])
    stop, seen = threading.Event(), Counter[tuple[str, ...]]()
    looking = threading.Thread(target=sample, args=(threading.get_ident(), stop, seen), daemon=True)
    looking.start()
    begun = time.time()
    try:
        app(["serve"])
    finally:
        stop.set()
        looking.join()
        found = [{"stack": list(stack), "samples": n} for stack, n in seen.items()]
        target.write_text(json.dumps({"seconds": time.time() - begun, "stacks": found}))


if __name__ == "__main__":
    main()
