"""The catalogue file: the shipped one loads, and broken ones say file, line, path and remedy of all that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from features.matrix import Columns
from service.catalogue.loader import CatalogueError, load_catalogue, to_jsonable
from service.decision.engine import compile_catalogue
from service.decision.model import Catalogue, Scoring, Stage

SHIPPED = Path(__file__).parents[3] / "service" / "catalogue.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue(SHIPPED)


def test_the_shipped_catalogue_covers_the_example(shipped: Catalogue) -> None:
    """The shipped catalogue has the example's actions by issue, each on a channel, with content in every locale."""
    counts = {issue: sum(a.issue == issue for a in shipped.actions) for issue in shipped.arbitration}
    assert counts == {"upsell": 14, "cross_sell": 12, "retention": 4, "service": 6}
    for action in shipped.actions:
        treatments = [t for t in shipped.treatments if t.action_id == action.id]
        assert treatments
        assert all(t.content[shipped.default_locale]["headline"] and t.placements for t in treatments)
        assert all("{" not in text for t in treatments for fields in t.content.values() for text in fields.values())
        assert (action.scoring is Scoring.MODEL) == (action.member is not None)
    for channel in shipped.channels:
        is_service = [
            not shipped.actions[shipped.index[t.action_id]].is_marketing
            for t in shipped.treatments
            if t.channel == channel
        ]
        assert sum(is_service) >= 4
    fallback = shipped.actions[shipped.index[shipped.fallback]]
    assert not fallback.is_marketing
    assert fallback.may_be_unlogged


def test_defaults_stand_at_the_issue(shipped: Catalogue) -> None:
    """An action takes what it does not say from its issue, and its own words override it."""
    cheese, meat = (shipped.actions[shipped.index[f"upsell_{n}"]] for n in ("cheese", "beef_fresh_meat"))
    assert (cheese.value, meat.value) == (3.0, 4.5)
    assert cheese.success_rule == "redemption:cheese"
    assert (cheese.campaign_type, cheese.window_days, cheese.is_marketing) == ("a", 46.0, True)
    assert (cheese.offer_coupons, cheese.offer_breadth) == (4.0, 0.07)
    pet = shipped.actions[shipped.index["cross_sell_pet"]]
    assert math.isnan(pet.offer_coupons)
    assert math.isnan(pet.offer_breadth)


def test_rules_on_the_own_member_become_one_an_action(shipped: Catalogue) -> None:
    """A rule on a column of the action's own member is bound to each action of its scope, in text, tree and reason."""
    rules = {rule.id: rule for rule in shipped.rules}
    rule = rules["cross_sell_new_to_aisle.cross_sell_pet"]
    assert (rule.stage, rule.scope, rule.scope_id) == (Stage.ELIGIBILITY, "action", "cross_sell_pet")
    assert "days_since_aisle_purchase__pet > 180" in rule.text
    assert rule.reason == "already buys there: everything for your pet"
    assert sum(name.startswith("cross_sell_new_to_aisle.") for name in rules) == 12


def test_to_jsonable_is_json(shipped: Catalogue) -> None:
    """The catalogue as data survives JSON and carries its version."""
    data = to_jsonable(shipped)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["version"] == shipped.version
    assert len(data["actions"]) == 36


def test_version_is_of_the_content(tmp_path: Path, shipped: Catalogue) -> None:
    """Comments and order leave the version alone; a value changes it."""
    document = yaml.safe_load(TEXT)
    for section in ("actions", "rules", "caps"):
        document[section] = dict(reversed(document[section].items()))
    other = tmp_path / "c.yaml"
    other.write_text("# a comment\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    assert load_catalogue(other).version == shipped.version
    assert mutated(tmp_path, "value: 4.5", "value: 4.6").version != shipped.version


def mutated(tmp_path: Path, old: str, new: str) -> Catalogue:
    """Load the shipped catalogue with one text replaced at its first place."""
    assert old in TEXT
    path = tmp_path / "catalogue.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return load_catalogue(path)


BROKEN = yaml.safe_load((Path(__file__).parent / "broken.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("old", "new", "path", "message", "remedy"), BROKEN, ids=[b[1].strip()[:50] for b in BROKEN])
def test_broken(tmp_path: Path, old: str, new: str, path: str, message: str, remedy: str) -> None:
    """Each small mistake is named with file, line, path, what is wrong and what to do."""
    with pytest.raises(CatalogueError) as caught:
        mutated(tmp_path, old, new)
    problem = next((p for p in caught.value.problems if p.path == path), None)
    assert problem is not None, caught.value
    assert message in problem.message
    assert remedy in problem.remedy
    if path != "document":
        line = TEXT[: TEXT.index(old)].count("\n") + 1
        assert 0 <= problem.line - line <= 3 or "twice" in message or path.startswith("issues.upsell.treatments.email")
    assert f"catalogue.yaml:{problem.line}: {path}: " in str(caught.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Several mistakes are reported together, in order of line."""
    text = (
        TEXT.replace("nba: 0.85", "nba: 0.9")
        .replace("spend_h364 >= 50", "spend_h999 >= 50")
        .replace("limit: 9", "limit: x")
    )
    path = tmp_path / "catalogue.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(path)
    assert [p.path for p in caught.value.problems] == [
        "experiment.arms",
        "rules.favourite_aisle_known.rule",
        "caps.marketing_week.limit",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"- a", "expected a mapping"), (b"\xff\xfe", "not UTF-8"), (b"a: [", "not valid YAML"),
     (b"a: b\n---\nc: d", "not valid YAML"), (b"\x00", "not valid YAML"), (b"[" * 800, "not valid YAML")],
)  # fmt: skip
def test_not_a_catalogue(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is no YAML mapping is refused with its name and a sentence."""
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match=message):
        load_catalogue(path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is refused with its name."""
    with pytest.raises(CatalogueError, match=r"nowhere\.yaml:1: document: cannot be read"):
        load_catalogue(tmp_path / "nowhere.yaml")


def test_every_line_that_is_cut_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Cutting any single line gives a catalogue that compiles or a CatalogueError, never another exception."""
    columns, path = Columns(), tmp_path / "catalogue.yaml"
    lines = TEXT.splitlines(keepends=True)
    refused, problems = 0, []
    for k in range(0, len(lines), 4):
        path.write_text("".join(lines[:k] + lines[k + 1 :]), encoding="utf-8")
        try:
            compile_catalogue(load_catalogue(path, columns), columns)
        except CatalogueError as error:
            refused += 1
            problems += error.problems
    assert refused > 10
    assert all(p.line >= 1 and p.path and p.message and p.remedy for p in problems)
