"""How much stands behind a propensity: the model's positives or the catalogue's assumption, and what came in since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decision.model import Evidence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands behind each candidate's propensity; each (n_customers, m), or (1, m) where all customers share it.

    Attributes:
        positives: E + s: the model's positives and those since; what a ramp counts.
        strengths: max(E, prior_positives) + s: the weight of the posterior, in positives.
        shifts: strengths / (max(E, prior_positives) + e): how much better an action did than was expected of it, the
            mean of the conjugate Gamma-Poisson posterior with a prior of mean 1.
    """

    positives: Floats
    strengths: Floats
    shifts: Floats

    @classmethod
    def of(cls, modelled: Floats, prior_positives: float, evidence: Evidence, actions: Ints) -> Standing:
        """Weigh the evidence.

        Args:
            modelled: (n_customers or 1, m) E: positives behind the model's propensity, 0 where it has none.
            prior_positives: What an assumption of the catalogue is worth.
            evidence: s and e of every action. actions: (m,) positions in it.
        """
        since, expected = evidence.positives.take(actions), evidence.expected.take(actions)
        prior = np.maximum(modelled, prior_positives)
        strengths = prior + since
        return cls(modelled + since, strengths, strengths / (prior + expected))
