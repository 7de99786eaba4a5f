"""Propensities from a bundle."""

from __future__ import annotations

import numpy as np

from features.contract import LAYOUT
from features.matrix import Columns
from service.catalogue.loader import load_catalogue
from service.decision.bundle_scorer import BundleScorer, ColdStart, Domain
from service.decision.calibration import Calibrator
from service.decision.engine import compile_catalogue
from service.decision.model import Scoring
from tests.service.decision.worlds import CATALOGUE


def test_only_actions_scored_by_the_model_have_evidence() -> None:
    """What the history says of an issue stands behind its MODEL actions; the response to a RISK action is assumed."""
    columns = Columns()
    compiled = compile_catalogue(load_catalogue(CATALOGUE), columns)
    actions = compiled.catalogue.actions
    evidence = {f"{action.issue}|{action.member or ''}": 7.0 for action in actions}
    scorer = BundleScorer(
        compiled,
        version="v",
        predict=lambda rows: np.zeros(len(rows)),
        calibrator=Calibrator.identity(),
        cold_start=ColdStart(np.full(LAYOUT.width, np.nan)),
        evidence=evidence,
        domain=Domain({}, {}),
        columns=columns,
    )
    assert {action.scoring for action in actions} == set(Scoring)
    np.testing.assert_array_equal(scorer.evidence, [7.0 * (action.scoring is Scoring.MODEL) for action in actions])
