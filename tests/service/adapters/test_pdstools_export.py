"""The export that pdstools opens."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from service.adapters.journal_entries import KnownDecision, OutcomeEntry, encode, encode_decision
from service.adapters.parquet_lake import ParquetLake
from service.adapters.pdstools_export import OUTCOMES, STAGES, export
from service.catalogue.loader import load_catalogue
from service.decision.model import Stage
from service.decision.record import customer_digest
from service.ports import Event, Outcome
from tests.service.decision.worlds import CATALOGUE
from tests.service.rows import decision_row

NOW = 1_770_000_000.0


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """An export of some decisions of three customers, one of whom objects to marketing."""
    from dataclasses import replace

    catalogue = load_catalogue(CATALOGUE)
    shelf = tmp_path / "catalogues"
    shelf.mkdir()
    (shelf / f"{catalogue.version}.yaml").write_bytes(CATALOGUE.read_bytes())
    action_of = {treatment.id: treatment.action_id for treatment in catalogue.treatments}
    names = tuple(t.id for t in catalogue.treatments if t.channel == "app")[:2]
    actions = {action.id: action for action in catalogue.actions}
    entries = []
    for i, customer in enumerate(["a", "b", "objector"] * 20):
        row = decision_row(customer, NOW + i)
        row = replace(row, catalogue_version=catalogue.version, treatment_ids=names)
        shown = actions[action_of[names[1]]]
        offer = (shown.id, shown.issue, shown.group, names[1], True, "app_home")
        known = KnownDecision(customer, customer_digest(customer), NOW + i, "app", (offer,))
        kinds = ("impression", "click") if i % 4 == 0 else ("impression",)
        entries.append((f"1770000000000-{i * 4}", "decision", encode_decision(row)))
        for n, kind in enumerate(kinds, start=1):
            outcome = Outcome(f"o{i}-{n}", row.decision_id, shown.id, kind, None, NOW + i + n)
            entries.append((f"1770000000000-{i * 4 + n}", "outcome", encode(OutcomeEntry(known, outcome))))
    refusal = {"channel": "all", "purpose": "marketing", "granted": False, "source": "letter", "expiry": None}
    entries.append(("1770000000001-0", "event", encode(Event("c1", "objector", "consent_changed", NOW, refusal))))
    ParquetLake(tmp_path / "lake").write(3, entries)
    export(tmp_path / "lake", shelf, tmp_path / "out")
    return tmp_path / "out"


def test_every_stage_and_outcome_has_a_name_there() -> None:
    """No stage of ours is without its place in Pega's pipeline, no outcome without its label."""
    assert set(STAGES) == set(Stage)
    assert set(OUTCOMES) == {"impression", "click", "accept", "reject", "conversion"}


def test_candidates_are_rows_and_nobody_who_objects_is_in_it(written: Path) -> None:
    """Each candidate is a row with action, stage and factors; ids are hashes; who objects to marketing is left out."""
    rows = duckdb.sql(
        f"""SELECT count(*), count(DISTINCT Primary_pySubjectID), count(DISTINCT pxInteractionID),
        count(*) FILTER (Stage_pyStageGroup = 'Output'), min(length(Primary_pySubjectID)), min(pxStrategyName)
        FROM read_parquet('{written}/decisions.parquet')"""
    ).fetchall()
    assert rows == [(80, 2, 40, 40, 32, "nba")]
    factors = duckdb.sql(
        f"""SELECT min("Value"), min(ContextWeight), min(Weight), min(FinalPropensity), min(length(pyIssue))
        FROM read_parquet('{written}/decisions.parquet')"""
    ).fetchall()
    assert all(value is not None and value > 0 for value in factors[0])
    history = duckdb.sql(f"SELECT pyOutcome, count(*) FROM read_parquet('{written}/ih.parquet') GROUP BY 1 ORDER BY 1")
    assert history.fetchall() == [("Clicked", 10), ("Impression", 40)]


@pytest.mark.filterwarnings("ignore")
def test_pdstools_opens_it(written: Path) -> None:
    """DecisionAnalyzer takes the decisions as extract v2 and shows a funnel; IH computes the engagement rate."""
    from pdstools.decision_analyzer import DecisionAnalyzer
    from pdstools.ih import IH

    analyzer = DecisionAnalyzer.from_decision_analyzer(str(written / "decisions.parquet"))
    assert analyzer.extract_type == "decision_analyzer"
    assert analyzer.validation_error is None
    assert {"Arbitration", "Output"} <= set(analyzer.AvailableNBADStages)
    assert analyzer.decision_data.collect().height == 80
    assert analyzer.overview_stats["Decisions"] == 40
    summary = IH.from_ds_export(written / "ih.parquet").aggregates.summary_success_rates().collect()
    assert summary["Positives_Engagement"].to_list() == [10]
    assert summary["Negatives_Engagement"].to_list() == [30]
