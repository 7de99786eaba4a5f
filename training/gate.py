"""May a challenger replace the champion? Judged on the same held-out rows, customer by customer, with its reasons.

Decides the limits. Knows probabilities and labels; no registry and no model. "Worse" is said only where chance is ruled
out: both models are drawn on the same resampled customers, so that what is hard for both does not blur the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import ISSUES
from training.evaluate import EPSILON, measure
from training.held_out import HeldOut

Floats = NDArray[np.float64]

LEAST_POSITIVES = 20
"""An issue with fewer positives among the held-out rows is not judged."""
TOLERANCE = 0.01
"""By how much of the champion's log loss a challenger may be worse."""
SLOPES, RATIOS = (0.6, 1.6), (0.6, 1.6)
"""Calibration slope, and mean predicted over observed, outside of which probabilities are not probabilities."""
RESAMPLES = 400


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        refusals: Why the challenger may not replace the champion; empty lets it through.
        measures: issue -> measures of the challenger (`auc`, ...), of the champion (`champion.auc`, ...), and
            `gain`, `gain_low`, `gain_high`: how much lower its log loss is, as a share of the champion's, with its
            95 % interval.
    """

    refusals: tuple[str, ...]
    measures: Mapping[str, Mapping[str, float]]

    @property
    def is_passed(self) -> bool:
        """Whether nothing stands against the challenger."""
        return not self.refusals


def judge(held_out: HeldOut, challenger: Floats, champion: Floats | None) -> Verdict:
    """Judge a challenger.

    Args:
        held_out: n rows.
        challenger, champion: (n,) calibrated probabilities; no champion means that there is nothing to lose.
    """
    refusals: list[str] = []
    measures: dict[str, dict[str, float]] = {}
    for code, issue in enumerate(ISSUES):
        own = held_out.issues == code
        labels = held_out.labels[own]
        if labels.sum() < LEAST_POSITIVES:
            continue
        found = measure(labels, challenger[own])
        refusals += _dishonest(issue, found)
        if champion is not None:
            found |= {f"champion.{name}": value for name, value in measure(labels, champion[own]).items()}
            found |= _gain(labels, challenger[own], champion[own], held_out.customers[own])
            if found["gain_low"] < -TOLERANCE and found["gain"] < 0:
                refusals.append(
                    f"{issue}: its log loss is {-found['gain']:.1%} worse than the champion's "
                    f"(95 % interval {-found['gain_high']:.1%} to {-found['gain_low']:.1%}; "
                    f"at most {TOLERANCE:.0%} is let through)"
                )
        measures[issue] = found
    if not measures:
        refusals.append(f"no issue has {LEAST_POSITIVES} positives among the held-out rows: nothing can be judged")
    return Verdict(tuple(refusals), measures)


def _dishonest(issue: str, found: Mapping[str, float]) -> list[str]:
    """Return what is wrong with the probabilities themselves."""
    limits = (("slope", "calibration slope", SLOPES), ("predicted_ratio", "mean predicted / observed", RATIOS))
    return [
        f"{issue}: {words} is {found[name]:.2f}, outside {low} to {high}: its probabilities are not probabilities"
        for name, words, (low, high) in limits
        if name in found and not low <= found[name] <= high
    ]


def _gain(labels: Floats, challenger: Floats, champion: Floats, customers: NDArray[np.int64]) -> dict[str, float]:
    """Return how much lower the challenger's log loss is than the champion's, by paired bootstrap over customers."""
    _, codes = np.unique(customers, return_inverse=True)
    n = int(codes.max()) + 1
    per_customer = [np.bincount(codes, _losses(labels, p), minlength=n) for p in (challenger, champion)]
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    new, old = (drawn @ losses for losses in per_customer)
    low, high = np.quantile(1 - new / old, [0.025, 0.975])
    gain = 1 - per_customer[0].sum() / per_customer[1].sum()
    return {"gain": float(gain), "gain_low": float(low), "gain_high": float(high)}


def _losses(labels: Floats, p: Floats) -> Floats:
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
