"""The next model learns from what was shown: rows of the log, their slices, and a version that has seen them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from mlflow import MlflowClient

from features.contract import REGISTERED_MODEL
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.compiled import compile_catalogue
from service.decision.model import Catalogue, Request
from tests.service.decision.worlds import NOW
from tests.small_world import SmallWorld, feast_environment
from tests.training.core_log import DAY, LOGGED, RATES, CoreLog, catalogue_at
from training.dataset import Dataset, feast_facts
from training.feast_steps import open_store
from training.log_dataset import Log, log_dataset
from training.promotion import Registry
from training.registry import train_and_register
from training.train import LOG_SLICE, Slices, train
from training.version_scorer import files_of, make_scorer_of

DAYS = (0, 8, 16, 24)
SHOWN = ("fish", "cake")
"""Of the cross-sell; `rare` is too unlikely by its prior to be shown, and `dear` costs more than it brings."""
REQUESTS = (Request("app", (("home", 2),)), Request("email", (("grid", 1),)))


def learnable(folder: Path) -> Catalogue:
    """The small catalogue, its cross-sell scored by the model, of which everyone may see everything."""
    path = catalogue_at(folder / "logged.yaml", {**LOGGED, "rules": {}, "caps": {}})
    document = yaml.safe_load(path.read_text())
    document["issues"]["cross_sell"]["scoring"] = "model"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_catalogue(path)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> CoreLog:
    folder = tmp_path_factory.mktemp("log")
    core = CoreLog(folder, learnable(folder), customers=300)
    for day in DAYS:
        for request in REQUESTS:
            core.decide(request, day + (0.5 if request.channel == "email" else 0.0))
    core.decide(REQUESTS[0], DAYS[-1] + 8, degraded_reasons=("features_stale",))
    core.close()
    return core


@pytest.fixture(scope="module")
def log(core: CoreLog) -> Log:
    return Log(core.lake.folder, lambda version: core.catalogue)


@pytest.fixture(scope="module")
def dataset(log: Log) -> Dataset:
    found = log_dataset(log)
    assert found is not None
    return found


def test_a_row_is_what_was_shown_the_facts_as_served_and_what_came_of_it(core: CoreLog, dataset: Dataset) -> None:
    """Every shown cross-sell with its window over is a row, in order of time; not of the unknown, nor degraded ones."""
    cross_sell = {a.id for a in core.catalogue.actions if a.issue == "cross_sell"}
    expected = [
        (row, candidate)
        for row in core.rows
        for candidate, _, _ in row.chosen
        if row.treatment_ids[candidate].split(".")[0] in cross_sell and row.is_known and not row.degraded_reasons
    ]
    assert len(dataset.inputs) == len(expected) > 500
    by_decision = {row.decision_id: row for row in core.rows}
    position = {customer: i for i, customer in enumerate(core.batch.customer_ids)}
    for i in range(0, len(dataset.inputs), 97):
        row = by_decision[dataset.column("campaign_id")[i]]
        served = core.batch.facts[:, position[row.customer_id]]
        assert np.array_equal(dataset.facts[:, dataset.pairs[i]], served, equal_nan=True)
        assert dataset.column("moment")[i] == pytest.approx(row.decision_time, abs=1e-6)
        chosen = {row.treatment_ids[c].split(".")[0]: p for c, _, p in row.chosen}
        assert dataset.column("selection_probability")[i] == chosen[dataset.column("action_id")[i]]
        assert (dataset.column("arm")[i], dataset.column("channel")[i]) == (row.arm, row.channel)
    moments = dataset.column("moment")
    assert (np.diff(moments) >= 0).all()
    assert dataset.is_logged.all()


def test_labels_are_the_answers(core: CoreLog, dataset: Dataset) -> None:
    """Rates by action are those of this world, and channel and action are columns of their own."""
    labels, actions = dataset.column("label").astype(float), dataset.column("action_id")
    for action in SHOWN:
        own = actions == action
        assert labels[own].mean() == pytest.approx(RATES[action], abs=4 * np.sqrt(RATES[action] / own.sum()))
    assert set(dataset.texts) == {"action", "channel"}
    assert dataset.texts["channel"] == ("app", "email")
    code = dataset.inputs[:, dataset.names.index("channel")]
    assert [dataset.texts["channel"][int(c)] for c in code] == dataset.column("channel").tolist()
    coded = dataset.inputs[:, dataset.names.index("action")]
    named = [dataset.texts["action"][int(c)] if c == c else None for c in coded]
    assert {a for a, n in zip(actions, named, strict=True) if n is None}.isdisjoint(dataset.texts["action"])
    assert all(n in (None, a) for a, n in zip(actions, named, strict=True))


def test_too_few_answers_are_not_learned_from(tmp_path: Path) -> None:
    """A log without a decision, and one of a handful of customers, leave the history to speak alone."""
    assert log_dataset(Log(tmp_path / "nothing", lambda version: learnable(tmp_path))) is None
    few = CoreLog(tmp_path, learnable(tmp_path), customers=12)
    for day in DAYS:
        few.decide(REQUESTS[0], day)
    few.close()
    assert log_dataset(Log(few.lake.folder, lambda version: few.catalogue)) is None


def test_slices_follow_time_and_the_model_learns_the_truth(dataset: Dataset) -> None:
    """The newest fifth is the test, the fifth before calibrates; on the test each action has its true rate."""
    slices = Slices.of(dataset)
    moments, actions = dataset.column("moment"), dataset.column("action_id")
    assert moments[slices.train].max() < moments[slices.calibration].min()
    assert moments[slices.calibration].max() < moments[slices.test].min()
    assert slices.test.mean() == pytest.approx(LOG_SLICE, abs=0.15)
    trained = train(dataset, max_rounds=40, threads=1)
    p = trained.scores["lightgbm"]
    for action in SHOWN:
        own = slices.test & (actions == action)
        assert p[own].mean() == pytest.approx(RATES[action], abs=0.35 * RATES[action])


@pytest.fixture(scope="module")
def registered(
    small_world: SmallWorld, log: Log, core: CoreLog, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A registry with a version from the history alone, and one that learned from the log, too."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    with feast_environment(small_world.var):
        said = train_and_register(
            small_world.history, uri, facts_of=feast_facts(open_store()), catalogue=core.catalogue, log=log,
            max_rounds=30, threads=1,
        )  # fmt: skip
        assert "answers of the log: cross_sell" in said
        yield uri


def test_a_version_learns_from_history_and_log_together(
    small_world: SmallWorld, registered: str, core: CoreLog
) -> None:
    """Who learned from the log scores this world's actions near their true rates, and the history alone does not."""
    compiled = compile_catalogue(core.catalogue, Columns())
    position = {action.id: i for i, action in enumerate(core.catalogue.actions)}
    batch = core.batch
    as_of = compiled.columns.as_of(batch.facts, NOW + 50 * DAY)
    n = len(batch.customer_ids)
    before, after = (make_scorer_of("1", uri)(compiled) for uri in (small_world.mlflow_uri, registered))
    for action in SHOWN:
        actions = np.full(n, position[action])
        off = []
        for scorer in (before, after):
            scores = scorer.score(batch, as_of, np.arange(n), actions, NOW + 50 * DAY, "app")
            off.append(abs(float(scores.mean()) - RATES[action]))
        assert off[1] < 0.4 * RATES[action] + 0.02
        assert off[1] < 0.7 * off[0]
    assert [after.sources[position[a]] for a in SHOWN] == ["model"] * 2
    assert after.sources[position["rare"]] == "group"
    assert after.evidence[position["rare"]] == 0
    assert after.sources[position["win_back"]] == "prior", "the catalogue does not have it scored"


def test_the_log_is_named_in_version_run_and_card(registered: str) -> None:
    """What codes mean, how many rows are the log's, and on what the gate judged: all with the version."""
    with files_of("1", registered) as folder:
        contract = json.loads((folder / "contract.json").read_text())
    assert contract["logged"]["channel"] == ["app", "email"]
    assert "cake" in contract["logged"]["action"]
    client = MlflowClient(registered, registered)
    run = client.get_run(client.get_model_version(REGISTERED_MODEL, "1").run_id)
    assert int(run.data.params["rows_logged"]) > 500
    verdict = Registry(registered).verdict("1")
    assert verdict.measures["cross_sell"]["rows"] < 0.5 * int(run.data.params["rows_logged"]), "the log's test alone"
    assert not [refusal for refusal in verdict.refusals if refusal.startswith("cross_sell")]


def test_all_the_history_of_an_issue_is_learned_from_once_its_log_speaks(dataset: Dataset) -> None:
    """An issue of the log is calibrated and judged on the log alone; rows that nobody decided are all learned from."""
    n = len(dataset.inputs)
    place = dataset.rows.column_names.index("channel")
    history = replace(dataset, rows=dataset.rows.set_column(place, "channel", pa.nulls(n, pa.string())))
    both = Dataset.joined(history, dataset)
    slices = Slices.of(both)
    assert both.is_logged.tolist() == [False] * n + [True] * n
    assert slices.train[:n].all()
    assert np.array_equal(slices.test[n:], Slices.of(dataset).test)
    assert both.rows["row_id"].to_pylist() == list(range(2 * n))
    assert np.array_equal(both.facts[:, both.pairs[n:]], dataset.facts[:, dataset.pairs], equal_nan=True)
