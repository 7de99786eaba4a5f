"""The house's import rules, and what a serving process must never load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_import_rules() -> None:
    """No floor imports a higher one, the core is pure, training knows nothing of serving."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_serving_is_light() -> None:
    """The modules of a serving process load neither feast nor mlflow nor pandas, nor LightGBM."""
    heavy = "feast", "mlflow", "pandas", "lightgbm", "sklearn", "matplotlib"
    code = f"import sys, service.api.app, service.batch; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_is_lighter_still() -> None:
    """`nba` loads no numpy, web framework or rule parser, and where it serves none of the other commands either."""
    assert loaded("service.cli, service.commands", "numpy", "fastapi", "uvicorn", "sqlglot", "yaml") == []
    others = "typer", "rich", "prometheus_client", "numpy", "fastapi", "uvicorn", "sqlglot", "yaml", "training"
    assert loaded("service.cli, service.serve, service.supervisor", *others) == []


def loaded(modules: str, *unwanted: str) -> list[str]:
    """Import modules in a process of their own; return which of the unwanted came with them."""
    code = f"import sys, {modules}; print(*[name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_api_loads_no_arrow() -> None:
    """A process that answers single decisions pays neither time nor memory for Parquet, rule parser and commands."""
    assert loaded("service.api.server, service.api.app", "pyarrow", "duckdb", "sqlglot", "typer", "rich") == []


def test_no_registry_addresses_or_machine_paths() -> None:
    """The lock files carry hashes and no download address."""
    for name in ("requirements.lock", "requirements-uv.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
