"""Open-loop load: questions are asked when they are due, whether or not answers come, as customers do.

Times are counted from when a question was due, not from when it could be sent: a contestant that stands still for a
second is charged for everybody who waited (no coordinated omission). Raw sockets and `select`, whose timeouts are finer
than epoll's whole milliseconds.
"""

from __future__ import annotations

import select
import time
from collections import deque

import numpy as np

from benchmarks.figures import Window
from benchmarks.load import Client, Load, LoadFailed, requests_of

CONNECTIONS = 64
DRAIN_SECONDS = 5.0
"""How long what is still unanswered at the end of the window may take: after that it is a failure."""


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw the moments at which questions are due, seconds from the start: a Poisson stream."""
    gaps = np.random.default_rng(seed).exponential(1.0 / rate, int(rate * seconds * 1.5) + 50)
    moments = np.cumsum(gaps)
    due: list[float] = moments[moments < seconds].tolist()
    return due


def run_open(load: Load, port: int, rate: float, seconds: float, seed: int = 0) -> Window:
    """Ask at a rate and return what came back; `requests` are the answers, `seconds` the time they took.

    Raises:
        LoadFailed: The contestant broke a connection.
    """
    requests, due = requests_of(port, load.bodies), deque(arrivals(rate, seconds, seed))
    clients = {client.socket: client for client in (Client(port) for _ in range(CONNECTIONS))}
    free, waiting = deque(clients.values()), deque[float]()
    latencies: list[float] = []
    failures, at, end = 0, load.at, seconds + DRAIN_SECONDS
    began = time.perf_counter()
    try:
        while due or waiting or len(free) < len(clients):
            now = time.perf_counter() - began
            if now > end:
                failures += len(due) + len(waiting) + len(clients) - len(free)
                break
            while due and due[0] <= now:
                waiting.append(due.popleft())
            while waiting and free:
                client = free.popleft()
                client.ask(requests[at % len(requests)], began + waiting.popleft())
                at += 1
            readable, _, _ = select.select(clients, (), (), max(0.0, due[0] - now) if due and free else 0.05)
            for one in readable:
                client = clients[one]
                is_good = client.take()
                if is_good is None:
                    continue
                latencies.append(time.perf_counter() - client.asked)
                failures += not is_good
                free.append(client)
        return load.went_on(Window.of_latencies(latencies, time.perf_counter() - began, failures))
    except OSError as error:
        raise LoadFailed(f"the contestant broke a connection: {error}") from error
    finally:
        for client in clients.values():
            client.socket.close()
