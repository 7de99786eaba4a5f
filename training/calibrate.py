"""Fits the lines that turn raw scores into probabilities: one an issue, shrunk towards leaving scores as they are, and
one a group of actions, shrunk towards its issue's.

Decides nothing about how they are applied: that is `service.decision.calibration`, one code for evaluation and serving.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.decision.calibration import Calibrator
from service.decision.model import ISSUES

Floats = NDArray[np.float64]

SHRINKAGE = 5.0
"""Weight of the pull towards slope 1 and intercept 0, in units of the likelihood of about 5 sure observations."""


def fit_line(raw: Floats, labels: Floats, shrinkage: float = SHRINKAGE) -> tuple[float, float]:
    """Fit P(positive) = sigmoid(slope x raw + intercept) by penalised maximum likelihood.

    Args:
        raw: (n,) log-odds. labels: (n,) 0 or 1.
        shrinkage: Weight of (slope - 1)^2 + intercept^2; 0 fits freely.

    Returns:
        Slope, never below 0.05, so that order is kept, and intercept.
    """
    design = np.column_stack([raw, np.ones_like(raw)])
    start = np.array([1.0, 0.0])
    line = start.copy()
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(design @ line)))
        gradient = design.T @ (labels - p) - shrinkage * (line - start)
        weights = np.maximum(p * (1.0 - p), 1e-12)
        hessian = design.T @ (design * weights[:, None]) + (shrinkage + 1e-9) * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        line += np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-10:
            break
    return max(float(line[0]), 0.05), float(line[1])


def fit_calibrator(
    raw: Floats,
    labels: Floats,
    issues: Floats,
    groups: Sequence[str] | None = None,
    shrinkage: float = SHRINKAGE,
) -> Calibrator:
    """Fit one line an issue and, within it, one a group; an issue without both outcomes keeps its raw scores.

    Args:
        raw: (n,) log-odds of rows that the model was not fitted on.
        labels: (n,) 0 or 1. issues: (n,) positions in `ISSUES`.
        groups: (n,) the groups of the rows' actions, "" where there is none; None where no row has one.
        shrinkage: As in `fit_line`.
    """
    slopes, intercepts = np.ones(len(ISSUES)).tolist(), np.zeros(len(ISSUES)).tolist()
    lines: dict[tuple[str, str], int] = {}
    names = np.full(len(raw), "", dtype=np.str_) if groups is None else np.asarray(groups, dtype=np.str_)
    for code, issue in enumerate(ISSUES):
        own = issues == code
        if not 0 < labels[own].sum() < own.sum():
            continue
        slopes[code], intercepts[code] = fit_line(raw[own], labels[own], shrinkage)
        log_odds = slopes[code] * raw[own] + intercepts[code]
        for group, shift in shifts(log_odds, labels[own], names[own]).items():
            lines[issue, group] = len(slopes)
            slopes.append(slopes[code])
            intercepts.append(intercepts[code] + shift)
    return Calibrator(np.array(slopes), np.array(intercepts), lines)


def shifts(log_odds: Floats, labels: Floats, groups: NDArray[np.str_]) -> dict[str, float]:
    """Return by how much each group's log-odds are off, shrunk by how much groups differ beyond chance.

    A group's own shift is its maximum-likelihood one, with the variance that its information leaves; how much groups
    really differ, tau^2, is what is left of their spread after chance (DerSimonian and Laird 1986). A shift is used to
    the part tau^2 / (tau^2 + its variance): groups that differ no more than chance would have it are left alone.

    Args:
        log_odds: (n,) calibrated by the issue's line. labels: (n,) 0 or 1. groups: (n,), "" for none.
    """
    names = [str(name) for name in np.unique(groups) if name]
    own = [_own_shift(log_odds[groups == name], labels[groups == name]) for name in names]
    if len(names) < 2:
        return {}
    found, variances = np.array(own).T
    weights = 1.0 / variances
    spread = float(np.sum(weights * (found - np.average(found, weights=weights)) ** 2))
    freedom = float(weights.sum() - np.sum(weights**2) / weights.sum())
    tau2 = max((spread - (len(names) - 1)) / freedom, 0.0)
    return dict(zip(names, (found * tau2 / (tau2 + variances)).tolist(), strict=True)) if tau2 > 0 else {}


def _own_shift(log_odds: Floats, labels: Floats) -> tuple[float, float]:
    """Return the shift that fits best, and its variance.

    Half a positive and half a negative are added (Haldane 1956), so that a group with only one outcome has both.
    """
    shift = 0.0
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(log_odds + shift)))
        level = 1.0 / (1.0 + np.exp(-shift))
        gradient = float(np.sum(labels - p)) + 0.5 - level
        information = float(np.sum(p * (1.0 - p))) + level * (1.0 - level)
        step = gradient / information
        shift += float(np.clip(step, -1.0, 1.0))
        if abs(step) < 1e-10:
            break
    return shift, 1.0 / information
