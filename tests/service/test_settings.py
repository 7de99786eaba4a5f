"""A setting that cannot be used is one sentence: which, what it holds, what it may, and never a secret."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from service.commands import explain_failure
from service.settings import Settings, explain_settings


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("NBA_PORT", "abc", "NBA_PORT is 'abc': input should be a valid integer"),
        ("NBA_PORT", "70000", "NBA_PORT is '70000': input should be less than or equal to 65535"),
        (
            "NBA_CLOCK",
            "simulated",
            "NBA_CLOCK is 'simulated': input should be 'auto' or 'wall'; correct it, or leave it",
        ),
        ("NBA_GATHER_DEADLINE_MS", "-1", "NBA_GATHER_DEADLINE_MS is '-1': input should be greater than 0"),
        ("NBA_REDIS_URL", "http://secret@host", "NBA_REDIS_URL: it is no redis://"),
        ("NBA_RETENTION_DAYS", "many", "NBA_RETENTION_DAYS is no JSON; correct it, or leave it out"),
        ("NBA_RETENTION_DAYS", '{"decisions": "x"}', "NBA_RETENTION_DAYS is 'x': input should be a valid integer"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    """The variable, its value, what it may be, and what it is for."""
    monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=name.removeprefix("NBA_").lower()) as failure:
        Settings()
    said = explain_failure(failure.value) or ""
    assert sentence in said
    assert "secret" not in said
    assert str(Settings.model_fields[name.removeprefix("NBA_").lower()].description) in said


def test_several_are_told_at_once_and_other_failures_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that is wrong has its part; another model's failure is a defect."""
    monkeypatch.setenv("NBA_PORT", "x")
    monkeypatch.setenv("NBA_TRACES", "loud")
    with pytest.raises(ValidationError) as failure:
        Settings()
    said = explain_settings(failure.value) or ""
    assert "NBA_PORT is 'x'" in said
    assert "NBA_TRACES is 'loud'" in said

    class Other(BaseModel):
        port: int

    with pytest.raises(ValidationError) as other:
        Other(port="x")  # type: ignore[arg-type]
    assert explain_settings(other.value) is None
    assert explain_settings(ValueError("port")) is None


@pytest.mark.parametrize("command", ["serve", "doctor", "worker"])
def test_every_way_to_start_says_it(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and exit code 1, no traceback, whichever command meets it first."""
    monkeypatch.setenv("NBA_PORT", "eighty")
    done = subprocess.run([sys.executable, "-m", "service.cli", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nba: NBA_PORT is 'eighty'")
    assert "Traceback" not in done.stderr
