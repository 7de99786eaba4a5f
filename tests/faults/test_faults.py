"""Nothing acknowledged is lost or doubled, whatever is killed, stopped or filled up, and when."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.adapters import redis_keys as keys
from service.lake_files import files
from service.worker import LEASE_SECONDS
from tests.faults.history import check
from tests.faults.rig import Rig
from tests.served import wait_until


@contextmanager
def running(folder: Path, seed: int, **options: float) -> Iterator[Rig]:
    """Run a rig and end its processes."""
    rig = Rig(folder, seed, **options)  # type: ignore[arg-type]
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()


def kill_rounds(rig: Rig, rounds: int) -> None:
    """Kill a process at a random moment under load, again and again; then check all that was written down."""
    targets = ["redis", "serve", *(f"worker-{n}" for n in range(rig.workers))]
    order = [targets[n % len(targets)] for n in range(rounds)]
    rig.random.shuffle(order)
    with rig.load():
        for name in order:
            rig.wait_for_load()
            time.sleep(rig.random.uniform(0, 0.5))
            rig.kill(name)
        rig.wait_for_load()
    rig.drain()
    counts = check(rig.history, rig.var / "lake", rig.online())
    print(f"\n{rounds} kills ({', '.join(f'{order.count(t)} {t}' for t in targets)}): {counts}")
    assert counts["events acknowledged"] > 15 * rounds
    assert rig.server.command("XLEN", keys.of_partition(0, "poison")) == 0


def test_kills_and_a_lake_that_cannot_be_written_lose_nothing(tmp_path: Path) -> None:
    """kill -9 of Redis, API and worker, then no file may grow: every acknowledged item is in the lake once, facts too.

    While the worker can write nothing the journal keeps what waits; when it can again, all is written without help.
    """
    with running(tmp_path, 20, workers=1) as rig:
        kill_rounds(rig, 3)
        before = len(files(rig.var / "lake", "events"))
        worker = rig.processes["worker-0"].pid
        _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, hard))
        with rig.load(threads=1):
            time.sleep(2)
        assert len(files(rig.var / "lake", "events")) == before
        assert sum(rig.server.command("XLEN", keys.of_partition(p, "journal")) for p in range(64)) > 0
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (hard, hard))
        rig.drain()
        check(rig.history, rig.var / "lake", rig.online())


@pytest.mark.prove
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    """kill -9 at fifty random moments, of Redis, the API and two workers, under load that never pauses."""
    with running(tmp_path, int(os.environ.get("NBA_FAULT_SEED", "1"))) as rig:
        kill_rounds(rig, 50)


def owners_of(rig: Rig) -> set[bytes | None]:
    """Return who owns partitions; None where nobody does."""
    leases = [rig.server.command("GET", keys.of_partition(p, "lease")) for p in range(64)]
    return {lease and lease.partition(b"|")[0] for lease in leases}


@pytest.mark.prove
def test_a_worker_that_sleeps_through_its_lease_writes_nothing(tmp_path: Path) -> None:
    """A stopped worker's partitions go to the other one; when it wakes, nothing of its work reaches lake or facts."""
    with running(tmp_path, 3) as rig:
        with rig.load():
            wait_until(lambda: len(owners_of(rig) - {None}) == 2, 90, tmp_path / "worker-0.log")
            rig.wait_for_load()
            rig.processes["worker-0"].send_signal(signal.SIGSTOP)
            time.sleep(LEASE_SECONDS)
            wait_until(lambda: len(owners_of(rig)) == 1 and None not in owners_of(rig), 60, tmp_path / "worker-1.log")
            rig.wait_for_load()
            rig.processes["worker-0"].send_signal(signal.SIGCONT)
            log = tmp_path / "worker-0.log"
            wait_until(lambda: "another worker took over" in log.read_text(), 60, log)
        rig.drain()
        print(check(rig.history, rig.var / "lake", rig.online()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("this machine lets us mount nothing; the limit of file sizes is tested instead")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.prove
def test_a_full_disk_under_the_lake_heals(tmp_path: Path, small_disk: Path) -> None:
    """With the lake's disk full everything is still acknowledged and kept; when there is room again all is written."""
    rig_folder = tmp_path / "rig"
    ballast = small_disk / "ballast"
    with running(rig_folder, 5, workers=1) as rig:
        lake = rig.var / "lake"
        rig.drain()
        subprocess.run(["cp", "-r", f"{lake}/.", str(small_disk)], check=True)
        rig.processes["worker-0"].kill()
        rig.processes["worker-0"].wait(10)
        lake.rename(rig.var / "old-lake")
        lake.symlink_to(small_disk)
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 9_000_000)
        rig.launch("worker-0")
        log = rig_folder / "worker-0.log"
        with rig.load(threads=1):
            wait_until(lambda: "the lake cannot be written" in log.read_text(), 120, log)
        waiting = sum(rig.server.command("XLEN", keys.of_partition(p, "journal")) for p in range(64))
        assert waiting > 0
        ballast.unlink()
        rig.drain()
        print(f"\n{waiting} entries waited for room:", check(rig.history, lake, rig.online()))
