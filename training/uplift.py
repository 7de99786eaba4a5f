"""What showing an action changes: learners of the effect, chosen out of fold, distilled to one booster.

Decides the learner and, by action, whether its effect is known well enough to arbitrate on. The comparison must be
randomised or a hold-out: treated rows were shown, the others were not, and the probability of being shown is known, or
estimated where it is not. Knows neither lake nor bundle.

    T-learner   tau(x) = m1(x) - m0(x), two outcome models                                   (Kuenzel et al. 2019)
    DR-learner  tau(x) = E[psi | x], psi = m1 - m0 + t (y - m1) / e - (1 - t) (y - m0) / (1 - e), cross-fitted
                                                                                             (Kennedy 2023)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from training.bootstrap import Interval
from training.uplift_measures import Ranked, gain_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Predict = Callable[[Floats], Floats]

FOLDS, SEED, THREADS = 3, 20170901, 1
LEAST_PROPENSITY = 0.01
"""Estimated propensities are kept this far from 0 and 1; known ones must be."""
SIGNIFICANCE = 0.05
MOST_SLOPE = 2.0
"""A line may undo the shrinkage of the trees so far."""
OUTCOME: Mapping[str, Any] = {
    "objective": "binary", "learning_rate": 0.1, "num_leaves": 4, "min_data_in_leaf": 200, "lambda_l2": 10.0,
    "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1, "seed": SEED, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip
OUTCOME_ROUNDS = 40
EFFECT: Mapping[str, Any] = {
    **OUTCOME, "objective": "regression", "learning_rate": 0.03, "num_leaves": 3, "min_data_in_leaf": 500,
}  # fmt: skip
EFFECT_ROUNDS = 150
DISTILLED: Mapping[str, Any] = {**EFFECT, "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 50}
DISTILLED_ROUNDS = 100


class CannotLearn(ValueError):
    """The rows cannot tell an effect; one sentence says why and what to do."""


@dataclass(frozen=True)
class EffectRows:
    """Rows of a randomised or hold-out comparison.

    Attributes:
        inputs: (n, p) as of the decision, never later.
        treated: (n,) shown, or held back.
        outcomes: (n,) 0 or 1, counted alike in both groups: also where nothing was shown.
        propensities: (n,) P(treated | x) where known, else None: it is then estimated from the inputs.
        customers: (n,) codes; folds and intervals never split a customer.
        actions: (n,) ids of the actions.
        categoricals: Columns of the inputs that hold codes. names: Of the inputs, where they have any.
    """

    inputs: Floats
    treated: Bools
    outcomes: Floats
    propensities: Floats | None
    customers: Ints
    actions: NDArray[np.str_]
    categoricals: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def at(self, rows: Bools | Ints) -> EffectRows:
        """Return the rows chosen."""
        known = None if self.propensities is None else self.propensities[rows]
        return replace(
            self, inputs=self.inputs[rows], treated=self.treated[rows], outcomes=self.outcomes[rows],
            propensities=known, customers=self.customers[rows], actions=self.actions[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class ActionEffect:
    """What is known of one action's effect.

    Attributes:
        rows, treated: Counts.
        effect: Mean effect by the doubly robust scores, interval of 95 % by customer.
        slope: Of the doubly robust scores on the predicted effect, about the action's mean; 1 is calibrated, 0 blind.
        p: Of no effect at all: neither a mean effect nor a ranking; corrected for the number of actions (Holm 1979).
        is_significant: Whether arbitration may use it.
        intercept: uplift = intercept + slope_used x the booster's score. slope_used: `slope` between 0 and MOST_SLOPE.
    """

    rows: int
    treated: int
    effect: Interval
    slope: float
    p: float
    is_significant: bool
    intercept: float
    slope_used: float


@dataclass(frozen=True)
class Effect:
    """The chosen learner, as one booster.

    Attributes:
        booster: lightgbm.Booster, raw scores are effects before the line of the action.
        learner: Which learner was chosen. fidelity: Correlation of the booster with it, 1 where it is itself.
        out_of_fold: (n,) the chosen learner's scores of rows it was not fitted on.
        qini, auuc: Learner -> gain over random order, out of fold.
        robust: (n,) doubly robust scores of the rows' effects.
    """

    booster: Any
    learner: str
    fidelity: float
    out_of_fold: Floats
    qini: Mapping[str, Interval]
    auuc: Mapping[str, Interval]
    actions: Mapping[str, ActionEffect]
    robust: Floats


def fit_effect(rows: EffectRows, *, folds: int = FOLDS, seed: int = SEED, resamples: int = 200) -> Effect:
    """Fit both learners out of fold, keep the one of the greater Qini, fit it on all rows and distil it.

    Raises:
        CannotLearn: where a group is missing or too thin.
    """
    check(rows)
    rows = with_propensities(rows, folds, seed)
    fold_of = deal_folds(rows.customers, folds, seed)
    scores = {name: np.empty(len(rows.treated)) for name in LEARNERS}
    for fold in range(folds):
        held = fold_of == fold
        for name, learn in LEARNERS.items():
            scores[name][held] = learn(rows.at(~held), seed)[0](rows.inputs[held])
    measured = {
        name: [_gain(measure, tau, rows, resamples, seed) for measure in (Ranked.qini, Ranked.auuc)]
        for name, tau in scores.items()
    }
    chosen = max(LEARNERS, key=lambda name: measured[name][0].value)
    predict, booster = LEARNERS[chosen](rows, seed)
    fidelity = 1.0
    if booster is None:
        taught = predict(rows.inputs)
        booster = fit_trees(rows.inputs, taught, DISTILLED, DISTILLED_ROUNDS, rows.categoricals, rows.names)
        fidelity = float(np.corrcoef(taught, booster.predict(rows.inputs))[0, 1]) if np.ptp(taught) else 1.0
    doubly_robust = robust_scores(rows, fold_of)
    return Effect(
        booster, chosen, fidelity, scores[chosen],
        {name: pair[0] for name, pair in measured.items()}, {name: pair[1] for name, pair in measured.items()},
        effects_by_action(rows, scores[chosen], doubly_robust), doubly_robust,
    )  # fmt: skip


def check(rows: EffectRows) -> None:
    """Raise CannotLearn where the rows cannot tell an effect."""
    for name, group in (("shown", rows.treated), ("held back", ~rows.treated)):
        positives = int(rows.outcomes[group].sum())
        if positives < 10:
            raise CannotLearn(
                f"of {int(group.sum())} rows that were {name} only {positives} have a positive outcome, and an effect "
                "needs at least 10 in each group: keep a hold-out or random arm running and collect more"
            )
    known = rows.propensities
    if known is not None and not ((known > 0) & (known < 1)).all():
        raise CannotLearn("a row was certain to be shown, or never: it has no counterpart; leave such rows out")


def with_propensities(rows: EffectRows, folds: int = FOLDS, seed: int = SEED) -> EffectRows:
    """Estimate P(treated | x) out of fold where it is not known."""
    if rows.propensities is not None:
        return rows
    fold_of = deal_folds(rows.customers, folds, seed)
    estimated = np.empty(len(rows.treated))
    for fold in range(folds):
        held, seen = fold_of == fold, rows.at(fold_of != fold)
        booster = fit_trees(seen.inputs, seen.treated.astype(float), OUTCOME, OUTCOME_ROUNDS, rows.categoricals)
        estimated[held] = booster.predict(rows.inputs[held])
    return replace(rows, propensities=np.clip(estimated, LEAST_PROPENSITY, 1 - LEAST_PROPENSITY))


def deal_folds(customers: Ints, folds: int, seed: int) -> Ints:
    """Deal whole customers into folds, shuffled."""
    _, dense = np.unique(customers, return_inverse=True)
    n = int(dense.max()) + 1
    dealt: Ints = np.random.default_rng(seed).permutation(np.arange(n) % folds)[dense]
    return dealt


def fit_trees(
    inputs: Floats,
    target: Floats,
    parameters: Mapping[str, Any],
    rounds: int,
    categoricals: Sequence[int],
    names: Sequence[str] = (),
) -> Any:
    """Fit a LightGBM booster with one thread."""
    import lightgbm

    asked = {**parameters, "num_threads": THREADS}
    named = {"feature_name": list(names)} if names else {}
    data = lightgbm.Dataset(inputs, target, categorical_feature=list(categoricals), params=asked, **named)
    return lightgbm.train(asked, data, rounds)


def outcome_models(rows: EffectRows) -> tuple[Predict, Predict]:
    """Fit P(positive | x) of those shown and of those held back."""
    models = []
    for group in (rows.treated, ~rows.treated):
        own = rows.at(group)
        booster = fit_trees(own.inputs, own.outcomes, OUTCOME, OUTCOME_ROUNDS, rows.categoricals)
        models.append(booster.predict)
    return models[0], models[1]


def robust_scores(rows: EffectRows, fold_of: Ints) -> Floats:
    """Return psi, whose mean over any set of rows is an unbiased estimate of their mean effect; (n,)."""
    if rows.propensities is None:
        raise CannotLearn("doubly robust scores need the probability of treatment; estimate it first")
    psi = np.empty(len(rows.treated))
    for fold in np.unique(fold_of):
        held = fold_of == fold
        shown, not_shown = (model(rows.inputs[held]) for model in outcome_models(rows.at(~held)))
        t, y, e = rows.treated[held], rows.outcomes[held], rows.propensities[held]
        psi[held] = shown - not_shown + np.where(t, (y - shown) / e, -(y - not_shown) / (1.0 - e))
    return psi


def t_learner(rows: EffectRows, seed: int) -> tuple[Predict, None]:
    """Fit two outcome models; their difference is the effect."""
    shown, not_shown = outcome_models(rows)
    return (lambda inputs: shown(inputs) - not_shown(inputs)), None


def dr_learner(rows: EffectRows, seed: int) -> tuple[Predict, Any]:
    """Regress the doubly robust scores on the inputs."""
    psi = robust_scores(rows, deal_folds(rows.customers, 2, seed))
    booster = fit_trees(rows.inputs, psi, EFFECT, EFFECT_ROUNDS, rows.categoricals, rows.names)
    return booster.predict, booster


LEARNERS: Mapping[str, Callable[[EffectRows, int], tuple[Predict, Any]]] = {
    "t_learner": t_learner, "dr_learner": dr_learner,
}  # fmt: skip


def _gain(measure: Any, scores: Floats, rows: EffectRows, resamples: int, seed: int) -> Interval:
    if rows.propensities is None:
        raise CannotLearn("a measure of uplift needs the probability of treatment; estimate it first")
    return gain_interval(
        measure, scores, np.zeros(len(scores)), rows.outcomes, rows.treated, rows.propensities, rows.customers,
        resamples=resamples, seed=seed,
    )  # fmt: skip


def effects_by_action(rows: EffectRows, tau: Floats, psi: Floats) -> dict[str, ActionEffect]:
    """Test for each action whether its effect is known, and fit the line that calibrates it.

    Two tests an action, by customer: that the mean of psi is not 0, and that psi rises with tau (the best linear
    predictor of Chernozhukov et al. 2018). Twice the smaller p is corrected over all actions by Holm's steps.

    Args:
        tau: (n,) out-of-fold predictions. psi: (n,) doubly robust scores.
    """
    names = np.unique(rows.actions)
    found = {}
    for name in names:
        own = rows.actions == name
        found[str(name)] = _line(tau[own], psi[own], rows.customers[own])
    p = np.array([min(1.0, 2 * min(line.p_mean, line.p_slope)) for line in found.values()])
    corrected = _holm(p)
    effects = {}
    for (name, line), level in zip(found.items(), corrected, strict=True):
        own = rows.actions == name
        slope_used = float(np.clip(line.slope, 0.0, MOST_SLOPE)) if line.p_slope < SIGNIFICANCE else 0.0
        effects[name] = ActionEffect(
            int(own.sum()), int(rows.treated[own].sum()),
            Interval(line.mean, line.mean - 1.96 * line.error, line.mean + 1.96 * line.error),
            line.slope, float(level), bool(level < SIGNIFICANCE), line.mean - slope_used * line.centre, slope_used,
        )  # fmt: skip
    return effects


@dataclass(frozen=True, slots=True)
class _Line:
    mean: float
    error: float
    slope: float
    centre: float
    p_mean: float
    p_slope: float


def _line(tau: Floats, psi: Floats, customers: Ints) -> _Line:
    """Fit psi = mean + slope (tau - centre) with errors clustered by customer."""
    centre, mean = float(tau.mean()), float(psi.mean())
    apart = tau - centre
    spread = float((apart**2).sum())
    error = _clustered(psi - mean, customers) / len(psi)
    if spread <= 1e-18 * len(psi):
        return _Line(mean, error, 0.0, centre, _two_sided(mean, error), 1.0)
    slope = float((apart * psi).sum() / spread)
    of_slope = _clustered(apart * (psi - mean - slope * apart), customers) / spread
    return _Line(mean, error, slope, centre, _two_sided(mean, error), _one_sided(slope, of_slope))


def _clustered(residuals: Floats, customers: Ints) -> float:
    _, dense = np.unique(customers, return_inverse=True)
    return float(np.sqrt((np.bincount(dense, residuals) ** 2).sum()))


def _two_sided(value: float, error: float) -> float:
    return float(2 * ndtr(-abs(value) / error)) if error > 0 else 1.0


def _one_sided(value: float, error: float) -> float:
    return float(ndtr(-value / error)) if error > 0 else 1.0


def _holm(p: Floats) -> Floats:
    """Correct p-values for their number, step by step from the smallest (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
