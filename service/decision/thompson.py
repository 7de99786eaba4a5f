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
log F_j is taken as linear between 24 points, over which the integral is exact and the vector sums to 1. Against the
Beta itself a probability is off by at most .03 for propensities up to .1, .05 up to .2
(tests/service/decision/test_thompson.py); most of it from the Gamma in the Beta's place where a is 1. Of more than 128
candidates that have a chance, the 128 whose distributions reach furthest up compete, and the others get none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

POINTS, CONTENDERS = 24, 128
_GRID = np.linspace(0.0, 1.0, POINTS) ** 2  # denser where the best and surest candidates lie
LOWEST, HIGHEST = -2.4, 3.4
"""Where a candidate's distribution is taken to begin and end, in standard deviations.

Narrower bounds need fewer points for the same error, but leave out candidates that win one time in 50: who has a
chance must have a probability, or nothing is learnt of it."""
_SPAN = np.array([LOWEST, HIGHEST])[:, None, None]
_CUBED, _STRAIGHT = np.array(-0.07056), np.array(1.5976)  # arrays: a number would be made one at every slot
_FLAT, _TINY = 1e-60, float(np.finfo(np.float64).tiny)
_NOWHERE = np.array(-1e300)
"""Below whatever a priority can be."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Distributions of priorities: gain x (Gamma of mean 1) - cost, in Wilson and Hilferty's form.

    cbrt(priority + cost) x slope - intercept is standard normal.

    Attributes:
        forms: (3, n_customers, m) costs, slopes and intercepts.
        bounds: (2, n_customers, m) between which a priority lies, but for one in 120 below and one in 3,000 above.
    """

    forms: Floats
    bounds: Floats

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
        forms = np.empty((3, *gains.shape))
        np.subtract(costs, np.minimum(shifted, 0.0), out=forms[0])
        np.divide(scales, np.cbrt(np.maximum(shifted, _FLAT)), out=forms[1])
        np.subtract(scales, 1.0 / scales, out=forms[2])
        roots = np.maximum(forms[2] + _SPAN, 0.0)
        roots /= forms[1]
        return cls(forms, roots * roots * roots - forms[0])

    def probabilities(self, is_available: Bools) -> Floats:
        """Return P(the candidate's drawn priority is the highest of those available).

        Args:
            is_available: (n_customers, m).

        Returns:
            (n_customers, m) probabilities; a row without an available candidate is all 0.
        """
        n, m = is_available.shape
        reach = np.where(is_available, self.bounds, _NOWHERE)
        begins, ends = np.maximum.reduce(reach, axis=2, keepdims=True)
        # Who ends before another begins has no chance; of too many contenders those who reach furthest compete.
        is_contender = reach[1] >= begins
        is_contender &= is_available
        if m > CONTENDERS:
            is_contender &= reach[1] >= np.partition(reach[1], -CONTENDERS, axis=1)[:, -CONTENDERS, None]
        pairs = is_contender.ravel().nonzero()[0]
        rows = pairs // m
        ends -= begins
        points = ends * _GRID
        points += begins
        decays = _decays(self.forms.reshape(3, -1).take(pairs, axis=1), points.take(rows, axis=0))
        # One segment of `decays` a row, and one of the row of zeros at its end: where the last segment ends must not
        # depend on the batch, since the order of summation depends on a segment's length.
        totals = np.add.reduceat(decays, rows.searchsorted(_numbers(n + 1)), axis=0)[:-1]
        gained = decays[:-1, :-1] - decays[:-1, 1:]
        gained *= _densities(totals).take(rows, axis=0)
        probabilities = np.zeros(n * m)
        probabilities[pairs] = np.add.reduce(gained, axis=1)
        probabilities = probabilities.reshape(n, m)
        probabilities /= np.maximum(np.add.reduce(probabilities, axis=1, keepdims=True), _TINY)
        return probabilities


@lru_cache(maxsize=64)
def _numbers(n: int) -> Ints:
    return np.arange(n)


def _decays(forms: Floats, points: Floats) -> Floats:
    """(n_pairs + 1, POINTS + 1) -log F of pairs at the points and at infinity, where it is 0; zeros at the end.

    Args:
        forms: (3, n_pairs) as of `Posterior`. points: (n_pairs, POINTS), overwritten.
    """
    costs, slopes, intercepts = forms[:, :, None]
    normal = np.add(points, costs, out=points)
    np.maximum(normal, 0.0, out=normal)
    np.cbrt(normal, out=normal)
    normal *= slopes
    normal -= intercepts
    np.maximum(normal, -8.0, out=normal)
    odds = normal * normal
    odds *= _CUBED
    odds -= _STRAIGHT
    odds *= normal
    np.exp(odds, out=odds)
    odds += 1.0
    decays = np.zeros((points.shape[0] + 1, POINTS + 1))
    np.log(odds, out=decays[:-1, :-1])
    return decays


def _densities(totals: Floats) -> Floats:
    """(n_rows, POINTS) the increase of G = prod F between two points, a unit of log G; `totals` is -log G."""
    product = np.exp(-totals)
    increase = product[:, 1:] - product[:, :-1]
    # Where G is flat so is every F: 0 by anything but 0.
    increase /= np.maximum(totals[:, :-1] - totals[:, 1:], _TINY)
    return increase
