"""Contributions from a process of its own: exact, readable, never in the way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from service.adapters.bundle_dir import BundleDir
from service.adapters.explainer import ChildExplainer
from service.catalogue.loader import load_catalogue
from service.decision.engine import compile_catalogue, decide
from service.decision.model import Decisions, Experiment, Request, Scoring
from service.explanation import Chosen, chosen_of, explain
from service.ports import ExplanationUnavailable
from tests.service.decision.worlds import CATALOGUE, COLUMNS, NOW, keys_for, random_batch
from tests.small_world import SmallWorld

T = TypeVar("T")
LONG = 30.0


@pytest.fixture(scope="module")
def chosen(small_world: SmallWorld) -> tuple[Chosen, Decisions]:
    """What a real model read of one customer's chosen actions, and the decision."""
    shipped = load_catalogue(CATALOGUE)
    everybody = Experiment("e", "salt", (("propensity_only", 1.0),))
    catalogue = compile_catalogue(replace(shipped, experiment=everybody), COLUMNS)
    bundle = BundleDir(small_world.models).load(small_world.digest)
    scorer = bundle.scorer_for(catalogue)
    batch = random_batch(60, 3, consent=1.0)
    decisions = decide(batch, Request("app", (("app_home", 6),)), catalogue, scorer, NOW, keys_for(60))
    scored = [
        sum(catalogue.catalogue.actions[decisions.actions[c.candidate]].scoring is Scoring.MODEL for c in placed)
        for placed in decisions.chosen
    ]
    return chosen_of(small_world.digest, catalogue, scorer, batch, decisions, int(np.argmax(scored))), decisions


def with_explainer(models: Path, task: Callable[[ChildExplainer], Awaitable[T]], **limits: float) -> T:
    """Run a task with an explainer and end its child."""

    async def run() -> T:
        explainer = ChildExplainer(models, **limits)
        try:
            return await task(explainer)
        finally:
            await explainer.close()

    return asyncio.run(run())


def test_contributions_add_up_to_the_log_odds(small_world: SmallWorld, chosen: tuple[Chosen, Decisions]) -> None:
    """Base and contributions of every chosen action add up to the log-odds of the propensity that was decided with."""
    asked, decisions = chosen
    found = with_explainer(small_world.models, lambda explainer: explain(explainer, asked, LONG))
    assert found["status"] == "available"
    assert len(found["actions"]) == len(asked.all_actions)
    n_scored = 0
    for entry, action in zip(found["actions"], asked.all_actions, strict=True):
        terms = asked.catalogue.catalogue.actions[action]
        assert entry["action_id"] == terms.id
        if terms.scoring is not Scoring.MODEL:
            continue
        n_scored += 1
        customer = next(i for i, placed in enumerate(decisions.chosen) if _actions(decisions, i) == asked.all_actions)
        candidate = decisions.actions.tolist().index(action)
        p = decisions.propensities[customer, candidate]
        parts = [part["log_odds"] for part in entry["contributions"]]
        total = entry["base_log_odds"] + sum(parts) + entry["all_others_log_odds"]
        assert total == pytest.approx(np.log(p / (1 - p)), abs=1e-9)
        assert entry["probability"] == pytest.approx(p, abs=1e-12)
        assert parts == sorted(parts, key=abs, reverse=True)
        assert all(part["words"] and part["words"] != part["column"] for part in entry["contributions"])
    assert n_scored >= 2


def _actions(decisions: Decisions, i: int) -> tuple[int, ...]:
    return tuple(int(decisions.actions[c.candidate]) for c in decisions.chosen[i])


def test_no_explanation_within_the_deadline_is_said(small_world: SmallWorld, chosen: tuple[Chosen, Decisions]) -> None:
    """Who asks while the child starts, or while it stands still, is told so within the deadline, and later has it."""
    asked, _ = chosen

    async def task(explainer: ChildExplainer) -> None:
        started = time.monotonic()
        first = await explain(explainer, asked, 0.05)
        assert first["status"] == "unavailable"
        assert "deadline" in first["why"]
        assert time.monotonic() - started < 2.0
        assert (await explain(explainer, asked, LONG))["status"] == "available"
        assert explainer.pid is not None
        os.kill(explainer.pid, signal.SIGSTOP)
        assert (await explain(explainer, asked, 0.05))["status"] == "unavailable"
        os.kill(explainer.pid, signal.SIGCONT)
        again = await explain(explainer, asked, LONG)
        assert again["status"] == "available"

    with_explainer(small_world.models, task)


def test_a_child_that_hangs_or_dies_is_replaced(small_world: SmallWorld, chosen: tuple[Chosen, Decisions]) -> None:
    """A killed child fails only who waits, one that owes an answer for too long is killed: who asks next has one."""
    asked, _ = chosen

    async def task(explainer: ChildExplainer) -> None:
        assert (await explain(explainer, asked, LONG))["status"] == "available"
        first = explainer.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        waiting = asyncio.create_task(explain(explainer, asked, LONG))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        assert "ended" in (await waiting)["why"]
        assert (await explain(explainer, asked, LONG))["status"] == "available"
        second = explainer.pid
        assert second not in (None, first)
        os.kill(second or 0, signal.SIGSTOP)
        assert (await explain(explainer, asked, 0.02))["status"] == "unavailable"
        await asyncio.sleep(0.3)
        assert (await explain(explainer, asked, LONG))["status"] == "available"
        assert explainer.pid != second

    with_explainer(small_world.models, task, hang_seconds=0.2)


def test_an_idle_child_is_ended(small_world: SmallWorld, chosen: tuple[Chosen, Decisions]) -> None:
    """A child that nobody asks any more gives its memory back, and starts again when it is asked."""
    asked, _ = chosen

    async def task(explainer: ChildExplainer) -> None:
        assert (await explain(explainer, asked, LONG))["status"] == "available"
        for _ in range(100):
            if explainer.pid is None:
                break
            await asyncio.sleep(0.05)
        assert explainer.pid is None
        assert (await explain(explainer, asked, LONG))["status"] == "available"

    with_explainer(small_world.models, task, idle_seconds=0.5)


def test_a_bundle_that_is_gone_is_said(small_world: SmallWorld, chosen: tuple[Chosen, Decisions]) -> None:
    """A model that is not on disk any more cannot be explained, which is an answer and no failure of the child."""
    asked, _ = chosen

    async def task(explainer: ChildExplainer) -> Any:
        with pytest.raises(ExplanationUnavailable, match="cannot be explained"):
            await explainer.contributions("0" * 32, asked.rows, LONG)
        return await explain(explainer, asked, LONG)

    assert with_explainer(small_world.models, task)["status"] == "available"
