"""The policies of the simulator: the engine with what it learns, and what it is judged beside.

- nba: the shipped catalogue, arms and exploration; every month a new model of responses and of uplift from its log.
- nba_retention_propensity: the same, but retention ranked by propensity, the other issues by uplift.
- propensity: the same, but ranked by propensity alone; still with hold-out and a random part, so it learns as well.
- random: every action that policy and caps allow, evenly.
- best_single: the one action of each channel with the best true mean gain, wherever it may be shown.
- oracle: the true expected uplift given all that facts say. oracle_full: the truth itself, unobservable part included.

The last two choose greedily, touch by touch, under the same caps: what they save up for later touches is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.model import ATTRIBUTABLE, Catalogue, CustomerBatch, Experiment, Exploration, Scorer, Scoring
from service.decision.model import ISSUES as ALL_ISSUES
from training.learner import Response, Rows, context, fit_response
from training.simulator import ISSUES, SEEN, Policy, Setting, Simulation
from training.world import Pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POLICIES = ("nba", "nba_retention_propensity", "random", "propensity", "best_single", "oracle", "oracle_full")
FACTORS = ("context_weight", "value", "cost")
LEAST_SHOWN = 200
"""Below so many actions shown the effect of an action is not told from chance."""


def prepared(
    catalogue: Catalogue, world_start: float, new_actions: tuple[str, ...], new_after_days: float
) -> Catalogue:
    """Return the catalogue as the world has it: new actions begin later, and a channel is weighted by who looks at it.

    Levers and the shipped context weights are a marketer's assumptions about customers who do not exist here.
    """
    begins = world_start + new_after_days * SECONDS_PER_DAY
    return replace(
        catalogue,
        actions=tuple(replace(a, starts_at=begins) if a.id in new_actions else a for a in catalogue.actions),
        arbitration=dict.fromkeys(ALL_ISSUES, FACTORS),
        context_weights={
            (channel, issue): SEEN.get(channel, 1.0) for channel in catalogue.channels for issue in ALL_ISSUES
        },
        thresholds={},
        least_priority=0.0,
    )


def scored(catalogue: Catalogue, arms: dict[str, float] | None, strategy: Exploration | None) -> Catalogue:
    """Return the catalogue with every simulated action scored by a model, and other arms and exploration if given."""
    actions = tuple(replace(a, scoring=Scoring.MODEL) if a.issue in ISSUES else a for a in catalogue.actions)
    experiment = catalogue.experiment if arms is None else Experiment("simulated", "simulated", tuple(arms.items()))
    return replace(catalogue, actions=actions, experiment=experiment, exploration=strategy or catalogue.exploration)


def make_policy(name: str, setting: Setting) -> Policy:
    """Make a policy by name.

    Raises:
        ValueError: There is none of that name.
    """
    made_with = setting.world.parameters
    base = prepared(setting.base.catalogue, setting.start, made_with.new_actions, made_with.new_after_days)
    nothing = Exploration("none", 0.0)
    if name in ("nba", "nba_retention_propensity"):
        lifted = [issue for issue in ISSUES if name == "nba" or issue != "retention"]
        return Learning(name, base, scored(base, None, None), setting, lifted)
    if name == "propensity":
        arms = {"propensity_only": 0.85, "holdout": 0.1, "random": 0.05}
        plain = replace(base, experiment=Experiment("simulated", "simulated", tuple(arms.items())))
        return Learning(name, plain, scored(base, arms, nothing), setting, [])
    if name == "random":
        return Fixed(name, compile_catalogue(scored(base, {"random": 1.0}, nothing), setting.columns), None)
    greedy = compile_catalogue(scored(base, {"nba": 1.0}, nothing), setting.columns)
    if name == "best_single":
        return Fixed(name, greedy, Truth(setting, is_full=False, only=best_single(setting, greedy)))
    if name in ("oracle", "oracle_full"):
        return Fixed(name, greedy, Truth(setting, is_full=name == "oracle_full"))
    raise ValueError(f"there is no policy {name!r}; choose one of {', '.join(POLICIES)}")


class Fixed:
    """A policy that learns nothing."""

    def __init__(self, name: str, catalogue: CompiledCatalogue, scorer: Truth | None) -> None:
        self.name, self._catalogue, self._scorer = name, catalogue, scorer

    def catalogue(self) -> CompiledCatalogue:
        """Return the one catalogue."""
        return self._catalogue

    def scorer(self, simulation: Simulation) -> Scorer | None:
        """Return the one scorer, told where the simulation stands."""
        return self._scorer.at(simulation) if self._scorer else None

    def learn(self, simulation: Simulation) -> None:
        """Learn nothing."""


class Truth:
    """Scores with the truth: the gain in probability from placing an action, times who looks at it being the weight.

    Attributes:
        version, evidence, sources, attributable: As a `Scorer` has them.
    """

    version = "truth"

    def __init__(self, setting: Setting, *, is_full: bool, only: dict[str, int] | None = None) -> None:
        """Know the world of the setting; `only` names the one action that a channel may show."""
        self._world, self._position = setting.world, setting.position
        self._is_full, self._only = is_full, only
        self.evidence: Floats = np.full(len(setting.base.catalogue.actions), 1e6)
        self.sources = ("model",) * len(self.evidence)
        self.attributable: Floats = np.ones(len(self.evidence))
        self._channel, self._tired = "", np.empty(0)

    def at(self, simulation: Simulation) -> Truth:
        """Look at where a simulation stands."""
        self._channel, self._tired = simulation.channel, simulation.tired.contacts
        return self

    def score(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Return the true uplift of pairs; negative where showing does harm."""
        households = np.array([self._position[customer] for customer in batch.customer_ids])[customers]
        pairs, tired = Pairs(as_of, customers, actions), self._tired[households]
        if self._is_full:
            without, shown = self._world.probabilities(pairs, households, self._channel, now, tired)
        else:
            without, shown = self._world.expected(pairs, self._channel, now, tired)
        uplift = shown - without
        return uplift if self._only is None else np.where(actions == self._only[self._channel], uplift, -1.0)

    def uplift(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> None:
        """Have no effect model: `score` is the effect."""


def best_single(setting: Setting, catalogue: CompiledCatalogue) -> dict[str, int]:
    """Return for each channel the action with the best true mean gain over all households on the first day."""
    world, terms = setting.world, catalogue.catalogue
    n, k = len(setting.customer_ids), len(terms.actions)
    pairs = Pairs(setting.first_columns(), *np.divmod(np.arange(n * k), k))
    values = np.array([action.value for action in terms.actions])
    costs = np.array([action.cost for action in terms.actions])
    is_possible = np.array([action.issue in ISSUES for action in terms.actions]) & world.is_born(setting.start)
    best = {}
    for channel, plan in catalogue.plans.items():
        without, shown = world.expected(pairs, channel, setting.start, np.zeros(n * k))
        gains = (shown - without).reshape(n, k).mean(axis=0) * values * SEEN[channel] - costs
        is_here = np.isin(np.arange(k), plan.actions) & is_possible
        best[channel] = int(np.where(is_here, gains, -np.inf).argmax())
    return best


class Learning:
    """The engine as it would be run: priors first, then a model from its own log every month."""

    def __init__(self, name: str, first: Catalogue, later: Catalogue, setting: Setting, lifted: Sequence[str]) -> None:
        """Take the catalogue of before and after the first learning, and the issues that are ranked by uplift."""
        self.name, self._setting, self._uses_uplift = name, setting, bool(lifted)
        self._first = compile_catalogue(first, setting.columns)
        self._later = compile_catalogue(later, setting.columns)
        estimates = dict.fromkeys(lifted, ATTRIBUTABLE)
        self._lifted = compile_catalogue(replace(later, estimates=estimates), setting.columns)
        self._learned: Learned | None = None

    def catalogue(self) -> CompiledCatalogue:
        """Return the catalogue that fits what is known by now."""
        if self._learned is None:
            return self._first
        return self._lifted if self._uses_uplift and self._learned.control else self._later

    def scorer(self, simulation: Simulation) -> Scorer | None:
        """Return the latest model."""
        return self._learned.at(simulation) if self._learned else None

    def learn(self, simulation: Simulation) -> None:
        """Fit the responses of those who were shown, and of those who were held out."""
        rows, setting = Rows.joined(simulation.log), self._setting
        shown = fit_response(setting.input, rows.at(rows.is_shown), setting.seed)
        if shown is None:
            return
        control = fit_response(setting.input, rows.at(~rows.is_shown), setting.seed) if self._uses_uplift else None
        self._learned = Learned(setting, shown, control, rows)
        simulation.forget_evidence()


class Learned:
    """Scores with what was learned from the log."""

    def __init__(self, setting: Setting, shown: Response, control: Response | None, rows: Rows) -> None:
        self.version, self.control, self._shown = "learned", control, shown
        self._input, self._table = setting.input, setting.base.action_table
        self._channels = setting.channels
        self._issues = np.array([float(ALL_ISSUES.index(a.issue)) for a in setting.base.catalogue.actions])
        self._code = 0
        self._recent: Floats = np.empty((0, 2))
        none = np.empty(0, dtype=np.int64)
        self._latest: tuple[float, Ints, Ints, Floats] = (-1.0, none, none, np.empty(0))
        seen, k = rows.at(rows.is_shown), len(self._issues)
        self.evidence: Floats = np.bincount(seen.actions, seen.labels, minlength=k).astype(np.float64)
        self._is_known = np.bincount(seen.actions, minlength=k) >= LEAST_SHOWN
        self.sources = ("model",) * k
        self.attributable: Floats = self._shares(seen)[self._issues.astype(np.int64)]

    def _shares(self, seen: Rows) -> Floats:
        """(n_issues,) share of the responses of those who were shown that would not have come by themselves."""
        fractions = np.ones(len(ALL_ISSUES))
        if self.control is None:
            return fractions
        issues = seen.inputs[:, self._input.names.index("issue")]
        alone = self.control.probabilities(seen.inputs, seen.context, issues)
        for code in np.unique(issues).astype(np.int64):
            own = issues == code
            share = 1 - alone[own].mean() / max(float(seen.labels[own].mean()), 1e-9)
            fractions[code] = min(max(share, 0.0), 1.0)
        return fractions

    def at(self, simulation: Simulation) -> Learned:
        """Look at which channel a simulation stands in, and at what was shown lately."""
        self._code = self._channels.index(simulation.channel)
        self._recent = simulation.recent
        return self

    def score(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Return P(positive | shown) of pairs."""
        scores = self._predict(self._shown, as_of, customers, actions)
        self._latest = now, customers, actions, scores
        return scores

    def uplift(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats | None:
        """Return what being shown changes, by two models; NaN for an action that was hardly shown."""
        if self.control is None:
            return None
        gain = self._shown_again(batch, as_of, customers, actions, now, channel) - self._predict(
            self.control, as_of, customers, actions
        )
        return np.where(self._is_known[actions], gain, np.nan)

    def _shown_again(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Return `score`, which the core has just asked for the same pairs, or for more issues."""
        at, of, what, scores = self._latest
        if at == now and np.array_equal(of, customers) and np.array_equal(what, actions):
            return scores
        return self.score(batch, as_of, customers, actions, now, channel)

    def _predict(self, model: Response, as_of: Floats, customers: Ints, actions: Ints) -> Floats:
        rows = self._input.rows(as_of, customers, actions, self._table)
        beside = context(actions, self._code, self._recent[customers])
        return model.probabilities(rows, beside, self._issues[actions])
