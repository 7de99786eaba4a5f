"""A catalogue prepared for deciding: all static work, done once at load. Knows no customer and no request's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.matrix import ActionTable, Columns
from service.decision.channel_plan import ChannelPlan, plan_of
from service.decision.circuit import Circuit
from service.decision.contact_policy import CapTable
from service.decision.experiment import Layers
from service.decision.expression import columns_read
from service.decision.extras import Extras
from service.decision.model import CAMPAIGN_TYPES, ISSUES, Action, Catalogue


@dataclass(frozen=True, eq=False)
class CompiledCatalogue:
    """What `engine.decide` runs on; equal to itself alone, so that more can be made once for it.

    Attributes:
        catalogue: As loaded.
        columns: The matrix columns that its rules read.
        action_table: The model's view of `catalogue.actions`, in their order.
        extras: Pseudo columns and context fields; `extras.names` is the order of `Decisions.extras`.
        circuit: All rules, in the order of `catalogue.rules`.
        rule_stages: (n_rules + 1,) `Stage` of each rule; the last stands for the rule that always passes.
        caps: All caps.
        layers: Of the experiment, without and with a challenger.
        plans: channel -> its candidates.
    """

    catalogue: Catalogue
    columns: Columns
    action_table: ActionTable
    extras: Extras
    circuit: Circuit
    rule_stages: NDArray[np.int8]
    caps: CapTable
    layers: tuple[Layers, Layers]
    plans: Mapping[str, ChannelPlan]


def compile_catalogue(catalogue: Catalogue, columns: Columns) -> CompiledCatalogue:
    """Prepare a catalogue for deciding.

    Raises:
        KeyError: A rule reads a column that neither `columns` nor the catalogue's context has.
    """
    trees = [rule.expression for rule in catalogue.rules]
    names = tuple(dict.fromkeys(name for tree in trees for name in columns_read(tree)))
    extras = Extras(catalogue, columns, names)
    caps = CapTable.of(catalogue)
    return CompiledCatalogue(
        catalogue,
        columns,
        action_table(catalogue.actions, columns),
        extras,
        Circuit(trees, names, columns.index, extras.names),
        np.array([*(rule.stage for rule in catalogue.rules), 0], dtype=np.int8),
        caps,
        (
            Layers.of(catalogue.experiment, has_challenger=False),
            Layers.of(catalogue.experiment, has_challenger=True),
        ),
        {channel: plan_of(catalogue, channel, caps, columns.vocabulary("stage")) for channel in catalogue.channels},
    )


def action_table(actions: Sequence[Action], columns: Columns) -> ActionTable:
    """Resolve what the model input needs of the actions."""
    types = {name: float(code) for code, name in enumerate(CAMPAIGN_TYPES)}
    return ActionTable.of(
        columns,
        [float(ISSUES.index(action.issue)) for action in actions],
        [action.member for action in actions],
        [types[action.campaign_type] if action.campaign_type else np.nan for action in actions],
        [action.window_days for action in actions],
        [(action.offer_coupons, action.offer_breadth) for action in actions],
    )
