"""Calibration: fitted in training, applied by one function for evaluation and serving."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.decision.calibration import Calibrator
from service.decision.model import ISSUES
from training.calibrate import fit_calibrator, fit_line


def _rows(n: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    raw = random.normal(-2, 1.5, n)
    return raw, (random.random(n) < 1 / (1 + np.exp(-(0.7 * raw - 0.4)))).astype(float)


def test_the_line_is_the_maximum_of_the_likelihood() -> None:
    """Without shrinkage slope and intercept are those of a plain logistic regression."""
    raw, labels = _rows()
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(raw[:, None], labels)
    slope, intercept = fit_line(raw, labels, shrinkage=0.0)
    assert slope == pytest.approx(reference.coef_[0, 0], abs=1e-5)
    assert intercept == pytest.approx(reference.intercept_[0], abs=1e-5)


def test_little_evidence_leaves_scores_nearly_as_they_are() -> None:
    """Shrinkage pulls the line of a dozen rows towards slope 1 and intercept 0."""
    raw, labels = _rows(12)
    free, held = np.array(fit_line(raw, labels, 0.0)), np.array(fit_line(raw, labels, 50.0))
    assert np.abs(held - [1.0, 0.0]).max() < np.abs(free - [1.0, 0.0]).max()
    assert np.abs(held - [1.0, 0.0]).max() < 0.15


def test_each_issue_has_its_own_line_and_an_unseen_one_is_left_alone() -> None:
    """Rows of one issue do not move another's probabilities."""
    raw, labels = _rows()
    issues = np.where(np.arange(len(raw)) % 2 == 0, 0.0, 1.0)
    flipped = np.where(issues == 1, labels, 1 - labels)
    fitted, other = fit_calibrator(raw, labels, issues), fit_calibrator(raw, flipped, issues)
    assert fitted.slopes[1] == other.slopes[1]
    assert fitted.slopes[0] != other.slopes[0]
    assert fitted.slopes[ISSUES.index("service")] == 1.0
    assert fitted.intercepts[ISSUES.index("service")] == 0.0


def test_a_falling_line_is_never_fitted() -> None:
    """Even labels that run against the score keep its order."""
    raw, labels = _rows()
    assert fit_line(-raw, labels, 0.0)[0] > 0


def test_probabilities_survive_json_and_company_to_the_bit() -> None:
    """Written and read again, alone or in a batch, a row gets the same probability, and order is kept."""
    raw, labels = _rows(2000)
    issues = np.random.default_rng(2).integers(0, 3, len(raw)).astype(float)
    made = fit_calibrator(raw, labels, issues)
    read = Calibrator.from_document(json.loads(json.dumps(made.document())))
    batch = read.apply(raw, issues)
    assert np.array_equal(batch, made.apply(raw, issues))
    alone = np.concatenate([read.apply(raw[i : i + 1], issues[i : i + 1]) for i in range(len(raw))])
    assert np.array_equal(batch, alone)
    own = issues == 0
    assert np.array_equal(np.argsort(raw[own]), np.argsort(batch[own]))


def test_extreme_scores_stay_probabilities() -> None:
    """Log-odds beyond what exp can hold give 0 and 1, not NaN."""
    p = Calibrator.identity().apply(np.array([-1e4, -50.0, 0.0, 50.0, 1e4]), np.zeros(5))
    assert p[0] == 0.0
    assert p[2] == 0.5
    assert p[4] == 1.0
    assert np.all(np.diff(p) >= 0)


@pytest.mark.parametrize("line", [{"slope": -1.0, "intercept": 0.0}, {"slope": float("nan"), "intercept": 0.0}])
def test_a_line_that_turns_the_order_round_is_refused(line: dict[str, float]) -> None:
    """A calibrator whose line falls, or is no number, is not read."""
    document = Calibrator.identity().document()
    document["issues"]["upsell"] = line
    with pytest.raises(ValueError, match="rise with the score"):
        Calibrator.from_document(document)
