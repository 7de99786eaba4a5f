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
    """`nba` itself, and so the supervisor of serving processes, loads no numpy, no web framework and no rule parser."""
    code = (
        "import sys, service.cli; print(*sorted({'numpy', 'fastapi', 'uvicorn', 'sqlglot', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_api_loads_no_arrow() -> None:
    """A process that answers single decisions pays neither time nor memory for Parquet."""
    code = "import sys, service.api.server, service.api.app; print({'pyarrow', 'duckdb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_registry_addresses_or_machine_paths() -> None:
    """The lock files carry hashes and no download address."""
    for name in ("requirements.lock", "requirements-uv.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
