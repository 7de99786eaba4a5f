"""Looks at labelled rows before a model does: leakage, duplicates, missing arms, too few positives, and what to do.

Decides what makes rows unusable and what makes them doubtful. It is told which column plays which role; every other
column counts as an input, known before the moment. It must not know where the rows come from or what model follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.findings import Finding, first_rows
from training.leakage import auc_of, leaks
from training.table_numbers import codes, inputs_of, is_number, numbers, seconds
from training.uplift import OUTCOME, OUTCOME_ROUNDS, deal_folds, fit_trees

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_POSITIVES, MATURE_POSITIVES = 10, 200
"""Below the first no effect is learned (`training.uplift.check`); below the second Pega calls a model immature."""
SHOWN = 8
GREATEST_Z = 4.0
"""Standard errors that a share may lie off its logged probability."""
PREDICTED_ARM_AUC = 0.55
"""Above it the inputs decided who was shown, not chance."""


@dataclass(frozen=True)
class Roles:
    """Which column plays which role; "" where the table has none.

    Attributes:
        label: 0 or 1, what came of it. customer, moment, action: Who, when, and what was shown.
        control: The text in `action` that stands for nothing shown; a null counts as it too.
        probability: P(what was shown) of the policy that ran.
        key: What tells two offers to one customer at one moment apart, beside the action.
        ignored: Columns that are no inputs, such as other outcomes.
    """

    label: str
    customer: str
    moment: str = ""
    action: str = ""
    control: str = "none"
    probability: str = ""
    key: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that must be there."""
        columns = (self.label, self.customer, self.moment, self.action, self.probability, *self.key)
        return tuple(name for name in columns if name)


def check_dataset(table: pa.Table, roles: Roles) -> list[Finding]:
    """Look at everything; a table without its columns or labels is not looked at any further."""
    found = list(_columns(table, roles)) or list(_labels(table, roles))
    if any(one.status == "wrong" for one in found):
        return found
    labels = numbers(table[roles.label])
    inputs = [name for name in table.column_names if name not in (*roles.named, *roles.ignored)]
    actions = _actions(table, roles)
    found += _duplicates(table, roles)
    found += _moments(table, roles, inputs)
    found += _positives(labels, actions)
    if roles.action:
        found += _arms(table, roles, labels, actions, inputs)
    found += leaks(table, labels, inputs)
    return found


def _columns(table: pa.Table, roles: Roles) -> Iterator[Finding]:
    for name in roles.named + roles.ignored:
        if name not in table.column_names:
            there = ", ".join(table.column_names[:12])
            yield Finding("columns", "wrong", f"there is no column {name!r}", f"name one of those there: {there}")
    if not table.num_rows:
        yield Finding("columns", "wrong", "the table has no row", "give a table with rows")


def _labels(table: pa.Table, roles: Roles) -> Iterator[Finding]:
    column = table[roles.label]
    if not is_number(column):
        yield Finding("label", "wrong", f"{roles.label!r} is {column.type}, not a number", "write 0 and 1")
        return
    labels = numbers(column)
    is_other = ~np.isin(labels, (0.0, 1.0))
    if is_other.any():
        said = f"{int(is_other.sum())} of {len(labels)} labels are missing or neither 0 nor 1"
        yield Finding("label", "wrong", said, "leave rows out whose outcome is still open", first_rows(is_other))
    elif not 0 < labels.sum() < len(labels):
        yield Finding("label", "wrong", f"every label is {labels[0]:.0f}", "give rows of both outcomes")
    else:
        said = f"{int(labels.sum()):,} of {len(labels):,} rows are positive ({labels.mean():.2%})"
        yield Finding("label", "ok", said)


def _duplicates(table: pa.Table, roles: Roles) -> Iterator[Finding]:
    key = [name for name in (roles.customer, roles.moment, roles.action, *roles.key) if name]
    keys = np.column_stack([codes(table[name]) for name in key])
    _, first, places = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    is_repeat = np.ones(len(keys), np.bool_)
    is_repeat[first] = False
    said = f"{int(is_repeat.sum())} rows repeat another's {', '.join(key)}"
    if is_repeat.any():
        labels = numbers(table[roles.label])
        contradictory = int((labels != labels[first][places.ravel()]).sum())
        said += f", {contradictory} with another label" if contradictory else ""
        yield Finding(
            "duplicates", "wrong", said, "keep one row an offer; a repeat counts twice", first_rows(is_repeat)
        )
    else:
        yield Finding("duplicates", "ok", said)


def _moments(table: pa.Table, roles: Roles, inputs: list[str]) -> Iterator[Finding]:
    if not roles.moment:
        return
    column = table[roles.moment]
    if not pa.types.is_timestamp(column.type):
        yield Finding("moment", "wrong", f"{roles.moment!r} is {column.type}", "write it as a timestamp in UTC")
        return
    if column.type.tz is None:
        yield Finding("moment", "warning", f"{roles.moment!r} has no time zone and is taken as UTC", "write it in UTC")
    moments = seconds(column)
    missing = np.isnan(moments)
    if missing.any():
        yield Finding("moment", "wrong", f"{int(missing.sum())} rows have none", "fill it in", first_rows(missing))
    for name in inputs:
        if pa.types.is_timestamp(table[name].type):
            is_later = seconds(table[name]) > moments
            if is_later.any():
                said = f"{name!r} lies after {roles.moment!r} in {int(is_later.sum())} rows"
                yield Finding("leakage", "wrong", said, "give it as it was known at the moment", first_rows(is_later))


def _positives(labels: Floats, actions: NDArray[np.str_]) -> Iterator[Finding]:
    names, codes = np.unique(actions, return_inverse=True)
    found = dict(zip(names.tolist(), np.bincount(codes, labels).astype(int).tolist(), strict=True))
    shown = {name: positives for name, positives in found.items() if name}
    if sum(shown.values()) < LEAST_POSITIVES:
        said = f"{sum(shown.values())} positives among all that was shown"
        yield Finding("positives", "wrong", said, f"collect more: a propensity needs at least {LEAST_POSITIVES}")
    if found.get("", LEAST_POSITIVES) < LEAST_POSITIVES:
        said = f"{found['']} positives where nothing was shown"
        yield Finding("positives", "wrong", said, f"keep the hold-out: an effect needs at least {LEAST_POSITIVES}")
    rare = [f"{name} ({n})" for name, n in shown.items() if n < LEAST_POSITIVES]
    thin = [f"{name} ({n})" for name, n in shown.items() if LEAST_POSITIVES <= n < MATURE_POSITIVES]
    if rare:
        remedy = "leave them out or on the catalogue's prior: their propensity would be a guess"
        yield Finding("positives", "warning", f"fewer than {LEAST_POSITIVES} positives: {_listed(rare)}", remedy)
    if thin:
        remedy = f"usable, and not mature before {MATURE_POSITIVES}: expect them to lean on their group"
        yield Finding("positives", "warning", f"fewer than {MATURE_POSITIVES} positives: {_listed(thin)}", remedy)
    mature = [f"{name} ({n})" for name, n in shown.items() if n >= MATURE_POSITIVES]
    if mature:
        yield Finding("positives", "ok", f"{MATURE_POSITIVES} positives or more: {_listed(mature)}")


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _arms(
    table: pa.Table, roles: Roles, labels: Floats, actions: NDArray[np.str_], inputs: list[str]
) -> Iterator[Finding]:
    is_control = actions == ""
    if not is_control.any():
        said = f"no row has {roles.action} {roles.control!r}: nobody was left out"
        remedy = "propensities can be learned, an effect cannot: keep a hold-out from now on"
        yield Finding("arms", "warning", said, remedy)
    if roles.probability:
        yield from _probabilities(numbers(table[roles.probability]), actions)
    elif is_control.any():
        said = "no column says with what probability an action was shown"
        remedy = "name it with --probability; without it effects rest on an estimate of it, and no policy can be judged"
        yield Finding("arms", "warning", said, remedy)
    rows = inputs_of(table, inputs)
    customers = codes(table[roles.customer])
    for action in np.unique(actions[~is_control]) if is_control.any() and inputs else ():
        own = is_control | (actions == action)
        area, error = _arm_auc(rows[own], ~is_control[own], customers[own])
        if area > max(PREDICTED_ARM_AUC, 0.5 + GREATEST_Z * error):
            said = f"who was shown {action} can be told from the inputs (AUC {area:.3f}): the log is not randomised"
            remedy = "give the probabilities of the policy that ran, or read effects as adjusted, not as proven"
            yield Finding("arms", "ok" if roles.probability else "warning", said, "" if roles.probability else remedy)
        else:
            yield Finding("arms", "ok", f"who was shown {action} cannot be told from the inputs (AUC {area:.3f})")


def _probabilities(shown: Floats, actions: NDArray[np.str_]) -> Iterator[Finding]:
    is_wrong = ~((shown > 0) & (shown <= 1))
    if is_wrong.any():
        said = f"{int(is_wrong.sum())} probabilities are missing, 0 or above 1"
        yield Finding("arms", "wrong", said, "what was shown had a chance above 0; log it", first_rows(is_wrong))
    elif (shown == 1).all():
        said = "every action had probability 1: the log was made without chance"
        yield Finding("arms", "wrong", said, "no other policy can be judged on it: switch exploration on and collect")
    else:
        # Weighted by 1 / probability, the rows of each action stand for all rows: sum of [a] / p has the mean n.
        for action in np.unique(actions):
            weights = np.where(actions == action, 1.0 / shown, 0.0)
            error = weights.std() / np.sqrt(len(weights))
            z = (weights.mean() - 1.0) / error if error else 0.0
            if abs(z) > GREATEST_Z:
                name = action or "nothing shown"
                said = f"{name}: its share is {weights.mean():.2f} times what the probabilities say"
                yield Finding("arms", "wrong", said, "log the probabilities of the policy that ran, of every action")


def _arm_auc(rows: Floats, is_shown: Bools, customers: NDArray[np.int64]) -> tuple[float, float]:
    """Return how well the inputs tell who was shown, on rows not fitted on, and its standard error under chance.

    The error is that of one fold (Hanley and McNeil 1982 with an area of one half): the two folds' areas rise and fall
    together, so that their mean is no surer than either.
    """
    scores = np.empty(len(rows))
    fold_of = deal_folds(customers, 2, 0)
    for fold in np.unique(fold_of):
        held = fold_of == fold
        trees = fit_trees(rows[~held], is_shown[~held].astype(np.float64), OUTCOME, OUTCOME_ROUNDS, ())
        scores[held] = trees.predict(rows[held])
    # Each fold's trees have their own level: ranks within a fold.
    areas = [auc_of(is_shown[fold_of == fold].astype(np.float64), scores[fold_of == fold]) for fold in (0, 1)]
    half, shown = len(rows) / 2, float(is_shown.mean())
    return float(np.mean(areas)), float(np.sqrt((half + 1) / (12 * shown * (1 - shown) * half**2)))


def _actions(table: pa.Table, roles: Roles) -> NDArray[np.str_]:
    """(n,) what was shown, "" for nothing; one name for all where the table has no action."""
    if not roles.action:
        return np.full(table.num_rows, "all")
    texts = [str(value) if value is not None else "" for value in table[roles.action].to_pylist()]
    return np.array(["" if text == roles.control else text for text in texts])
