"""Raw scores of the model -> calibrated probabilities: logistic lines in log-odds, one an issue and one a group in it.

Pure and elementwise, so a batch of n gives bit for bit what n batches of one give. How the lines are fitted is
training's business; this is the one place that applies them, for training's evaluation and for serving alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.decision.model import ISSUES, Floats, Ints


@dataclass(frozen=True)
class Calibrator:
    """P(positive) = 1 / (1 + exp(-(slope x raw + intercept))), by the row's line (Platt 1999).

    Attributes:
        slopes, intercepts: (n_lines,), those of the issues first, in the order of `ISSUES`; 1 and 0 leave the raw
            log-odds as they are.
        groups: (issue, group) -> its line; a group that is not there is calibrated as its issue.
    """

    slopes: Floats
    intercepts: Floats
    groups: Mapping[tuple[str, str], int] = field(default_factory=dict)

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
        lines = [document["issues"][issue] for issue in ISSUES]
        groups: dict[tuple[str, str], int] = {}
        for issue, of_issue in document.get("groups", {}).items():
            for group, line in of_issue.items():
                groups[issue, group] = len(lines)
                lines.append(line)
        slopes = np.array([float(line["slope"]) for line in lines])
        intercepts = np.array([float(line["intercept"]) for line in lines])
        if not (np.isfinite(slopes).all() and np.isfinite(intercepts).all() and (slopes > 0).all()):
            raise ValueError("a calibrator's lines must be finite and rise with the score")
        return cls(slopes, intercepts, groups)

    def document(self) -> dict[str, Any]:
        """Return the calibrator as JSON-able data; floats survive JSON to the bit."""
        groups: dict[str, dict[str, Any]] = {}
        for (issue, group), line in self.groups.items():
            groups.setdefault(issue, {})[group] = self._line(line)
        return {
            "method": "logistic_line",
            "issues": {issue: self._line(i) for i, issue in enumerate(ISSUES)},
            "groups": groups,
        }

    def _line(self, line: int) -> dict[str, float]:
        return {"slope": float(self.slopes[line]), "intercept": float(self.intercepts[line])}

    def lines(self, kinds: Iterable[tuple[str, str]]) -> Ints:
        """Return (n,) the lines of n (issue, group)."""
        return np.array([self.groups.get(kind, ISSUES.index(kind[0])) for kind in kinds], dtype=np.int64)

    def apply(self, raw: Floats, lines: Ints | Floats) -> Floats:
        """Calibrate raw scores.

        Args:
            raw: (n,) log-odds as the model gives them.
            lines: (n,) of the rows, see `lines`; an issue's own line is its position in `ISSUES`, as in a model row.

        Returns:
            (n,) probabilities.
        """
        code = lines.astype(np.int64, copy=False)
        log_odds = self.slopes.take(code) * raw + self.intercepts.take(code)
        # exp of minus the magnitude never overflows; both branches are exact mirror images.
        small = np.exp(-np.abs(log_odds))
        return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)

    def contributions(self, raw: Floats, lines: Ints) -> Floats:
        """Scale contributions so that they add up to the calibrated log-odds instead of the raw ones.

        Args:
            raw: (n, k + 1), the last column the base. lines: (n,) as of `apply`.

        Returns:
            (n, k + 1): each times the slope of the row's line, and the intercept added to the base.
        """
        scaled: Floats = raw * self.slopes[lines][:, None]
        scaled[:, -1] += self.intercepts[lines]
        return scaled
