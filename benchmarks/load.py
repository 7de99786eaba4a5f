"""Closed-loop load over loopback: `wrk` where it is on PATH, else a small generator over raw sockets.

Each connection asks, waits for the answer and asks again; the bodies go round. Knows HTTP and no contestant. The number
of connections and the seconds are bounded here.
"""

from __future__ import annotations

import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Window

MAX_CONNECTIONS, MAX_SECONDS = 64, 30.0
TIMEOUT_SECONDS = 10.0
PATH = "/v1/decisions"
_SCRIPT = """\
local requests, at = {}, 0
function init(args)
  at = tonumber(args[2])
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format("RESULT %d %d %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class LoadFailed(RuntimeError):
    """The generator itself failed."""


class Load:
    """A load generator with the bodies that it asks with.

    Args:
        folder: Where `wrk` finds its script and bodies. name: Of these bodies, there.
        bodies: JSON without line breaks; asked in turn, each window going on where the last one stopped.
        use_wrk: By default, whether it is on PATH.
    """

    def __init__(self, folder: Path, name: str, bodies: Sequence[bytes], *, use_wrk: bool | None = None) -> None:
        self._wrk = shutil.which("wrk") if use_wrk in (None, True) else None
        self._folder, self.bodies, self.at = folder / name, list(bodies), 0
        self._folder.mkdir(exist_ok=True)
        (self._folder / "load.lua").write_text(_SCRIPT)
        (self._folder / "bodies").write_bytes(b"\n".join(self.bodies) + b"\n")

    @property
    def name(self) -> str:
        """Which generator it is."""
        return "wrk" if self._wrk else "the bundled generator in Python (install wrk for a faster one)"

    def run(self, port: int, connections: int, seconds: float) -> Window:
        """Load a contestant and return what came back.

        Raises:
            LoadFailed: The generator did not work.
        """
        if not 0 < connections <= MAX_CONNECTIONS or not 0 < seconds <= MAX_SECONDS:
            raise ValueError(f"a load has at most {MAX_CONNECTIONS} connections and {MAX_SECONDS:.0f} s")
        run = _run_wrk if self._wrk else _run_sockets
        return self.went_on(run(self._folder, self.bodies, self.at, port, connections, seconds))

    def went_on(self, window: Window) -> Window:
        """Note how many questions a window asked."""
        self.at = (self.at + window.requests + window.failures) % len(self.bodies)
        return window


def _run_wrk(folder: Path, bodies: Sequence[bytes], start: int, port: int, connections: int, seconds: float) -> Window:
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", f"--timeout={TIMEOUT_SECONDS:.0f}s",
        "-s", str(folder / "load.lua"), f"http://127.0.0.1:{port}{PATH}", "--", str(folder / "bodies"), str(start),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise LoadFailed(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse_wrk(lines[0])


def parse_wrk(line: str) -> Window:
    """Read what the script prints: requests, duration, p50, p95, p99 and p99.9 in microseconds, failures.

    wrk counts an answer other than 2xx among its requests as well; here it is a failure only.
    """
    requests, duration, p50, p95, p99, p999, failures = (int(part) for part in line.split()[1:])
    answered, seconds = max(requests - failures, 0), duration / 1e6
    return Window(answered, seconds, p50 / 1000, p95 / 1000, p99 / 1000, p999 / 1000, failures)


class Client:
    """One connection of a bundled generator."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received, self.asked = b"", 0.0

    def ask(self, request: bytes, due: float | None = None) -> None:
        """Ask, and count the time from when it was due, by default now."""
        self.received, self.asked = b"", time.perf_counter() if due is None else due
        self.socket.sendall(request)

    def take(self) -> bool | None:
        """Take what is there: None while the answer is not whole, else whether it is a 200."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the contestant closed the connection")
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at < 0:
            raise ConnectionError("an answer without Content-Length")
        if len(body) < int(lower[at + 15 :].split(b"\r\n", 1)[0]):
            return None
        return head.startswith(b"HTTP/1.1 200")


def requests_of(port: int, bodies: Sequence[bytes]) -> list[bytes]:
    """Return the requests as they go over the wire."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


def _run_sockets(
    folder: Path, bodies: Sequence[bytes], start: int, port: int, connections: int, seconds: float
) -> Window:
    requests = requests_of(port, bodies)
    latencies: list[float] = []
    failures, at = 0, start
    clients = [Client(port) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        try:
            began = time.perf_counter()
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
                client.ask(requests[at % len(requests)])
                at += 1
            while (now := time.perf_counter()) < began + seconds:
                for key, _ in selector.select(timeout=began + seconds - now):
                    is_good = key.data.take()
                    if is_good is None:
                        continue
                    if is_good:
                        latencies.append(time.perf_counter() - key.data.asked)
                    else:
                        failures += 1
                    key.data.ask(requests[at % len(requests)])
                    at += 1
            return Window.of_latencies(latencies, time.perf_counter() - began, failures)
        except OSError as error:
            raise LoadFailed(f"the contestant broke a connection: {error}") from error
        finally:
            for client in clients:
                client.socket.close()
