"""Processes of the yardstick: what they used, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import (
    ProcessFailed,
    await_first_answer,
    choose_cores,
    cpu_seconds,
    end,
    on_core,
    parse_busy,
    parse_cpu,
    pin,
    resident_mb,
    running,
    waited_seconds,
)

BURN = "import time\nwhile time.process_time() < .4: pass\nprint(time.process_time(), flush=True)\ninput()"


def test_cpu_is_read_behind_a_name_with_brackets():
    """A process may call itself anything: the fields are counted from the last bracket."""
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 7 8 20 0 1 0 1 2 3"
    assert parse_cpu(stat) == 200 / os.sysconf("SC_CLK_TCK")


def test_what_all_cores_are_doing_is_read_from_the_first_line():
    """Idle and waiting for a disk are not in use; guests' time is in user time already."""
    assert parse_busy("cpu  10 1 5 100 20 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == (25, 145)


def test_cpu_of_a_process_is_what_it_used():
    """The kernel's account of a process that computed for .4 s and then waits is what it says itself."""
    command = [sys.executable, "-c", BURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = float(process.stdout.readline())
            assert cpu_seconds(process.pid) == pytest.approx(said, abs=0.05)
            assert 1 < resident_mb(process.pid) < 500
            assert waited_seconds(process.pid) >= 0
        finally:
            process.kill()


def test_a_process_is_ended_whatever_happens(tmp_path: Path):
    """The block's error goes through and the process is gone."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        pytest.raises(KeyboardInterrupt),
        running(command, dict(os.environ), tmp_path, choose_cores().service, log) as process,
    ):
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM


def test_a_process_that_ignores_the_request_is_made_to_end():
    """Who does not end when asked is ended after the grace."""
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            end(process, 0.2)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_process_runs_on_its_core_and_we_stay_on_ours(tmp_path: Path):
    """What is started for a core may use that core only; the starter's own choice is as before."""
    before, core = os.sched_getaffinity(0), choose_cores().service
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with running(command, dict(os.environ), tmp_path, core, tmp_path / "log") as process:
        assert os.sched_getaffinity(process.pid) == {core}
        pin(process.pid, choose_cores().others)
        assert os.sched_getaffinity(process.pid) == {choose_cores().others}
    with on_core(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_a_contestant_that_ends_is_said_to_have_ended(tmp_path: Path):
    """Waiting for a contestant that fails at its start ends at once, with the last words of its log."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with running(command, dict(os.environ), tmp_path, choose_cores().service, log) as process:
        process.wait(30)
        with pytest.raises(ProcessFailed, match="no such model"):
            await_first_answer(process, 9, b"{}", 60, log)
