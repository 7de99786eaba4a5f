"""docs/bring-your-own-data.md is true: its files and commands, taken from the page, lead from a log to decisions."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "bring-your-own-data.md").read_text()
NOTEBOOK = DOCS / "notebooks" / "from-the-registry.ipynb"
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?^```(\w+)(?: file=(\S+))?[^\n]*\n(.*?)^```", re.S | re.M)
NUMBER = re.compile(r"-?\d+\.\d+")
CHECK_DATA = os.environ.get("NBA_CHECK_DATA", "")
STUDY, LIVE = PAGE.split("\n## 8. ")


def made_up_trial(folder: Path, n: int = 3_000) -> Path:
    """Write a trial of the form of Hillstrom's file, in which the men's mail persuades who bought men's things."""
    random = np.random.default_rng(8)
    mens, womens = random.integers(0, 2, n), random.integers(0, 2, n)
    segments = np.array(["Mens E-Mail", "Womens E-Mail", "No E-Mail"])[random.integers(0, 3, n)]
    effect = np.select([segments == "Mens E-Mail", segments == "Womens E-Mail"], [0.3 * mens, 0.15 * womens], 0.0)
    visits = (random.random(n) < 0.1 + effect).astype(np.int64)
    bought = visits * (random.random(n) < 0.1)
    table = {
        "row_id": np.arange(n), "recency": random.integers(1, 13, n), "history": random.gamma(2.0, 100.0, n).round(2),
        "mens": mens, "womens": womens, "zip_code": np.array(["Rural", "Surburban", "Urban"])[random.integers(0, 3, n)],
        "newbie": random.integers(0, 2, n), "channel": np.array(["Phone", "Web"])[random.integers(0, 2, n)],
        "segment": segments, "visit": visits, "conversion": bought, "spend": bought * 50.0,
    }  # fmt: skip
    (folder / "hillstrom").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "hillstrom" / "hillstrom.parquet")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: str, folder: Path, data: Path | str) -> str:
    binaries = str(Path(sys.executable).parent)
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("NBA_", "MLFLOW_", "PROMETHEUS_"))
    }
    environment = {
        **ours, "NBA_CHECK_DATA": str(data), "NBA_MLFLOW_URI": f"sqlite:///{folder / 'mine' / 'mlflow.db'}",
        "NBA_REPOSITORY": str(DOCS.parent), "NBA_PORT": str(free_port()), "PATH": f"{binaries}:{os.environ['PATH']}",
        "COLUMNS": "200", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg",
    }  # fmt: skip
    ended = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def follow(part: str, folder: Path, data: Path | str = "") -> list[tuple[str, str]]:
    """Follow a part of the page: write its files, run its commands, return what they printed, and what it says."""
    (folder / "mine").mkdir(exist_ok=True)
    printed, told = "", []
    for name, kind, file, body in BLOCK.findall(part):
        if file:
            (folder / file).write_text(body)
        elif kind == "bash":
            printed = run(body, folder, data)
        elif name:
            told.append((printed, body))
    return told


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, follow(STUDY, folder, made_up_trial(tmp_path_factory.mktemp("data")))


@pytest.mark.prove
def test_the_page_leads_from_a_log_to_decisions(study: tuple[Path, list[tuple[str, str]]]):
    """On a made-up trial the page's commands find the effect that is there, a policy that pays, and a decision."""
    (learned, _), (judged, _), (asked, _) = study[1]
    assert re.search(r"mens: effect .*, known", learned)
    assert "mine-visit/1 is the champion" in learned
    assert re.search(r"learned policy minus womens to everyone: .*\(better\)", judged)
    assert re.search(r"^mens |^womens ", asked, re.M)
    assert "ranked" in asked


@pytest.mark.prove
def test_the_notebook_does_it_from_the_registry(study: tuple[Path, list[tuple[str, str]]]):
    """The notebook's cells, run in order, rank unseen customers and leave more alone as mails get dearer."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    (study[0] / "cells.py").write_text("\n".join("".join(cell["source"]) for cell in cells))
    said = run("python cells.py", study[0], "")
    alone = [float(share) for share in re.findall(r"left alone ([\d.]+)", said)]
    low = re.search(r"mens: AUUC over random order \S+ \[([-\d.]+)", said)
    assert low
    assert float(low.group(1)) > 0
    assert alone == sorted(alone)
    assert alone[-1] > alone[0]
    assert all(cell["outputs"] == [] for cell in cells), "a notebook is kept without its outputs"


@pytest.mark.prove
def test_the_clone_answers_customers_as_the_study_did(study: tuple[Path, list[tuple[str, str]]]):
    """Step 8 serves, over HTTP and through Feast, the choice of step 7 with its numbers, and folds a purchase."""
    follow(LIVE, study[0])
    answer = json.loads((study[0] / "live" / "decision.json").read_text())
    _, _, (asked, _) = study[1]
    chosen = next(line for line in asked.splitlines() if " ranked " in line)
    assert answer["degraded"] is False
    assert [action["action_id"] for action in answer["actions"]] == [chosen.split()[0]]
    for number in ("propensity", "uplift", "priority"):
        assert f"'{number}': {round(answer['actions'][0][number], 4)}" in chosen
    facts = json.loads((study[0] / "live" / "customer.json").read_text())["views"]["profile"]["columns"]
    assert facts["bought_line__womens"] == 1.0


@pytest.mark.data
@pytest.mark.skipif(not CHECK_DATA, reason="NBA_CHECK_DATA does not name the folder of real data")
def test_the_page_tells_what_hillstrom_gives(tmp_path: Path):
    """Followed on Hillstrom's trial the page's commands print what the page says they print."""
    for printed, told in follow(STUDY, tmp_path, CHECK_DATA):
        assert NUMBER.sub("#", printed).strip() == NUMBER.sub("#", told).strip()
        found, expected = (np.array(NUMBER.findall(text), float) for text in (printed, told))
        np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.0005)
