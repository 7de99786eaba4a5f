"""Several serving processes on one port: they die, hang and end without a caller being turned away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.fragile import Caller
from tests.served import free_port, plain_environment, process, wait_until
from tests.small_world import SmallWorld
from tests.test_degraded import answers, copy_of_models

PROCESSES = 2
KILLED = r"serving process \d+ ended \(SIGKILL\)"


class Several:
    """`nba serve --workers` in a var of its own."""

    def __init__(self, var: Path, started: subprocess.Popen[bytes], port: int) -> None:
        self.var, self.started, self.port = var, started, port
        self.log = var / "serve.log"

    def serving(self) -> list[int]:
        """Return the ids of the serving processes."""
        return serving_processes(self.started.pid)

    def decide(self) -> int:
        """Ask on a connection of its own; return the status."""
        caller = Caller(self.port)
        try:
            return caller.decide("7", dry_run=True).status
        finally:
            caller.close()


def serving_processes(supervisor: int) -> list[int]:
    """Return the children of a process that are serving processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == supervisor and b"--inherited" in command:
            found.append(int(entry.name))
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Say whether a process is there and not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment(var: Path, port: int) -> dict[str, str]:
    kept = plain_environment()
    return {**kept, "NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_MLFLOW_URI": "http://127.0.0.1:1"}


@contextmanager
def running(small_world: SmallWorld, var: Path) -> Iterator[Several]:
    copy_of_models(small_world, var)
    port = free_port()
    with process(environment(var, port), var / "serve.log", "serve", "--workers", str(PROCESSES)) as started:
        found = Several(var, started, port)
        wait_until(lambda: found.log.read_text().count("startup complete") == PROCESSES, 60, found.log)
        wait_until(lambda: answers(port, "/readyz"), 5, found.log)
        yield found


@pytest.fixture(scope="module")
def shared(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    with running(small_world, tmp_path_factory.mktemp("shared") / "var") as found:
        yield found


@pytest.fixture
def kept(shared: Several) -> Several:
    """For those that leave it running; whatever was killed before has been replaced, and what replaced it is warm."""

    def are_warm() -> bool:
        log = shared.log.read_text()
        return log.count("startup complete") - len(re.findall(KILLED, log)) == PROCESSES

    wait_until(are_warm, 60, shared.log)
    return shared


@pytest.fixture
def several(small_world: SmallWorld, tmp_path: Path) -> Iterator[Several]:
    """For those that end it."""
    with running(small_world, tmp_path / "var") as found:
        yield found


def test_a_killed_process_is_replaced_and_nobody_is_refused(kept: Several) -> None:
    """While one process after the other is killed, every new connection gets its answer, from those that are left."""
    several = kept
    killed = len(re.findall(KILLED, several.log.read_text()))
    statuses: list[int] = []
    failed: list[BaseException] = []
    enough = threading.Event()

    def ask_again() -> None:
        while not enough.is_set():
            try:
                statuses.append(several.decide())
            except (OSError, ValueError, HTTPException) as error:
                failed.append(error)

    asking = threading.Thread(target=ask_again)
    asking.start()
    try:
        for _ in range(3):
            gone, warm = several.serving()[0], several.log.read_text().count("startup complete")
            os.kill(gone, signal.SIGKILL)
            wait_until(lambda gone=gone: len(several.serving()) == PROCESSES and gone not in several.serving(), 10,
                       several.log)  # fmt: skip
            # The next one to be killed must have been warm, and nobody may be left waiting for one that is not.
            wait_until(lambda n=warm: several.log.read_text().count("startup complete") > n, 30, several.log)
            assert several.decide() == 200
    finally:
        enough.set()
        asking.join()
    assert set(statuses) == {200}
    assert len(failed) <= 3, "at most the one request in flight at each kill"
    assert len(re.findall(KILLED, several.log.read_text())) - killed == 3


def test_counts_of_all_processes_are_added_up(kept: Several) -> None:
    """Whichever process is asked for metrics, it answers for all; the model's gauge says how many serve it."""
    before, first = counted(metrics(kept.port)), Caller(kept.port)
    for n in range(40):
        caller = Caller(kept.port)
        assert caller.decide(f"{n}", dry_run=True).status == 200
        caller.close()
    first.close()
    text = metrics(kept.port)
    assert counted(text) - before == 40
    assert re.findall(r"^nba_model_info\{.*\} (\S+)$", text, re.MULTILINE) == [f"{PROCESSES}.0"]
    for name in ("nba_bundle_age_seconds", "nba_journal_lag_records", "nba_journal_bytes_free"):
        assert len(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)) == 1, "one number, whoever measured it"
    assert set(re.findall(r"^nba_breaker_state\{.*\} (\S+)$", text, re.MULTILINE)) == {"0.0"}
    assert 'pid="' not in text


def counted(text: str) -> float:
    """Return how many decisions were counted."""
    return sum(float(v) for v in re.findall(r"^nba_decisions_total\{.*\} (\S+)$", text, re.MULTILINE))


def metrics(port: int) -> str:
    """Return the exposition format."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        return str(page.read(), "utf-8")


def test_a_signal_ends_all_in_order(several: Several) -> None:
    """SIGTERM ends every serving process and then the embedded server, with exit code 143 and no traceback."""
    children = several.serving()
    several.started.send_signal(signal.SIGTERM)
    assert several.started.wait(15) == 143
    assert not any(is_alive(pid) for pid in children)
    log = several.log.read_text()
    assert log.count("Application shutdown complete") == PROCESSES
    assert "Traceback" not in log
    with pytest.raises(ConnectionRefusedError):
        several.decide()


def test_without_their_supervisor_they_end(several: Several) -> None:
    """A supervisor that was killed leaves no serving process behind."""
    children = several.serving()
    several.started.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in children), 15, several.log)


STAND_IN = """
import socket, sys, time
link = socket.socket(fileno=int(sys.argv[1]))
{}
"""


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("sys.exit(7)", r"^ended with 7$"),
        (
            "link.send(b'+'); time.sleep(0.2); sys.exit(7)",
            r"(?s)(ended \(exit code 7\); anoth.*){3}ended with 143",
        ),
        ("link.send(b'+'); time.sleep(60)", r"(?s)hangs and is killed.*ended \(SIGKILL\).*ended with 143"),
    ],
    ids=["never started", "dies again and again", "hangs"],
)
def test_what_becomes_of_a_bad_process(does: str, expected: str, tmp_path: Path) -> None:
    """Never started: the command ends with its code. Dying: replaced, ever more slowly. Silent: killed and replaced."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(does))
    code = f"""
import logging, os, signal, socket, subprocess, sys, threading
import service.seat
import service.supervisor as s
logging.basicConfig(format="%(message)s", stream=sys.stdout)
service.seat.SILENT_SECONDS = 0.5
def start(link):
    return subprocess.Popen([sys.executable, {str(script)!r}, str(link.fileno())], pass_fds=[link.fileno()])
threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
with socket.socket() as bound:
    print("ended with", s.Supervisor(1, start).run(bound), flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert re.search(expected, done.stdout.strip()), done.stdout
