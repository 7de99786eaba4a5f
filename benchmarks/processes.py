"""Processes of the yardstick: started on one core, accounted by the kernel, ended by their ids whatever happens."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 10.0


class ProcessFailed(RuntimeError):
    """A contestant ended by itself or never answered; carries the end of its log."""


class Cores(NamedTuple):
    """Which core runs the contestant, and which one everything else."""

    service: int
    others: int


def choose_cores() -> Cores:
    """Take the first two cores that this process may use; one machine with one core gets it twice."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[min(1, len(usable) - 1)])


def pin(pid: int, core: int) -> None:
    """Bind all threads that a process has now to a core; what it starts later inherits it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Bind this thread, and so whatever it starts meanwhile, to a core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], folder: Path, core: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command on one core until the block ends, also by Ctrl-C: a session of its own, ended by its id."""
    with log.open("ab") as out:
        with on_core(core):
            process = subprocess.Popen(
                command, env=dict(env), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes], grace_seconds: float = END_SECONDS) -> None:
    """Ask a process to end, and make it end if it does not within the grace."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_first_answer(process: subprocess.Popen[bytes], port: int, body: bytes, seconds: float, log: Path) -> None:
    """Ask again and again until the first 200.

    Raises:
        ProcessFailed: with the end of the log.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ProcessFailed(f"it ended with code {process.returncode}: {last_lines(log)}")
        try:
            if post(port, "/v1/decisions", body)[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.005)
    raise ProcessFailed(f"no decision within {seconds:.0f} s: {last_lines(log)}")


def post(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Post JSON to a contestant on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, of all threads that a process has or had."""
    return parse_cpu(Path(f"/proc/{pid}/stat").read_text())


def waited_seconds(pid: int) -> float:
    """Return how long a process's main thread was ready to run and its core ran something else."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def parse_cpu(stat: str) -> float:
    """Read utime + stime, in seconds, of a line of /proc/<pid>/stat; the name in it may hold blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_share(seconds: float) -> float:
    """Return the share of all cores that is in use while this process sleeps."""
    before = parse_busy(Path("/proc/stat").read_text())
    time.sleep(seconds)
    after = parse_busy(Path("/proc/stat").read_text())
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


def parse_busy(stat: str) -> tuple[int, int]:
    """Read (ticks in use, all ticks) of all cores from /proc/stat; waiting for a disk is not in use."""
    ticks = [int(field) for field in stat.split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessFailed(f"process {pid} has no resident memory any more")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_lines(log: Path, count: int = 5) -> str:
    """Return the end of a log."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-count:]) if log.exists() else "no log"
