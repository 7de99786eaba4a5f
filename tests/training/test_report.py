"""The report of a log that the core made: figures as counted, one page that needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from service.adapters.journal_entries import encode
from service.catalogue.loader import load_catalogue
from service.decision.model import Request
from service.ports import Event
from service.settings import CHECKOUT
from tests.service.decision.worlds import NOW
from tests.training.core_log import DAY, CoreLog, catalogue_at
from training.arm_lift import arm_lifts, purchases
from training.evaluate_policy import read_decisions
from training.log_figures import LogFigures, log_figures
from training.report_page import page
from training.responses import responses

ARMS = {
    "experiment": {"id": "r", "salt": "r", "arms": {"nba": 0.5, "random": 0.2, "holdout": 0.3}},
    "exploration": {"strategy": "epsilon_greedy", "parameter": 0.3},
}
WEEKS, LIFT = 4, 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def log(folder: Path) -> CoreLog:
    """Some weeks in which customers of nba spend more a week than those held out, by `LIFT`."""
    made = CoreLog(folder, load_catalogue(catalogue_at(folder / "catalogue.yaml", ARMS)), customers=500, seed=4)
    for week in range(WEEKS):
        for row in made.decide(Request("app", (("home", 2),)), 7.0 * week):
            spent = float(made.random.gamma(4.0, 2.5)) + LIFT * (row.arm == "nba")
            lines = {"lines": [{"aisle": "deli", "quantity": 1, "sales_value": spent}]}
            event = Event(f"e{row.decision_id}", row.customer_id, "purchase", row.decision_time + DAY, lines)
            made.append(row.customer_id, "event", encode(event))
    made.close()
    return made


@pytest.fixture(scope="module")
def figures(log: CoreLog) -> LogFigures:
    rows = list(read_decisions(log.lake.folder, 0.0, NOW + 99 * DAY))
    table = responses(log.lake.folder, 0.0, NOW + 99 * DAY, lambda version: log.catalogue, as_of=NOW + 60 * DAY)
    action_of = {treatment.id: treatment.action_id for treatment in log.catalogue.treatments}
    return log_figures(log.lake.folder, rows, table, action_of, ("app",))


def test_the_lift_of_an_arm_is_found_and_of_another_is_not(figures: LogFigures) -> None:
    """The interval of nba holds what it adds a week; that of random, which adds nothing, holds zero."""
    lifts = {arm.arm: arm.lift for arm in figures.arms}
    assert lifts["holdout"] is None
    assert lifts["nba"] is not None
    assert lifts["random"] is not None
    assert lifts["nba"].low < LIFT < lifts["nba"].high
    assert lifts["nba"].low > 0.0
    assert lifts["random"].low < 0.0 < lifts["random"].high


def test_without_a_hold_out_there_is_no_lift(log: CoreLog) -> None:
    """Arms alone are told, and no difference."""
    shown = [row for row in log.rows if row.arm != "holdout"]
    assert {arm.lift for arm in arm_lifts(shown, purchases(log.lake.folder), NOW + 30 * DAY)} == {None}


def test_the_funnel_counts_what_was_logged(log: CoreLog, figures: LogFigures) -> None:
    """Placed and seen are equal here, accepts are the positives, and all actions are there."""
    placed = sum(len(row.chosen) for row in log.rows)
    assert sum(row[1] for row in figures.funnel) == placed == sum(row[2] for row in figures.funnel)
    for _, _, _, clicks, accepts, _, positives in figures.funnel:
        assert clicks == 0
        assert accepts == positives


def test_no_action_and_optionality_are_those_of_the_rows(log: CoreLog, figures: LogFigures) -> None:
    """They are counted over who may be shown something at all."""
    shown = [row for row in log.rows if row.arm != "holdout"]
    n, share = figures.empty["app"]
    assert n == len(shown)
    assert share == pytest.approx(np.mean([not row.chosen for row in shown]))
    verdicts = {found.what: found.verdict for found in figures.health}
    assert verdicts["no action, app"] == ("kept" if share <= 0.1 else "missed")
    assert verdicts["optionality, app"] == "missed"
    assert figures.options["app"] < 7.0


def test_facts_that_age_are_seen_to_drift(figures: LogFigures) -> None:
    """Nobody buys in the facts of this log, so days since the last basket move, and the alarm says so."""
    assert figures.moved["days_since_last_basket"] > 0.25
    assert [found.verdict for found in figures.health if found.what.startswith("drift")] == ["alarm"]


class Page(HTMLParser):
    """Counts elements and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count a tag."""
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]


def test_the_page_stands_alone(figures: LogFigures) -> None:
    """It has all sections and plots, no script, nothing that a browser would fetch; the same figures, same bytes."""
    text = page(figures)
    read = Page()
    read.feed(text)
    assert read.tags["svg"] >= 3
    assert read.tags["h2"] == 6
    assert "script" not in read.tags
    assert read.fetched == []
    assert not re.search(r"\bnan\b", re.sub(r"<svg.*?</svg>", "", text, flags=re.S))
    assert page(figures) == text


@pytest.mark.prove
def test_the_command_writes_the_page_and_says_what_is_missing(log: CoreLog, folder: Path, tmp_path: Path) -> None:
    """`nba report` writes the file; without a log it is one sentence and exit code 1."""
    command = [sys.executable, "-m", "service.cli", "report", "--out", str(tmp_path / "r.html"), "--var", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1, "nba: the log has no decision yet: ask for some, and let the worker write the lake\n",
    )  # fmt: skip
    command += ["--from", str(log.lake.folder), "--catalogue", str(folder / "catalogue.yaml"), "--as-of", "2018-03-01"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
