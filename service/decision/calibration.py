"""Raw scores of the model -> calibrated probabilities: one logistic line an issue, in log-odds.

Pure and elementwise, so a batch of n gives bit for bit what n batches of one give. How the lines are fitted is
training's business; this is the one place that applies them, for training's evaluation and for serving alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.decision.model import ISSUES, Floats


@dataclass(frozen=True)
class Calibrator:
    """P(positive) = 1 / (1 + exp(-(slope x raw + intercept))), with the line of the row's issue (Platt 1999).

    Attributes:
        slopes, intercepts: (len(ISSUES),); 1 and 0 leave the raw log-odds as they are.
    """

    slopes: Floats
    intercepts: Floats

    @classmethod
    def identity(cls) -> Calibrator:
        """Return the calibrator that changes nothing."""
        return cls(np.ones(len(ISSUES)), np.zeros(len(ISSUES)))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Calibrator:
        """Read what `document` wrote.

        Raises:
            ValueError: for a line that is missing, not finite, or falls as the score rises.
        """
        if document.get("method") != "logistic_line":
            raise ValueError(f"calibrator method {document.get('method')!r} is unknown; expected 'logistic_line'")
        lines = document["issues"]
        slopes = np.array([float(lines[issue]["slope"]) for issue in ISSUES])
        intercepts = np.array([float(lines[issue]["intercept"]) for issue in ISSUES])
        if not (np.isfinite(slopes).all() and np.isfinite(intercepts).all() and (slopes > 0).all()):
            raise ValueError("a calibrator's lines must be finite and rise with the score")
        return cls(slopes, intercepts)

    def document(self) -> dict[str, Any]:
        """Return the calibrator as JSON-able data; floats survive JSON to the bit."""
        lines = {
            issue: {"slope": float(self.slopes[i]), "intercept": float(self.intercepts[i])}
            for i, issue in enumerate(ISSUES)
        }
        return {"method": "logistic_line", "issues": lines}

    def apply(self, raw: Floats, issues: Floats) -> Floats:
        """Calibrate raw scores.

        Args:
            raw: (n,) log-odds as the model gives them.
            issues: (n,) codes of the rows' issues, positions in `ISSUES`.

        Returns:
            (n,) probabilities.
        """
        code = issues.astype(np.int64)
        log_odds = self.slopes[code] * raw + self.intercepts[code]
        # exp of minus the magnitude never overflows; both branches are exact mirror images.
        small = np.exp(-np.abs(log_odds))
        return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)

    def contributions(self, raw: Floats, issues: Floats) -> Floats:
        """Scale contributions so that they add up to the calibrated log-odds instead of the raw ones.

        Args:
            raw: (n, k + 1), the last column the base. issues: (n,) as of `apply`.

        Returns:
            (n, k + 1): each times the slope of the row's line, and the intercept added to the base.
        """
        code = issues.astype(np.int64)
        scaled: Floats = raw * self.slopes[code][:, None]
        scaled[:, -1] += self.intercepts[code]
        return scaled
