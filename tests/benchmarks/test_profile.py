"""Where the time goes, told from stacks."""

from __future__ import annotations

from benchmarks.profile import picture, shares, stage_of


def test_a_stack_belongs_to_its_innermost_stage():
    """What encloses others gives way to what it encloses; a stack of nothing of ours is not counted."""
    outer = ["service.api.shortcut __call__", "service.online decide"]
    assert stage_of(outer) == "online, passes"
    assert stage_of([*outer, "service.decision.engine decide"]) == "core, the rest"
    assert stage_of([*outer, "service.decision.engine decide", "features.matrix as_of"]) == "columns as of now"
    assert stage_of(["waiting"]) == ""


def test_shares_are_of_the_time_that_was_not_waited():
    """Waiting is left out, shares add up to one, and a bar says what each is of a decision's CPU."""
    stacks = [
        {"stack": ["waiting"], "samples": 100},
        {"stack": ["service.answer answer_of"], "samples": 1},
        {"stack": ["features.matrix as_of"], "samples": 3},
    ]
    assert shares(stacks) == {"columns as of now": 0.75, "answer": 0.25}
    assert "columns as of now           75.0%   300 us  ####" in picture(stacks, 0.4)
