"""Columns in words."""

from __future__ import annotations

import pytest

from features.contract import LAYOUT
from features.matrix import Columns, ModelInput
from features.words import describe, views_of


def test_every_column_and_every_model_input_has_words() -> None:
    """Whatever a rule may read or a model may lean on can be told to a person, no two members of a dimension alike."""
    columns = Columns()
    texts = {name: describe(name) for name in columns.names}
    assert len(set(texts.values())) == len(texts)
    for name in ModelInput(columns).names:
        assert len(describe(name)) > 4


def test_a_column_knows_its_views() -> None:
    """A fact's column has one view, a ratio those of both sides, the journey its own; others have none."""
    names = {view.name for view in LAYOUT.views}
    for name in Columns().names:
        assert views_of(name)
        assert set(views_of(name)) <= names
    assert views_of("days_since_last_basket") == ("purchases",)
    assert set(views_of("aisle_share__seafood")) == {"aisle_history", "purchases"}
    assert views_of("stage") == ("journey",)
    assert views_of("channel") == ()


def test_what_is_no_column_has_no_words() -> None:
    """A name that no column has is an error of the caller."""
    with pytest.raises(KeyError):
        describe("no_such_column")
