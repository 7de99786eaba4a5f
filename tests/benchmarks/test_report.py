"""The report says what was measured, lost cases included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.figures import Round, Window
from benchmarks.machine import describe_machine
from benchmarks.online import REDIS_TITLES, Plan
from benchmarks.report import COMPARED, Run, compare, write_report
from benchmarks.state import degraded_in
from benchmarks.world import CAP_LIMIT, uncapped
from service.catalogue.loader import load_catalogue
from service.settings import CHECKOUT

ENVIRONMENT = {
    "date": "2020-01-01 00:00 UTC", "commit": "abc", "server": "redis 7", "generator": "wrk", "cores_used": "One core.",
    "customers": 10, "channel": "app", "placement": "app_home", "slots": 3, "answer_bytes": 99, "model": "m/1",
    "trees": 7, "inputs": 95, "others_after": 0.011,
}  # fmt: skip


def made(per_second: int, p50: float, rss: float | None = 100.0, logged: int | None = None, degraded: int = 0) -> Round:
    window = Window(per_second, 1.0, p50, p50 * 2)
    return Round(
        window, window, cpu_ms=1000 / per_second, cpu_share=1.0, rss_mb=rss, start_seconds=2.0,
        logged=logged, degraded=degraded, eligible=5.0,
    )  # fmt: skip


def written(folder: Path, ours: Round, others: float = 0.0) -> str:
    plain = [replace(made(rate, p50), degraded=None) for rate, p50 in ((8000, 0.1), (100, 6.0))]
    rounds = {"noop": plain[:1], "stock": plain[1:], "ours": [ours], "ours_everysec": [ours]}
    rounds |= {name: [replace(made(9000, 0.05, None), degraded=None)] for name in REDIS_TITLES}
    environment = {**describe_machine(), **ENVIRONMENT, "others_before": others}
    titles = {name: name for name in rounds}
    write_report(Run(Plan(1, 1, 1, 16), titles, rounds, environment, "core 1 us"), folder)
    return (folder / "performance.md").read_text()


def test_times_better_is_above_one_where_ours_wins(tmp_path: Path):
    """More decisions and less time are both times better; the JSON and the page say the same."""
    page = written(tmp_path, made(1000, 1.5))
    document = json.loads((tmp_path / "performance.json").read_text())
    assert document["ours_over_stock"]["many_per_second"] == 10
    assert document["ours_over_stock"]["one_p50_ms"] == 4
    assert "| decisions a second | 100 | 1,000 | 10 |" in page
    assert "loses to A in none" in page


def test_a_lost_case_is_named(tmp_path: Path):
    """Where A is better the page says in what."""
    page = written(tmp_path, made(50, 1.0, rss=900.0))
    assert "Ours loses to A in: decisions a second, CPU a decision, memory." in page


def test_decisions_that_are_not_in_the_log_are_counted(tmp_path: Path):
    """Fewer rows in the log than answers are missing decisions; more rows were in flight when the load stopped."""
    assert "; ours_everysec: 12." in written(tmp_path, made(1000, 1.0, logged=-12))
    assert "; ours_everysec: 0." in written(tmp_path, made(1000, 1.0, logged=16))


def test_degraded_decisions_are_shown_against_all_of_both_windows(tmp_path: Path):
    """A degraded answer is cheaper: how many there were, of how many, stands on the page."""
    assert "ours: 7 of 2,000; ours_everysec: 7 of 2,000." in written(tmp_path, made(1000, 1.0, degraded=7))


@pytest.mark.parametrize("figure", [figure for figure, _, _ in COMPARED])
def test_every_compared_figure_is_measured(figure: str):
    """No figure of the comparison is a name that rounds do not have."""
    flat = made(10, 1.0).flat()
    assert compare({"ours": flat, "stock": flat}, "ours", "stock")[figure] == 1


def test_caps_of_the_copy_are_there_and_never_full(tmp_path: Path):
    """The measured catalogue differs from the shipped one in the limits of its caps only."""
    shipped = CHECKOUT / "service" / "catalogue.yaml"
    copy = tmp_path / "catalogue.yaml"
    copy.write_text(uncapped(shipped.read_text()))
    ours, theirs = load_catalogue(copy), load_catalogue(shipped)
    assert {cap.limit for cap in ours.caps if cap.counted != "reject" and cap.counted != "conversion"} == {CAP_LIMIT}
    assert [cap.id for cap in ours.caps] == [cap.id for cap in theirs.caps]
    assert (ours.actions, ours.treatments, ours.experiment) == (theirs.actions, theirs.treatments, theirs.experiment)
    assert [rule.text for rule in ours.rules] == [rule.text for rule in theirs.rules]


@pytest.mark.parametrize(("others", "waited", "is_spoiled"), [(0.5, 0.0, True), (0.01, 0.4, True), (0.01, 0.02, False)])
def test_a_busy_machine_is_admitted(others: float, waited: float, is_spoiled: bool, tmp_path: Path):
    """Where others were at work around the run, or a contestant had to wait, the page says so on top."""
    page = written(tmp_path, replace(made(1000, 1.0), waited_share=waited), others)
    assert page.index("Other programs used") < page.index("## The yardstick")
    assert ("do not cite" in page) is is_spoiled


def test_degraded_decisions_are_read_from_the_metrics():
    """Only the counter of degraded decisions is read, reason by reason."""
    text = (
        "# TYPE nba_degraded_total counter\n"
        'nba_degraded_total{reason="features_unavailable"} 3.0\n'
        'nba_degraded_created{reason="features_unavailable"} 1.7e+09\n'
        'nba_degraded_total{reason="log_unavailable"} 1e+03\n'
    )
    assert degraded_in(text) == {"features_unavailable": 3, "log_unavailable": 1000}
