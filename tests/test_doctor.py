"""`nba doctor` on real worlds: one that is well, one that is empty, and stores with every danger."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.adapters.connection import Link
from service.doctor import as_json, check_clock, check_keys, check_var, is_healthy, others_than
from service.settings import Settings
from service.store_checks import Finding, check_journal, check_server
from tests.fragile import OwnServer
from tests.served import Served


def doctor(env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Run it as operators do; return its exit code and its findings by check."""
    command = [sys.executable, "-m", "service.cli", "doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    return done.returncode, {finding["check"]: finding for finding in said["findings"]}


def test_a_running_service_is_healthy(served: Served) -> None:
    """Beside a running service all is reachable, the bundle is the champion's, facts are online, a worker lives."""
    code, found = doctor(served.env)
    assert code == 0, found
    assert all(finding["status"] != "wrong" for finding in found.values())
    assert found["champion"]["status"] == found["Feast registry"]["status"] == found["bundle"]["status"] == "ok"
    assert found["worker"]["status"] == "ok"
    assert re.match(r"50 of 50 customers of the lake", found["facts online"]["found"]), found["facts online"]
    assert found["clock"]["status"] == "warning"


def test_an_empty_machine_is_told_what_to_do(served: Served, tmp_path: Path) -> None:
    """Where nothing was made yet the exit code is 1, each finding that is not fine has a remedy, nothing is created."""
    env = {**served.env, "NBA_VAR": str(tmp_path), "NBA_MLFLOW_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    code, found = doctor({**env, "NBA_CATALOGUE": str(tmp_path / "none.yaml"), "NBA_HOST": "0.0.0.0"})
    wrong = {name for name, finding in found.items() if finding["status"] == "wrong"}
    assert code == 1
    assert {"Feast registry", "bundle", "MLflow", "catalogue", "API keys"} <= wrong
    assert all(finding["remedy"] for finding in found.values() if finding["status"] == "wrong")
    assert list(tmp_path.iterdir()) == []


def statuses(found: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.status for finding in found}


def test_a_store_that_may_lose_state_is_dangerous(tmp_path: Path) -> None:
    """An evicting policy, evicted keys, a replica, a missing append-only file and a full memory are each named."""
    server = OwnServer(tmp_path / "server")
    server.start()
    try:
        assert statuses(asyncio.run(check_server("state", server.url, keeps_state=True))) == {
            "redis state": "ok",
            "state safety": "ok",
        }
        server.command("CONFIG", "SET", "appendonly", "no")
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        for i in range(300):
            server.command("SET", f"k{i}", b"x" * 20_000)
        used = int(server.command("INFO", "memory")["used_memory"])
        server.command("CONFIG", "SET", "maxmemory", used - 1_000_000)
        server.command("SET", "one more", b"x" * 20_000)
        server.command("REPLICAOF", "127.0.0.1", 1)
        found = statuses(asyncio.run(check_server("state", server.url, keeps_state=True)))
    finally:
        server.kill()
    assert found["state eviction"] == found["state evicted"] == found["state role"] == "wrong"
    assert found["state durability"] == found["redis state memory"] == "warning"
    gone = asyncio.run(check_server("state", server.url, keeps_state=True))
    assert [finding.status for finding in gone] == ["wrong"]
    assert "does not answer" in gone[0].found
    assert gone[0].remedy


def test_a_journal_without_a_worker_is_wrong(tmp_path: Path) -> None:
    """Entries that nobody works off, entries set aside and paused switches are reported."""
    server = OwnServer(tmp_path / "server")
    server.start()

    async def fill() -> None:
        link = Link(server.url)
        await link.exchange(
            [
                ("XADD", "nba:{p07}:journal", "1000-1", "k", "event", "v", "x"),
                ("XADD", "nba:{p07}:poison", "*", "k", "event", "v", "x"),
                ("HSET", "nba:{p00}:switches", "all|all", "{}"),
            ],
            deadline_seconds=5,
            reason="",
        )
        await link.close()

    try:
        assert statuses(asyncio.run(check_journal(server.url, 30.0))) == {
            "worker": "warning",
            "set aside": "ok",
            "switches": "ok",
        }
        asyncio.run(fill())
        found = {finding.check: finding for finding in asyncio.run(check_journal(server.url, 30.0))}
        assert found["worker"].status == "wrong"
        assert "1 entries" in found["worker"].found
        assert found["set aside"].status == "warning"
        assert "all all" in found["switches"].found
        server.command("SET", "nba:{p07}:lease", "someone|1")
        behind = statuses(asyncio.run(check_journal(server.url, 30.0)))
        assert behind["worker"] == "warning"
    finally:
        server.kill()


def test_packages_are_compared_with_the_lock() -> None:
    """A package in another version, and one that is missing, are named; one for another platform is not."""
    foreign = "httpx2-jsfetch==1.0 ; sys_platform == 'emscripten'"
    lock = f"numpy==0.0.1 \\\n    --hash=sha256:aa\nno-such-package==1.0\n{foreign}\n"
    assert [text.split()[0] for text in others_than(lock)] == ["numpy", "no-such-package"]


def settings(var: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, var=var, **more)


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    """A folder that is not there is wrong, one that can be written is said to be."""
    assert next(check_var(settings(tmp_path / "none"))).status == "wrong"
    assert "writable" in next(check_var(settings(tmp_path))).found


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, "ok"),
        ({"host": "0.0.0.0"}, "wrong"),
        ({"host": "0.0.0.0", "api_key": "k" * 40}, "ok"),
        ({"api_keys": "[{]"}, "wrong"),
    ],
)
def test_keys_are_needed_off_loopback(tmp_path: Path, more: dict[str, Any], status: str) -> None:
    """Listening beyond this machine without a key is wrong, and so are entries that cannot be read."""
    assert next(check_keys(settings(tmp_path, **more))).status == status


def test_a_clock_that_is_not_the_machines_is_a_warning(tmp_path: Path) -> None:
    """An offset is a warning, a damaged clock file is wrong, and `wall` ignores both."""
    assert next(check_clock(settings(tmp_path))).status == "ok"
    (tmp_path / "clock.json").write_text('{"mode": "offset", "offset_seconds": 5}')
    assert next(check_clock(settings(tmp_path))).status == "warning"
    (tmp_path / "clock.json").write_text("{")
    assert next(check_clock(settings(tmp_path))).status == "wrong"
    assert next(check_clock(settings(tmp_path, clock="wall"))).status == "ok"


def test_warnings_do_not_make_it_ill() -> None:
    """Only what is wrong makes the exit code 1, and the JSON says so."""
    warning, wrong = Finding("a", "warning", "x", "y"), Finding("b", "wrong", "x", "y")
    assert is_healthy([warning])
    assert not is_healthy([warning, wrong])
    assert json.loads(as_json([wrong])) == {
        "healthy": False,
        "findings": [{"check": "b", "status": "wrong", "found": "x", "remedy": "y"}],
    }
