"""A world whose truth is known: how the real households would respond, made up on top of their real facts.

Semi-synthetic: who the households are and what they did is real; whether a shown action works is drawn from the
formulas here, so that a policy's value and a model's errors can be computed instead of estimated. Nothing of it is a
finding about real customers. Serving never imports it. Parameters and seeds stand here, fixed before any policy ran.

For a household h, an action a, a channel c and a moment t:

    log-odds of a positive if not shown   n(h, a, t)    = base + facts(h, a, t) + season(a, t) + drift(a, t) + u(h, a)
    effect of being shown, in log-odds    e(h, a, c, t) = base' + facts'(h, a, t) + channel(c) + v(h) - fatigue(h, t)
    P(positive | not shown) = sigmoid(n)        P(positive | shown) = sigmoid(n + e)        uplift = the difference

u and v are drawn once and seen by no model: together they make `unobservable` of the variance of the shown log-odds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.layout import SECONDS_PER_DAY
from features.matrix import Columns
from service.decision.model import Catalogue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARED = ("discount_share", "baskets_h28", "spend_h28", "private_share", "silence_in_gaps", "redemption_rate")
"""Columns of the household that truth is made of."""
OWN = ("aisle_baskets_h91", "days_since_aisle_purchase", "aisle_share")
"""Columns of the action's own member; an action without one reads `OF_ALL` in their place."""
OF_ALL = ("baskets_h91", "days_since_last_basket", "basket_value")
PERSUADABLE, SURE_THING, LOST_CAUSE, SLEEPING_DOG = "persuadable", "sure thing", "lost cause", "sleeping dog"
SEGMENTS = (PERSUADABLE, SURE_THING, LOST_CAUSE, SLEEPING_DOG)


@dataclass(frozen=True)
class Parameters:
    """What the world is made with; log-odds unless said otherwise.

    Attributes:
        base, effect: issue -> level without, and added by, being shown.
        spread, effect_spread: How far the levels of single actions lie around those of their issue (std).
        weights, effect_weights: Size (std) of an action's coefficients on standardised facts.
        channel: Channel -> added to the effect.
        unobservable: Share of the variance of the shown log-odds that no fact carries; a third of it is in the effect.
        fatigue: Taken off the effect for each doubling of 1 + recent contacts, which fade with `fatigue_days`.
        season, drift: Amplitude over the year; change over 180 days of every other action (std).
        new_after_days: When the actions named in `new_actions` come into being.
    """

    base: Mapping[str, float] = field(
        default_factory=lambda: {"upsell": -2.4, "cross_sell": -3.6, "retention": -1.4, "service": -4.0}
    )
    effect: Mapping[str, float] = field(
        default_factory=lambda: {"upsell": 0.45, "cross_sell": 0.8, "retention": 0.25, "service": 0.1}
    )
    channel: Mapping[str, float] = field(
        default_factory=lambda: {"app": 0.15, "email": -0.05, "mailer": 0.0, "till": -0.1}
    )
    spread: float = 0.4
    effect_spread: float = 0.3
    weights: float = 0.35
    effect_weights: float = 0.3
    unobservable: float = 0.3
    fatigue: float = 0.3
    fatigue_days: float = 10.0
    season: float = 0.3
    drift: float = 0.4
    new_actions: tuple[str, ...] = ("cross_sell_seafood", "upsell_paper", "retention_fuel_reward")
    new_after_days: float = 60.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a household and an action.

    Attributes:
        as_of: (n_columns + 1, m) columns as of the moment. rows: (n_pairs,) positions in them.
        actions: (n_pairs,) positions in the catalogue's actions.
    """

    as_of: Floats
    rows: Ints
    actions: Ints


class World:
    """The truth about the response of n households to the actions of a catalogue."""

    def __init__(
        self, columns: Columns, catalogue: Catalogue, as_of: Floats, start: float, seed: int, made_with: Parameters
    ) -> None:
        """Draw a world.

        Args:
            columns: Of the matrix. catalogue: Whose actions respond.
            as_of: (n_columns + 1, n) columns of all households on the first day: facts are standardised on them.
            start: The first moment, Unix seconds. seed: Of everything that is drawn.
        """
        draw = np.random.default_rng(seed)
        self.parameters, self.start, self.n = made_with, start, as_of.shape[1]
        self.action_ids = tuple(action.id for action in catalogue.actions)
        k, width = len(catalogue.actions), len(OWN) + len(SHARED)
        issues = [action.issue for action in catalogue.actions]
        last = len(columns.names)
        self._rows = np.array(
            [
                [
                    *(
                        [columns.index.get(f"{name}__{action.member}", last) for name in OWN]
                        if action.member
                        else [columns.index[name] for name in OF_ALL]
                    ),
                    *(columns.index[name] for name in SHARED),
                ]
                for action in catalogue.actions
            ]
        )
        self._base = np.array([made_with.base[i] for i in issues]) + draw.normal(0, made_with.spread, k)
        self._effect = np.array([made_with.effect[i] for i in issues]) + draw.normal(0, made_with.effect_spread, k)
        # Habit in the action's own aisle raises what happens anyway; what raises the effect is of either sign.
        self._weights = draw.normal(0, made_with.weights, (k, width))
        self._weights[:, : len(OWN)] += made_with.weights
        self._effect_weights = draw.normal(0, made_with.effect_weights, (k, width))
        self._crossed = draw.normal(0, made_with.weights, (2, k))
        self._phase = draw.uniform(0, 365, k)
        self._drift = draw.normal(0, made_with.drift, k) * (np.arange(k) % 2)
        everyone = Pairs(as_of, *np.divmod(np.arange(self.n * k), k))
        squashed = self._squashed(everyone)
        self._centre: Floats = squashed.mean(axis=0)
        self._scale: Floats = np.maximum(squashed.std(axis=0), 1e-9)
        without, effect = self._observable(everyone, start)
        hidden = made_with.unobservable / (1.0 - made_with.unobservable) * float(np.var(without + effect))
        self._hidden = hidden * 2 / 3, hidden / 3
        self._u: Floats = draw.normal(0, math.sqrt(self._hidden[0]), (self.n, k))
        self._v: Floats = draw.normal(0, math.sqrt(self._hidden[1]), (self.n,))

    def is_born(self, now: float) -> NDArray[np.bool_]:
        """(n_actions,) whether each action is there yet."""
        is_old = np.array([action not in self.parameters.new_actions for action in self.action_ids])
        return is_old | (now >= self.start + self.parameters.new_after_days * SECONDS_PER_DAY)

    def probabilities(
        self, pairs: Pairs, households: Ints, channel: str, now: float, contacts: Floats
    ) -> tuple[Floats, Floats]:
        """Return P(positive) without and with being shown.

        Args:
            pairs: Whose columns, and which actions.
            households: (n_pairs,) positions among the world's households.
            contacts: (n_pairs,) recent contacts of the household, faded.
        """
        without, effect = self._log_odds(pairs, channel, now, contacts)
        alone = without + self._u[households, pairs.actions]
        return _sigmoid(alone), _sigmoid(alone + effect + self._v[households])

    def expected(self, pairs: Pairs, channel: str, now: float, contacts: Floats) -> tuple[Floats, Floats]:
        """Return the same given only what facts say: the best that a policy on these facts can know.

        The mean of a sigmoid over a normal log-odds, by sigmoid(m / sqrt(1 + pi v / 8)) (MacKay 1992); its error is
        below 0.01 for the variances here.
        """
        without, effect = self._log_odds(pairs, channel, now, contacts)
        alone, both = self._hidden[0], self._hidden[0] + self._hidden[1]
        return (
            _sigmoid(without / np.sqrt(1 + np.pi * alone / 8)),
            _sigmoid((without + effect) / np.sqrt(1 + np.pi * both / 8)),
        )

    def segments(self, without: Floats, shown: Floats) -> NDArray[np.str_]:
        """Name each pair by what being shown does: harm from a point of probability, gain from five."""
        uplift = shown - without
        names = [SLEEPING_DOG, PERSUADABLE, SURE_THING]
        return np.select([uplift <= -0.01, uplift >= 0.05, without >= 0.2], names, LOST_CAUSE)

    def _log_odds(self, pairs: Pairs, channel: str, now: float, contacts: Floats) -> tuple[Floats, Floats]:
        without, effect = self._observable(pairs, now)
        tired = self.parameters.fatigue * np.log2(1 + contacts)
        return without, effect + self.parameters.channel.get(channel, 0.0) - tired

    def _observable(self, pairs: Pairs, now: float) -> tuple[Floats, Floats]:
        actions = pairs.actions
        facts = (self._squashed(pairs) - self._centre) / self._scale
        days = (now - self.start) / SECONDS_PER_DAY
        season = self.parameters.season * np.sin(2 * np.pi * (days + self._phase) / 365)
        level = (self._base + season + self._drift * days / 180)[actions]
        habit, silence = facts[:, 0], facts[:, len(OWN) + SHARED.index("silence_in_gaps")]
        price = facts[:, len(OWN)]
        # Two turns that no straight line has: price only moves who has the habit; silence counts once it is unusual.
        bent = self._crossed[0, actions] * price * np.maximum(habit, 0) + self._crossed[1, actions] * (silence > 1)
        without = level + (self._weights[actions] * facts).sum(axis=1) + bent
        effect = self._effect[actions] + (self._effect_weights[actions] * facts).sum(axis=1)
        return np.clip(without, -6, 3), np.clip(effect, -2, 2.5)

    def _squashed(self, pairs: Pairs) -> Floats:
        """(n_pairs, n_facts): logarithms of amounts, fading for days since; missing as nothing at all."""
        values = pairs.as_of[self._rows[pairs.actions], pairs.rows[:, None]]
        recency = np.exp(-np.nan_to_num(values[:, 1], nan=1e4) / 30.0)
        squashed = np.log1p(np.maximum(np.nan_to_num(values, nan=0.0), 0.0))
        squashed[:, 1] = recency
        return np.asarray(squashed)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
