"""Dates of validity at issue, group, action and treatment: a candidate is valid where all of them say so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.catalogue.loader import CatalogueError, load_catalogue
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Request, Stage
from tests.service.decision.worlds import COLUMNS, SMALL, described, keys_for

REGULAR = {"facts": {"baskets_count": 9, "first_seen_at": 300}, "shopped_days_ago": [1, 8, 15]}
GROUPS = "groups: [fresh, sweet, loyalty, info]"


def out_of_dates(tmp_path: Path, day: str, *replaced: tuple[str, str]) -> set[str]:
    """Return the treatments of `app` that are out of their dates on a day."""
    text = SMALL.read_text(encoding="utf-8")
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    catalogue = compile_catalogue(load_catalogue(path), COLUMNS)
    now = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    decisions = decide(described(REGULAR), Request("app"), catalogue, None, now, keys_for(1))
    is_out = decisions.stages[0] == Stage.OUT_OF_DATES
    return {catalogue.catalogue.treatments[t].id for t in decisions.candidates[np.flatnonzero(is_out)]}


def test_dates_of_an_issue_are_its_actions_default(tmp_path: Path) -> None:
    """An issue's dates hold for its actions that have none of their own."""
    issue = ("  cross_sell:\n", "  cross_sell:\n    ends: 2018-01-31\n")
    assert out_of_dates(tmp_path, "2018-01-30", issue) == {"summer.app"}
    assert out_of_dates(tmp_path, "2018-01-31", issue) == {"fish.app", "cake.app", "rare.app", "dear.app", "summer.app"}


def test_dates_of_a_group_bind_its_actions(tmp_path: Path) -> None:
    """A group's dates bind beside the actions' own: the later start and the earlier end count."""
    groups = (GROUPS, "groups: {fresh: {}, sweet: {starts: 2018-07-01, ends: 2018-12-01}, loyalty: {}, info: {}}")
    assert out_of_dates(tmp_path, "2018-06-15", groups) == {"cake.app", "rare.app", "dear.app", "summer.app"}
    assert out_of_dates(tmp_path, "2018-07-15", groups) == set()
    assert out_of_dates(tmp_path, "2018-10-01", groups) == {"summer.app"}


def test_dates_of_a_treatment_bind_it_alone(tmp_path: Path) -> None:
    """A treatment's dates close that form of the action; an action's own treatment stands for the issue's."""
    own = ("{issue: service, value: 2, name: Help}", "{issue: service, value: 2, name: Help, "
           "treatments: {app: {placements: [home], starts: 2018-02-01}}}")  # fmt: skip
    assert out_of_dates(tmp_path, "2018-01-15", own) == {"help.app", "summer.app"}
    assert out_of_dates(tmp_path, "2018-02-01", own) == {"summer.app"}
    form = ("    threshold: 0.02\n", "    threshold: 0.02\n")
    assert out_of_dates(tmp_path, "2018-07-01", form) == set()


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (GROUPS, "groups: {fresh: {end: 2018-01-01}, sweet: {}, loyalty: {}, info: {}}", "groups.fresh.end"),
        (GROUPS, "groups: {fresh: {starts: 2018-02-01, ends: 2018-01-01}, sweet: {}, loyalty: {}, info: {}}",
         "groups.fresh.ends"),
        ("email: {placements: [grid], cost: 0.1}", "email: {placements: [grid], ends: soon}",
         "issues.cross_sell.treatments.email.ends"),
    ],
)  # fmt: skip
def test_mistakes_in_dates(tmp_path: Path, old: str, new: str, path: str) -> None:
    """A date that is none, or a way of writing it that is not known, is named with its place, once."""
    with pytest.raises(CatalogueError) as caught:
        out_of_dates(tmp_path, "2018-01-01", (old, new))
    assert [problem.path for problem in caught.value.problems] == [path]
