"""Fits the lines that turn raw scores into probabilities, an issue each, shrunk towards leaving them as they are.

Decides nothing about how they are applied: that is `service.decision.calibration`, one code for evaluation and serving.
"""

from __future__ import annotations

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


def fit_calibrator(raw: Floats, labels: Floats, issues: Floats, shrinkage: float = SHRINKAGE) -> Calibrator:
    """Fit one line an issue; an issue without both outcomes keeps its raw scores.

    Args:
        raw: (n,) log-odds of rows that the model was not fitted on.
        labels: (n,) 0 or 1. issues: (n,) positions in `ISSUES`.
        shrinkage: As in `fit_line`.
    """
    calibrator = Calibrator.identity()
    for code in range(len(ISSUES)):
        own = issues == code
        if 0 < labels[own].sum() < own.sum():
            calibrator.slopes[code], calibrator.intercepts[code] = fit_line(raw[own], labels[own], shrinkage)
    return calibrator
