"""The report says what was measured, lost cases included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.assortment import CAP_LIMIT, widen
from benchmarks.contestants import EXPERT, NOOP, OURS, OURS_ALWAYS, REDIS_TITLES, SERVICES, STOCK
from benchmarks.figures import Round, Window
from benchmarks.machine import describe_machine
from benchmarks.online import Plan
from benchmarks.report import COMPARED, Run, compare, write_report
from benchmarks.state import degraded_in
from benchmarks.targets import targets
from service.catalogue.loader import load_catalogue
from service.settings import CHECKOUT

ENVIRONMENT = {
    "date": "2020-01-01 00:00 UTC", "commit": "abc", "server": "redis 7", "generator": "wrk", "cores_used": "One core.",
    "customers": 10, "channel": "app", "placement": "app_home", "slots": 3, "answer_bytes": 99, "model": "m/1",
    "trees": 7, "inputs": 95, "others_after": 0.011,
}  # fmt: skip


def window(per_second: float, p50: float) -> Window:
    return Window(int(per_second), 1.0, p50, p50 * 1.5, p50 * 2, p50 * 3)


def made(per_second: int, p50: float, rss: float | None = 100.0, logged: int | None = None, degraded: int = 0) -> Round:
    one = window(per_second, p50)
    return Round(
        one, one, cpu_ms=1000 / per_second, cpu_share=1.0, half=one, rss_mb=rss, start_seconds=2.0,
        logged=logged, degraded=degraded, eligible=5.0,
    )  # fmt: skip


def written(folder: Path, ours: Round, others: float = 0.0) -> str:
    plain = {NOOP: (8000, 0.1), STOCK: (100, 6.0), SERVICES: (50, 20.0), EXPERT: (300, 3.0)}
    rounds = {name: [replace(made(*figures), degraded=None)] for name, figures in plain.items()}
    rounds |= {OURS: [ours], OURS_ALWAYS: [ours]}
    rounds |= {name: [replace(made(9000, 0.05, None), degraded=None, half=None)] for name in REDIS_TITLES}
    environment = {**describe_machine(), **ENVIRONMENT, "others_before": others}
    titles = {name: name for name in rounds}
    write_report(Run(Plan(1, 1, 1, 1, 16), titles, rounds, environment, "core 1 us"), folder)
    return (folder / "performance.md").read_text()


def test_times_better_is_above_one_where_ours_wins(tmp_path: Path):
    """More decisions and less time are both times better; the JSON and the page say the same."""
    page = written(tmp_path, made(1000, 1.5))
    document = json.loads((tmp_path / "performance.json").read_text())
    assert document["ours_over"][STOCK]["many_per_second"] == 10
    assert document["ours_over"][STOCK]["one_p50_ms"] == 4
    assert "| decisions a second | 1,000 | 100; 10 | 50; 20 | 300; 3.33 |" in page
    assert "loses to none of them" in page


def test_a_lost_case_is_named(tmp_path: Path):
    """Where another is better the page says in what and to whom."""
    page = written(tmp_path, made(80, 1.0, rss=900.0))
    assert "Ours loses in: decisions a second to A, CPU a decision to A, memory to A," in page
    assert "decisions a second to D" in page


def test_every_target_is_printed_reached_or_missed(tmp_path: Path):
    """A bound that is kept, one that is not and one without a figure each have their line."""
    page = written(tmp_path, made(1000, 0.75))
    assert "| p50 ms at one connection, AOF everysec | at most 0.7 | 0.75 | **missed** |" in page
    assert "| p50 ms at one connection, AOF always | at most 1 | 0.75 | reached |" in page
    assert "| feature read, times the SDK's to_dict | at least 6 |  | not measured |" in page
    assert page.count("| at least ") + page.count("| at most ") == len(targets({}, {}))


def test_decisions_that_are_not_in_the_log_are_counted(tmp_path: Path):
    """Fewer rows in the log than answers are missing decisions; more rows were in flight when the load stopped."""
    assert f"not in the log: {OURS}: 12; {OURS_ALWAYS}: 12." in written(tmp_path, made(1000, 1.0, logged=-12))
    assert f"not in the log: {OURS}: 0; {OURS_ALWAYS}: 0." in written(tmp_path, made(1000, 1.0, logged=16))


def test_degraded_decisions_are_shown_against_all_of_all_windows(tmp_path: Path):
    """A degraded answer is cheaper: how many there were, of how many, stands on the page."""
    assert f"{OURS}: 7 of 3,000; {OURS_ALWAYS}: 7 of 3,000." in written(tmp_path, made(1000, 1.0, degraded=7))


@pytest.mark.parametrize("figure", [figure for figure, _, _ in COMPARED])
def test_every_compared_figure_is_measured(figure: str):
    """No figure of the comparison is a name that rounds do not have."""
    flat = made(10, 1.0).flat()
    assert compare({"ours": flat, "stock": flat}, "ours", "stock")[figure] == 1


def test_the_measured_catalogue_is_wide_and_its_caps_are_there_and_never_full(tmp_path: Path):
    """60 candidates on the channel; caps, experiment and exploration are those of the shipped catalogue."""
    shipped = CHECKOUT / "service" / "catalogue.yaml"
    copy = tmp_path / "catalogue.yaml"
    copy.write_text(widen(shipped.read_text()))
    ours, theirs = load_catalogue(copy), load_catalogue(shipped)
    assert sum(treatment.channel == "app" for treatment in ours.treatments) == 60
    limited = [cap for cap in ours.caps if cap.limit]
    assert {cap.limit for cap in limited} == {CAP_LIMIT}
    assert len(limited) > 3
    assert {cap.id for cap in ours.caps} <= {cap.id for cap in theirs.caps}
    assert ours.experiment == theirs.experiment
    assert ours.exploration.strategy == "softmax"
    copy.write_text(widen(shipped.read_text(), explores_as_shipped=True))
    assert load_catalogue(copy).exploration == theirs.exploration
    copy.write_text(widen(shipped.read_text(), is_capped=False))
    assert load_catalogue(copy).caps == ()


@pytest.mark.parametrize(("others", "waited", "is_spoiled"), [(0.5, 0.0, True), (0.01, 0.4, True), (0.01, 0.02, False)])
def test_a_busy_machine_is_admitted(others: float, waited: float, is_spoiled: bool, tmp_path: Path):
    """Where others were at work around the run, or a contestant had to wait, the page says so on top."""
    page = written(tmp_path, replace(made(1000, 1.0), waited_share=waited), others)
    assert page.index("Other programs used") < page.index("## Everything on")
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
