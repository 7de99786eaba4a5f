"""What a model reached: ranking, honesty of probabilities, and order within a send, with intervals by household.

Decides what is measured and how; knows no model, only labels and probabilities. A constant passes any bound on the
calibration error: judge it against the base rate, beside the slope and the Brier skill.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.calibrate import fit_line

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
TOP = 3
RESAMPLES = 200
EPSILON = 1e-12


def auc(labels: Floats, scores: Floats, weights: Floats | None = None) -> float:
    """Return the area under the ROC curve, ties counted half; NaN where one outcome is missing.

    Args:
        labels: (n,) 0 or 1. scores: (n,).
        weights: (n,) how often each row counts, e.g. of a bootstrap resample.
    """
    order = np.argsort(scores, kind="stable")
    return _sorted_auc(labels[order], _starts(scores[order]), None if weights is None else weights[order])


def _starts(ordered: NDArray[Any]) -> Ints:
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _sorted_auc(labels: Floats, starts: Ints, weights: Floats | None) -> float:
    weight = np.ones(len(labels)) if weights is None else weights
    positives = np.add.reduceat(weight * labels, starts)
    negatives = np.add.reduceat(weight * (1.0 - labels), starts)
    total = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float(np.sum(positives * (below + negatives / 2.0)) / total) if total > 0 else float("nan")


def log_loss(labels: Floats, p: Floats) -> float:
    """Return the mean negative log-likelihood."""
    p = np.clip(p, EPSILON, 1.0 - EPSILON)
    return float(-np.mean(labels * np.log(p) + (1.0 - labels) * np.log1p(-p)))


def reliability(labels: Floats, p: Floats, bins: int = BINS) -> tuple[Floats, Floats, Floats]:
    """Return mean probability, observed rate and share of rows of `bins` bins of equal mass, by rising probability."""
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([p[part].mean() for part in parts]),
        np.array([labels[part].mean() for part in parts]),
        np.array([len(part) / len(p) for part in parts]),
    )


def ece(labels: Floats, p: Floats, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal mass."""
    predicted, observed, share = reliability(labels, p, bins)
    return float(np.sum(share * np.abs(predicted - observed)))


def within_groups(labels: Floats, scores: Floats, groups: Ints, top: int = TOP) -> tuple[float, float]:
    """Measure the order within groups, e.g. the aisles of one send.

    Args:
        labels: (n,) 0 or 1. scores: (n,). groups: (n,) codes.
        top: How many of a group are looked at for the recall.

    Returns:
        Mean AUC over groups with both outcomes, and mean recall among the `top` best over groups with a positive and
        more than `top` rows; ties in scores are broken by chance that is the same in every run.
    """
    chance = np.random.default_rng(0).random(len(scores))
    order = np.lexsort((chance, -scores, groups))
    bounds = np.append(_starts(groups[order]), len(order))
    areas, recalls = [], []
    for begin, end in pairwise(bounds):
        y, s = labels[order[begin:end]], scores[order[begin:end]]
        positives = y.sum()
        if 0 < positives < len(y):
            areas.append(_sorted_auc(y[::-1], _starts(s[::-1]), None))
        if positives and len(y) > top:
            recalls.append(y[:top].sum() / positives)
    return float(np.mean(areas)) if areas else float("nan"), float(np.mean(recalls)) if recalls else float("nan")


def measure(labels: Floats, p: Floats, groups: Ints | None = None) -> dict[str, float]:
    """Measure calibrated probabilities.

    Args:
        labels: (n,) 0 or 1. p: (n,) probabilities.
        groups: (n,) code of the send, or None where there is none.

    Returns:
        rows, positives, base_rate, auc, log_loss, brier_skill (against the base rate), ece, ece_ratio (to the base
        rate), slope, predicted_ratio (mean predicted / observed), and with groups within_auc and recall_at_3.
    """
    rate = float(labels.mean())
    measured = {"rows": float(len(labels)), "positives": float(labels.sum()), "base_rate": rate}
    if not 0.0 < rate < 1.0:
        return measured
    raw = np.log(np.clip(p, EPSILON, 1 - EPSILON)) - np.log1p(-np.clip(p, EPSILON, 1 - EPSILON))
    error = ece(labels, p)
    measured |= {
        "auc": auc(labels, p),
        "log_loss": log_loss(labels, p),
        "brier_skill": 1.0 - float(np.mean((labels - p) ** 2)) / (rate * (1.0 - rate)),
        "ece": error,
        "ece_ratio": error / rate,
        "predicted_ratio": float(p.mean()) / rate,
    }
    if np.ptp(raw) > 0:
        measured["slope"] = fit_line(raw, labels, shrinkage=0.0)[0]
    if groups is not None:
        measured["within_auc"], measured["recall_at_3"] = within_groups(labels, p, groups)
    return measured


def auc_interval(labels: Floats, p: Floats, households: Ints, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUC, whole households drawn with replacement, seeded."""
    order = np.argsort(p, kind="stable")
    y, starts = labels[order], _starts(p[order])
    _, codes = np.unique(households[order], return_inverse=True)
    n = int(codes.max()) + 1
    random = np.random.default_rng(0)
    draws = [
        _sorted_auc(y, starts, np.bincount(random.integers(0, n, n), minlength=n)[codes].astype(float))
        for _ in range(resamples)
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)


def flatten(prefix: str, measured: Mapping[str, float]) -> dict[str, float]:
    """Name measures for MLflow: `upsell.auc`, leaving out what is not a number."""
    return {f"{prefix}.{name}": value for name, value in measured.items() if value == value}
