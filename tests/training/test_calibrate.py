"""Calibration: fitted in training, applied by one function for evaluation and serving."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from service.decision.calibration import Calibrator
from service.decision.model import ISSUES
from training.calibrate import fit_calibrator, fit_line, shifts


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


def test_groups_that_differ_are_told_apart_and_those_that_do_not_are_left_alone() -> None:
    """A group's shift is found, more of it the more rows speak for it; chance alone moves no group."""
    random = np.random.default_rng(4)
    sizes, truth = {"a": 6000, "b": 6000, "c": 6000, "few": 60}, {"a": 0.0, "b": 0.8, "c": -0.6, "few": 0.8}
    groups = np.repeat(list(sizes), list(sizes.values()))
    raw = random.normal(-2.0, 1.0, len(groups))
    issues = np.ones(len(raw))

    def drawn(shifts: dict[str, float]) -> np.ndarray:
        moved = raw + np.array([shifts[group] for group in groups])
        return (random.random(len(raw)) < 1 / (1 + np.exp(-moved))).astype(float)

    made = fit_calibrator(raw, drawn(truth), issues, groups.tolist())
    level = made.intercepts[1]
    found = {group: made.intercepts[line] - level for (_, group), line in made.groups.items()}
    assert set(made.groups) == {("upsell", group) for group in sizes}
    assert found["b"] - found["a"] == pytest.approx(0.8, abs=0.15)
    assert found["c"] - found["a"] == pytest.approx(-0.6, abs=0.15)
    assert abs(found["few"]) < 0.8, "sixty rows do not speak for all of it"
    same = fit_calibrator(raw, drawn(dict.fromkeys(sizes, 0.0)), issues, groups.tolist())
    assert max((abs(same.intercepts[line] - same.intercepts[1]) for line in same.groups.values()), default=0.0) < 0.1
    read = Calibrator.from_document(json.loads(json.dumps(made.document())))
    kinds = [("upsell", "b"), ("upsell", "new"), ("cross_sell", "b")]
    assert read.lines(kinds).tolist() == [made.groups["upsell", "b"], 1, 0]
    lines = made.lines(("upsell", group) for group in groups)
    assert np.array_equal(read.apply(raw, read.lines(("upsell", g) for g in groups)), made.apply(raw, lines))


def test_the_shift_of_a_group_is_what_an_independent_estimate_gives() -> None:
    """Method of moments and shrinkage, written out: DerSimonian and Laird's tau^2 on the groups' own shifts."""
    random = np.random.default_rng(9)
    groups = np.repeat(["a", "b", "c", "d"], [400, 900, 2500, 150])
    log_odds = random.normal(-1.0, 0.7, len(groups))
    moved = log_odds + np.repeat([0.5, -0.2, 0.1, 0.9], [400, 900, 2500, 150])
    labels = (random.random(len(groups)) < 1 / (1 + np.exp(-moved))).astype(float)
    own, variances = [], []
    for name in "abcd":
        x, y = log_odds[groups == name], labels[groups == name]
        # Half a positive and half a negative at log-odds 0 are two rows of weight one half.
        reference = minimize_scalar(
            lambda s, x=x, y=y: (
                -(
                    np.sum(y * (x + s) - np.logaddexp(0, x + s))
                    + 0.5 * (s - np.logaddexp(0, s))
                    - 0.5 * np.logaddexp(0, s)
                )
            )
        ).x
        p, level = 1 / (1 + np.exp(-(x + reference))), 1 / (1 + np.exp(-reference))
        own.append(reference)
        variances.append(1 / (np.sum(p * (1 - p)) + level * (1 - level)))
    weights = 1 / np.array(variances)
    mean = np.sum(weights * own) / weights.sum()
    q = np.sum(weights * (np.array(own) - mean) ** 2)
    tau2 = max((q - 3) / (weights.sum() - np.sum(weights**2) / weights.sum()), 0)
    expected = np.array(own) * tau2 / (tau2 + np.array(variances))
    found = shifts(log_odds, labels, groups)
    np.testing.assert_allclose([found[name] for name in "abcd"], expected, atol=1e-6)


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
