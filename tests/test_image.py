"""The image and compose, as far as they can be tried without an engine: every step, command, variable and check."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.commands import app
from service.settings import Settings
from tests.served import Served

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SETTINGS = {f"NBA_{name.upper()}" for name in Settings.model_fields}
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "nba"}
FOR_REDIS = {"NBA_REDIS_PASSWORD"}
"""A variable of compose.yaml alone: it becomes part of NBA_REDIS_URL."""
KEYS_OF_A_SERVICE = {
    "build", "image", "restart", "environment", "volumes", "command", "entrypoint", "healthcheck", "depends_on",
    "ports", "stop_grace_period",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def commands() -> set[str]:
    """Return the commands of `nba`, training's among them."""
    from training.cli import register

    register(app)
    return {str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands}


def instructions(word: str) -> list[str]:
    return [line.split(None, 1)[1] for line in DOCKERFILE.splitlines() if line.startswith(f"{word} ")]


def test_compose_is_well_formed() -> None:
    """Services have known keys only, wait for services that exist in ways that exist, and use declared volumes."""
    assert set(COMPOSE) <= {"x-nba", "services", "volumes"}
    for name, service in COMPOSE["services"].items():
        assert set(service) <= KEYS_OF_A_SERVICE, name
        assert "image" in service, name
        for other, how in service.get("depends_on", {}).items():
            assert other in COMPOSE["services"]
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert COMPOSE["services"][other]["healthcheck"]["test"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_every_service_runs_a_command_that_exists() -> None:
    """What compose asks of the image's entry point are commands of `nba`, and the image's own default is one."""
    known = commands()
    asked = [service["command"][0] for service in OURS.values() if "entrypoint" not in service]
    assert sorted(asked) == ["agent", "prepare", "serve", "worker"]
    assert {*asked, *json.loads(instructions("CMD")[-1])} <= known
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["nba"]
    assert OURS["mlflow"]["entrypoint"] == ["python", "-m", "mlflow"]


def test_every_variable_is_a_setting() -> None:
    """Variables in compose.yaml and .env.example are settings; what the commands derive is set nowhere."""
    for service in COMPOSE["services"].values():
        named = {name for name in service.get("environment", {}) if name.startswith("NBA_")}
        assert named <= SETTINGS | FOR_REDIS
    text = (ROOT / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) <= SETTINGS | FOR_REDIS
    example = set(re.findall(r"^#? ?(NBA_\w+)=", (ROOT / ".env.example").read_text(), re.M))
    assert example
    assert example <= SETTINGS | FOR_REDIS
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    assert needed <= example, "what compose cannot start without stands in .env.example"


def test_only_the_service_is_published_and_on_loopback() -> None:
    """Neither MLflow nor Redis can be reached from outside, and no service is privileged."""
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert "--maxmemory-policy noeviction" in COMPOSE["services"]["redis"]["command"]
    assert "--appendonly yes" in COMPOSE["services"]["redis"]["command"]


def test_the_image_runs_without_rights_and_without_asserts() -> None:
    """The last user is not root, Python runs optimised, and what is copied is not kept out of the build."""
    assert instructions("USER") == ["nba"]
    assert "PYTHONOPTIMIZE=1" in instructions("ENV")[-1]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert ignored[0] == "*"
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored, f"{name} is not in the build's context"


def test_the_health_check_works(served: Served) -> None:
    """The image's health check succeeds beside a running service and fails beside none."""
    check = json.loads(re.findall(r"HEALTHCHECK .*?CMD (\[.*\])", DOCKERFILE)[0])
    assert check[0] == "python"
    for port, code in ((served.env["NBA_PORT"], 0), ("1", 1)):
        env = {**os.environ, "NBA_PORT": port}
        done = subprocess.run([sys.executable, *check[1:]], env=env, capture_output=True, check=False)
        assert done.returncode == code


def test_the_program_runs_as_the_image_runs_it() -> None:
    """Under PYTHONOPTIMIZE=1 every entry point imports, and each command that compose names shows its help."""
    env = {**os.environ, "PYTHONOPTIMIZE": "1"}
    modules = "service.api.app, service.api.server, service.worker, service.model_agent, service.doctor"
    subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT, env=env, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--help"], cwd=ROOT, env=env, capture_output=True, check=True
    )
    assert b"--workers" in done.stdout


@pytest.mark.prove
def test_the_steps_of_the_build_work(tmp_path: Path) -> None:
    """The RUN steps of the first stage, from the locks and in an empty folder, give an `nba` that starts."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NBA_", "PYTHON", "VIRTUAL_ENV"))}
    place = str(tmp_path)
    for line in DOCKERFILE.split("\nFROM ")[1].splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, tmp_path)
        elif word == "RUN":
            step = rest.replace("python -m venv", f"{shlex.quote(sys.executable)} -m venv").replace("/app", place)
            subprocess.run(["sh", "-ec", step], cwd=tmp_path, env=env, check=True)
    run = {**env, "PATH": f"{place}/.venv/bin:{env['PATH']}", "PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    helped = subprocess.run(["nba", "--help"], cwd=tmp_path, env=run, capture_output=True, text=True, check=True)
    assert "serve" in helped.stdout
    origin = subprocess.run(
        ["python", "-c", "import service.api.app, service.api as a; print(a.__file__)"],
        cwd=tmp_path, env=run, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert origin.stdout.startswith(place)
