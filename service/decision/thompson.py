"""Thompson sampling: with what probability a candidate would win if every propensity were drawn from its posterior.

The posterior of a candidate's propensity p with the weight of a positives is Beta(a, a (1 - p) / p): mean p, and a
relative spread of about 1 / sqrt(a), as of a positives in a / p showings. It is the Beta distribution of Pega's
arbitration (sampleAdaptiveProportion of propensity x evidence and (1 - propensity) x evidence), its evidence counted
in positives. The prior has the weight of the E positives that the model was made from, or of the catalogue's
`prior_positives`. Since then s positives came where e were expected, which moves the mean to p (E + s) / (E + e) and
the weight to E + s: the conjugate Gamma-Poisson estimate of how much better the action does than its model says.

P(win) = integral over x of f_i(x) prod_{j != i} F_j(x), where F_j is the distribution of candidate j's priority. The
vector of these is computed first and then drawn from, so that what is logged is what was drawn with, whatever the
error of the integral. The integral: F by the Gamma distribution of the same mean and variance as the Beta, in Wilson
and Hilferty's cube-root form (1931), with the normal distribution function of Bowling et al. (2009, error 1.4e-4);
log F_j is taken as linear between 32 points, over which the integral is exact and the vector sums to 1. Against the
Beta itself a probability is off by at most .03 for propensities up to .1, .05 up to .2
(tests/service/decision/test_thompson.py); most of it from the Gamma in the Beta's place where a is 1. Of more than 128
candidates that have a chance, the 128 whose distributions reach furthest up compete, and the others get none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

POINTS, CONTENDERS = 32, 128
_GRID = np.linspace(0.0, 1.0, POINTS) ** 2  # denser where the best and surest candidates lie
LOWEST, HIGHEST = -2.4, 3.4
"""Where a candidate's distribution is taken to begin and end, in standard deviations."""
_FLAT, _NOWHERE, _TINY = 1e-300, -1e300, float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Distributions of priorities: gain x (Gamma of mean 1) - cost, in Wilson and Hilferty's form.

    cbrt(priority + cost) x slope - intercept is standard normal.

    Attributes:
        forms: (3, n_customers, m) costs, slopes and intercepts.
        lows, highs: (n_customers, m) between which a priority lies, but for one in 120 and one in 3,000.
    """

    forms: Floats
    lows: Floats
    highs: Floats

    @classmethod
    def of(cls, gains: Floats, costs: Floats, propensities: Floats, strengths: Floats, shifts: Floats) -> Posterior:
        """Make the posterior.

        Args:
            gains: (n_customers, m) estimate x worth; what is not above 0 is taken as certain.
            costs: (m,).
            propensities: (n_customers, m).
            strengths, shifts: (n_customers, m) E + s, and (E + s) / (E + e).
        """
        shifted = gains * shifts
        chances = np.minimum(propensities * shifts, 0.999)
        shapes = (strengths + chances) / (1.0 - chances)  # of the Gamma that has the Beta's relative variance
        scales = 3.0 * np.sqrt(shapes)
        roots = np.cbrt(np.maximum(shifted, _FLAT))
        forms = np.empty((3, *gains.shape))
        forms[0] = costs - np.minimum(shifted, 0.0)
        forms[1] = scales / roots
        forms[2] = scales - scales / (9.0 * shapes)
        lows = (np.maximum(forms[2] + LOWEST, 0.0) / forms[1]) ** 3 - forms[0]
        highs = ((forms[2] + HIGHEST) / forms[1]) ** 3 - forms[0]
        return cls(forms, lows, highs)


def winning_probabilities(posterior: Posterior, is_available: Bools) -> Floats:
    """Return P(the candidate's drawn priority is the highest of those available).

    Args:
        is_available: (n_customers, m).

    Returns:
        (n_customers, m) probabilities; a row without an available candidate is all 0.
    """
    probabilities = np.zeros(is_available.shape)
    begins = np.where(is_available, posterior.lows, _NOWHERE).max(axis=1, keepdims=True)
    ends = np.where(is_available, posterior.highs, _NOWHERE).max(axis=1, keepdims=True)
    # Who ends before another begins has no chance; of too many contenders those who reach furthest compete.
    is_contender = is_available & (posterior.highs >= begins)
    if is_contender.shape[1] > CONTENDERS:
        furthest = np.where(is_contender, posterior.highs, _NOWHERE)
        is_contender &= furthest >= np.partition(furthest, -CONTENDERS, axis=1)[:, -CONTENDERS, None]
    rows, candidates = is_contender.nonzero()
    points = begins + (ends - begins) * _GRID
    logs = _log_distributions(posterior.forms[:, rows, candidates], points[rows])
    # One segment of `logs` a row, and one of the row of zeros at its end: where the last segment ends must not
    # depend on the batch, since the order of summation depends on a segment's length.
    totals = np.add.reduceat(logs, rows.searchsorted(np.arange(len(points) + 1)), axis=0)[:-1]
    steps = logs[:-1, 1:] - logs[:-1, :-1]
    probabilities[rows, candidates] = (steps * _densities(totals)[rows]).sum(axis=1)
    probabilities /= np.maximum(probabilities.sum(axis=1, keepdims=True), _TINY)
    return probabilities


def _log_distributions(forms: Floats, points: Floats) -> Floats:
    """(n_pairs + 1, POINTS + 1) log F of pairs at the points and at infinity, where it is 0; a row of zeros at the end.

    Args:
        forms: (3, n_pairs) as of `Posterior`. points: (n_pairs, POINTS).
    """
    costs, slopes, intercepts = forms[:, :, None]
    normal = np.cbrt(np.maximum(points + costs, 0.0)) * slopes - intercepts
    normal = np.minimum(np.maximum(normal, -8.0), 8.0)
    logs = np.zeros((points.shape[0] + 1, POINTS + 1))
    np.negative(np.log(1.0 + np.exp(normal * (-1.5976 - 0.07056 * normal * normal))), out=logs[:-1, :-1])
    return logs


def _densities(totals: Floats) -> Floats:
    """(n_rows, POINTS) the increase of G = prod F between two points, a unit of log G."""
    product = np.exp(totals)
    increase, steps = product[:, 1:] - product[:, :-1], totals[:, 1:] - totals[:, :-1]
    densities: Floats = np.divide(increase, steps, out=product[:, 1:].copy(), where=steps > 0)
    return densities
