"""The whitelist of rules: what is SQL and not allowed is refused with a place and a remedy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.catalogue.rules import RuleError, parse_rule
from service.decision.expression import All, Case, Column, Comparison, Constant, In, Is, IsNull, Lookup, Not

SYMBOLS = {
    "spend": (), "visits": (), "stage": ("new", "loyal"), "size": ("s", "m"), "later": ("loyal", "lost"),
    "channel": ("app",), "known": (), "age_days(purchases)": (), "hour(decision_time)": (), "month(decision_time)": (),
}  # fmt: skip
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
    ("stage LIKE ANY ('n%')", "not allowed"),
    ("CAST(spend AS INTEGER) > 1", "not allowed"),
    ("spend::INTEGER > 1", "not allowed"),
    ("0x10 > 1", "not a valid SQL expression"),
    ("0x10", "not allowed"),
    ("spend // 2 = 1", "not allowed"),
    ("spend ** 2 > 1", "not allowed"),
    ("spend IS DISTINCT FROM 1", "not allowed"),
    ("spend IS TRUE", "not TRUE or FALSE"),
    ("NULL", "not TRUE or FALSE"),
    ("spend = NULL", "never TRUE"),
    ("spend", "not TRUE or FALSE"),
    ("spend + 1", "not TRUE or FALSE"),
    ("random() > 0.5", "not allowed"),
    ("now() > spend", "no function is called 'now'"),
    ("getenv('HOME') = 'x'", "no function is called 'getenv'"),
    ("stage LIKE 'z%'", "fits no value"),
    ("stage LIKE size", "needs a text in quotes"),
    ("stage LIKE 'n' ESCAPE '!'", "not allowed"),
    ("stage ~ 'n.*'", "not allowed"),
    ("spend LIKE 'n%'", "not a column of texts"),
    ("lower(spend) = 'x'", "not a column of texts"),
    ("lower(stage) = 'New'", "no such value"),
    ("length('abc') > 1", "not a column of texts"),
    ("round(spend, 2) > 1", "'decimals'"),
    ("sqrt(spend) > 1", "not allowed"),
    ("sum(spend) > 1", "not allowed"),
    ("row_number() OVER () > 1", "not allowed"),
    ("greatest(stage, size) = 'new'", "orders texts"),
    ("COALESCE(stage, 'nw') = 'new'", "no such value"),
    ("COALESCE(stage, 1) = 1", "mixes types"),
    ("NULLIF(stage, 1) = 'new'", "mixes types"),
    ("CASE WHEN spend > 1 THEN 'a' ELSE 2 END = 'a'", "drop the quotes"),
    ("CASE WHEN spend THEN TRUE END", "not TRUE or FALSE"),
    ("CASE WHEN spend > 1 THEN 'high' ELSE 'low' END = 'hgh'", "no such value"),
    ("IF(spend > 1, TRUE, FALSE)", "'false'"),
    ("spend + NULL > 1", "computed with NULL"),
    ("age_days(visits) > 1", "no view is called 'visits'"),
    ("age_days(purchases, 1) > 1", "write age_days(view)"),
    ("age_days('purchases') > 1", "write age_days(view)"),
    ("hour(spend) > 1", "a part of no moment"),
    ("decision_time > 1", "decision_time is a moment"),
    ("date_part('minute', decision_time) = 1", "no part of a moment"),
    ("date_part(decision_time) = 1", "write date_part('hour', decision_time)"),
    ("spend > ?", "not allowed"),
    ("spend > $1", "not allowed"),
    ("stage > 'new'", "orders texts"),
    ("stage BETWEEN 'a' AND 'b'", "orders texts"),
    ("stage = 1", "mixes types"),
    ("stage = size", "mixes types"),
    ("spend = 'new'", "drop the quotes"),
    ("'a' = 'a'", "reads no column"),
    ("spend + stage > 1", "a number is needed"),
    ("-stage > 1", "a number is needed"),
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
        ("stage IN ('new', 'loyl')", "did you mean 'loyal'?", 17),
        ("visits > 1 AND size = 'xl'", "one of s, m", 22),
        ("visits > 1 AND lenght(size) > 2", "did you mean 'length'?", 15),
        ("age_days(purchase) < 7", "did you mean 'purchases'?", 9),
        ("date_part('hours', decision_time) < 7", "did you mean 'hour'?", 19),
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
        ("stage LIKE 'n%'", In(Column("stage"), (0.0,))),
        ("stage NOT ILIKE '%L'", Not(In(Column("stage"), (1.0,)))),
        ("upper(stage) = 'LOYAL'", Comparison("=", Column("stage"), Constant(1.0))),
        ("length(stage) > 3", Comparison(">", Lookup(Column("stage"), (3.0, 5.0)), Constant(3.0))),
        ("stage = later", Comparison("=", Column("stage"), Lookup(Column("later"), (1.0, 2.0)))),
        ("age_days(purchases) < 7", Comparison("<", Column("age_days(purchases)"), Constant(7.0))),
        ("hour(decision_time) < 7", Comparison("<", Column("hour(decision_time)"), Constant(7.0))),
        ("date_part('month', decision_time) = 7", Comparison("=", Column("month(decision_time)"), Constant(7.0))),
        ("known IS NOT TRUE", Not(Is(Comparison("=", Column("known"), Constant(1.0)), True))),
        (
            "CASE WHEN spend > 1 THEN 'high' ELSE stage END = 'loyal'",
            Comparison(
                "=",
                Case(
                    ((Comparison(">", Column("spend"), Constant(1.0)), Constant(0.0)),),
                    Lookup(Column("stage"), (1.0, 2.0)),
                ),
                Constant(2.0),
            ),
        ),
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
             "NULL", "BETWEEN", "COALESCE(", "CASE WHEN", "THEN", "ELSE", "END", "LIKE", "lower(", "age_days(", "+",
             "/", "-", ";", "--", "'", "\"", "\x00", "é", "*", "[", "]", "{", "}"]
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
