"""How well scores rank customers by effect: AUUC and Qini, with intervals by customer. Knows no learner.

With weights v = 1 / e for the treated and 1 / (1 - e) for the others, e the probability of treatment, and both sets
of weights scaled to sum 1, the uplift curve at a depth of the ranked list is sum(v y, treated) - sum(v y, control) of
those above it. AUUC is its mean over the list; with constant e it is the definition of arXiv 2012.09897. A list in
random order has half the mean effect. Equal scores share the mean of their orders, so no draw is needed.

The Qini curve weighs the control's successes by the share of treated above the depth (Radcliffe 2007); its
coefficient is the area between it and the straight line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import RESAMPLES, SEED, Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
CHUNK_CELLS = 2_000_000


class Ranked:
    """Rows in the order of their scores, ready for areas under any weights of rows."""

    def __init__(self, scores: Floats, outcomes: Floats, treated: Bools, propensities: Floats) -> None:
        order = np.argsort(-scores, kind="stable")
        self.order = order
        is_treated = treated[order]
        weights = np.where(is_treated, 1.0 / propensities[order], 1.0 / (1.0 - propensities[order]))
        self.treated, self.control = weights * is_treated, weights * ~is_treated
        self.outcomes = outcomes[order]
        ranked = scores[order]
        self.starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def auuc(self, counts: Floats | None = None) -> Floats:
        """Return the area under the uplift curve, for each row of `counts` (..., n) in the ranked order."""
        rows, treated, control = self._grouped(counts)
        shown = treated[1] / treated[0].sum(-1, keepdims=True) - control[1] / control[0].sum(-1, keepdims=True)
        return _area(shown, rows)

    def qini(self, counts: Floats | None = None) -> Floats:
        """Return the Qini coefficient, a share of successes among the treated, for each row of `counts`."""
        rows, curve = self._qini_curve(counts)
        steps = np.diff(curve, axis=-1, prepend=0.0)
        area: Floats = _area(steps, rows) - curve[..., -1] / 2
        return area

    def qini_curve(self) -> tuple[Floats, Floats]:
        """Return (n_groups + 1,) shares of the list, from 0 to 1, and the Qini curve there."""
        rows, curve = self._qini_curve(None)
        return np.append(0.0, rows.cumsum() / rows.sum()), np.append(0.0, curve)

    def _qini_curve(self, counts: Floats | None) -> tuple[Floats, Floats]:
        """Return rows and the curve behind them, each (..., n_groups)."""
        rows, treated, control = self._grouped(counts)
        n_treated, n_control = treated[0].cumsum(-1), control[0].cumsum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(n_control > 0, n_treated / n_control, 0.0)
        return rows, (treated[1].cumsum(-1) - control[1].cumsum(-1) * ratio) / n_treated[..., -1:]

    def _grouped(self, counts: Floats | None) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Sum rows of equal score: (rows, (treated, their successes), (control, theirs)), each (..., n_groups)."""
        ones = np.ones(len(self.outcomes)) if counts is None else counts

        def by_score(values: Floats) -> Floats:
            summed: Floats = np.add.reduceat(values, self.starts, axis=-1)
            return summed

        treated, control = ones * self.treated, ones * self.control
        return (
            by_score(ones),
            (by_score(treated), by_score(treated * self.outcomes)),
            (by_score(control), by_score(control * self.outcomes)),
        )


def _area(steps: Floats, rows: Floats) -> Floats:
    """Return the mean over the list of a curve that climbs by `steps` over groups of `rows` rows, evenly within each.

    A row of a group stands on average behind half of the others of its group and counts itself.
    """
    above = steps.cumsum(-1) - steps
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.where(rows > 0, steps * (rows + 1) / 2, 0.0)
    area: Floats = (above * rows + within).sum(-1) / rows.sum(-1)
    return area


def auuc(scores: Floats, outcomes: Floats, treated: Bools, propensities: Floats) -> float:
    """Return the area under the uplift curve.

    Args:
        scores: (n,) greater is contacted earlier. outcomes: (n,). treated: (n,). propensities: (n,) P(treated).
    """
    return float(Ranked(scores, outcomes, treated, propensities).auuc())


def qini(scores: Floats, outcomes: Floats, treated: Bools, propensities: Floats) -> float:
    """Return the Qini coefficient; 0 for a constant score."""
    return float(Ranked(scores, outcomes, treated, propensities).qini())


def gain_interval(
    measure: Callable[[Ranked, Floats | None], Floats],
    scores: Floats,
    rival: Floats,
    outcomes: Floats,
    treated: Bools,
    propensities: Floats,
    customers: Ints,
    *,
    resamples: int = RESAMPLES // 2,
    seed: int = SEED,
) -> Interval:
    """Return a measure of the scores minus that of a rival's, with the 95 % percentile interval of paired resamples.

    Args:
        measure: `Ranked.auuc` or `Ranked.qini`.
        rival: (n,) scores to beat; a constant stands for random order.
        customers: (n,) codes of what is resampled.
    """
    ours, theirs = (Ranked(s, outcomes, treated, propensities) for s in (scores, rival))
    _, dense = np.unique(customers, return_inverse=True)
    n = int(dense.max()) + 1
    random = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // len(scores))
    drawn: list[Floats] = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        picks = random.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)[:, dense].astype(np.float64)
        drawn.append(measure(ours, counts[:, ours.order]) - measure(theirs, counts[:, theirs.order]))
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return Interval(float(measure(ours, None) - measure(theirs, None)), float(low), float(high))
