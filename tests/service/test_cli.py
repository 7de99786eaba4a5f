"""Which command lines go the fast way to serving."""

from __future__ import annotations

import pytest

from service.cli import plain_serve


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("serve", (1, "")),
        ("serve --workers 1", (1, "")),
        ("serve --workers 64", (64, "")),
        ("serve --inherited 5,17", (1, "5,17")),
        ("serve --workers 65", None),
        ("serve --workers 0", None),
        ("serve --workers 1.5", None),
        ("serve --workers", None),
        ("serve --workers=2", None),
        ("serve --help", None),
        ("serve serve", None),
        ("--help", None),
        ("worker", None),
        ("", None),
    ],
)
def test_only_a_plain_serve_goes_the_fast_way(arguments: str, expected: tuple[int, str] | None) -> None:
    """Everything else, wrong or seldom, is understood or refused by the full command line."""
    assert plain_serve(arguments.split()) == expected
