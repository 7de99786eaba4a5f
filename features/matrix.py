"""Facts + candidates + decision time -> columns for rules and rows for the model. One code for training and serving.

Pure: numpy in, numpy out. Everything is elementwise or a gather, so a batch of n customers gives bit for bit what n
batches of one give. Times are Unix seconds UTC; `now` is a scalar (serving) or an array (n_customers,) (training).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.contract import LAYOUT, RATIOS, STAGES, UTC_OFFSET_HOURS
from features.layout import SECONDS_PER_DAY, Fact, Kind, Layout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Now = float | Floats

JOURNEY_COLUMNS = (
    "shopping_days_28", "shopping_days_90", "gap_mean_days", "gap_p90_days", "last_gap_days", "silence_days",
    "silence_in_gaps", "stage",
)  # fmt: skip
ACTION_COLUMNS = (
    "issue", "dimension", "campaign_type", "window_days", "offer_coupons", "offer_breadth", "action", "channel",
)  # fmt: skip
"""Columns of an action itself: codes of issue, dimension's member and campaign type, the response window, and of the
offer how many coupons it has and how broad they are (sales of their products / the member's); NaN if none. Then what
only a log tells apart: codes of the action's id and of the channel, NaN where the model's own log has not got them."""
OFFER_COLUMNS, LOG_COLUMNS = ACTION_COLUMNS[4:6], ACTION_COLUMNS[6:]
CODE_COLUMNS = (*ACTION_COLUMNS[:3], *LOG_COLUMNS)
FUTURE_SECONDS = 300.0
"""A view stamped further ahead of now than this is not believed: one bad clock must not freeze a customer."""
NEW_DAYS, RETURNED_GAP_DAYS, RETURNED_WITHIN_DAYS = 45, 60, 30
_NEW, _ACTIVE, _LOYAL, _LAPSING, _LAPSED, _RETURNED = (float(i) for i in range(len(STAGES)))
_LAST_TWO = np.array([[1], [2]])
_RECENT_DAYS = np.array([[28.0], [90.0]])
_GAPS_OF_SILENCE, _LONGEST_DAYS, _SHORTEST_DAYS = np.array([[[4.0], [2.5]], [[180.0], [90.0]], [[60.0], [14.0]]])
"""When a customer is lapsed, and lapsing: so many gaps of its own rhythm, at most and at least so many days."""
_ANSWERS = np.array([np.nan, _NEW, _LAPSED, _LAPSING, _RETURNED, _LOYAL, _ACTIVE])


class Columns:
    """The columns of a layout as of a decision time: names, positions, and how to compute them all at once."""

    def __init__(self, layout: Layout = LAYOUT, ratios: Sequence[tuple[str, str, str]] = RATIOS) -> None:
        self.layout = layout
        anchor_row = {
            view.name: layout.slices[fact.name].start
            for view in layout.views
            for fact in view.facts
            if fact.kind is Kind.ANCHOR
        }
        aged = [e for e in layout.elements() if e[1].kind not in (Kind.ANCHOR, Kind.RECENT)]
        moments = [e for e in aged if e[1].kind is Kind.MOMENT]
        decayed = [e for e in aged if e[1].kind is Kind.DECAYED]
        plain = [e for e in aged if e[1].kind not in (Kind.MOMENT, Kind.DECAYED)]
        # Columns of one kind stand together, so that each kind is one stretch of the matrix and no list of rows.
        names = [
            f"{fact.column}__{member}" if member else fact.column for _, fact, member in (*plain, *moments, *decayed)
        ]
        ends = np.cumsum([len(plain), len(moments), len(decayed)]).tolist()
        self._plain, self._moments, self._decayed = (slice(i, j) for i, j in zip([0, *ends], ends, strict=False))
        self._plain_rows = np.array([row for row, _, _ in plain], dtype=np.int64)
        self._moment_rows = np.array([row for row, _, _ in moments], dtype=np.int64)
        self._decayed_rows = np.array([row for row, _, _ in decayed], dtype=np.int64)
        paces = [_pace(fact, anchor_row[layout.view_of[fact.name]]) for _, fact, _ in decayed]
        distinct = list(dict.fromkeys(paces))
        self._pace_of = np.array([distinct.index(pace) for pace in paces], dtype=np.int64)
        self._anchors = np.array([anchor for anchor, _ in distinct], dtype=np.int64)
        self._half_lives = np.array([seconds for _, seconds in distinct])[:, None]
        self._per_column = {
            fact.column: fact.per for fact in layout.facts.values() if fact.kind not in (Kind.ANCHOR, Kind.RECENT)
        }
        index = {name: i for i, name in enumerate(names)}
        numerators: list[int] = []
        denominators: list[int] = []
        for ratio, numerator, denominator in ratios:
            per = self._per_column[numerator]
            self._per_column[ratio] = per
            for member in layout.dimensions[per] if per else (None,):
                below = f"{denominator}__{member}" if member and self._per_column[denominator] else denominator
                numerators.append(index[f"{numerator}__{member}" if member else numerator])
                denominators.append(index[below])
                names.append(f"{ratio}__{member}" if member else ratio)
        self._numerators = np.array(numerators, dtype=np.int64)
        self._denominators = np.array(denominators, dtype=np.int64)
        self._ratios = slice(ends[-1], len(names))
        for name in JOURNEY_COLUMNS:
            self._per_column[name] = None
        names.extend(JOURNEY_COLUMNS)
        self.names: tuple[str, ...] = tuple(names)
        self.index: dict[str, int] = {name: i for i, name in enumerate(self.names)}
        self.scalars: tuple[str, ...] = tuple(name for name, per in self._per_column.items() if per is None)
        self.relatives: tuple[str, ...] = tuple(name for name, per in self._per_column.items() if per is not None)
        self._recent = next((layout.slices[f.name] for f in layout.facts.values() if f.kind is Kind.RECENT), None)

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """Texts that the codes of column `name` stand for; empty for a numeric column."""
        if name == "stage":
            return STAGES
        fact = self.layout.facts.get(name)
        return fact.vocabulary if fact else ()

    def as_of(self, facts: Floats, now: Now) -> Floats:
        """Turn facts into columns as of `now`.

        Args:
            facts: (layout.width, n_customers), NaN where missing.
            now: Decision time, Unix seconds UTC, a scalar or (n_customers,).

        Returns:
            (len(names) + 1, n_customers) in the order of `names`; the last row is all NaN, so that an action without
            a member in a dimension can point at it.
        """
        columns = np.empty((len(self.names) + 1, facts.shape[1]))
        columns[-1] = np.nan
        columns[self._plain] = facts.take(self._plain_rows, axis=0)
        # A moment or anchor ahead of `now` is clock skew between sources: nothing has elapsed, rather than less.
        columns[self._moments] = np.maximum(now - facts.take(self._moment_rows, axis=0), 0.0) / SECONDS_PER_DAY
        elapsed = np.maximum(now - facts.take(self._anchors, axis=0), 0.0)
        fading = np.exp2(-elapsed / self._half_lives)
        np.multiply(
            facts.take(self._decayed_rows, axis=0), fading.take(self._pace_of, axis=0), out=columns[self._decayed]
        )
        ratios, below = columns[self._ratios], columns.take(self._denominators, axis=0)
        ratios.fill(np.nan)
        np.divide(columns.take(self._numerators, axis=0), below, out=ratios, where=below > 0)
        journey = columns[-1 - len(JOURNEY_COLUMNS) : -1]
        if self._recent is None:
            journey.fill(np.nan)
        else:
            journey_columns(facts[self._recent], columns[self.index["days_since_first_seen"]], now, journey)
        return columns


def _pace(fact: Fact, anchor: int) -> tuple[int, float]:
    """Return what a decayed sum fades by: the row of its anchor, and its half-life in seconds."""
    if fact.half_life_days is None:
        raise ValueError(f"fact {fact.name!r} is decayed and declares no half_life_days")
    return anchor, fact.half_life_days * SECONDS_PER_DAY


def journey_columns(days: Floats, days_since_first_seen: Floats, now: Now, out: Floats) -> None:
    """Fill in the journey columns, stage among them, from the latest shopping days.

    Stages follow the customer's own rhythm (gaps between shopping days, p90 = the lower 90 % quantile of its own
    gaps): lapsing after a silence longer than clip(2.5 p90, 14, 90) days, lapsed after clip(4 p90, 60, 180). A trip is
    a shopping day: who never shopped is new, and loyal is who shopped on 12 days or more, 9 of them in 90 days, with a
    mean gap of 10 days or less.

    Args:
        days: (capacity, n_customers) distinct local day numbers, ascending, NaN-padded at the end.
        days_since_first_seen: (n_customers,), NaN for an unknown customer.
        now: Decision time, Unix seconds UTC.
        out: (len(JOURNEY_COLUMNS), n_customers), all NaN for an unknown customer.
    """
    today = np.floor((now + UTC_OFFSET_HOURS * 3600) / SECONDS_PER_DAY)
    customers = np.arange(days.shape[1])
    count = np.add.reduce(days == days, axis=0)
    # The row before the first is the last one, which is padding: what a customer has too few days for is NaN.
    last, previous = days[count - _LAST_TWO, customers]
    gaps = days[1:] - days[:-1]
    gaps.sort(axis=0)
    shopped, mean, p90, (last_gap, silence, in_gaps, stage) = out[:2], out[2], out[3], out[4:]
    p90[:] = gaps[(9 * count) // 10 - 1, customers]
    np.add.reduce(days > (today - _RECENT_DAYS)[:, None], axis=1, out=shopped)
    never = count == 0
    np.copyto(shopped, np.nan, where=never)
    mean.fill(np.nan)
    np.divide(last - days[0], count - 1, out=mean, where=count > 1)
    np.subtract(last, previous, out=last_gap)
    np.maximum(today - last, 0.0, out=silence)
    np.divide(silence, p90, out=in_gaps)
    # np.fmin drops NaN: who has a single shopping day, and so no rhythm yet, is given the longest patience.
    patience = np.maximum(np.fmin(_GAPS_OF_SILENCE * p90, _LONGEST_DAYS), _SHORTEST_DAYS)
    # In the order of `_ANSWERS`: the first that holds is the stage.
    holds = np.empty((len(_ANSWERS), len(count)), dtype=np.bool_)
    np.not_equal(days_since_first_seen, days_since_first_seen, out=holds[0])
    np.logical_or(days_since_first_seen <= NEW_DAYS, never, out=holds[1])
    np.greater(silence, patience, out=holds[2:4])
    np.logical_and(last_gap >= RETURNED_GAP_DAYS, silence <= RETURNED_WITHIN_DAYS, out=holds[4])
    np.logical_and(count >= 12, shopped[1] >= 9, out=holds[5])
    holds[5] &= mean <= 10.0
    holds[6] = True
    stage[:] = _ANSWERS.take(holds.argmax(axis=0))


def mask_stale(layout: Layout, facts: Floats, view_times: Floats, now: Now) -> NDArray[np.bool_]:
    """Set facts of views that are too old, or stamped in the future, to NaN, in place, and say which were.

    Args:
        layout: Where each view's facts lie, and how old they may be.
        facts: (layout.width, n_customers), changed in place.
        view_times: (n_views, n_customers) event timestamps as stored, NaN where the view was never written.
        now: Decision time, Unix seconds UTC.

    Returns:
        (n_views, n_customers) True where a view was there and not as fresh as its age says.
    """
    ages = now - view_times
    is_stale: NDArray[np.bool_] = ages > layout.max_age_seconds
    is_stale |= ages < -FUTURE_SECONDS
    if np.count_nonzero(is_stale):
        for rows, of_view in zip(layout.view_rows, is_stale, strict=True):
            facts[rows, of_view] = np.nan
    return is_stale


@dataclass(frozen=True)
class ActionTable:
    """What the model input needs of the actions, resolved once at load.

    Attributes:
        relative_rows: (n_actions, len(columns.relatives)) positions in the as-of matrix of the action's own member.
        statics: (n_actions, len(ACTION_COLUMNS)).
    """

    relative_rows: Ints
    statics: Floats

    @classmethod
    def of(
        cls,
        columns: Columns,
        issues: Sequence[float],
        members: Sequence[str | None],
        campaign_types: Sequence[float],
        window_days: Sequence[float],
        offers: Sequence[tuple[float, float]] | None = None,
        logged: Sequence[tuple[float, float]] | None = None,
    ) -> ActionTable:
        """Resolve actions given by issue code, dimension member (or None), campaign type code and response window.

        Args:
            offers: Coupons and breadth of each action's offer, NaN where there is none; None: no action has any.
            logged: Codes of each action's id and channel, NaN where there is none; None: no action has any.
        """
        none = [(np.nan, np.nan)] * len(members)
        known = [member for dimension in columns.layout.dimensions.values() for member in dimension]
        position: Mapping[str | None, float] = {None: np.nan, **{member: float(i) for i, member in enumerate(known)}}
        missing = len(columns.names)
        rows = [[columns.index.get(f"{name}__{m}", missing) for name in columns.relatives] for m in members]
        statics = np.column_stack(
            [
                np.asarray(issues, float),
                np.array([position[m] for m in members]),
                np.asarray(campaign_types, float),
                np.asarray(window_days, float),
                np.array(none if offers is None else offers).reshape(-1, len(OFFER_COLUMNS)),
                np.array(none if logged is None else logged).reshape(-1, len(LOG_COLUMNS)),
            ]
        )
        return cls(np.array(rows, dtype=np.int64).reshape(len(members), len(columns.relatives)), statics)


class ModelInput:
    """The model's input columns, in order, and how to fill rows of them."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.names: tuple[str, ...] = (*columns.scalars, *columns.relatives, *ACTION_COLUMNS)
        self.categoricals: tuple[str, ...] = (
            *(n for n in columns.scalars if columns.vocabulary(n) and n not in ("age_band", "income_band")),
            *CODE_COLUMNS,
        )
        self._scalar_rows = np.array([columns.index[name] for name in columns.scalars])

    def rows(self, as_of: Floats, customers: Ints, actions: Ints, table: ActionTable) -> Floats:
        """Fill one row for each (customer, action) pair.

        Args:
            as_of: What `Columns.as_of` gave, (n_columns + 1, n_customers).
            customers: (n_rows,) positions of customers in `as_of`.
            actions: (n_rows,) positions of actions in `table`.
            table: What the actions are.

        Returns:
            (n_rows, len(names)), C order.
        """
        n_scalars, n_relatives = len(self._scalar_rows), table.relative_rows.shape[1]
        out = np.empty((len(customers), len(self.names)))
        out[:, :n_scalars] = as_of[self._scalar_rows].T[customers]
        out[:, n_scalars : n_scalars + n_relatives] = as_of[table.relative_rows[actions], customers[:, None]]
        out[:, n_scalars + n_relatives :] = table.statics[actions]
        return out
