"""Scores from a bundle's parts: rows for the model, calibration, effects, and the unknown customer. Pure.

What walks the trees is handed in. Must not know where bundles lie or how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.contract import LAYOUT, UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY, Kind
from features.matrix import ACTION_COLUMNS, OFFER_COLUMNS, ActionTable, Columns, ModelInput
from service.decision.calibration import Calibrator
from service.decision.model import CAMPAIGN_TYPES, Action, Catalogue, CustomerBatch, Floats, Ints, Scoring

Bools = NDArray[np.bool_]
Predict = Callable[[Floats], Floats]
"""Model rows (n, n_inputs), C order -> raw scores (n,), the same bits for a row alone and in company."""
LEAST_POSITIVES = 20
"""An action, or a member, with fewer positives behind it than this is scored as any other of its group."""


class Compiled(Protocol):
    """What a scorer needs of a compiled catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue it was compiled from."""

    @property
    def action_table(self) -> ActionTable:
        """Its actions, in the order of `catalogue.actions`, as the model input needs them."""


@dataclass(frozen=True)
class ColdStart:
    """The facts of a typical new customer, held relative to now: who is unknown is scored as this one, never on zeros.

    Attributes:
        values: (layout.width,); seconds ago for moments and anchors, days ago for recent days, else the value.
    """

    values: Floats

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ColdStart:
        """Read fact name -> list of values, null for missing; every fact of the layout must be there."""
        values = np.full(LAYOUT.width, np.nan)
        facts = document["facts"]
        for name, rows in LAYOUT.slices.items():
            values[rows] = [np.nan if v is None else float(v) for v in facts[name]]
        return cls(values)

    def document(self) -> dict[str, Any]:
        """Return JSON-able data."""
        facts = {
            name: [None if v != v else v for v in self.values[rows].tolist()] for name, rows in LAYOUT.slices.items()
        }
        return {"facts": facts}

    def facts(self, now: float) -> Floats:
        """Return the facts as they would lie in the store at `now`, (layout.width, 1)."""
        facts = self.values.copy()
        today = np.floor((now + UTC_OFFSET_HOURS * 3600) / SECONDS_PER_DAY)
        for name, fact in LAYOUT.facts.items():
            rows = LAYOUT.slices[name]
            if fact.kind in (Kind.MOMENT, Kind.ANCHOR):
                facts[rows] = now - facts[rows]
            elif fact.kind is Kind.RECENT:
                facts[rows] = today - facts[rows]
        return facts[:, None]


@dataclass(frozen=True)
class Domain:
    """What kinds of action the model has seen, an issue: outside it a column would be read by chance.

    Attributes:
        windows: issue -> (least, greatest) response window in days; an issue that is not there was never seen. Empty:
            everything was.
        campaign_types: issue -> texts seen.
        offers: issue -> column of an offer -> (least, greatest); a column that is not there was never seen.
        members: issue -> members of dimensions with positives enough to be told apart; an issue that is not there has
            all.
        logged: column of `LOG_COLUMNS` -> its texts in the order of their codes.
    """

    windows: Mapping[str, tuple[float, float]]
    campaign_types: Mapping[str, tuple[str, ...]]
    offers: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    logged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_contract(cls, contract: Mapping[str, Any]) -> Domain:
        """Read contract.json: issue -> window_days, campaign_types, members, offers where it had any; and `logged`."""
        of = contract["actions"]
        offers = {
            issue: {name: (float(least), float(most)) for name, (least, most) in d.get("offers", {}).items()}
            for issue, d in of.items()
        }
        return cls(
            {issue: (float(d["window_days"][0]), float(d["window_days"][1])) for issue, d in of.items()},
            {issue: tuple(d["campaign_types"]) for issue, d in of.items()},
            offers,
            {issue: frozenset(d["members"]) for issue, d in of.items() if "members" in d},
            {name: tuple(texts) for name, texts in contract.get("logged", {}).items()},
        )

    def has_seen(self, issue: str) -> bool:
        """Say whether the model knows anything of an issue."""
        return not self.windows or issue in self.windows

    def tells_apart(self, action: Action) -> bool:
        """Say whether the model knows an action, or its member, from the others of its group."""
        known = self.members.get(action.issue)
        return known is None or action.member in known or action.id in self.logged.get("action", ())

    def restrict(self, table: ActionTable, actions: Sequence[Action]) -> ActionTable:
        """Return the table of actions as the model should see them.

        Windows and offers are clipped to what the issue's rows had, texts that it never saw are unset, and so is the
        member of an action that is not told apart: its own facts still count, its name does not.
        """
        statics = table.statics.copy()
        place = {name: i for i, name in enumerate(ACTION_COLUMNS)}
        coded = {text: float(i) for i, text in enumerate(self.logged.get("action", ()))}
        for i, action in enumerate(actions):
            statics[i, place["action"]] = coded.get(action.id, np.nan)
            if action.issue not in self.windows:
                continue
            window = place["window_days"]
            statics[i, window] = np.clip(statics[i, window], *self.windows[action.issue])
            code = statics[i, place["campaign_type"]]
            if code == code and CAMPAIGN_TYPES[int(code)] not in self.campaign_types[action.issue]:
                statics[i, place["campaign_type"]] = np.nan
            seen = self.offers.get(action.issue, {})
            for name in OFFER_COLUMNS:
                statics[i, place[name]] = np.clip(statics[i, place[name]], *seen.get(name, (np.nan, np.nan)))
            if not self.tells_apart(action):
                statics[i, place["dimension"]] = np.nan
        return ActionTable(table.relative_rows, statics)

    def shown_in(self, table: ActionTable, channel: str) -> ActionTable:
        """Return a table that `restrict` gave, its actions shown in a channel."""
        channels = self.logged.get("channel", ())
        statics = table.statics.copy()
        statics[:, ACTION_COLUMNS.index("channel")] = channels.index(channel) if channel in channels else np.nan
        return ActionTable(table.relative_rows, statics)


@dataclass(frozen=True)
class EffectModel:
    """What showing an action changes: a line on the effect booster's score, for actions whose effect is significant.

    Attributes:
        predict: Of uplift.txt. lines: action id -> (intercept, slope).
        attributable: issue -> share of the responses to what was shown that would not have come without; an issue of
            which that is not known has none.
    """

    predict: Predict
    lines: Mapping[str, tuple[float, float]]
    attributable: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], predict: Predict) -> EffectModel:
        """Read uplift.json; an action that is not significant has no line."""
        lines = {
            action_id: (float(found["intercept"]), float(found["slope"]))
            for action_id, found in document["actions"].items()
            if found["is_significant"]
        }
        shares = document.get("attributable", {})  # a version of before has none
        return cls(predict, lines, {issue: float(found["used"]) for issue, found in shares.items() if found["is_used"]})


class BundleScorer:
    """Implements `service.decision.model.Scorer` for one bundle and one compiled catalogue."""

    def __init__(
        self,
        compiled: Compiled,
        *,
        version: str,
        predict: Predict,
        calibrator: Calibrator,
        cold_start: ColdStart,
        evidence: Mapping[str, float],
        domain: Domain,
        columns: Columns,
        effect: EffectModel | None = None,
    ) -> None:
        actions, self.version = compiled.catalogue.actions, version
        is_modelled = np.array([action.scoring is Scoring.MODEL for action in actions])
        # The response to a RISK action is assumed: no history stands behind it.
        self.evidence: Floats = np.where(is_modelled, [evidence_of(evidence, action) for action in actions], 0.0)
        self.sources = tuple(_source(domain, action, self.evidence[i]) for i, action in enumerate(actions))
        self._predict, self._calibrator, self._cold_start = predict, calibrator, cold_start
        self._columns, self._input = columns, ModelInput(columns)
        table = domain.restrict(compiled.action_table, actions)
        self._tables = {channel: domain.shown_in(table, channel) for channel in compiled.catalogue.channels}
        self._calibrating = calibrator.lines((action.issue, action.group) for action in actions)
        self._unseen: Bools = np.array([not domain.has_seen(action.issue) for action in actions], dtype=np.bool_)
        self._has_unseen = bool(self._unseen.any())
        self.texts: Mapping[str, tuple[str, ...]] = domain.logged
        self._effect = effect
        shares = effect.attributable if effect is not None else {}
        self.attributable: Floats = np.array([shares.get(action.issue, 1.0) for action in actions])
        lines = effect.lines if effect is not None else {}
        unknown = (np.nan, np.nan)
        self._lines: Floats = np.array([lines.get(action.id, unknown) for action in actions]).reshape(-1, 2)

    def score(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Score pairs of customer and action, (n_pairs,) calibrated probabilities; see `Scorer.score`."""
        if not len(actions):
            return np.empty(0)
        rows = self.rows(batch, as_of, customers, actions, now, channel)
        scores = self._calibrator.apply(self._predict(rows), self._calibrating.take(actions))
        if self._has_unseen:
            scores[self._unseen.take(actions)] = np.nan
        return scores

    def uplift(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats | None:
        """Estimate effects, (n_pairs,), NaN where the action's is not significant; None without an effect model."""
        if self._effect is None:
            return None
        intercepts, slopes = self._lines[actions].T
        uplift: Floats = intercepts.copy()
        is_scored = slopes > 0
        if is_scored.any():
            rows = self.rows(batch, as_of, customers[is_scored], actions[is_scored], now, channel)
            uplift[is_scored] += slopes[is_scored] * self._effect.predict(rows)
        return uplift

    def rows(
        self, batch: CustomerBatch, as_of: Floats, customers: Ints, actions: Ints, now: float, channel: str
    ) -> Floats:
        """Return the model's rows, (n_pairs, n_inputs); who is unknown is the typical new customer."""
        if not batch.is_known.all():
            as_of = as_of.copy()
            as_of[:, ~batch.is_known] = self._columns.as_of(self._cold_start.facts(now), now)
        return self._input.rows(as_of, customers, actions, self._tables[channel])

    def calibrated(self, contributions: Floats, actions: Ints) -> Floats:
        """Turn contributions to raw log-odds, the last of a row its base, into those to the calibrated ones."""
        return self._calibrator.contributions(contributions, self._calibrating[actions])

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of a model row, (n_inputs,)."""
        return self._input.names


def evidence_key(issue: str, member: str | None, action_id: str | None) -> str:
    """Return what positives are counted under: `issue|member`, or of a log, without a member, `issue||action`."""
    if member or not action_id:
        return f"{issue}|{member or ''}"
    return f"{issue}||{action_id}"


def evidence_of(counts: Mapping[str, float], action: Action) -> float:
    """Return how many positives stand behind an action; without a member and a log of its own, all of its issue."""
    own = counts.get(evidence_key(action.issue, action.member, action.id))
    return float(counts.get(evidence_key(action.issue, action.member, None), 0) if own is None else own)


def _source(domain: Domain, action: Action, evidence: float) -> str:
    if action.scoring is not Scoring.MODEL or not domain.has_seen(action.issue):
        return "prior"
    return "model" if evidence > 0 and domain.tells_apart(action) else "group"
