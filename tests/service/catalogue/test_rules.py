"""The whitelist of rules: what is SQL and not allowed is refused with a place and a remedy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalogue.rules import RuleError, parse_rule
from service.decision.expression import All, Column, Comparison, Constant, In, IsNull, Not

SYMBOLS = {"spend": (), "visits": (), "stage": ("new", "loyal"), "size": ("s", "m"), "channel": ("app",), "known": ()}
REFUSED = [
    ("spend >", "not a valid SQL expression"),
    ("", "0 statements"),
    ("spend > 1; visits > 1", "2 statements"),
    ("SELECT 1", "not allowed"),
    ("spend > (SELECT 1)", "not allowed"),
    ("spend IN (SELECT 1)", "not allowed"),
    ("EXISTS (SELECT 1)", "not allowed"),
    ("t.spend > 1", "'table'"),
    ("spend BETWEEN SYMMETRIC 2 AND 1", "'symmetric'"),
    ("spend IN ()", "empty list"),
    ("spend IN (visits)", "other than constants"),
    ("stage LIKE 'n%'", "not allowed"),
    ("stage LIKE ANY ('n%')", "not allowed"),
    ("CASE WHEN spend > 1 THEN TRUE END", "not allowed"),
    ("CASE spend WHEN 1 THEN TRUE END", "not allowed"),
    ("CAST(spend AS INTEGER) > 1", "not allowed"),
    ("spend::INTEGER > 1", "not allowed"),
    ("0x10 > 1", "not a valid SQL expression"),
    ("0x10", "not allowed"),
    ("spend % 2 = 1", "not allowed"),
    ("spend // 2 = 1", "not allowed"),
    ("spend ** 2 > 1", "not allowed"),
    ("spend IS DISTINCT FROM 1", "not allowed"),
    ("spend IS TRUE", "only IS NULL"),
    ("NULL", "not TRUE or FALSE"),
    ("spend = NULL", "never TRUE"),
    ("spend", "not TRUE or FALSE"),
    ("spend + 1", "not TRUE or FALSE"),
    ("random() > 0.5", "not allowed"),
    ("now() > spend", "not allowed"),
    ("getenv('HOME') = 'x'", "not allowed"),
    ("spend > ?", "not allowed"),
    ("spend > $1", "not allowed"),
    ("stage > 'new'", "orders texts"),
    ("stage BETWEEN 'a' AND 'b'", "no such value"),
    ("stage = 1", "mixes types"),
    ("stage = size", "mixes types"),
    ("spend = 'new'", "drop the quotes"),
    ("'a' = 'a'", "reads no column"),
    ("spend + stage > 1", "arithmetic needs numbers"),
    ("-stage > 1", "arithmetic needs numbers"),
    ("known = TRUE", "known is TRUE or FALSE"),
    ("(spend > 1) = TRUE", "a number is needed"),
    ("'x' IS NULL", "name a column"),
    ("spend > 1e999", "beyond float64"),
    ("spend > 1 -- comment\n; DROP TABLE t", "2 statements"),
    ("(" * 3000 + "spend > 1" + ")" * 3000, "characters"),
    ("(" * 1500 + "spend > 1" + ")" * 1500, ""),
    (" AND ".join(["spend > 1"] * 100), "more than 200 nodes"),
    ("NOT (spend > 1 OR " * 12 + "TRUE" + ")" * 12, "levels deep"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_refused(text: str, message: str) -> None:
    """What is not on the whitelist is refused with a sentence, a remedy and a place inside the text."""
    with pytest.raises(RuleError) as caught:
        parse_rule(text, SYMBOLS)
    error = caught.value
    assert message in str(error)
    assert error.remedy
    assert 0 <= error.position <= len(text)


@pytest.mark.parametrize(
    ("text", "remedy", "position"),
    [
        ("visits > 1 AND spnd > 1", "did you mean 'spend'?", 15),
        ("stage IN ('new', 'loyl')", "did you mean 'loyal'?", 0),
        ("visits > 1 AND size = 'xl'", "one of s, m", 15),
    ],
)
def test_suggestions(text: str, remedy: str, position: int) -> None:
    """A misspelt name or value is answered with the nearest known one, at its place in the text."""
    with pytest.raises(RuleError) as caught:
        parse_rule(text, SYMBOLS)
    assert (caught.value.remedy, caught.value.position) == (remedy, position)
    assert caught.value.caret(text) == text + "\n" + " " * position + "^"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("SPEND >= 0.5", Comparison(">=", Column("spend"), Constant(0.5))),
        ("stage = 'loyal'", Comparison("=", Column("stage"), Constant(1.0))),
        ("'loyal' <> stage", Comparison("!=", Constant(1.0), Column("stage"))),
        ("known", Comparison("=", Column("known"), Constant(1.0))),
        ("stage NOT IN ('new')", Not(In(Column("stage"), (0.0,)))),
        ("spend IS NOT NULL", Not(IsNull(Column("spend")))),
        ("spend > -1", Comparison(">", Column("spend"), Constant(-1.0))),
        (
            "spend BETWEEN 1 AND 2",
            All((Comparison(">=", Column("spend"), Constant(1.0)), Comparison("<=", Column("spend"), Constant(2.0)))),
        ),
    ],
)
def test_accepted(text: str, tree: object) -> None:
    """What is allowed becomes the typed tree that it says."""
    assert parse_rule(text, SYMBOLS) == tree


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["spend", "stage", "known", "'new'", "1", "0.5", "AND", "OR", "NOT", "(", ")", "=", "<", "IN", ",", "IS",
             "NULL", "BETWEEN", "COALESCE(", "+", "/", "-", ";", "--", "'", "\"", "\x00", "é", "*", "[", "]", "{", "}"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_anything_is_parsed_or_refused(tokens: list[str]) -> None:
    """Any text becomes a tree or a RuleError, never another exception."""
    text = " ".join(tokens)
    refusal: RuleError | None = None
    try:
        parse_rule(text, SYMBOLS)
    except RuleError as error:
        refusal = error
    if refusal is not None:
        assert 0 <= refusal.position <= len(text)
        assert "^" in refusal.caret(text)
