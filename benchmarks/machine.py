"""What machine and which versions a figure holds for."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "fastapi", "uvicorn", "feast", "mlflow", "lightgbm", "pylignum", "pandas", "numpy", "redis", "hiredis", "pydantic",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and versions."""
    cpu = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split(None, 2)[1]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": cpu.count("processor\t"),
        "memory_gb": round(int(memory) * 1024 / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
