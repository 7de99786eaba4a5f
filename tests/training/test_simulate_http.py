"""The simulated world drives a real service: its clock steps, its caps hold, its log fills."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue
from tests.served import Served
from training import simulate_command
from training.simulate_http import HttpSimulation, ServiceRefused
from training.simulator import Setting

CATALOGUE = Path(__file__).resolve().parents[2] / "service" / "catalogue.yaml"
START = datetime(2018, 1, 15, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def setting(served: Served) -> Setting:
    base = compile_catalogue(load_catalogue(CATALOGUE), Columns())
    return Setting(served.var / "history", base, START, days=3, seed=11, households=40)


def test_the_service_decides_and_is_told_what_came_of_it(served: Served, setting: Setting) -> None:
    """Every household that is reached is decided for at the simulated moment, and impressions come back as contacts."""
    days = list(HttpSimulation(setting, served.base, served.var / "clock.json").run())
    assert [day.day for day in days] == [0, 1, 2]
    met = [touch for day in range(3) for touch in setting.traffic.of_day(day)]
    assert sum(day.decisions for day in days) == sum(len(touch.households) for touch in met) > 40
    assert sum(day.shown for day in days) > 20
    emailed = next(touch for touch in met if touch.channel == "email").households[0]
    status, customer = served.call("GET", f"/v1/customers/{setting.customer_ids[emailed]}")
    assert status == 200
    assert customer["contacts"]


def test_a_service_on_another_clock_is_refused(served: Served, setting: Setting, tmp_path: Path) -> None:
    """What to write and to start again is said."""
    simulation = HttpSimulation(setting, served.base, tmp_path / "clock.json")
    with pytest.raises(ServiceRefused, match="simulated"):
        list(simulation.run())


def test_the_command_says_when_no_service_answers(served: Served) -> None:
    """One sentence names the remedy."""
    app = typer.Typer()
    simulate_command.register(app)
    wanted = ["--url", "http://127.0.0.1:9", "--days", "1", "--households", "50", "--var", str(served.var)]
    done = CliRunner().invoke(app, wanted)
    assert done.exit_code == 2
    assert "nba serve" in " ".join(done.output.split())
