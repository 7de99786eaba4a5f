"""Steps are skipped while nothing they depend on has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from training.pipeline import Step, run_steps


class Trail:
    """Three steps over real files that remember when they ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameter = "1"
        for name in "abc":
            (folder / f"{name}.py").write_text(name)

    def run(self, only: str | None = None) -> list[str]:
        """Run the steps; return which ran."""
        steps = [
            Step(
                name,
                name,
                (str(self.folder / f"{name}.py"),),
                (self.parameter,) if name == "b" else (),
                (self.folder / f"{name}.out",),
                lambda name=name: (self.folder / f"{name}.out").write_text(name) and "done",
            )
            for name in "abc"
        ]
        return run_steps(steps, self.folder / "stamps", Console(quiet=True), only=only)


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


def test_the_second_run_does_nothing(trail: Trail) -> None:
    """All steps run once, then none."""
    assert trail.run() == ["a", "b", "c"]
    assert trail.run() == []


def test_changed_code_runs_the_step_and_those_after_it(trail: Trail) -> None:
    """A later step reads what an earlier one wrote; an earlier one is left alone."""
    trail.run()
    (trail.folder / "b.py").write_text("another")
    assert trail.run() == ["b", "c"]


def test_a_changed_parameter_runs_the_step(trail: Trail) -> None:
    """Parameters count as inputs."""
    trail.run()
    trail.parameter = "2"
    assert trail.run() == ["b", "c"]


def test_a_missing_output_is_made_again(trail: Trail) -> None:
    """A stamp does not stand for a file that is gone."""
    trail.run()
    (trail.folder / "c.out").unlink()
    assert trail.run() == ["c"]


def test_a_step_asked_for_by_name_runs_whatever_its_stamp(trail: Trail) -> None:
    """`nba train` trains, even where `nba prepare` would skip it."""
    trail.run()
    assert trail.run(only="b") == ["b"]


def test_a_step_that_fails_leaves_no_stamp(trail: Trail) -> None:
    """After a failure the next run tries again from that step."""
    step = Step("x", "x", (), (), (), lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        run_steps([step], trail.folder / "stamps", Console(quiet=True))
    assert not (trail.folder / "stamps" / "x.json").exists()
