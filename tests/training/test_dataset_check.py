"""What makes labelled rows unusable or doubtful is found, told with its rows, and what is sound is let through."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from service.commands import app
from training import check_commands
from training.dataset_check import Roles, check_dataset
from training.findings import Finding, is_usable

N = 6_000
ROLES = Roles("visit", "customer", "sent_at", "action", probability="chance", ignored=("spend",))


def trial(seed: int = 1) -> pa.Table:
    random = np.random.default_rng(seed)
    actions = np.array(["mail", "call", "none"])[random.choice(3, N, p=(0.5, 0.2, 0.3))]
    visits = random.random(N) < np.where(actions == "none", 0.1, 0.2)
    return pa.table(
        {
            "customer": [f"c{i}" for i in range(N)],
            "sent_at": [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(N)],
            "action": actions,
            "chance": np.select([actions == "mail", actions == "call"], [0.5, 0.2], 0.3),
            "visit": visits.astype(int),
            "spend": visits * random.gamma(2.0, 10.0, N),
            "tenure": random.gamma(2.0, 100.0, N),
            "area": np.array(["town", "country"])[random.integers(0, 2, N)],
        }
    )


def put(table: pa.Table, name: str, values: object) -> pa.Table:
    at = table.column_names.index(name) if name in table.column_names else None
    column = pa.array(values, from_pandas=True)
    return table.append_column(name, column) if at is None else table.set_column(at, name, column)


def the(found: list[Finding], check: str, status: str = "wrong") -> Finding:
    return next(one for one in found if one.check == check and one.status == status)


def test_a_sound_trial_passes():
    """A randomised log with its probabilities has nothing wrong and nothing doubtful."""
    found = check_dataset(trial(), ROLES)
    assert is_usable(found)
    assert {one.status for one in found} == {"ok"}


@pytest.mark.parametrize("column", ["spend", "echo", "came"])
def test_what_was_written_down_afterwards_is_a_leak(column: str):
    """An amount only positives have, a noisy copy of the label and a text of it are each named as leaks."""
    table = trial()
    visits = np.array(table["visit"])
    table = put(table, "echo", visits + np.random.default_rng(2).normal(0, 0.3, N))
    table = put(table, "came", np.where(visits == 1, "yes", np.array(table["area"])))
    others = tuple({"spend", "echo", "came"} - {column})
    assert repr(column) in the(check_dataset(table, replace(ROLES, ignored=others)), "leakage").found


def test_what_was_known_only_later_is_a_leak_by_row():
    """A time that lies after the moment of a row is told with the row's number."""
    later = [None] * N
    later[41] = datetime(2027, 1, 1, tzinfo=UTC)
    table = trial().append_column("last_seen_at", pa.array(later, pa.timestamp("us", tz="UTC")))
    assert the(check_dataset(table, ROLES), "leakage").rows == (42,)


def test_repeats_are_told_by_row_and_contradictions_counted():
    """A second row of the same offer is a duplicate, also where its label is another."""
    table = trial()
    again = put(table.slice(9, 1), "visit", [1 - table["visit"][9].as_py()])
    found = the(check_dataset(pa.concat_tables([table, again]), ROLES), "duplicates")
    assert found.rows == (N + 1,)
    assert "1 with another label" in found.found


def test_labels_that_are_none_stop_the_look():
    """A label that is missing is told by row, and nothing else is said of such rows."""
    labels = trial()["visit"].to_pylist()
    labels[6] = None
    found = check_dataset(put(trial(), "visit", labels), ROLES)
    assert [one.rows for one in found] == [(7,)]


def test_a_missing_arm_is_told():
    """Without rows where nothing was shown no effect can be learned, and that is said."""
    table = trial().filter(pa.array(np.array(trial()["action"]) != "none"))
    assert "nobody was left out" in the(check_dataset(table, replace(ROLES, probability="")), "arms", "warning").found


def test_probabilities_of_another_policy_are_refused():
    """Where an action's share is not what its probabilities say, they were not those of the policy that ran."""
    said = np.where(np.array(trial()["action"]) == "mail", 0.4, np.array(trial()["chance"]))
    assert "mail" in the(check_dataset(put(trial(), "chance", said), ROLES), "arms").found


def test_a_log_without_chance_is_refused():
    """With probability 1 everywhere no other policy can be judged."""
    found = the(check_dataset(put(trial(), "chance", np.ones(N)), ROLES), "arms")
    assert "without chance" in found.found


def test_targeted_offers_are_told_from_randomised_ones():
    """Where the inputs decided who was shown an action, its effect is said to be adjusted rather than proven."""
    table = trial()
    chosen = np.where(np.array(table["tenure"]) > 200, "mail", "none")
    found = check_dataset(put(table, "action", chosen), replace(ROLES, probability=""))
    assert any("not randomised" in one.found for one in found if one.status == "warning")


def test_few_positives_are_told_by_action():
    """An action with fewer than 10 positives is named; where nothing shown has so few, no effect can be learned."""
    actions, visits = np.array(trial()["action"]), np.array(trial()["visit"])
    thin = put(trial(), "visit", np.where((actions == "call") & (np.cumsum(visits) > 20), 0, visits))
    assert "call (" in the(check_dataset(thin, ROLES), "positives", "warning").found
    none = put(trial(), "visit", np.where(actions == "none", 0, visits))
    assert "where nothing was shown" in the(check_dataset(none, ROLES), "positives").found


def test_the_command_ends_with_1_where_rows_cannot_be_used(tmp_path):
    """`nba dataset check` of a CSV names what is wrong and fails; with the leak named as no input it passes."""
    import pyarrow.csv as csv

    if "dataset" not in {group.name for group in app.registered_groups}:
        check_commands.register(app)
    path = tmp_path / "offers.csv"
    csv.write_csv(trial(), path)
    asked = ["dataset", "check", str(path), "--label", "visit", "--customer", "customer", "--action", "action"]
    refused = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert refused.exit_code == 1
    assert "'spend'" in refused.output
    assert CliRunner().invoke(app, [*asked, "--ignore", "spend,chance"]).exit_code == 0
    nothing = CliRunner().invoke(app, ["dataset", "check", "--var", str(tmp_path)])
    assert nothing.exit_code == 1
    assert "nba prepare" in nothing.output
